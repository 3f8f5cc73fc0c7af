//! What types and fields are for, in the words of the API's own documentation, out of published OpenAPI v2 documents.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Descriptions = BTreeMap<String, BTreeMap<String, String>>;

/// `descriptions <swagger.json>...`: `crates/api/data/descriptions-v1.36.json`, from the first document that describes
/// each field. Documents with enumerations come first: they say what each value means. Parameters stand beside the types,
/// under where they are found: `?` in the query, followed by a subresource that has options of its own or by `patch`; `/`
/// in the path.
pub(crate) fn write(documents: impl Iterator<Item = String>) -> Result<()> {
    let mut all = Descriptions::new();
    for path in documents {
        let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let document: Value = serde_json::from_str(&text).with_context(|| path.clone())?;
        let definitions = document["definitions"].as_object().context("no OpenAPI v2 document")?;
        for (name, schema) in definitions {
            let mut note = |field: &str, schema: &Value| {
                if let Some(words) = schema["description"].as_str() {
                    let fields = all.entry(name.clone()).or_default();
                    fields.entry(field.to_owned()).or_insert_with(|| words.to_owned());
                }
            };
            // No field has an empty name: that place is the type's.
            note("", schema);
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                note(field, schema);
            }
        }
        parameters(&document, &mut all);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/data/descriptions-v1.36.json");
    let mut text = serde_json::to_string_pretty(&all)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}

fn parameters(document: &Value, all: &mut Descriptions) {
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let connects = |operation: &Value| operation["x-kubernetes-action"] == "connect";
        let own = item.as_object().is_some_and(|item| item.values().any(connects)) || path.ends_with("/log");
        for (method, operation) in item.as_object().into_iter().flatten() {
            let listed = if method == "parameters" { operation } else { &operation["parameters"] };
            for parameter in listed.as_array().into_iter().flatten() {
                let reference = parameter["$ref"].as_str().and_then(|r| r.strip_prefix("#/parameters/"));
                let parameter = reference.map_or(parameter, |name| &document["parameters"][name]);
                let text = |key: &str| parameter[key].as_str().unwrap_or_default();
                let place = match text("in") {
                    "path" if text("name") != "name" => "/".to_owned(),
                    "query" if own && text("name") != "pretty" => format!("?{}", subresource(path)),
                    "query" if operation["x-kubernetes-action"] == "patch" => "?patch".to_owned(),
                    "query" => "?".to_owned(),
                    _ => continue,
                };
                let words = all.entry(place).or_default();
                words.entry(text("name").to_owned()).or_insert_with(|| text("description").to_owned());
            }
        }
    }
    // What is said of a patch as of everything stands once.
    let general = all.get("?").cloned().unwrap_or_default();
    if let Some(words) = all.get_mut("?patch") {
        words.retain(|name, text| general.get(name) != Some(text));
    }
}

/// `pods/exec`, of `/api/v1/namespaces/{namespace}/pods/{name}/exec`.
fn subresource(path: &str) -> String {
    let path = path.trim_end_matches("/{path}");
    let mut parts = path.rsplitn(4, '/');
    let (sub, _, resource) = (parts.next(), parts.next(), parts.next());
    format!("{}/{}", resource.unwrap_or_default(), sub.unwrap_or_default())
}
