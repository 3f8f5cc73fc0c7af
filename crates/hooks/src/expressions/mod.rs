//! Expressions of policies and of webhooks' conditions: compiled, and what is wrong with those that are written.

use super::check::Check;
use api::admissionregistration::v1::{MatchCondition, Variable};
use apimachinery::field::{Error, Path};
use cel::env::Environment;
use cel::policy::{Optional, environment, kept};
use cel::program::Program;
use cel::schema::DeclType;
use cel::types::Type;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How the refusal of an expression begins that checks, but has no program.
const NO_PROGRAM: &str = "program instantiation failed";

/// An expression and its program, or why there is none.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    pub program: Result<Program, String>,
}

/// The variables that a policy defines: names and expressions, and the environments that know them.
#[derive(Debug)]
pub struct Variables {
    pub defined: Vec<(String, Expression)>,
    fields: BTreeMap<String, Arc<DeclType>>,
    params: bool,
    /// Whether `variables` may be spoken of.
    composed: bool,
}

/// What an expression may evaluate to.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    Bool,
    String,
    StringOrNull,
    Anything,
    Object,
    JsonPatches,
}

impl Wanted {
    fn types(self) -> Vec<Type> {
        match self {
            Wanted::Bool => vec![Type::Bool],
            Wanted::String => vec![Type::String],
            Wanted::StringOrNull => vec![Type::String, Type::Null],
            Wanted::Anything => Vec::new(),
            Wanted::Object => vec![Type::object("Object")],
            Wanted::JsonPatches => vec![Type::list(Type::object("JSONPatch"))],
        }
    }

    /// Why a type is none of these, in upstream's words.
    fn refusal(self, found: &Type) -> Option<String> {
        let wanted = self.types();
        if wanted.is_empty() || wanted.contains(found) {
            return None;
        }
        let shown: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        Some(match shown.as_slice() {
            [only] => format!("must evaluate to {only} but got {found}"),
            all => format!("must evaluate to one of [{}] but got {found}", all.join(" ")),
        })
    }
}

/// Compiles one expression; what it evaluates to is told beside.
pub fn compile(env: &Environment, text: &str, wanted: Wanted) -> (Result<Program, String>, Option<Type>) {
    let checked = match env.compile(text) {
        Ok(checked) => checked,
        Err(issues) => return (Err(format!("compilation failed: {issues}")), None),
    };
    let output = checked.output().clone();
    if let Some(refusal) = wanted.refusal(&output) {
        return (Err(refusal), None);
    }
    let program = checked.program().map_err(|error| format!("{NO_PROGRAM}: {error}"));
    (program, Some(output))
}

impl Variables {
    /// Compiles the variables in order: each may use those before it. Where there are none, none may be used.
    pub fn new(variables: &[Variable], params: bool) -> Self {
        let composed = !variables.is_empty();
        let mut this = Variables { defined: Vec::new(), fields: BTreeMap::new(), params, composed };
        for variable in variables {
            let env = this.environment(true);
            let (program, output) = compile(&env, &variable.expression, Wanted::Anything);
            this.fields.insert(variable.name.clone(), kept(output.as_ref()));
            let expression = Expression { text: variable.expression.clone(), program };
            this.defined.push((variable.name.clone(), expression));
        }
        this
    }

    /// Lets `variables` be spoken of even where there are none.
    #[must_use]
    pub fn composed(self) -> Self {
        Variables { composed: true, ..self }
    }

    /// The environment of expressions that see all variables defined so far.
    pub fn environment(&self, authorizer: bool) -> Environment {
        let env = environment(Optional { params: self.params, authorizer });
        if !self.composed {
            return env;
        }
        let decl = DeclType::object_named("kubernetes.variables", &self.fields);
        env.declare(&decl).variable("variables", decl.celtype.clone())
    }

    /// Compiles an expression that sees all variables.
    pub fn expression(&self, text: &str, wanted: Wanted, authorizer: bool) -> Expression {
        let mut env = self.environment(authorizer);
        if matches!(wanted, Wanted::Object | Wanted::JsonPatches) {
            env = env.patch_types();
        }
        Expression { text: text.to_owned(), program: compile(&env, text, wanted).0 }
    }

    /// Compiles match conditions.
    pub fn conditions(&self, conditions: &[MatchCondition]) -> Vec<Expression> {
        conditions.iter().map(|c| self.expression(&c.expression, Wanted::Bool, true)).collect()
    }

    /// Refuses an expression that is written and does not compile; that it must not be empty is said elsewhere.
    pub(super) fn judge(&self, check: &mut Check, path: &Path, text: &str, wanted: Wanted) {
        if text.trim().is_empty() {
            return;
        }
        // Messages are for whoever is refused, and ask for no access.
        let authorizer = !matches!(wanted, Wanted::String);
        if let Err(why) = self.expression(text, wanted, authorizer).program {
            check.extend([error(path, text, &why)]);
        }
    }

    /// Refuses the variable at an index, if it does not compile.
    pub(super) fn judge_variable(&self, check: &mut Check, path: &Path, i: usize) {
        let Some((_, Expression { text, program: Err(why) })) = self.defined.get(i) else { return };
        if !text.trim().is_empty() {
            check.extend([error(path, text, why)]);
        }
    }
}

/// What does not compile is the writer's mistake; that a constant cannot be computed is taken for the server's.
fn error(path: &Path, text: &str, why: &str) -> Error {
    match why.starts_with(NO_PROGRAM) {
        true => Error::internal(path, why),
        false => Error::invalid(path, text, why),
    }
}
