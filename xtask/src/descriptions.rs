//! What types and fields are for, in the words of the API's own documentation, out of published OpenAPI v2 documents.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

type Descriptions = BTreeMap<String, BTreeMap<String, String>>;

/// `descriptions <swagger.json>...`: `crates/api/data/descriptions-v1.36.json`, from the first document that describes
/// each field. Documents with enumerations come first: they say what each value means.
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
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/data/descriptions-v1.36.json");
    let mut text = serde_json::to_string_pretty(&all)?;
    text.push('\n');
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
