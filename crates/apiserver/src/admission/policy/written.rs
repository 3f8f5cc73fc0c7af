//! Policies as they are written: an expression that does not compile is refused then, not when it is first needed.

use super::compile::{NO_PROGRAM, Variables, Wanted};
use crate::admission::{Attributes, Operation};
use api::admissionregistration::v1::{MatchCondition, MutatingAdmissionPolicy, ValidatingAdmissionPolicy};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::status::Status;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The policy that is written, unless its spec stays as it was.
fn written<T: DeserializeOwned>(a: &Attributes<'_>, resource: &str) -> Option<T> {
    let writes = matches!(a.operation, Operation::Create | Operation::Update) && a.subresource.is_empty();
    if !writes || !a.is("admissionregistration.k8s.io", resource) {
        return None;
    }
    let object = a.object.as_deref()?;
    if a.old.is_some_and(|old| old["spec"] == object["spec"]) {
        return None;
    }
    serde_json::from_value(object.clone()).ok()
}

/// What does not compile is the writer's mistake; that a constant cannot be computed is taken for the server's.
fn error(path: &Path, text: &str, why: &str) -> Error {
    if why.starts_with(NO_PROGRAM) {
        return Error::internal(path, why);
    }
    Error::invalid(path, BadValue::json(text), why)
}

struct Checks {
    errors: ErrorList,
    variables: Variables,
}

impl Checks {
    fn expression(&mut self, path: &Path, text: &str, wanted: Wanted, authorizer: bool) {
        // That it must not be empty is said elsewhere.
        if text.trim().is_empty() {
            return;
        }
        if let Err(why) = self.variables.expression(text, wanted, authorizer).program {
            self.errors.0.push(error(path, text, &why));
        }
    }

    fn conditions(&mut self, path: &Path, conditions: &[MatchCondition]) {
        for (at, condition) in conditions.iter().enumerate() {
            self.expression(&path.index(at).child("expression"), &condition.expression, Wanted::Bool, true);
        }
    }

    fn defined(&mut self) {
        let path = Path::new("spec").child("variables");
        let wrong = self.variables.defined.iter().enumerate().filter_map(|(at, (_, expression))| {
            let why = expression.program.as_ref().err()?;
            Some(error(&path.index(at).child("expression"), &expression.text, why))
        });
        self.errors.0.extend(wrong);
    }

    fn result(self, a: &Attributes<'_>) -> Result<(), Status> {
        if self.errors.0.is_empty() {
            return Ok(());
        }
        Err(Status::invalid(&a.resource.group_kind(), a.name, &self.errors))
    }
}

/// Checks the conditions of a configuration's webhooks, unless they stay as they were.
fn webhooks(a: &Attributes<'_>, resource: &str) -> Result<(), Status> {
    let writes = matches!(a.operation, Operation::Create | Operation::Update) && a.subresource.is_empty();
    if !writes || !a.is("admissionregistration.k8s.io", resource) {
        return Ok(());
    }
    let all = |object: Option<&Value>| -> Vec<Vec<MatchCondition>> {
        let hooks = object.and_then(|o| o["webhooks"].as_array());
        let of = |hook: &Value| serde_json::from_value(hook["matchConditions"].clone()).unwrap_or_default();
        hooks.into_iter().flatten().map(of).collect()
    };
    let (new, old) = (all(a.object.as_deref()), all(a.old));
    if a.old.is_some() && new == old {
        return Ok(());
    }
    let mut checks = Checks { errors: ErrorList::default(), variables: Variables::new(&[], false) };
    for (i, conditions) in new.iter().enumerate() {
        checks.conditions(&Path::new("webhooks").index(i).child("matchConditions"), conditions);
    }
    checks.result(a)
}

/// Checks a ValidatingAdmissionPolicy or ValidatingWebhookConfiguration.
pub(super) fn validating(a: &Attributes<'_>) -> Result<(), Status> {
    webhooks(a, "validatingwebhookconfigurations")?;
    let Some(policy) = written::<ValidatingAdmissionPolicy>(a, "validatingadmissionpolicies") else {
        return Ok(());
    };
    let spec = &policy.spec;
    let variables = Variables::new(&spec.variables, spec.param_kind.is_some());
    let mut checks = Checks { errors: ErrorList::default(), variables };
    checks.conditions(&Path::new("spec").child("matchConditions"), &spec.match_conditions);
    checks.defined();
    let path = Path::new("spec").child("validations");
    for (at, validation) in spec.validations.iter().enumerate() {
        let path = path.index(at);
        checks.expression(&path.child("expression"), &validation.expression, Wanted::Bool, true);
        let message = path.child("messageExpression");
        checks.expression(&message, &validation.message_expression, Wanted::String, false);
    }
    let path = Path::new("spec").child("auditAnnotations");
    for (at, annotation) in spec.audit_annotations.iter().enumerate() {
        let path = path.index(at).child("valueExpression");
        checks.expression(&path, &annotation.value_expression, Wanted::StringOrNull, true);
    }
    checks.result(a)
}

/// Checks a MutatingAdmissionPolicy or MutatingWebhookConfiguration.
pub(super) fn mutating(a: &Attributes<'_>) -> Result<(), Status> {
    webhooks(a, "mutatingwebhookconfigurations")?;
    let Some(policy) = written::<MutatingAdmissionPolicy>(a, "mutatingadmissionpolicies") else {
        return Ok(());
    };
    let spec = &policy.spec;
    let variables = Variables::new(&spec.variables, spec.param_kind.is_some());
    let mut checks = Checks { errors: ErrorList::default(), variables };
    checks.conditions(&Path::new("spec").child("matchConditions"), &spec.match_conditions);
    checks.defined();
    let path = Path::new("spec").child("mutations");
    for (at, mutation) in spec.mutations.iter().enumerate() {
        let path = path.index(at);
        if let Some(apply) = &mutation.apply_configuration {
            let path = path.child("applyConfiguration").child("expression");
            checks.expression(&path, &apply.expression, Wanted::Object, true);
        }
        if let Some(patch) = &mutation.json_patch {
            let path = path.child("jsonPatch").child("expression");
            checks.expression(&path, &patch.expression, Wanted::JsonPatches, true);
        }
    }
    checks.result(a)
}
