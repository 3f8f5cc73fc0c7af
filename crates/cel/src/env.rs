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

/// What the deepest expression needs, with room to spare.
const STACK: usize = 32 << 20;
/// Deeper than people write, and less deep than any stack bears.
const SHALLOW: usize = 24;

/// Whether an expression is perhaps deep: by its brackets, conditions and signs, wherever they stand.
fn may_be_deep(text: &str) -> bool {
    let (mut open, mut deepest, mut others) = (0usize, 0, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b')' | b']' | b'}' => open = open.saturating_sub(1),
            b'?' | b'!' | b'-' => others += 1,
            _ => {}
        }
    }
    deepest + others > SHALLOW
}

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

    /// Reads and checks an expression. One that may be as deep as the limit allows is given a stack of its own: a thread
    /// that serves requests need not have as much.
    pub fn compile(&self, text: &str) -> Result<Checked, Issues> {
        if !may_be_deep(text) {
            return self.compile_here(text);
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("cel".into()).stack_size(STACK);
            match thread.spawn_scoped(scope, || self.compile_here(text)) {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(_) => self.compile_here(text),
            }
        })
    }

    fn compile_here(&self, text: &str) -> Result<Checked, Issues> {
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
                // Upstream gives whatever else is named there a type without a name, which no value has.
                ("JSONPatch", _) => Some(Type::object("")),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// On the stack that the threads of tests have, too.
    #[test]
    fn what_is_deep_is_read_or_refused() {
        let nested = |depth: usize| format!("{}1{}", "string(".repeat(depth), ")".repeat(depth));
        let environment = Environment::kubernetes();
        assert!(environment.compile(&nested(200)).is_ok());
        let refused = environment.compile(&nested(2_000)).map(drop).unwrap_err();
        assert!(refused.to_string().contains("recursion"), "{refused}");
    }
}
