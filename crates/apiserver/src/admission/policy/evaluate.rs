//! Evaluating a policy's expressions over one request, within a budget.

use super::FailurePolicy;
use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resources::Served;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use cel::cost::{MATCH_CONDITIONS_BUDGET, PER_CALL_LIMIT};
use cel::library::authz::{Authorization, Authorizer, Question};
use cel::program::Activation;
use cel::value::{Error, Evaluated, Val};
use hooks::expressions::{Expression, Variables};
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// A request as expressions see it.
pub(in crate::admission) struct Request<'a> {
    pub(in crate::admission) object: Option<Cow<'a, Value>>,
    pub(in crate::admission) old: Option<Cow<'a, Value>>,
    pub(in crate::admission) request: Value,
    pub(in crate::admission) resource: Question,
}

impl<'a> Request<'a> {
    /// The request in the version of a resource that a policy asked for.
    pub(in crate::admission) async fn new(a: &'a Attributes<'_>, matched: &Served) -> Result<Self, Status> {
        Ok(Request {
            object: versioned(a.object.as_deref(), a, matched).await?,
            old: versioned(a.old, a, matched).await?,
            request: describe(a, matched),
            resource: Question {
                group: a.resource.row.group.to_string(),
                resource: a.resource.row.resource.to_string(),
                subresource: a.subresource.to_owned(),
                namespace: a.namespace.to_owned(),
                name: a.name.to_owned(),
                ..Question::default()
            },
        })
    }
}

/// An object of the hub version in another.
async fn versioned<'a>(
    object: Option<&'a Value>,
    a: &Attributes<'_>,
    matched: &Served,
) -> Result<Option<Cow<'a, Value>>, Status> {
    let Some(object) = object else { return Ok(None) };
    if !a.is_whole() || matched.api_version == a.resource.hub_api_version {
        return Ok(Some(Cow::Borrowed(object)));
    }
    Ok(Some(Cow::Owned(a.resource.seen_as(matched, object.clone()).await?)))
}

fn describe(a: &Attributes<'_>, matched: &Served) -> Value {
    let kind = |served: &Served| {
        let row = served.subresources.get(a.subresource).map_or(&*served.row, |row| row);
        let (group, version) = match &row.kind_group_version {
            Some((group, version)) => (group, version),
            None => (&row.group, &row.version),
        };
        json!({"group": group, "version": version, "kind": row.kind})
    };
    let resource = |served: &Served| json!({"group": served.row.group, "version": served.row.version, "resource": served.row.resource});
    let mut user = json!({"username": a.user.name});
    if !a.user.uid.is_empty() {
        user["uid"] = a.user.uid.as_str().into();
    }
    if !a.user.groups.is_empty() {
        user["groups"] = json!(a.user.groups);
    }
    if !a.user.extra.is_empty() {
        user["extra"] = json!(a.user.extra);
    }
    let mut request = json!({
        "uid": "",
        "kind": kind(matched),
        "resource": resource(matched),
        "requestKind": kind(a.resource),
        "requestResource": resource(a.resource),
        "operation": a.operation.name(),
        "userInfo": user,
        "object": null,
        "oldObject": null,
        "dryRun": a.dry_run,
        "options": options(a),
    });
    for (key, value) in [
        ("subResource", a.subresource),
        ("requestSubResource", a.subresource),
        ("name", a.name),
        ("namespace", a.namespace),
    ] {
        if !value.is_empty() {
            request[key] = value.into();
        }
    }
    request
}

/// The options of the request, as far as admission knows them.
fn options(a: &Attributes<'_>) -> Value {
    let kind = match a.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => return Value::Null,
    };
    let mut options = json!({"apiVersion": "meta.k8s.io/v1", "kind": kind});
    if a.dry_run {
        options["dryRun"] = json!(["All"]);
    }
    options
}

/// The parts of a namespace that expressions may see.
pub(in crate::admission) fn visible_namespace(mut namespace: Value) -> Value {
    for key in ["managedFields", "ownerReferences", "selfLink"] {
        object::remove_meta(&mut namespace, key);
    }
    namespace
}

/// The values of a policy's variables, for one set of expressions. Each variable is computed when it is first asked for.
pub(in crate::admission) struct Bindings<'a> {
    pub(in crate::admission) request: &'a Request<'a>,
    pub(in crate::admission) namespace: Option<&'a Value>,
    pub(in crate::admission) params: Option<&'a Value>,
    pub(in crate::admission) authorizer: Option<&'a (dyn Authorizer + 'a)>,
    pub(in crate::admission) variables: &'a Variables,
    computed: RefCell<HashMap<&'a str, Evaluated<'a>>>,
    cost: Cell<u64>,
}

impl<'a> Bindings<'a> {
    pub(in crate::admission) fn new(
        request: &'a Request<'a>,
        namespace: Option<&'a Value>,
        params: Option<&'a Value>,
        authorizer: Option<&'a (dyn Authorizer + 'a)>,
        variables: &'a Variables,
    ) -> Self {
        let (computed, cost) = (RefCell::default(), Cell::new(0));
        Bindings { request, namespace, params, authorizer, variables, computed, cost }
    }

    fn compute(&self, name: &str) -> Option<Evaluated<'a>> {
        let (name, expression) = self.variables.defined.iter().find(|(known, _)| known == name)?;
        if let Some(known) = self.computed.borrow().get(name.as_str()) {
            return Some(known.clone());
        }
        let failed = |what: &str, why: &str| {
            Err(Error::Failed(Cow::Owned(format!("composited variable {name:?} fails to {what}: {why}"))))
        };
        let value = match &expression.program {
            Err(error) => failed("compile", error),
            Ok(program) => {
                let outcome = program.evaluate(self, PER_CALL_LIMIT);
                self.cost.set(self.cost.get().saturating_add(outcome.cost));
                outcome.result.or_else(|error| failed("evaluate", &error.to_string()))
            }
        };
        self.computed.borrow_mut().insert(name, value.clone());
        Some(value)
    }

    /// Evaluates an expression. The outer error ends the whole set: the budget is spent.
    pub(in crate::admission) fn evaluate(
        &self,
        expression: &Expression,
        budget: &mut u64,
    ) -> Result<Result<Val<'a>, String>, String> {
        let program = match &expression.program {
            Ok(program) => program,
            Err(error) => return Ok(Err(format!("compilation error: {error}"))),
        };
        let outcome = program.evaluate(self, PER_CALL_LIMIT);
        for cost in [self.cost.take(), outcome.cost] {
            *budget = budget.checked_sub(cost).ok_or(OUT_OF_BUDGET)?;
        }
        Ok(outcome
            .result
            .map_err(|error| format!("expression '{}' resulted in error: {error}", expression.text)))
    }
}

impl<'a> Activation<'a> for Bindings<'a> {
    fn resolve(&self, name: &str) -> Option<Val<'a>> {
        let or_null = |value: Option<&'a Value>| Some(value.map_or(Val::Null, Val::from));
        match name {
            "object" => or_null(self.request.object.as_deref()),
            "oldObject" => or_null(self.request.old.as_deref()),
            "params" => or_null(self.params),
            "request" => Some(Val::from(&self.request.request)),
            "namespaceObject" => or_null(self.namespace),
            "authorizer" => self.authorizer.map(Authorization::authorizer),
            "authorizer.requestResource" => {
                self.authorizer.map(|by| Authorization::request_resource(by, self.request.resource.clone()))
            }
            _ => None,
        }
    }

    fn field(&self, variable: &str, field: &str) -> Option<Evaluated<'a>> {
        if variable == "variables" { self.compute(field) } else { None }
    }
}

/// Whether match conditions hold; an error only where it counts.
pub(in crate::admission) fn conditions_hold(
    bindings: &Bindings<'_>,
    conditions: &[Expression],
    failure_policy: FailurePolicy,
) -> Result<bool, String> {
    let on_error = |error: String| match failure_policy {
        FailurePolicy::Fail => Err(error),
        FailurePolicy::Ignore => Ok(false),
    };
    let mut budget = MATCH_CONDITIONS_BUDGET;
    let mut errors = Vec::new();
    let mut values = Vec::with_capacity(conditions.len());
    for condition in conditions {
        match bindings.evaluate(condition, &mut budget) {
            Ok(value) => values.push(value),
            Err(error) => return on_error(error),
        }
    }
    for value in values {
        match value {
            Ok(Val::Bool(false)) => return Ok(false),
            Ok(_) => {}
            Err(error) => errors.push(error),
        }
    }
    match apimachinery::field::aggregate(errors) {
        None => Ok(true),
        Some(error) => on_error(error),
    }
}
