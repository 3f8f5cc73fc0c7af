//! What the kinds that make pods share: the template's defaults and rules, selectors, and the wide columns.

use super::core::pod_spec::{default_pod_spec, drop_old_annotations};
use super::core::pod_validation::validate_pod_spec;
pub(super) use super::core::pod_warnings::{Named, template_warnings};
use super::tree::{column, joined, list, text, with};
use super::{Column, SelectableField};
use api::core::v1::PodTemplateSpec;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::labels::Selector;
use apimachinery::meta::LabelSelector;
use apimachinery::meta::validation::{
    SelectorLeniency, validate_annotations, validate_label_selector, validate_labels,
};
use apimachinery::value::Value;

pub(super) const NAME: Column = column(
    "Name",
    "string",
    0,
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
);
pub(super) const AGE: Column = column(
    "Age",
    "string",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);
pub(super) const CONTAINERS: Column =
    column("Containers", "string", 1, "Names of each container in the template.");
pub(super) const IMAGES: Column =
    column("Images", "string", 1, "Images referenced by each container in the template.");

/// How many replicas an object has, for field selectors.
pub(super) const STATUS_REPLICAS: SelectableField =
    ("status.replicas", |object| super::tree::int(object, &["status", "replicas"]).to_string());

/// The spec of the template in an object's spec.
pub(super) fn default_template(spec: &mut Value) {
    with(spec, "template", |template| {
        with(template, "spec", default_pod_spec);
        drop_old_annotations(template);
    });
}

/// Names and images of a template's containers.
pub(super) fn containers(template: &Value) -> [Value; 2] {
    let all = list(template, &["spec", "containers"]);
    let of = |key: &str| joined(all.iter().map(|c| text(c, &[key])), "").into();
    [of("name"), of("image")]
}

/// A template without regard to who uses it.
pub(super) fn validate_template(template: &PodTemplateSpec, path: &Path) -> ErrorList {
    let mut errors = validate_labels(&template.metadata.labels, &path.child("labels"));
    errors.extend(validate_annotations(&template.metadata.annotations, &path.child("annotations")));
    let spec = path.child("spec");
    errors.extend(validate_pod_spec(&template.spec, &spec));
    if !template.spec.ephemeral_containers.is_empty() {
        let at = spec.child("ephemeralContainers");
        errors.push(Error::forbidden(&at, "ephemeral containers not allowed in pod template"));
    }
    errors
}

/// A template whose pods must run for ever, of a kind by that name.
pub(super) fn validate_lasting_template(
    template: &PodTemplateSpec,
    selector: Option<&LabelSelector>,
    kind: &str,
    path: &Path,
) -> ErrorList {
    let mut errors = validate_match(template, selector, path, Nothing::Passes);
    errors.extend(validate_lasting(template, kind, path));
    errors
}

/// The same, whatever selects it.
pub(super) fn validate_lasting(template: &PodTemplateSpec, kind: &str, path: &Path) -> ErrorList {
    let mut errors = validate_template(template, path);
    errors.extend(validate_lifetime(template, kind, path));
    errors
}

/// How long its pods run, alone.
pub(super) fn validate_lifetime(template: &PodTemplateSpec, kind: &str, path: &Path) -> ErrorList {
    let (mut errors, spec) = (ErrorList::new(), path.child("spec"));
    if template.spec.restart_policy != "Always" {
        let at = spec.child("restartPolicy");
        errors.push(Error::not_supported(&at, template.spec.restart_policy.as_str(), &["Always"]));
    }
    if template.spec.active_deadline_seconds.is_some() {
        let at = spec.child("activeDeadlineSeconds");
        errors.push(Error::forbidden(&at, format!("activeDeadlineSeconds in {kind} is not Supported")));
    }
    errors
}

/// What becomes of a selector that asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Nothing {
    /// It is judged elsewhere.
    Passes,
    /// It matches as selectors do: none at all selects nothing.
    Selects,
}

/// Whether the selector selects what the template makes.
pub(super) fn validate_match(
    template: &PodTemplateSpec,
    selector: Option<&LabelSelector>,
    path: &Path,
    nothing: Nothing,
) -> ErrorList {
    let labels = &template.metadata.labels;
    let misses = Selector::from_label_selector(selector).is_ok_and(|s| {
        let judged = nothing == Nothing::Selects || !s.is_empty();
        judged && !s.matches(labels)
    });
    if misses { mismatch(template, path).into() } else { ErrorList::new() }
}

/// That the selector does not select what the template makes.
pub(super) fn mismatch(template: &PodTemplateSpec, path: &Path) -> Error {
    let labels = match &template.metadata.labels {
        // Go's labels that are none.
        none if none.is_empty() => BadValue::verbatim("null"),
        labels => BadValue::json(labels),
    };
    let at = path.child("metadata").child("labels");
    Error::invalid(&at, labels, "`selector` does not match template `labels`")
}

/// A selector that must be there and select something less than everything.
pub(super) fn validate_selector(selector: Option<&LabelSelector>, kind: &str, path: &Path) -> ErrorList {
    let Some(some) = selector else {
        return [Error::required(path, "")].into_iter().collect();
    };
    let mut errors = validate_label_selector(selector, SelectorLeniency::default(), path);
    if some.match_labels.is_empty() && some.match_expressions.is_empty() {
        let text = format!("empty selector is invalid for {kind}");
        errors.push(Error::invalid(path, BadValue::json(some), text));
    }
    errors
}

pub(super) fn not_negative(errors: &mut ErrorList, path: &Path, value: impl Into<i64>) {
    let value = value.into();
    if value < 0 {
        errors.push(Error::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// A field that never changes.
pub(super) fn immutable(errors: &mut ErrorList, object: &Value, old: &Value, path: &[&'static str]) {
    if super::tree::at(object, path) != super::tree::at(old, path) {
        let mut at = Path::none();
        for key in path {
            at = if at.is_none() { Path::new(*key) } else { at.child(*key) };
        }
        errors.push(Error::invalid(&at, super::shown::shown(object, path), "field is immutable"));
    }
}

fn percent(value: &IntOrString) -> Option<i64> {
    match value {
        IntOrString::Int(_) => None,
        IntOrString::String(text) => text.strip_suffix('%').and_then(|t| t.parse().ok()),
    }
}

/// The number of a count or of a percentage.
pub(super) fn amount(value: Option<&IntOrString>) -> i64 {
    value.map_or(0, |v| percent(v).unwrap_or_else(|| v.int_value().into()))
}

/// A count or a percentage, not negative.
pub(super) fn validate_amount(errors: &mut ErrorList, path: &Path, value: Option<&IntOrString>) {
    match value {
        None => errors.push(Error::invalid(path, BadValue::json(&value), "must be an integer or percentage")),
        Some(IntOrString::Int(number)) => not_negative(errors, path, *number),
        Some(IntOrString::String(text)) => {
            let found = apimachinery::validation::is_valid_percent(text);
            errors.extend(found.into_iter().map(|why| Error::invalid(path, text.as_str(), why)));
        }
    }
}

/// A percentage of at most a hundred.
pub(super) fn validate_not_more_than_all(errors: &mut ErrorList, path: &Path, value: Option<&IntOrString>) {
    if let Some(value) = value
        && percent(value).is_some_and(|p| p > 100)
    {
        errors.push(Error::invalid(path, BadValue::json(value), "must not be greater than 100%"));
    }
}
