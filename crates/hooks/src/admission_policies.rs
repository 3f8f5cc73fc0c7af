//! Hooks of ValidatingAdmissionPolicy and MutatingAdmissionPolicy, and of their bindings. Whether their expressions
//! compile is judged where they are evaluated.

use super::admissionregistration_validation::{
    FAILURE_POLICIES, REINVOCATION_POLICIES, conditions, match_resources, mutating_operations,
};
use super::check::{Check, path_segment, qualified_name, subdomain};
use super::expressions::{Variables, Wanted};
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, column, each, list, name, object_age, text, typed, with};
use super::{Column, Row};
use api::admissionregistration::v1::{
    AuditAnnotation, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation, ParamKind, ParamRef,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation, Variable,
};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::json;
use apimachinery::meta::validation::{validate_conditions, validate_label_selector};
use apimachinery::time::Time;
use apimachinery::validation::is_dns1035_label;
use apimachinery::value::Value;

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const STRATEGIES: &[Row] = &[
    (GROUP, "MutatingAdmissionPolicy", &MUTATING),
    (GROUP, "MutatingAdmissionPolicyBinding", &MUTATING_BINDING),
    (GROUP, "ValidatingAdmissionPolicy", &VALIDATING),
    (GROUP, "ValidatingAdmissionPolicyBinding", &VALIDATING_BINDING),
];

const PARAM_KIND: Column = column(
    "ParamKind",
    "string",
    0,
    "ParamKind specifies the kind of resources used to parameterize this policy",
);

const BINDING_COLUMNS: &[Column] = &[
    NAME,
    column(
        "PolicyName",
        "string",
        0,
        "PolicyName indicates the policy definition which the policy binding binded to",
    ),
    column(
        "ParamRef",
        "string",
        0,
        "ParamRef indicates the param resource which sets the configuration param",
    ),
    AGE,
];

static VALIDATING: Plain = Plain {
    default: default_policy,
    validate: |policy| validate_validating(&typed(policy)),
    validate_update: |policy, _, context| match context.subresource {
        Some(_) => validate_status(&typed(policy)),
        None => ErrorList::new(),
    },
    columns: &[
        NAME,
        column(
            "Validations",
            "integer",
            0,
            "Validations indicates the number of validation rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| policy_cells(policy, "validations", now),
    has_generation: true,
    ..Plain::NEW
};

static MUTATING: Plain = Plain {
    default: default_policy,
    validate: |policy| validate_mutating(&typed(policy)),
    columns: &[
        NAME,
        column(
            "Mutations",
            "integer",
            0,
            "Mutation indicates the number of mutations rules defined in this configuration",
        ),
        PARAM_KIND,
        AGE,
    ],
    cells: |policy, now| policy_cells(policy, "mutations", now),
    has_generation: true,
    ..Plain::NEW
};

static VALIDATING_BINDING: Plain = Plain {
    default: default_binding,
    validate: |binding| validate_validating_binding(&typed(binding)),
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    has_generation: true,
    ..Plain::NEW
};

static MUTATING_BINDING: Plain = Plain {
    default: default_binding,
    validate: |binding| validate_mutating_binding(&typed(binding)),
    columns: BINDING_COLUMNS,
    cells: binding_cells,
    has_generation: true,
    ..Plain::NEW
};

fn default_match(resources: &mut Value) {
    absent_or(resources, "matchPolicy", "Equivalent");
    absent_or(resources, "namespaceSelector", json!({}));
    absent_or(resources, "objectSelector", json!({}));
    for rules in ["resourceRules", "excludeResourceRules"] {
        each(resources, rules, |rule| absent_or(rule, "scope", "*"));
    }
}

fn default_policy(policy: &mut Value) {
    with(policy, "spec", |spec| {
        absent_or(spec, "failurePolicy", "Fail");
        with(spec, "matchConstraints", default_match);
    });
}

fn default_binding(binding: &mut Value) {
    with(binding, "spec", |spec| with(spec, "matchResources", default_match));
}

fn policy_cells(policy: &Value, rules: &str, now: Time) -> Vec<Value> {
    let kind = match policy["spec"]["paramKind"].is_object() {
        true => {
            let of = |key| text(policy, &["spec", "paramKind", key]);
            format!("{}/{}", of("apiVersion"), of("kind"))
        }
        false => "<unset>".into(),
    };
    vec![
        name(policy),
        list(policy, &["spec", rules]).len().into(),
        kind.into(),
        object_age(policy, now).into(),
    ]
}

fn binding_cells(binding: &Value, now: Time) -> Vec<Value> {
    let reference: Option<ParamRef> = typed(&binding["spec"]["paramRef"]);
    let shown = reference.and_then(|reference| match (&*reference.name, &*reference.namespace) {
        ("", _) => reference.selector.as_ref().map(ToString::to_string),
        // Whether the parameter is in a namespace cannot be told from here.
        (name, "") => Some(format!("*/{name}")),
        (name, namespace) => Some(format!("{namespace}/{name}")),
    });
    vec![
        name(binding),
        text(binding, &["spec", "policyName"]).into(),
        shown.unwrap_or_else(|| "<unset>".into()).into(),
        object_age(binding, now).into(),
    ]
}

fn failure_policy(check: &mut Check, policy: Option<&str>) {
    let at = Path::new("spec").child("failurePolicy");
    match policy {
        None => check.required(&at, ""),
        Some(policy) => check.one_of(&at, policy, FAILURE_POLICIES),
    }
}

fn param_kind(check: &mut Check, kind: &ParamKind) {
    let path = Path::new("spec").child("paramKind");
    let at = path.child("apiVersion");
    let version = kind.api_version.as_str();
    match version.split('/').collect::<Vec<_>>().as_slice() {
        [""] => check.required(&at, ""),
        ["", ""] => check.invalid(&at, version, "version must be specified"),
        parts @ ([_] | [_, _]) => {
            let (group, version) =
                if let [group, version] = parts { (*group, *version) } else { ("", parts[0]) };
            if !group.is_empty() {
                let why = subdomain(group);
                check.when(!why.is_empty(), || Error::invalid(&at, group, why.join(",")));
            }
            let why: Vec<String> = is_dns1035_label(version).into_iter().collect();
            if version.is_empty() {
                check.invalid(&at, kind.api_version.as_str(), "version must be specified");
            } else if !why.is_empty() {
                check.invalid(&at, version, why.join(","));
            }
        }
        _ => check.invalid(&at, version, format!("unexpected GroupVersion string: {version}")),
    }
    let at = path.child("kind");
    let why: Vec<String> = is_dns1035_label(&kind.kind.to_lowercase()).into_iter().collect();
    if kind.kind.is_empty() {
        check.required(&at, "");
    } else if !why.is_empty() {
        let why = format!("may have mixed case, but should otherwise match: {}", why.join(","));
        check.invalid(&at, kind.kind.as_str(), why);
    }
}

fn variables(check: &mut Check, variables: &[Variable], known: &Variables) {
    let path = Path::new("spec").child("variables");
    for (i, variable) in variables.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("name");
        if variable.name.trim().is_empty() {
            check.required(&at, "name is not specified");
        } else if !cel::escape::is_identifier(&variable.name) {
            check.invalid(&at, variable.name.as_str(), "must be a valid CEL identifier");
        }
        let at = path.child("expression");
        check.present(&at, variable.expression.trim(), "expression is not specified");
        known.judge_variable(check, &at, i);
    }
}

fn validation(check: &mut Check, path: &Path, validation: &Validation, known: &Variables) {
    let at = path.child("expression");
    check.present(&at, validation.expression.trim(), "expression is not specified");
    known.judge(check, &at, &validation.expression, Wanted::Bool);
    for (key, text) in
        [("messageExpression", &validation.message_expression), ("message", &validation.message)]
    {
        if !text.is_empty() && text.trim().is_empty() {
            check.invalid(&path.child(key), text.as_str(), "must be non-empty if specified");
        }
        if key == "messageExpression" {
            known.judge(check, &path.child(key), text, Wanted::String);
        }
    }
    if validation.message.trim().contains(['\n', '\r']) {
        check.invalid(&path.child("message"), validation.message.as_str(), "must not contain line breaks");
    }
    if let Some(reason) = &validation.reason {
        check.one_of(&path.child("reason"), reason, &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
    }
}

fn annotations(check: &mut Check, policy: &str, annotations: &[AuditAnnotation], known: &Variables) {
    const MOST: usize = 20;
    const LONGEST: usize = 5 * 1024;
    let path = Path::new("spec").child("auditAnnotations");
    if annotations.len() > MOST {
        let shown = apimachinery::field::BadValue::json(annotations);
        check.invalid(&path, shown, format!("must not have more than {MOST} auditAnnotations"));
    }
    for (i, annotation) in annotations.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("key");
        if policy.is_empty() {
            check.invalid(&at, annotation.key.as_str(), "requires metadata.name be non-empty");
        } else {
            check.keeps(&at, &format!("{policy}/{}", annotation.key), qualified_name);
        }
        let value = path.child("valueExpression");
        match annotation.value_expression.trim() {
            "" => check.required(&value, "valueExpression is not specified"),
            long if long.len() > LONGEST => {
                check.required(&value, &format!("must not exceed {LONGEST} bytes in length"));
            }
            _ => known.judge(check, &value, &annotation.value_expression, Wanted::StringOrNull),
        }
        let twice = annotations.iter().take(i).any(|other| other.key == annotation.key);
        check.when(twice, || Error::duplicate(&at, annotation.key.as_str()));
    }
}

fn validate_validating(policy: &ValidatingAdmissionPolicy) -> ErrorList {
    let (mut check, path, spec) = (Check::default(), Path::new("spec"), &policy.spec);
    let known = Variables::new(&spec.variables, spec.param_kind.is_some());
    failure_policy(&mut check, spec.failure_policy.as_deref());
    if let Some(kind) = &spec.param_kind {
        param_kind(&mut check, kind);
    }
    let at = path.child("matchConstraints");
    match &spec.match_constraints {
        None => check.required(&at, ""),
        Some(constraints) => {
            match_resources(&mut check, &at, constraints);
            check.when(constraints.resource_rules.is_empty(), || {
                Error::required(&at.child("resourceRules"), "")
            });
        }
    }
    conditions(&mut check, &path.child("matchConditions"), &spec.match_conditions, &known);
    variables(&mut check, &spec.variables, &known);
    if spec.validations.is_empty() && spec.audit_annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        check.required(&path.child("validations"), why);
        check.required(&path.child("auditAnnotations"), why);
    }
    for (i, one) in spec.validations.iter().enumerate() {
        validation(&mut check, &path.child("validations").index(i), one, &known);
    }
    annotations(&mut check, &policy.metadata.name, &spec.audit_annotations, &known);
    check.0
}

/// What was found out about the policy's expressions.
fn validate_status(policy: &ValidatingAdmissionPolicy) -> ErrorList {
    let (mut check, path) = (Check::default(), Path::new("status"));
    let at = path.child("typeChecking").child("expressionWarnings");
    let warnings = policy.status.type_checking.iter().flat_map(|checking| &checking.expression_warnings);
    for (i, warning) in warnings.enumerate() {
        let at = at.index(i);
        check.present(&at.child("warning"), &warning.warning, "");
        check.present(&at.child("fieldRef"), warning.field_ref.trim(), "");
    }
    check.extend(validate_conditions(&policy.status.conditions, &path.child("conditions")));
    check.0
}

fn mutation(check: &mut Check, path: &Path, mutation: &Mutation, known: &Variables) {
    let expressions = [
        ("JSONPatch", "jsonPatch", mutation.json_patch.as_ref().map(|p| &p.expression)),
        (
            "ApplyConfiguration",
            "applyConfiguration",
            mutation.apply_configuration.as_ref().map(|p| &p.expression),
        ),
    ];
    let ty = mutation.patch_type.as_str();
    if !check.present(&path.child("patchType"), ty, "") {
        return;
    }
    if !expressions.iter().any(|(name, ..)| *name == ty) {
        check.one_of(&path.child("patchType"), ty, &["ApplyConfiguration", "JSONPatch"]);
        return;
    }
    let (own, others): (Vec<_>, Vec<_>) = expressions.into_iter().partition(|(name, ..)| *name == ty);
    for (name, key, expression) in own.into_iter().chain(others) {
        let at = path.child(key);
        match (name == ty, expression) {
            (true, None) => check.required(&at, &format!("must be specified when patchType is {ty}")),
            (true, Some(expression)) => {
                let wanted = if ty == "JSONPatch" { Wanted::JsonPatches } else { Wanted::Object };
                check.present(&at.child("expression"), expression.trim(), "");
                known.judge(check, &at.child("expression"), expression, wanted);
            }
            (false, Some(_)) => {
                let why = format!("must not be specified when patchType is {ty}");
                check.invalid(&at, format!("{{{key}}}"), why);
            }
            (false, None) => {}
        }
    }
}

fn validate_mutating(policy: &MutatingAdmissionPolicy) -> ErrorList {
    let (mut check, path, spec) = (Check::default(), Path::new("spec"), &policy.spec);
    let known = Variables::new(&spec.variables, spec.param_kind.is_some()).composed();
    failure_policy(&mut check, spec.failure_policy.as_deref());
    if let Some(kind) = &spec.param_kind {
        param_kind(&mut check, kind);
    }
    let at = path.child("matchConstraints");
    match &spec.match_constraints {
        None => check.required(&at, ""),
        Some(constraints) => {
            match_resources(&mut check, &at, constraints);
            check.when(constraints.resource_rules.is_empty(), || {
                Error::required(&at.child("resourceRules"), "")
            });
            mutating_operations(&mut check, &at, constraints);
        }
    }
    conditions(&mut check, &path.child("matchConditions"), &spec.match_conditions, &known);
    variables(&mut check, &spec.variables, &known);
    if spec.mutations.is_empty() {
        check.required(&path.child("mutations"), "mutations must contain at least one item");
    }
    for (i, one) in spec.mutations.iter().enumerate() {
        mutation(&mut check, &path.child("mutations").index(i), one, &known);
    }
    let at = path.child("reinvocationPolicy");
    if check.present(&at, &spec.reinvocation_policy, "") {
        check.one_of(&at, &spec.reinvocation_policy, REINVOCATION_POLICIES);
    }
    check.0
}

fn param_ref(check: &mut Check, reference: &ParamRef) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let path = Path::new("spec").child("paramRef");
    if !reference.name.is_empty() {
        let at = path.child("name");
        check.keeps(&at, &reference.name, path_segment);
        if reference.selector.is_some() {
            check.forbidden(&at, EXCLUSIVE);
        }
    }
    if reference.selector.is_some() {
        let at = path.child("selector");
        check.extend(validate_label_selector(reference.selector.as_ref(), Default::default(), &at));
        if !reference.name.is_empty() {
            check.forbidden(&at, EXCLUSIVE);
        }
    }
    if reference.name.is_empty() && reference.selector.is_none() {
        check.required(&path, "one of name or selector must be specified");
    }
    let at = path.child("parameterNotFoundAction");
    match reference.parameter_not_found_action.as_deref() {
        None | Some("") => check.required(&at, ""),
        Some(action) => check.one_of(&at, action, &["Deny", "Allow"]),
    }
}

fn validate_validating_binding(binding: &ValidatingAdmissionPolicyBinding) -> ErrorList {
    let (mut check, path, spec) = (Check::default(), Path::new("spec"), &binding.spec);
    check.present_and_keeps(&path.child("policyName"), &spec.policy_name, "", subdomain);
    if let Some(reference) = &spec.param_ref {
        param_ref(&mut check, reference);
    }
    if let Some(resources) = &spec.match_resources {
        match_resources(&mut check, &path.child("matchResources"), resources);
    }
    let at = path.child("validationActions");
    let actions: Vec<&str> = spec.validation_actions.iter().map(AsRef::as_ref).collect();
    for (i, action) in actions.iter().enumerate() {
        check.one_of(&at.index(i), action, &["Audit", "Deny", "Warn"]);
        check.when(actions[..i].contains(action), || Error::duplicate(&at.index(i), *action));
    }
    if actions.contains(&"Deny") && actions.contains(&"Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        check.invalid(&at, apimachinery::field::BadValue::json(&actions), why);
    }
    if actions.is_empty() {
        check.required(&at, "at least one validation action is required");
    }
    check.0
}

fn validate_mutating_binding(binding: &MutatingAdmissionPolicyBinding) -> ErrorList {
    let (mut check, path, spec) = (Check::default(), Path::new("spec"), &binding.spec);
    check.present_and_keeps(&path.child("policyName"), &spec.policy_name, "", subdomain);
    if let Some(reference) = &spec.param_ref {
        param_ref(&mut check, reference);
    }
    if let Some(resources) = &spec.match_resources {
        let at = path.child("matchResources");
        match_resources(&mut check, &at, resources);
        mutating_operations(&mut check, &at, resources);
    }
    check.0
}
