//! ValidatingAdmissionPolicy: refuses, warns or notes for the audit log what a policy's expressions do not allow.

use super::authorizer::Asked;
use super::evaluate::{Bindings, Request, conditions_hold, visible_namespace};
use super::measures::{Measures, error_type};
use super::{FailurePolicy, Prepared, params};
use crate::admission::matching::{Lookup, is_exempt};
use crate::admission::{Attributes, Deps, Operation, Plugin, When};
use crate::authz::Authorizer;
use api::admissionregistration::v1::{
    MatchResources, ParamKind, ValidatingAdmissionPolicy as Object,
    ValidatingAdmissionPolicyBinding as Binding,
};
use apimachinery::status::{Status, StatusCause, StatusReason};
use apimachinery::value::Value;
use cel::cost::{MAX_MESSAGE_BYTES, RUNTIME_BUDGET};
use cel::value::Val;
use futures::future::BoxFuture;
use hooks::expressions::{Expression, Variables, Wanted};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MAX_ANNOTATION_BYTES: usize = 10 * 1024;

/// The plugin.
pub(in crate::admission) struct ValidatingAdmissionPolicy {
    policies: Prepared<Policy>,
    bindings: Prepared<Binding>,
    lookup: Lookup,
    authorizers: Vec<Arc<dyn Authorizer>>,
    measures: Measures,
}

/// A policy, compiled.
struct Policy {
    name: String,
    failure_policy: FailurePolicy,
    param_kind: Option<ParamKind>,
    constraints: Option<MatchResources>,
    variables: Variables,
    conditions: Vec<Expression>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
}

struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: StatusReason,
}

impl Policy {
    fn new(object: Object) -> Self {
        let spec = object.spec;
        let variables = Variables::new(&spec.variables, spec.param_kind.is_some());
        let validations = spec.validations.into_iter().map(|validation| Validation {
            expression: variables.expression(&validation.expression, Wanted::Bool, true),
            message_expression: (!validation.message_expression.is_empty())
                .then(|| variables.expression(&validation.message_expression, Wanted::String, false)),
            message: validation.message,
            reason: validation.reason.as_deref().map_or(StatusReason::Invalid, StatusReason::from),
        });
        let annotations = spec.audit_annotations.iter().map(|annotation| {
            let value = variables.expression(&annotation.value_expression, Wanted::StringOrNull, true);
            (annotation.key.clone(), value)
        });
        Policy {
            name: object.metadata.name,
            failure_policy: FailurePolicy::of(spec.failure_policy.as_deref()),
            conditions: variables.conditions(&spec.match_conditions),
            validations: validations.collect(),
            annotations: annotations.collect(),
            param_kind: spec.param_kind,
            constraints: spec.match_constraints,
            variables,
        }
    }
}

/// What a policy finds.
#[derive(Default)]
struct Findings {
    denied: Vec<Denied>,
    /// Key and value for the audit log.
    annotations: Vec<(String, String)>,
    /// Annotations that could not be made.
    failed: Vec<String>,
    /// What errors that are nobody's refusal were of, and how long what led to them took.
    ignored: Vec<(&'static str, Duration)>,
}

struct Denied {
    index: usize,
    message: String,
    reason: StatusReason,
    took: Duration,
}

/// The first refusal makes the answer.
struct Refusal {
    message: String,
    reason: StatusReason,
}

impl ValidatingAdmissionPolicy {
    pub(in crate::admission) fn new(deps: &Deps) -> Option<Self> {
        let resource = |name| deps.resources.get("admissionregistration.k8s.io", "v1", name);
        Some(ValidatingAdmissionPolicy {
            policies: Prepared::new(deps.store.clone(), resource("validatingadmissionpolicies")?),
            bindings: Prepared::new(deps.store.clone(), resource("validatingadmissionpolicybindings")?),
            lookup: Lookup::new(deps)?,
            authorizers: deps.authorizers.clone(),
            measures: Measures::validating(&deps.metrics),
        })
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if is_exempt(a) {
            return Ok(());
        }
        let compile = |object| self.measures.compiling(|| Policy::new(object));
        let policies = self.policies.all(compile)?;
        if policies.is_empty() {
            return Ok(());
        }
        let bindings = self.bindings.all(|binding: Binding| binding)?;
        let mut refusals = Vec::new();
        for policy in policies {
            let bound: Vec<_> =
                bindings.iter().filter(|binding| binding.spec.policy_name == policy.name).collect();
            if !bound.is_empty() {
                // Its state is large, and most requests meet no policy.
                Box::pin(self.dispatch(a, &policy, &bound, &mut refusals)).await?;
            }
        }
        match refusals.into_iter().next() {
            None => Ok(()),
            Some(refusal) => Err(denied(a, refusal)),
        }
    }

    /// One policy with its bindings.
    async fn dispatch(
        &self,
        a: &Attributes<'_>,
        policy: &Policy,
        bindings: &[&Arc<Binding>],
        refusals: &mut Vec<Refusal>,
    ) -> Result<(), Status> {
        let misconfigured = |binding: Option<&str>, why: String| {
            let (whose, what) = match binding {
                Some(binding) => (format!(" with binding '{binding}'"), "binding"),
                None => (String::new(), "policy"),
            };
            let message = format!(
                "ValidatingAdmissionPolicy '{}'{whose} denied request: failed to configure {what}: {why}",
                policy.name
            );
            (policy.failure_policy == FailurePolicy::Fail)
                .then_some(Refusal { message, reason: StatusReason::Invalid })
        };
        let Some(constraints) = &policy.constraints else {
            let why = "policy contained no match constraints, a required field".to_owned();
            refusals.extend(misconfigured(None, why));
            return Ok(());
        };
        let matched = match self.lookup.matches(a, constraints) {
            Ok(Some(matched)) => matched,
            Ok(None) => return Ok(()),
            Err(status) => {
                refusals.extend(misconfigured(None, status.message));
                return Ok(());
            }
        };
        let request = Request::new(a, &matched).await?;
        let mut annotations: Vec<(String, Vec<String>)> = Vec::new();
        for binding in bindings {
            let name = &binding.metadata.name;
            if let Some(resources) = &binding.spec.match_resources {
                match self.lookup.matches(a, resources) {
                    Ok(Some(_)) => {}
                    Ok(None) => continue,
                    Err(status) => {
                        refusals.extend(misconfigured(Some(name), status.message));
                        continue;
                    }
                }
            }
            let collected = params::collect(
                &self.lookup.store,
                &self.lookup.resources,
                policy.param_kind.as_ref(),
                binding.spec.param_ref.as_ref(),
                a.namespace,
            );
            let collected = match collected.await {
                Ok(collected) => collected,
                Err(why) => {
                    refusals.extend(misconfigured(Some(name), why));
                    continue;
                }
            };
            let namespace = self.lookup.namespace_of(a)?.map(visible_namespace);
            let asked = Asked { authorizers: &self.authorizers, user: a.user };
            for param in &collected {
                let start = Instant::now();
                let findings = evaluate(policy, &request, namespace.as_ref(), param.as_ref(), &asked);
                self.measures.evaluated(start);
                for (key, value) in findings.annotations.iter() {
                    match annotations.iter_mut().find(|(known, _)| known == key) {
                        Some((_, values)) if values.contains(value) => {}
                        Some((_, values)) => values.push(value.clone()),
                        None => annotations.push((key.clone(), vec![value.clone()])),
                    }
                }
                self.act(policy, binding, findings, refusals);
            }
        }
        for (key, values) in annotations {
            crate::context::annotate(format!("{}/{key}", policy.name), values.join(", "));
        }
        Ok(())
    }
}

/// A failed validation, in the audit log.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure<'a> {
    message: &'a str,
    policy: &'a str,
    binding: &'a str,
    expression_index: usize,
    validation_actions: &'a [String],
}

impl ValidatingAdmissionPolicy {
    /// Does what the binding says with what the policy found.
    fn act(&self, policy: &Policy, binding: &Binding, findings: Findings, refusals: &mut Vec<Refusal>) {
        let (policy, name) = (&policy.name, &binding.metadata.name);
        let checked =
            |error: &str, action: &str, took| self.measures.checked(&[policy, name, error, action], took);
        for (error, took) in findings.ignored {
            checked(error, "allow", took);
        }
        let refuse = |message: &str| {
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{name}' denied request: {message}")
        };
        for denied in findings.denied {
            for action in &binding.spec.validation_actions {
                let counted = match action.as_str() {
                    "Deny" => Some("deny"),
                    "Audit" => Some("audit"),
                    "Warn" => Some("warn"),
                    _ => None,
                };
                if let Some(counted) = counted {
                    checked(error_type(&denied.message), counted, denied.took);
                }
                match action.as_str() {
                    "Deny" => {
                        let (message, reason) = (refuse(&denied.message), denied.reason.clone());
                        refusals.push(Refusal { message, reason });
                    }
                    "Warn" => crate::context::warn(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{name}': {}",
                        denied.message
                    )),
                    "Audit" => {
                        let failure = [Failure {
                            message: &denied.message,
                            policy,
                            binding: name,
                            expression_index: denied.index,
                            validation_actions: &binding.spec.validation_actions,
                        }];
                        let failure = apimachinery::value::to_json_string(&failure).unwrap_or_default();
                        let key = "validation.policy.admission.k8s.io/validation_failure";
                        crate::context::annotate(key.to_owned(), failure);
                    }
                    _ => {}
                }
            }
        }
        for message in findings.failed {
            checked(error_type(&message), "deny", Duration::ZERO);
            refusals.push(Refusal { message: refuse(&message), reason: StatusReason::Invalid });
        }
    }
}

/// The answer to a refused request.
fn denied(a: &Attributes<'_>, refusal: Refusal) -> Status {
    let mut status = Status::forbidden(&a.resource.group_resource(), a.name, &refusal.message);
    status.code = match refusal.reason {
        StatusReason::Forbidden => 403,
        StatusReason::Unauthorized => 401,
        StatusReason::RequestEntityTooLarge => 413,
        _ => 422,
    };
    status.reason = refusal.reason;
    status.with_cause(StatusCause { message: refusal.message, ..StatusCause::default() })
}

fn evaluate(
    policy: &Policy,
    request: &Request<'_>,
    namespace: Option<&Value>,
    params: Option<&Value>,
    asked: &Asked<'_>,
) -> Findings {
    let mut findings = Findings::default();
    let start = Instant::now();
    // What an error comes to: a refusal, or nothing that anybody but the metrics hears of.
    let fail = |findings: &mut Findings, index: usize, message: String, took: Duration| match policy
        .failure_policy
    {
        FailurePolicy::Fail => {
            findings.denied.push(Denied { index, message, reason: StatusReason::Invalid, took });
        }
        FailurePolicy::Ignore => findings.ignored.push((error_type(&message), took)),
    };
    let bindings = |authorizer: bool| {
        let asked: Option<&dyn cel::library::authz::Authorizer> = if authorizer { Some(asked) } else { None };
        Bindings::new(request, namespace, params, asked, &policy.variables)
    };
    // Match conditions do not see the namespace.
    let asking: &dyn cel::library::authz::Authorizer = asked;
    let bare = Bindings::new(request, None, params, Some(asking), &policy.variables);
    match conditions_hold(&bare, &policy.conditions, policy.failure_policy) {
        Ok(true) => {}
        Ok(false) => return findings,
        Err(error) => {
            fail(&mut findings, 0, error, start.elapsed());
            return findings;
        }
    }
    let mut budget = RUNTIME_BUDGET;
    let with_authorizer = bindings(true);
    let mut results = Vec::with_capacity(policy.validations.len());
    for validation in &policy.validations {
        let start = Instant::now();
        match with_authorizer.evaluate(&validation.expression, &mut budget) {
            Ok(result) => results.push((result, start.elapsed())),
            Err(error) => {
                fail(&mut findings, 0, error, start.elapsed());
                return findings;
            }
        }
    }
    let without = bindings(false);
    let mut messages = Vec::with_capacity(results.len());
    let mut spent = None;
    for validation in &policy.validations {
        let Some(expression) = &validation.message_expression else {
            messages.push(None);
            continue;
        };
        match without.evaluate(expression, &mut budget) {
            Ok(message) => messages.push(message.ok()),
            Err(error) => {
                spent = Some(error);
                break;
            }
        }
    }
    for (index, (validation, (result, took))) in policy.validations.iter().zip(results).enumerate() {
        match (result, &spent) {
            (Err(message), _) => fail(&mut findings, index, message, took),
            (Ok(_), Some(error)) => {
                fail(&mut findings, index, format!("failed messageExpression: {error}"), took);
            }
            (Ok(Val::Bool(true)), None) => {}
            (Ok(_), None) => {
                let computed = messages.get(index).and_then(Option::as_ref).and_then(Val::as_str);
                let message = message(validation, computed);
                findings.denied.push(Denied { index, message, reason: validation.reason.clone(), took });
            }
        }
    }
    annotate(policy, &bindings(false), &mut findings);
    findings
}

/// The message of a validation that failed: computed, given, or made of the expression.
fn message(validation: &Validation, computed: Option<&str>) -> String {
    let computed = computed.map(str::trim).unwrap_or_default();
    if !computed.is_empty() && computed.len() <= MAX_MESSAGE_BYTES && !computed.contains('\n') {
        return computed.to_owned();
    }
    match validation.message.trim() {
        "" => format!("failed expression: {}", validation.expression.text.trim()),
        message => message.to_owned(),
    }
}

fn annotate(policy: &Policy, bindings: &Bindings<'_>, findings: &mut Findings) {
    let mut budget = RUNTIME_BUDGET;
    for (key, expression) in &policy.annotations {
        match bindings.evaluate(expression, &mut budget) {
            Ok(Ok(Val::String(text))) if !text.trim().is_empty() => {
                let mut value = text.trim().to_owned();
                if value.len() > MAX_ANNOTATION_BYTES {
                    value.truncate(value.floor_char_boundary(MAX_ANNOTATION_BYTES));
                }
                findings.annotations.push((key.clone(), value));
            }
            Ok(Ok(Val::String(_) | Val::Null)) => {}
            Ok(Ok(other)) => findings.failed.push(format!(
                "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
                expression.text,
                other.kind()
            )),
            Ok(Err(error)) | Err(error) => {
                if policy.failure_policy == FailurePolicy::Fail {
                    findings.failed.push(error);
                }
            }
        }
    }
}

impl Plugin for ValidatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn when(&self) -> When {
        When::validate(Operation::ALL)
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(attributes))
    }
}
