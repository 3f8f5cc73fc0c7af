//! The rules of request options, selectors, managed fields and conditions: upstream's
//! `apis/meta/v1/validation` and `apis/meta/internalversion/validation`.

use std::collections::{BTreeMap, HashSet};

use super::options::*;
use super::{
    Condition, FieldSelectorRequirement, LabelSelector, LabelSelectorRequirement, ManagedFieldsEntry,
    OwnerReference,
};
use crate::field::{BadValue, Error, ErrorList, Path};
use crate::validation::{is_qualified_name, is_valid_label_value, regex_error};

const FIELD_MANAGER_MAX_LENGTH: usize = 128;
const SUBRESOURCE_NAME_MAX_LENGTH: usize = 256;
const REASON_MAX_LENGTH: usize = 1024;
const MESSAGE_MAX_LENGTH: usize = 32 * 1024;

/// Gives a legacy watch from "now" or "0" the initial events that it always had; done before
/// [`validate_list_options`], when the gate WatchList is on.
pub fn set_list_options_defaults(options: &mut ListOptions) {
    let legacy = matches!(&*options.resource_version, "" | "0");
    if options.watch
        && legacy
        && options.send_initial_events.is_none()
        && options.resource_version_match.is_empty()
    {
        options.send_initial_events = Some(true);
        options.resource_version_match = "NotOlderThan".to_owned();
    }
}

/// Whether the options of a list or watch go together; `watch_list` is the gate WatchList.
pub fn validate_list_options(options: &ListOptions, watch_list: bool) -> ErrorList {
    let path = Path::new("resourceVersionMatch");
    let initial = Path::new("sendInitialEvents");
    let matching = &*options.resource_version_match;
    let not_with_continue =
        || Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided");
    let mut errors = ErrorList::new();
    if options.watch {
        if options.send_initial_events.is_some() {
            if matching != "NotOlderThan" {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                errors.push(Error::forbidden(&path, why));
            }
            if !watch_list {
                let why =
                    "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                errors.push(Error::forbidden(&initial, why));
            }
        }
        if !matching.is_empty() {
            if options.send_initial_events.is_none() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                errors.push(Error::forbidden(&path, why));
            }
            if matching != "NotOlderThan" {
                errors.push(Error::not_supported(&path, matching, &["NotOlderThan"]));
            }
            if !options.continue_token.is_empty() {
                errors.push(not_with_continue());
            }
        }
        return errors;
    }
    if !matching.is_empty() {
        if options.resource_version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(Error::forbidden(&path, why));
        }
        if !options.continue_token.is_empty() {
            errors.push(not_with_continue());
        }
        if matching != "Exact" && matching != "NotOlderThan" {
            errors.push(Error::not_supported(&path, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && options.resource_version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(Error::forbidden(&path, why));
        }
    }
    if options.send_initial_events.is_some() {
        errors.push(Error::forbidden(&initial, "sendInitialEvents is forbidden for list"));
    }
    errors
}

/// Whether the options of a deletion go together.
pub fn validate_delete_options(options: &DeleteOptions) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(policy) = &options.propagation_policy {
        let path = Path::new("propagationPolicy");
        if options.orphan_dependents.is_some() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&path, policy, why));
        }
        if !matches!(&**policy, "Foreground" | "Background" | "Orphan") {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(Error::not_supported(&path, policy, &supported));
        }
    }
    errors.extend(validate_dry_run(&Path::new("dryRun"), &options.dry_run));
    if options.ignore_store_read_error_with_cluster_breaking_potential == Some(true) {
        let path = Path::new("ignoreStoreReadErrorWithClusterBreakingPotential");
        for (set, name) in [
            (!options.dry_run.is_empty(), "dryRun"),
            (options.propagation_policy.is_some(), "propagationPolicy"),
            (options.orphan_dependents.is_some(), "orphanDependents"),
            (options.grace_period_seconds.is_some(), "gracePeriodSeconds"),
            (options.preconditions.is_some(), "preconditions"),
        ] {
            if set {
                errors.push(Error::invalid(&path, true, format!("cannot be set together with .{name}")));
            }
        }
    }
    errors
}

/// Whether the options of a create are known.
pub fn validate_create_options(options: &CreateOptions) -> ErrorList {
    validate_write(&options.field_manager, &options.dry_run, &options.field_validation)
}

/// Whether the options of an update are known.
pub fn validate_update_options(options: &UpdateOptions) -> ErrorList {
    validate_write(&options.field_manager, &options.dry_run, &options.field_validation)
}

/// Whether a patch is a server-side apply, which has rules of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Apply,
    Other,
}

/// Whether the options of a patch are known and go together.
pub fn validate_patch_options(options: &PatchOptions, kind: PatchKind) -> ErrorList {
    let mut errors = ErrorList::new();
    match kind {
        PatchKind::Apply if options.field_manager.is_empty() => {
            errors.push(Error::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        PatchKind::Other if options.force.is_some() => {
            errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    errors.extend(validate_write(&options.field_manager, &options.dry_run, &options.field_validation));
    errors
}

fn validate_write(field_manager: &str, dry_run: &[String], field_validation: &str) -> ErrorList {
    let mut errors = validate_field_manager(field_manager, &Path::new("fieldManager"));
    errors.extend(validate_dry_run(&Path::new("dryRun"), dry_run));
    if !matches!(field_validation, "" | "Ignore" | "Strict" | "Warn") {
        let path = Path::new("fieldValidation");
        errors.push(Error::not_supported(&path, field_validation, &["", "Ignore", "Strict", "Warn"]));
    }
    errors
}

/// Whether a table can be shown so.
pub fn validate_table_options(options: &TableOptions) -> ErrorList {
    match &*options.include_object {
        "" | "Metadata" | "Object" | "None" => ErrorList::new(),
        other => {
            let why = "must be 'Metadata', 'Object', 'None', or empty";
            Error::invalid(&Path::new("includeObject"), other, why).into()
        }
    }
}

/// The name of a field manager is short and printable.
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > FIELD_MANAGER_MAX_LENGTH {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX_LENGTH));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !crate::quote::is_print(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path, manager, why));
    }
    errors
}

fn validate_dry_run(path: &Path, dry_run: &[String]) -> Option<Error> {
    let unknown = dry_run.iter().any(|value| value != "All");
    unknown.then(|| Error::not_supported(path, dry_run, &["All"]))
}

/// Managed fields as a client may send them.
pub fn validate_managed_fields(entries: &[ManagedFieldsEntry], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (at, entry) in entries.iter().enumerate() {
        let path = path.index(at);
        if !matches!(&*entry.operation, "Apply" | "Update") {
            let why = "must be `Apply` or `Update`";
            errors.push(Error::invalid(&path.child("operation"), &entry.operation, why));
        }
        if !matches!(&*entry.fields_type, "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), &entry.fields_type, "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(&entry.manager, &path.child("manager")));
        if entry.subresource.len() > SUBRESOURCE_NAME_MAX_LENGTH {
            errors.push(Error::too_long(&path.child("subresource"), SUBRESOURCE_NAME_MAX_LENGTH));
        }
    }
    errors
}

/// What a kind's selectors may hold although it is not right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelectorLeniency {
    /// Values that are no label values: stored objects have them.
    pub allow_invalid_label_value: bool,
    /// Operators that nobody knows: access reviews check them elsewhere.
    pub allow_unknown_operator: bool,
}

/// A label selector; none is valid.
pub fn validate_label_selector(
    selector: Option<&LabelSelector>,
    leniency: SelectorLeniency,
    path: &Path,
) -> ErrorList {
    let Some(selector) = selector else { return ErrorList::new() };
    let mut errors = validate_labels(&selector.match_labels, &path.child("matchLabels"));
    for (at, requirement) in selector.match_expressions.iter().enumerate() {
        let path = path.child("matchExpressions").index(at);
        errors.extend(validate_label_selector_requirement(requirement, leniency, &path));
    }
    errors
}

/// One condition of a label selector.
pub fn validate_label_selector_requirement(
    requirement: &LabelSelectorRequirement,
    leniency: SelectorLeniency,
    path: &Path,
) -> ErrorList {
    let mut errors = validate_operator(&requirement.operator, &requirement.values, leniency, path);
    errors.extend(validate_label_name(&requirement.key, &path.child("key")));
    if !leniency.allow_invalid_label_value {
        for (at, value) in requirement.values.iter().enumerate() {
            let path = path.child("values").index(at);
            errors
                .extend(is_valid_label_value(value).into_iter().map(|why| Error::invalid(&path, value, why)));
        }
    }
    errors
}

/// One condition on a field.
pub fn validate_field_selector_requirement(
    requirement: &FieldSelectorRequirement,
    leniency: SelectorLeniency,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    if requirement.key.is_empty() {
        errors.push(Error::required(&path.child("key"), "must be specified"));
    }
    errors.extend(validate_operator(&requirement.operator, &requirement.values, leniency, path));
    errors
}

fn validate_operator(
    operator: &str,
    values: &[String],
    leniency: SelectorLeniency,
    path: &Path,
) -> ErrorList {
    let values_path = || path.child("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let why = "must be specified when `operator` is 'In' or 'NotIn'";
            Error::required(&values_path(), why).into()
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            Error::forbidden(&values_path(), why).into()
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => ErrorList::new(),
        _ if leniency.allow_unknown_operator => ErrorList::new(),
        other => Error::invalid(&path.child("operator"), other, "not a valid selector operator").into(),
    }
}

/// The key of a label.
pub fn validate_label_name(name: &str, path: &Path) -> ErrorList {
    is_qualified_name(name).into_iter().map(|why| Error::invalid(path, name, why)).collect()
}

/// All that an object's annotations may weigh, in bytes.
pub const TOTAL_ANNOTATION_SIZE: usize = 256 << 10;

/// Annotations of an object or a template.
pub fn validate_annotations(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in annotations.keys() {
        let found = is_qualified_name(&key.to_lowercase());
        errors.extend(found.into_iter().map(|why| Error::invalid(path, key.as_str(), why)));
    }
    if annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > TOTAL_ANNOTATION_SIZE {
        errors.push(Error::too_long(path, TOTAL_ANNOTATION_SIZE));
    }
    errors
}

/// The labels of an object.
pub fn validate_labels(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        errors.extend(validate_label_name(key, path));
        errors.extend(is_valid_label_value(value).into_iter().map(|why| Error::invalid(path, value, why)));
    }
    errors
}

/// The conditions of an object: each type once.
pub fn validate_conditions(conditions: &[Condition], path: &Path) -> ErrorList {
    let (mut errors, mut seen) = (ErrorList::new(), HashSet::new());
    for (at, condition) in conditions.iter().enumerate() {
        let path = path.index(at);
        if !seen.insert(&condition.type_) {
            errors.push(Error::duplicate(&path.child("type"), &condition.type_));
        }
        errors.extend(validate_condition(condition, &path));
    }
    errors
}

/// One condition.
pub fn validate_condition(condition: &Condition, path: &Path) -> ErrorList {
    let mut errors = validate_label_name(&condition.type_, &path.child("type"));
    if !matches!(&*condition.status, "True" | "False" | "Unknown") {
        let supported = ["False", "True", "Unknown"];
        errors.push(Error::not_supported(&path.child("status"), &condition.status, &supported));
    }
    if condition.observed_generation < 0 {
        let why = "must be greater than or equal to zero";
        errors.push(Error::invalid(&path.child("observedGeneration"), condition.observed_generation, why));
    }
    if condition.last_transition_time.is_zero() {
        errors.push(Error::required(&path.child("lastTransitionTime"), ""));
    }
    let reason_path = path.child("reason");
    if condition.reason.is_empty() {
        errors.push(Error::required(&reason_path, ""));
    } else {
        if !is_condition_reason(&condition.reason) {
            let why = regex_error(
                "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'",
                "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?",
                &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"],
            );
            errors.push(Error::invalid(&reason_path, BadValue::from(&condition.reason), why));
        }
        if condition.reason.len() > REASON_MAX_LENGTH {
            errors.push(Error::too_long(&reason_path, REASON_MAX_LENGTH));
        }
    }
    if condition.message.len() > MESSAGE_MAX_LENGTH {
        errors.push(Error::too_long(&path.child("message"), MESSAGE_MAX_LENGTH));
    }
    errors
}

fn is_condition_reason(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
        && text.bytes().all(|byte| word(byte) || matches!(byte, b',' | b':'))
        && text.bytes().next_back().is_some_and(word)
}

/// Finalizers.
pub fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    for finalizer in finalizers {
        for message in is_qualified_name(finalizer) {
            errors.push(Error::invalid(path, finalizer.as_str(), message));
        }
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let why = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(path, BadValue::json(finalizers), why));
    }
    errors
}

/// References to owners. Upstream's paths name no index here.
pub fn validate_owner_references(references: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::default();
    let mut controller: Option<String> = None;
    for owner in references {
        let api_version = owner.api_version.as_str();
        if api_version.is_empty() || api_version.matches('/').count() > 1 || api_version.ends_with('/') {
            errors.push(Error::invalid(&path.child("apiVersion"), api_version, "version must not be empty"));
        }
        for (key, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
            if value.is_empty() {
                errors.push(Error::invalid(&path.child(key), "", "must not be empty"));
            }
        }
        if (api_version, owner.kind.as_str()) == ("v1", "Event") {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(path, BadValue::json(owner), why));
        }
        if owner.controller == Some(true) {
            let name = format!("{}/{}", owner.kind, owner.name);
            if let Some(first) = &controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                errors.push(Error::invalid(path, BadValue::json(references), why));
            } else {
                controller = Some(name);
            }
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::query::Query;

    fn check_list(raw: &str, want: &str) {
        let mut options = Query::parse(raw).list_options().unwrap();
        set_list_options_defaults(&mut options);
        assert_eq!(validate_list_options(&options, true).to_string(), want, "{raw}");
    }

    #[test]
    fn list_options_go_together_or_not() {
        check_list("", "");
        check_list("watch=1", "");
        check_list("resourceVersion=5&resourceVersionMatch=Exact", "");
        check_list(
            "resourceVersionMatch=Exact",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        );
        check_list(
            "resourceVersion=0&resourceVersionMatch=Exact&continue=x",
            "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"]",
        );
        check_list(
            "resourceVersion=1&resourceVersionMatch=x",
            r#"resourceVersionMatch: Unsupported value: "x": supported values: "Exact", "NotOlderThan", """#,
        );
        check_list(
            "sendInitialEvents=1",
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
        );
        check_list(
            "watch=1&sendInitialEvents=1",
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        );
        check_list(
            "watch=1&resourceVersion=7&resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
    }

    #[test]
    fn write_options_are_known() {
        let query = Query::parse("dryRun=All&dryRun=Some&fieldManager=a%00b&fieldValidation=Loose&force=1");
        assert_eq!(
            validate_patch_options(&query.patch_options(), PatchKind::Other).to_string(),
            r#"[force: Forbidden: may not be specified for non-apply patch, fieldManager: Invalid value: "a\x00b": invalid character U+0000 (at position 1), dryRun: Unsupported value: ["All","Some"]: supported values: "All", fieldValidation: Unsupported value: "Loose": supported values: "", "Ignore", "Strict", "Warn"]"#
        );
        assert_eq!(
            validate_patch_options(&PatchOptions::default(), PatchKind::Apply).to_string(),
            "fieldManager: Required value: is required for apply patch"
        );
        let query = Query::parse("propagationPolicy=x&orphanDependents=1");
        assert_eq!(
            validate_delete_options(&query.delete_options().unwrap()).to_string(),
            r#"[propagationPolicy: Invalid value: "x": orphanDependents and deletionPropagation cannot be both set, propagationPolicy: Unsupported value: "x": supported values: "Foreground", "Background", "Orphan", "nil"]"#
        );
    }

    #[test]
    fn selectors_and_conditions() {
        let selector: LabelSelector = serde_json::from_str(
            r#"{"matchExpressions":[{"key":"a","operator":"In"},{"key":"a","operator":"Exists","values":["x"]},{"key":"a","operator":"gt"}]}"#,
        )
        .unwrap();
        assert_eq!(
            validate_label_selector(Some(&selector), SelectorLeniency::default(), &Path::new("s"))
                .to_string(),
            "[s.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn', s.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist', s.matchExpressions[2].operator: Invalid value: \"gt\": not a valid selector operator]"
        );
        let condition: Condition = serde_json::from_str(
            r#"{"type":"A","status":"True","reason":"Ok","lastTransitionTime":"2024-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        assert_eq!(validate_condition(&condition, &Path::new("c")), ErrorList::new());
        assert_eq!(
            validate_conditions(&[condition.clone(), condition], &Path::new("c")).to_string(),
            "c[1].type: Duplicate value: \"A\""
        );
    }
}
