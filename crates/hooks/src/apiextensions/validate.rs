//! All that can be wrong with a definition (upstream's ValidateCustomResourceDefinition). What all versions say alike is
//! reported once, at the place where upstream's internal type has it.

use super::super::webhook_client;
use super::version::{self, Options};
use super::{condition, names, selectable};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::validation::{is_dns1035_label, is_dns1123_subdomain};
use apimachinery::value::Value;
use schema::custom::structural::{self, SchemaOptions};
use std::collections::HashSet;

const APPROVED: &str = "api-approved.kubernetes.io";

pub(super) fn create(object: &Value) -> ErrorList {
    let options = Options {
        require_structural: true,
        schema: SchemaOptions::default(),
        allow_many_fields: false,
        before: None,
    };
    let mut errors = ErrorList::new();
    let text = |key: &str| object["spec"][key].as_str().unwrap_or_default();
    let wanted =
        format!("{}.{}", object["spec"]["names"]["plural"].as_str().unwrap_or_default(), text("group"));
    for key in ["generateName", "name"] {
        let name = object["metadata"][key].as_str().unwrap_or_default();
        if !name.is_empty() && name != wanted {
            let why = "must be spec.names.plural+\".\"+spec.group";
            errors.push(Error::invalid(&Path::new("metadata").child(key), name, why));
        }
    }
    spec(&object["spec"], options, &mut errors);
    errors.extend(status(object));
    stored_versions(object, &mut errors);
    approval(object, None, &mut errors);
    preserve(object, None, &mut errors);
    errors
}

pub(super) fn update(object: &Value, old: &Value) -> ErrorList {
    let schemas: Vec<&Value> = versions(&old["spec"]).map(|v| &v["schema"]["openAPIV3Schema"]).collect();
    let was_good = |wanted: SchemaOptions| {
        schemas.iter().all(|s| structural::validate_schema(&Path::none(), s, wanted).is_empty())
    };
    let none =
        SchemaOptions { require_valid_types: false, require_atomic_sets: false, require_map_keys: false };
    // Nothing that was accepted before is demanded now, unless the old object keeps to it.
    let plain = was_good(none);
    let options = Options {
        require_structural: schemas.iter().filter(|s| s.is_object()).all(|s| {
            structural::unsupported(s).is_none()
                && structural::validate_structural(&Path::none(), s).is_empty()
        }),
        schema: SchemaOptions {
            require_valid_types: !plain || was_good(SchemaOptions { require_valid_types: true, ..none }),
            require_atomic_sets: !plain || was_good(SchemaOptions { require_atomic_sets: true, ..none }),
            require_map_keys: !plain || was_good(SchemaOptions { require_map_keys: true, ..none }),
        },
        allow_many_fields: versions(&object["spec"]).all(|v| {
            let before = versions(&old["spec"]).find(|o| o["name"] == v["name"]);
            let many = |v: &Value| v["selectableFields"].as_array().is_some_and(|f| f.len() > 8);
            before.is_some_and(|o| many(o) && o["selectableFields"] == v["selectableFields"])
        }),
        before: Some(&old["spec"]),
    };
    let mut errors = ErrorList::new();
    spec(&object["spec"], options, &mut errors);
    let path = Path::new("spec");
    let mut immutable = |at: Path, new: &Value, was: &Value| {
        if new != was {
            errors.push(Error::invalid(&at, new, "field is immutable"));
        }
    };
    let (new, was) = (&object["spec"], &old["spec"]);
    if condition(old, "Established") == "True" {
        immutable(path.child("scope"), &new["scope"], &was["scope"]);
        immutable(path.child("names").child("kind"), &new["names"]["kind"], &was["names"]["kind"]);
    }
    immutable(path.child("group"), &new["group"], &was["group"]);
    immutable(path.child("names").child("plural"), &new["names"]["plural"], &was["names"]["plural"]);
    errors.extend(status(object));
    stored_versions(object, &mut errors);
    approval(object, Some(old), &mut errors);
    preserve(object, Some(old), &mut errors);
    errors
}

pub(super) fn status(object: &Value) -> ErrorList {
    names::validate(&Path::new("status").child("acceptedNames"), &object["status"]["acceptedNames"])
}

fn versions(spec: &Value) -> impl Iterator<Item = &Value> {
    spec["versions"].as_array().into_iter().flatten()
}

/// What all versions say alike, if they do and say anything.
fn common<'a>(spec: &'a Value, get: &dyn Fn(&'a Value) -> &'a Value) -> Option<&'a Value> {
    let mut all = versions(spec).map(get);
    let first = all.next().filter(|v| match v {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    })?;
    all.all(|v| v == first).then_some(first)
}

fn spec(spec: &Value, options: Options<'_>, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let group = spec["group"].as_str().unwrap_or_default();
    let problems = is_dns1123_subdomain(group);
    let at = path.child("group");
    if group.is_empty() {
        errors.push(Error::required(&at, ""));
    } else if !problems.is_empty() {
        errors.push(Error::invalid(&at, group, problems.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(&at, group, "should be a domain with at least one dot"));
    }
    match spec["scope"].as_str().unwrap_or_default() {
        "Cluster" | "Namespaced" => {}
        "" => errors.push(Error::required(&path.child("scope"), "")),
        other => errors.push(Error::not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"])),
    }
    let at_versions = path.child("versions");
    for (i, version) in versions(spec).enumerate() {
        if !version["schema"]["openAPIV3Schema"].is_object() {
            let at = at_versions.index(i).child("schema").child("openAPIV3Schema");
            errors.push(Error::required(&at, ""));
        }
    }
    if spec["preserveUnknownFields"] == true
        && versions(spec).any(|v| structural::has_defaults(&v["schema"]["openAPIV3Schema"]))
    {
        let why = "must be false in order to use defaults in the schema";
        errors.push(Error::invalid(&path.child("preserveUnknownFields"), true, why));
    }
    let shared_schema = common(spec, &|v| &v["schema"]["openAPIV3Schema"]);
    let shared_subresources = common(spec, &|v| &v["subresources"]);
    let shared_columns = common(spec, &|v| &v["additionalPrinterColumns"]);
    let shared_fields = common(spec, &|v| &v["selectableFields"]);
    let has_status = |v: &Value| v["subresources"]["status"].is_object();
    for (i, version) in versions(spec).enumerate() {
        let at = at_versions.index(i);
        let name = version["name"].as_str().unwrap_or_default();
        let problems = is_dns1035_label(name);
        if !problems.is_empty() {
            errors.push(Error::invalid(&at.child("name"), name, problems.join(",")));
        }
        errors.extend(version::deprecation(&at.child("deprecationWarning"), version));
        let schema = &version["schema"]["openAPIV3Schema"];
        if shared_schema.is_none() {
            errors.extend(version::schema(&at.child("schema"), version, has_status(version), options));
        }
        if shared_subresources.is_none() {
            errors.extend(version::subresources(&at.child("subresources"), &version["subresources"]));
        }
        if shared_columns.is_none() {
            columns(&at.child("additionalPrinterColumns"), &version["additionalPrinterColumns"], errors);
        }
        if shared_fields.is_none()
            && let Some(fields) = version["selectableFields"].as_array()
        {
            errors.extend(selectable::fields(&at.child("selectableFields"), fields, schema, options));
        }
    }
    let mut seen = HashSet::new();
    let all = || {
        let shared = [shared_schema, shared_subresources, shared_columns, shared_fields];
        version::shown_all(&spec["versions"], shared.map(|part| part.is_some()))
    };
    if !versions(spec).all(|v| seen.insert(v["name"].as_str().unwrap_or_default())) {
        errors.push(Error::invalid(&at_versions, all(), "must contain unique version names"));
    }
    if versions(spec).filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        errors.push(Error::invalid(&at_versions, all(), why));
    }
    // The name of the first version stands here, too.
    let first = spec["versions"][0]["name"].as_str().unwrap_or_default();
    let problems = is_dns1035_label(first);
    if !first.is_empty() && !problems.is_empty() {
        errors.push(Error::invalid(&path.child("version"), first, problems.join(",")));
    }
    for key in ["plural", "singular", "kind", "listKind"] {
        if spec["names"][key].as_str().unwrap_or_default().is_empty() {
            errors.push(Error::required(&path.child("names").child(key), ""));
        }
    }
    errors.extend(names::validate(&path.child("names"), &spec["names"]));
    if let Some(first) = versions(spec).next().filter(|_| shared_schema.is_some()) {
        let status = versions(spec).any(has_status);
        errors.extend(version::schema(&path.child("validation"), first, status, options));
    }
    if let Some(shared) = shared_subresources {
        errors.extend(version::subresources(&path.child("subresources"), shared));
    }
    if let Some(shared) = shared_columns {
        columns(&path.child("additionalPrinterColumns"), shared, errors);
    }
    if let Some(fields) = shared_fields.and_then(Value::as_array) {
        let schema = versions(spec).next().map_or(&Value::Null, |v| &v["schema"]["openAPIV3Schema"]);
        errors.extend(selectable::fields(&path.child("selectableFields"), fields, schema, options));
    }
    conversion(&path.child("conversion"), spec, errors);
}

fn columns(path: &Path, columns: &Value, errors: &mut ErrorList) {
    for (i, column) in columns.as_array().into_iter().flatten().enumerate() {
        errors.extend(version::column(&path.index(i), column));
    }
}

fn conversion(path: &Path, spec: &Value, errors: &mut ErrorList) {
    let conversion = &spec["conversion"];
    if conversion.is_null() {
        return;
    }
    let strategy = conversion["strategy"].as_str().unwrap_or_default();
    let client = &conversion["webhook"]["clientConfig"];
    let at_client = path.child("webhookClientConfig");
    if strategy != "None" && spec["preserveUnknownFields"] == true {
        let why = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&path.child("strategy"), strategy, why));
    }
    match strategy {
        "" => errors.push(Error::required(&path.child("strategy"), "")),
        "None" | "Webhook" => {}
        other => errors.push(Error::not_supported(&path.child("strategy"), other, &["None", "Webhook"])),
    }
    let reviews: Vec<&str> = conversion["webhook"]["conversionReviewVersions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let at_reviews = path.child("conversionReviewVersions");
    if strategy != "Webhook" {
        let why = "should not be set when strategy is not set to Webhook";
        if client.is_object() {
            errors.push(Error::forbidden(&at_client, why));
        }
        if !reviews.is_empty() {
            errors.push(Error::forbidden(&at_reviews, why));
        }
        return;
    }
    match (client["url"].as_str(), &client["service"]) {
        _ if !client.is_object() => {
            errors.push(Error::required(&at_client, "required when strategy is set to Webhook"));
        }
        (Some(url), Value::Null) => {
            errors.extend(webhook_client::validate_url(&at_client.child("url"), url));
        }
        (None, service @ Value::Object(_)) => {
            errors.extend(webhook_client::validate_service(&at_client.child("service"), service));
        }
        _ => errors.push(Error::required(&at_client, "exactly one of url or service is required")),
    }
    if reviews.is_empty() {
        errors.push(Error::required(&at_reviews, ""));
        return;
    }
    let mut seen = HashSet::new();
    for (i, version) in reviews.iter().enumerate() {
        if !seen.insert(*version) {
            errors.push(Error::invalid(&at_reviews.index(i), *version, "duplicate version"));
            continue;
        }
        for problem in is_dns1035_label(version) {
            errors.push(Error::invalid(&at_reviews.index(i), *version, problem));
        }
    }
    if !reviews.iter().any(|v| matches!(*v, "v1" | "v1beta1")) {
        let why = "must include at least one of v1, v1beta1";
        errors.push(Error::invalid(&at_reviews, BadValue::json(&reviews), why));
    }
}

fn stored_versions(object: &Value, errors: &mut ErrorList) {
    let path = Path::new("status").child("storedVersions");
    let stored = &object["status"]["storedVersions"];
    let list: Vec<&str> = stored.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if list.is_empty() {
        errors.push(Error::invalid(&path, BadValue::json(stored), "must have at least one stored version"));
        return;
    }
    let mut left: HashSet<&str> = list.iter().copied().collect();
    for version in versions(&object["spec"]) {
        // A name that comes twice is there once.
        let name = version["name"].as_str().unwrap_or_default();
        if !left.remove(name) && version["storage"] == true {
            let why = format!("must have the storage version {name}");
            errors.push(Error::invalid(&path, BadValue::json(stored), why));
        }
    }
    for (i, name) in list.iter().enumerate() {
        if !versions(&object["spec"]).any(|v| v["name"] == **name) {
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            errors.push(Error::invalid(&path.index(i), *name, why));
        }
    }
}

/// Whether a group belongs to the community, which wants its API approved.
pub fn is_protected(group: &str) -> bool {
    ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|p| group == *p || group.strip_suffix(p).is_some_and(|g| g.ends_with('.')))
}

/// The state of the approval of a definition's API: its condition's status, reason and message.
pub fn approval_state(object: &Value) -> (&'static str, &'static str, String) {
    let annotation = object["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
    let more = "see https://github.com/kubernetes/enhancements/pull/1111";
    let has_host = annotation
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.is_empty() && !rest.is_empty() && !rest.starts_with('/'));
    if annotation.is_empty() {
        let why = format!("protected groups must have approval annotation {APPROVED:?}, {more}");
        ("False", "MissingAnnotation", why)
    } else if annotation.starts_with("unapproved") {
        ("False", "UnapprovedAnnotation", format!("not approved: {annotation:?}"))
    } else if has_host {
        ("True", "ApprovedAnnotation", format!("approved in {annotation}"))
    } else {
        let why = format!(
            "protected groups must have approval annotation {APPROVED:?} with either a URL or a reason starting with \"unapproved\", {more}"
        );
        ("False", "InvalidAnnotation", why)
    }
}

fn approval(object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    if !is_protected(object["spec"]["group"].as_str().unwrap_or_default()) {
        return;
    }
    let (_, state, why) = approval_state(object);
    if old.is_some_and(|old| approval_state(old).1 == state) {
        return;
    }
    let at = Path::new("metadata").child("annotations").key(APPROVED);
    match state {
        "MissingAnnotation" => errors.push(Error::required(&at, why)),
        "InvalidAnnotation" => {
            let annotation = object["metadata"]["annotations"][APPROVED].as_str().unwrap_or_default();
            errors.push(Error::invalid(&at, annotation, why));
        }
        _ => {}
    }
}

fn preserve(object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let set = |o: &Value| o["spec"]["preserveUnknownFields"] == true;
    if set(object) && !old.is_some_and(set) {
        let why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.push(Error::invalid(&Path::new("spec").child("preserveUnknownFields"), true, why));
    }
}
