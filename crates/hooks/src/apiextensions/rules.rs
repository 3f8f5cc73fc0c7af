//! CEL rules of custom resources (`x-kubernetes-validations`): compiled once per schema, evaluated on every write, and on
//! the defaults of a definition.

use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::value::Value;
use cel::env::{Checked, Environment};
use cel::program::Program;
use cel::schema::{DeclType, ListType, Schema, SchemaType};
use cel::types::Type;
use cel::value::{Error as EvaluationError, Val};
use schema::custom::{Check, Rule};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What one evaluation, and all of an object's together, may cost (upstream's PerCallLimit and RuntimeCELCostBudget).
const PER_CALL: u64 = 1_000_000;
const BUDGET: u64 = 10_000_000;

/// A rule ready to be evaluated, or why it is not.
pub(super) struct Compiled {
    pub(super) rule: Rule,
    pub(super) checked: Result<Checked, String>,
    program: Option<Program>,
    pub(super) message: Option<Result<Checked, String>>,
    message_program: Option<Program>,
    pub(super) uses_old: bool,
}

/// What rules say of an object: refusals, and warnings where what they refuse was there before.
#[derive(Debug, Default)]
pub struct Verdict {
    pub errors: ErrorList,
    pub warnings: Vec<String>,
}

/// The rules at one place of a schema, and below it.
pub struct Node {
    schema: Arc<Schema>,
    pub(super) decl: Option<Arc<DeclType>>,
    pub(super) rules: Vec<Compiled>,
    properties: BTreeMap<String, Node>,
    items: Option<Box<Node>>,
    additional: Option<Box<Node>>,
    all_of: Vec<Node>,
}

fn cel_rule(env: &Environment, text: &str) -> Result<Checked, String> {
    let checked = env.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
    match checked.output() {
        Type::Bool => Ok(checked),
        _ => Err("cel expression must evaluate to a bool".into()),
    }
}

fn cel_message(env: &Environment, text: &str) -> Result<Checked, String> {
    let failed = |issues| format!("messageExpression compilation failed: {issues}");
    let checked = env.compile(text).map_err(failed)?;
    match checked.output() {
        Type::String => Ok(checked),
        _ => Err("messageExpression must evaluate to a string".into()),
    }
}

/// An expression that checks, and its program; one whose constants cannot be computed is refused after all.
fn planned(checked: Result<Checked, String>, what: &str) -> (Result<Checked, String>, Option<Program>) {
    match checked.as_ref().map(Checked::program) {
        Ok(Ok(program)) => (checked, Some(program)),
        Ok(Err(why)) => (Err(format!("{what} instantiation failed: {why}")), None),
        Err(_) => (checked, None),
    }
}

impl Compiled {
    fn new(rule: &Rule, decl: &Arc<DeclType>) -> Self {
        let optional = rule.optional_old_self == Some(true);
        let own = decl.celtype.clone();
        let old = if optional { Type::optional(own.clone()) } else { own.clone() };
        let env = Environment::kubernetes().declare(decl).variable("self", own).variable("oldSelf", old);
        let (checked, program) = planned(cel_rule(&env, &rule.rule), "program");
        let text = Some(&*rule.message_expression).filter(|m| !m.trim().is_empty());
        let message = text.map(|text| planned(cel_message(&env, text), "messageExpression"));
        let (message, message_program) = message.unzip();
        Compiled {
            rule: rule.clone(),
            uses_old: checked.as_ref().is_ok_and(|c| c.refers_to("oldSelf")),
            program,
            message_program: message_program.flatten(),
            checked,
            message,
        }
    }

    /// What a failure says when there is no message of its own.
    fn text(&self) -> &str {
        match self.rule.message.trim() {
            "" => self.rule.rule.trim(),
            message => message,
        }
    }
}

impl Node {
    /// The rules of a schema (as JSON) with its checks; none if there are none.
    pub fn of(json: &Value, check: &Check) -> Option<Self> {
        let schema = Arc::new(Schema::from_json(json, &|_| None).with_type_and_object_meta());
        check.has_rules().then(|| Self::build(schema, check))
    }

    fn build(schema: Arc<Schema>, check: &Check) -> Self {
        let below = |schema: Option<&Arc<Schema>>, check: Option<&Check>| {
            let (schema, check) = (schema?, check.filter(|c| c.has_rules())?);
            Some(Self::build(schema.clone(), check))
        };
        let decl = schema.decl().map(|decl| decl.named("selfType"));
        let rules = match &decl {
            Some(decl) => check.rules().iter().map(|rule| Compiled::new(rule, decl)).collect(),
            None => Vec::new(),
        };
        let properties = check.properties.iter().filter_map(|(name, check)| {
            let schema = schema.properties.as_ref().and_then(|p| p.get(&**name));
            Some((name.to_string(), below(schema, Some(check))?))
        });
        let additional = match &check.additional {
            schema::custom::Additional::Schema(check) => below(schema.additional.as_ref(), Some(check)),
            _ => None,
        };
        let all_of = check.limits.iter().flat_map(|l| l.all_of.iter()).filter(|c| c.has_rules());
        Node {
            rules,
            properties: properties.collect(),
            items: below(schema.items.as_ref(), check.items.as_deref()).map(Box::new),
            additional: additional.map(Box::new),
            all_of: all_of.map(|c| Self::build(schema.clone(), c)).collect(),
            decl,
            schema,
        }
    }

    /// Every place with rules below this one: its path in the schema, whether `oldSelf` can be had there, and how often
    /// the place can occur (none if nobody knows).
    pub(super) fn walk(
        &self,
        path: &Path,
        old_from: Option<&Path>,
        occurs: Option<u64>,
        visit: &mut dyn FnMut(&Node, &Path, Option<&Path>, Option<u64>),
    ) {
        for (name, node) in &self.properties {
            node.walk(&path.child("properties").key(name.as_str()), old_from, occurs, visit);
        }
        let times = |most: Option<i64>| Some(occurs?.saturating_mul(u64::try_from(most?).ok()?));
        if let Some(node) = &self.items {
            let keyed = self.schema.list_type == ListType::Map;
            let old = old_from.or((!keyed).then_some(path));
            node.walk(&path.child("items"), old, times(self.schema.max_items), visit);
        }
        if let Some(node) = &self.additional {
            let occurs = times(self.schema.max_properties);
            node.walk(&path.child("additionalProperties"), old_from, occurs, visit);
        }
        visit(self, path, old_from, occurs);
    }

    /// All rules that an object breaks.
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Verdict {
        let mut run = Run { verdict: Verdict::default(), left: BUDGET, ratchet: true };
        // An exhausted budget has been told; nothing more is to be said.
        let _ = run.node(self, object, old, &Path::none(), false);
        run.verdict
    }

    /// All rules that a default breaks, whether it stays or comes.
    pub(super) fn validate_default(&self, default: &Value, path: &Path) -> ErrorList {
        for old in [Some(default), None] {
            let mut run = Run { verdict: Verdict::default(), left: BUDGET, ratchet: false };
            let _ = run.node(self, default, old, path, false);
            if !run.verdict.errors.is_empty() {
                return run.verdict.errors;
            }
        }
        ErrorList::new()
    }
}

/// The budget is spent.
struct Spent;

struct Run {
    verdict: Verdict,
    left: u64,
    /// Whether what was there before is only warned of.
    ratchet: bool,
}

fn type_name(schema: &Schema) -> &'static str {
    match schema.kind {
        SchemaType::Object => "object",
        SchemaType::Array => "array",
        SchemaType::String => "string",
        SchemaType::Number => "number",
        SchemaType::Integer => "integer",
        SchemaType::Boolean => "boolean",
        SchemaType::None => "",
    }
}

impl Run {
    fn node(
        &mut self,
        node: &Node,
        value: &Value,
        old: Option<&Value>,
        path: &Path,
        within_unchanged: bool,
    ) -> Result<(), Spent> {
        if value.is_null() {
            return Ok(());
        }
        // Whatever is the same as before is no reason to refuse the write.
        let unchanged = old.map_or(within_unchanged, |old| old == value);
        for compiled in &node.rules {
            self.rule(node, compiled, value, old, path, unchanged)?;
        }
        for all in &node.all_of {
            self.node(all, value, old, path, unchanged)?;
        }
        match value {
            Value::Array(items) => {
                let Some(inner) = &node.items else { return Ok(()) };
                let old_items = old.and_then(Value::as_array);
                for (i, item) in items.iter().enumerate() {
                    let keys = &node.schema.list_map_keys;
                    let same = |o: &&Value| keys.iter().all(|k| o.get(k) == item.get(k));
                    let before = old_items
                        .filter(|_| node.schema.list_type == ListType::Map)
                        .and_then(|old| old.iter().find(same));
                    self.node(inner, item, before, &path.index(i), unchanged)?;
                }
            }
            Value::Object(map) => {
                for (name, value) in map {
                    let before = old.and_then(|o| o.get(name));
                    if let Some(inner) = node.properties.get(name.as_str()) {
                        self.node(inner, value, before, &path.child(name.to_string()), unchanged)?;
                    } else if let Some(inner) = &node.additional {
                        self.node(inner, value, before, &path.key(name.as_str()), unchanged)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn refuse(&mut self, node: &Node, path: &Path, why: String) {
        self.verdict.errors.push(Error::invalid(path, type_name(&node.schema), why));
    }

    /// Evaluates within what is left; nothing when that is not enough.
    fn evaluate<'a>(
        &mut self,
        program: &Program,
        variables: &[(&str, Val<'a>); 2],
    ) -> Option<Result<Val<'a>, EvaluationError>> {
        let outcome = program.evaluate(variables, PER_CALL);
        self.left = self.left.checked_sub(outcome.cost)?;
        Some(outcome.result)
    }

    fn rule(
        &mut self,
        node: &Node,
        compiled: &Compiled,
        value: &Value,
        old: Option<&Value>,
        path: &Path,
        unchanged: bool,
    ) -> Result<(), Spent> {
        const EXHAUSTED: &str =
            "validation failed due to running out of cost budget, no further validation rules will be run";
        if let Err(why) = &compiled.checked {
            self.refuse(node, path, format!("rule compile error: {why}"));
            return Ok(());
        }
        let optional = compiled.rule.optional_old_self == Some(true);
        let Some(program) = &compiled.program else { return Ok(()) };
        if compiled.uses_old && old.is_none() && !optional {
            return Ok(());
        }
        let read = |value| Val::typed(value, &node.schema);
        let own = match read(value) {
            Ok(own) => own,
            Err(error) => {
                self.refuse(node, path, format!("{error} evaluating rule: {}", compiled.text()));
                return Ok(());
            }
        };
        let before = old.and_then(|old| read(old).ok());
        let before = match (optional, before) {
            (true, before) => before.map_or(Val::NONE, Val::some),
            (false, before) => before.unwrap_or(Val::Null),
        };
        let variables = [("self", own), ("oldSelf", before)];
        let Some(result) = self.evaluate(program, &variables) else {
            self.refuse(node, path, EXHAUSTED.into());
            return Err(Spent);
        };
        match result {
            Ok(Val::Bool(true)) => return Ok(()),
            Ok(_) => {}
            Err(EvaluationError::CostLimit) => {
                let why = format!(
                    "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                    EvaluationError::CostLimit,
                    compiled.text()
                );
                self.refuse(node, path, why);
                return Err(Spent);
            }
            Err(error) => {
                let text = error.to_string();
                let why = if text.starts_with("no such overload") {
                    format!(
                        "'{text}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                        compiled.text()
                    )
                } else {
                    format!("{text} evaluating rule: {}", compiled.text())
                };
                self.refuse(node, path, why);
                return Ok(());
            }
        }
        let mut detail = match compiled.rule.message.trim() {
            "" => format!("failed rule: {}", compiled.rule.rule.trim()),
            message => message.to_owned(),
        };
        // What speaks of a value that there was not says nothing.
        let speaks = old.is_some()
            || optional
            || !matches!(&compiled.message, Some(Ok(message)) if message.refers_to("oldSelf"));
        if let Some(program) = compiled.message_program.as_ref().filter(|_| speaks) {
            match self.evaluate(program, &variables) {
                None => {
                    self.refuse(node, path, EXHAUSTED.into());
                    return Err(Spent);
                }
                // A message that is blank or broken gives way to the default.
                Some(Ok(Val::String(text))) if !text.trim().is_empty() && !text.contains('\n') => {
                    detail = text.trim().to_owned();
                }
                Some(_) => {}
            }
        }
        let field = compiled.rule.field_path.trim().trim_start_matches('.');
        let at = if field.is_empty() { path.clone() } else { path.child(field.to_owned()) };
        let shown = match value {
            Value::Object(_) | Value::Array(_) => BadValue::omitted(),
            other => BadValue::from(other),
        };
        let error = match &*compiled.rule.reason {
            "FieldValueRequired" => Error::required(&at, detail),
            "FieldValueForbidden" => Error::forbidden(&at, detail),
            "FieldValueDuplicate" => Error::duplicate(&at, shown),
            _ => Error::invalid(&at, shown, detail),
        };
        if self.ratchet && unchanged && !compiled.uses_old {
            self.verdict.warnings.push(error.to_string());
        } else {
            self.verdict.errors.push(error);
        }
        Ok(())
    }
}
