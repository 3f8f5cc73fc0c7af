//! What expressions may use: functions, macros, variables and types. An environment is made once, extended
//! by copying, and compiles expressions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use crate::ast::{Expr, Kind, Literal, operators};
use crate::check::{Facts, Reference, check, validate};
use crate::cost::estimate::{CostEstimate, SizeEstimator, estimate};
use crate::decls::{Binding, Function, Functions, Row, add};
use crate::library;
use crate::macros::Macros;
use crate::parser::{Parsed, parse};
use crate::plan::Planner;
use crate::program::Program;
use crate::schema::{DeclKind, DeclType};
use crate::source::Issues;
use crate::types::Type;

/// Names, and what they mean to an expression.
#[derive(Clone, Debug)]
pub struct Environment {
    functions: Arc<Functions>,
    idents: Arc<HashMap<Arc<str>, Type>>,
    objects: Arc<BTreeMap<Arc<str>, Arc<DeclType>>>,
    macros: Macros,
    /// Whether `Object` and `JSONPatch` can be made.
    patches: bool,
}

static KUBERNETES: LazyLock<Environment> = LazyLock::new(|| {
    let mut functions = Functions::default();
    library::add_all(&mut functions);
    let idents = [
        "bool",
        "bytes",
        "double",
        "int",
        "string",
        "uint",
        "type",
        "list(A)",
        "map(A, B)",
        "duration",
        "timestamp",
        "null",
        "optional(V)",
        "net.IP",
        "net.CIDR",
    ]
    .map(Type::parse)
    .map(|of| (Arc::from(of.name()), Type::type_of(of)));
    Environment {
        functions: Arc::new(functions),
        idents: Arc::new(HashMap::from(idents)),
        objects: Arc::default(),
        macros: Macros { optionals: true, two_variables: true, lists: true, bindings: false },
        patches: false,
    }
});

impl Environment {
    /// What v1.36 gives every expression: the standard library and Kubernetes' own.
    pub fn kubernetes() -> Self {
        KUBERNETES.clone()
    }

    /// With a variable.
    #[must_use]
    pub fn variable(mut self, name: &str, of: Type) -> Self {
        Arc::make_mut(&mut self.idents).insert(name.into(), of);
        self
    }

    /// With a declared type and all that is in it.
    #[must_use]
    pub fn declare(mut self, decl: &Arc<DeclType>) -> Self {
        decl.collect(Arc::make_mut(&mut self.objects));
        self
    }

    /// With more functions.
    #[must_use]
    pub fn functions(mut self, rows: &[Row], binding: Binding) -> Self {
        add(Arc::make_mut(&mut self.functions), rows, binding);
        self
    }

    /// With `cel.bind`.
    #[must_use]
    pub const fn bindings(mut self) -> Self {
        self.macros.bindings = true;
        self
    }

    /// With the types of mutating policies, `Object{…}` and `JSONPatch{…}`, and `jsonpatch.escapeKey`.
    #[must_use]
    pub fn patch_types(mut self) -> Self {
        self.patches = true;
        self.functions(library::jsonpatch::ROWS, Binding::Guarded)
    }

    /// Reads and checks an expression.
    pub fn compile(&self, text: &str) -> Result<Checked, Issues> {
        let Parsed { mut expr, offsets, mut issues, source } = parse(text, self.macros);
        if !issues.is_empty() {
            return Err(Issues::new(issues, source));
        }
        let facts = check(&mut expr, self, &source, &offsets, &mut issues);
        if issues.is_empty() {
            validate(&expr, &facts, &source, &offsets, &mut issues);
        }
        if !issues.is_empty() {
            return Err(Issues::new(issues, source));
        }
        Ok(Checked { expr, facts, functions: self.functions.clone() })
    }

    pub(crate) fn ident(&self, name: &str) -> Option<Type> {
        if let Some(known) = self.idents.get(name) {
            return Some(known.clone());
        }
        let object = self.objects.get(name).map(|decl| decl.celtype.clone());
        object.or_else(|| self.is_patch(name).then(|| Type::object(name))).map(Type::type_of)
    }

    fn is_patch(&self, name: &str) -> bool {
        self.patches && (matches!(name, "Object" | "JSONPatch") || name.starts_with("Object."))
    }

    pub(crate) fn function(&self, name: &str) -> Option<&Arc<Function>> {
        self.functions.get(name)
    }

    /// The type of a field, `Some(None)` if there is no such field, `None` if the object is not known.
    pub(crate) fn field(&self, object: &str, field: &str) -> Option<Option<Type>> {
        if self.is_patch(object) {
            return Some(match (object, field) {
                ("JSONPatch", "op" | "path" | "from") => Some(Type::String),
                ("JSONPatch", "value") => Some(Type::Dyn),
                ("JSONPatch", _) => None,
                _ => Some(Type::Dyn),
            });
        }
        // Simple types are known to have no fields.
        if matches!(
            object,
            "bool" | "bytes" | "double" | "int" | "list" | "map" | "null_type" | "string" | "uint"
        ) {
            return Some(None);
        }
        let decl = self.objects.get(object)?;
        match &decl.kind {
            DeclKind::Object(_) => Some(decl.field(field).map(|decl| decl.celtype.clone())),
            _ => Some(None),
        }
    }
}

/// An expression that checked.
#[derive(Clone, Debug)]
pub struct Checked {
    expr: Expr,
    facts: Facts,
    functions: Arc<Functions>,
}

impl Checked {
    /// What it evaluates to.
    pub fn output(&self) -> &Type {
        self.facts.kind_of(self.expr.id)
    }

    /// Whether it refers to a variable.
    pub fn refers_to(&self, variable: &str) -> bool {
        let refers = |reference: &Option<Reference>| matches!(reference, Some(Reference::Ident(name)) if &**name == variable);
        self.facts.references.iter().any(refers)
    }

    /// Whether it selects a field: `variable.field`, `has(variable.field)` or `variable.?field`; of any operand if no
    /// variable is named.
    pub fn selects(&self, variable: Option<&str>, wanted: &str) -> bool {
        let is_operand = |operand: &Expr| match (&operand.kind, variable) {
            (_, None) => true,
            (Kind::Ident(name), Some(variable)) => &**name == variable,
            _ => false,
        };
        let mut found = false;
        self.expr.walk(&mut |expr, _| {
            found |= match &expr.kind {
                Kind::Select { operand, field, .. } => &**field == wanted && is_operand(operand),
                Kind::Call { function, target: None, args } if &**function == operators::OPT_SELECT => {
                    let [operand, field] = args.as_slice() else { return };
                    matches!(&field.kind, Kind::Literal(Literal::String(name)) if &**name == wanted)
                        && is_operand(operand)
                }
                _ => false,
            };
        });
        found
    }

    /// What it may cost, by the sizes that its variables can have.
    pub fn estimate(&self, sizes: &dyn SizeEstimator) -> CostEstimate {
        estimate(&self.expr, &self.facts, sizes)
    }

    /// Makes it ready to run; what constants it has are computed now, and may fail.
    pub fn program(&self) -> Result<Program, String> {
        Planner::new(&self.facts, &self.functions).program(&self.expr)
    }
}
