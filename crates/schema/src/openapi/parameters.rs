//! The parameters of operations, and how a v2 document states each of them once.

use super::descriptions::Descriptions;
use super::schemas::Dialect;
use apimachinery::json;
use apimachinery::value::{Map, Value};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;

/// Query parameters: name and type.
pub(super) type Parameter<'a> = (&'a str, &'a str);

pub(super) const LIST: [Parameter<'_>; 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
pub(super) const DELETE_COLLECTION: [Parameter<'_>; 14] = [
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
];
pub(super) const WRITE: [Parameter<'_>; 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
pub(super) const PATCH: [Parameter<'_>; 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
pub(super) const DELETE: [Parameter<'_>; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];

/// A parameter in the query. `place` is a subresource whose options are its own, `patch`, or nothing.
pub(super) fn in_query(
    words: &Descriptions,
    dialect: Dialect,
    place: &str,
    (name, ty): Parameter<'_>,
) -> Value {
    let words = words.field(&format!("?{place}"), name).or_else(|| words.field("?", name));
    parameter(dialect, "query", name, ty, words.unwrap_or_default())
}

/// A parameter in the path; `kind` is what is named there.
pub(super) fn in_path(words: &Descriptions, dialect: Dialect, name: &str, kind: &str) -> Value {
    let words = match name {
        "name" => format!("name of the {kind}"),
        _ => words.field("/", name).unwrap_or_default().to_owned(),
    };
    parameter(dialect, "path", name, "string", &words)
}

fn parameter(dialect: Dialect, place: &str, name: &str, ty: &str, words: &str) -> Value {
    let mut out = match dialect {
        Dialect::V2 => json!({"name": name, "in": place, "type": ty, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": place, "schema": {"type": ty, "uniqueItems": true}}),
    };
    if !words.is_empty() {
        out["description"] = words.into();
    }
    if place == "path" {
        out["required"] = true.into();
    }
    out
}

/// Moves the parameters that all operations of a path share to the path, as upstream does.
pub(super) fn hoist(path: &mut Value) {
    let Value::Object(path) = path else { return };
    let operations: Vec<&Value> = path.iter().filter(|(k, _)| *k != "parameters").map(|(_, v)| v).collect();
    let parameters = |o: &Value| o["parameters"].as_array().cloned().unwrap_or_default();
    let Some((first, rest)) = operations.split_first() else { return };
    let shared: Vec<Value> = parameters(first)
        .into_iter()
        .filter(|p| p["in"] != "body" && rest.iter().all(|o| parameters(o).contains(p)))
        .collect();
    if shared.is_empty() {
        return;
    }
    for (key, operation) in path.iter_mut() {
        let Value::Object(operation) = operation else { continue };
        if key != "parameters"
            && let Some(Value::Array(parameters)) = operation.get_mut("parameters")
        {
            parameters.retain(|p| !shared.contains(p));
            if parameters.is_empty() {
                operation.remove("parameters");
            }
        }
    }
    if let Value::Array(parameters) = path.entry("parameters").or_insert_with(|| json!([])) {
        parameters.extend(shared);
        parameters.sort_by_key(|p| p["name"].as_str().unwrap_or_default().to_owned());
    }
}

/// Takes the parameters that stand at more than one kind out of the paths of a v2 document, and leaves references to
/// them. They have the names that upstream gives them.
pub(super) fn share(paths: &mut Map) -> Map {
    let mut shared = Map::new();
    let mut one = |parameter: &mut Value| {
        let Some(name) = shared_name(parameter) else { return };
        let reference = json!({ "$ref": format!("#/parameters/{name}") });
        shared.entry(name).or_insert(std::mem::replace(parameter, reference));
    };
    for (key, member) in paths.values_mut().filter_map(Value::as_object_mut).flatten() {
        let listed = if key == "parameters" { Some(member) } else { member.get_mut("parameters") };
        listed.and_then(Value::as_array_mut).into_iter().flatten().for_each(&mut one);
    }
    shared
}

/// The name of a parameter that documents share: its own, and a hash of it as upstream writes it.
fn shared_name(parameter: &Value) -> Option<String> {
    let (name, place) = (parameter["name"].as_str()?, parameter["in"].as_str()?);
    // These speak of a kind, or tell old clients of kubectl what the server can do.
    if matches!((place, name), ("query" | "path", "name") | ("query", "fieldValidation" | "dryRun")) {
        return None;
    }
    let reference = parameter["schema"]["$ref"].as_str();
    if place == "body" && !reference.is_some_and(|r| r.starts_with("#/definitions/io.k8s.apimachinery")) {
        return None;
    }
    const ORDER: [&str; 7] = ["uniqueItems", "type", "description", "name", "in", "required", "schema"];
    let mut text = Vec::new();
    for key in ORDER {
        let Some(value) = parameter.get(key) else { continue };
        text.extend_from_slice(if text.is_empty() { b"{" } else { b"," });
        text.extend_from_slice(format!("\"{key}\":").as_bytes());
        crate::encode::write_value(&mut text, value);
    }
    text.push(b'}');
    // FNV-1, of which a part is enough.
    let fold = |hash: u64, byte: &u8| hash.wrapping_mul(0x0000_0100_0000_01b3) ^ u64::from(*byte);
    let hash = text.iter().fold(0xcbf2_9ce4_8422_2325, fold);
    Some(format!("{name}-{}", URL_SAFE.encode(&hash.to_be_bytes()[..6])))
}
