//! The group `policy`: disruption budgets.

use super::Row;
use super::check::{Check, NOT_NEGATIVE};
use super::plain::Plain;
use super::shown::shown;
use super::templates::{AGE, NAME, validate_amount, validate_not_more_than_all};
use super::tree::{column, int, name, object_age, text, typed};
use api::policy::v1::PodDisruptionBudget;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::meta::validation::{SelectorLeniency, validate_conditions, validate_label_selector};
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[("policy", "PodDisruptionBudget", &BUDGETS)];

const POLICIES: &[&str] = &["AlwaysAllow", "IfHealthyBudget"];

static BUDGETS: Plain = Plain {
    has_generation: true,
    validate,
    validate_update: |budget, _, context| match context.subresource {
        Some("status") => validate_status(&typed(budget)),
        _ => ErrorList::new(),
    },
    columns: &[
        NAME,
        column("Min Available", "string", 0, "The minimum number of pods that must be available."),
        column("Max Unavailable", "string", 0, "The maximum number of pods that may be unavailable."),
        column(
            "Allowed Disruptions",
            "integer",
            0,
            "Calculated number of pods that may be disrupted at this time.",
        ),
        AGE,
    ],
    cells: |budget, now| {
        let amount = |field: &str| match &budget["spec"][field] {
            Value::String(text) => Value::from(text.as_str()),
            Value::Number(number) => number.to_string().into(),
            _ => "N/A".into(),
        };
        vec![
            name(budget),
            amount("minAvailable"),
            amount("maxUnavailable"),
            int(budget, &["status", "disruptionsAllowed"]).into(),
            object_age(budget, now).into(),
        ]
    },
    ..Plain::NEW
};

fn validate(budget: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (spec, path) = (&budget["spec"], Path::new("spec"));
    let amount = |field: &str| spec.get(field).filter(|value| !value.is_null());
    if amount("minAvailable").is_some() && amount("maxUnavailable").is_some() {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(Error::invalid(&path, shown(budget, &["spec"]), why));
    }
    for field in ["minAvailable", "maxUnavailable"] {
        if let Some(value) = amount(field) {
            let (value, at): (Option<IntOrString>, _) = (typed(value), path.child(field));
            validate_amount(&mut errors, &at, value.as_ref());
            validate_not_more_than_all(&mut errors, &at, value.as_ref());
        }
    }
    let selector: Option<apimachinery::meta::LabelSelector> = typed(&spec["selector"]);
    let at = path.child("selector");
    errors.extend(validate_label_selector(selector.as_ref(), SelectorLeniency::default(), &at));
    let policy = text(spec, &["unhealthyPodEvictionPolicy"]);
    if amount("unhealthyPodEvictionPolicy").is_some() && !POLICIES.contains(&policy) {
        errors.push(Error::not_supported(&path.child("unhealthyPodEvictionPolicy"), policy, POLICIES));
    }
    errors
}

fn validate_status(budget: &PodDisruptionBudget) -> ErrorList {
    let mut check = Check::default();
    let (status, path) = (&budget.status, Path::new("status"));
    check.extend(validate_conditions(&status.conditions, &path.child("conditions")));
    for (field, count) in [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ] {
        if count < 0 {
            check.invalid(&path.child(field), count, NOT_NEGATIVE);
        }
    }
    check.0
}
