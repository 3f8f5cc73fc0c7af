//! The fields of a version's objects that selectors may name.

use super::version::Options;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::value::Value;
use std::collections::HashSet;

/// All that is wrong with selectable fields.
pub(super) fn fields(path: &Path, fields: &[Value], schema: &Value, options: Options) -> ErrorList {
    const MOST: usize = 8;
    let mut errors = ErrorList::new();
    let mut seen = HashSet::new();
    for (i, field) in fields.iter().enumerate() {
        let at = path.index(i).child("jsonPath");
        let text = field["jsonPath"].as_str().unwrap_or_default();
        if text.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let found = match find(text, schema) {
            Ok(found) => found,
            Err(why) => {
                errors.push(Error::invalid(&at, text, format!("is an invalid path: {why}")));
                continue;
            }
        };
        if text.split('.').nth(1) == Some("metadata") {
            errors.push(Error::invalid(&at, text, "must not point to fields in metadata"));
        }
        if !matches!(found["type"].as_str(), Some("string" | "boolean" | "integer")) {
            let why = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(Error::invalid(&at, text, why));
        }
        if !seen.insert(text) {
            errors.push(Error::duplicate(&at, text));
        }
    }
    if seen.len() > MOST && !options.allow_many_fields {
        errors.push(Error::too_many(path, Some(seen.len()), MOST));
    }
    errors
}

/// The schema of the field at a path without indices, in which brackets and dots stand for themselves.
fn find<'a>(text: &str, schema: &'a Value) -> Result<&'a Value, String> {
    let delimits = |c: char| matches!(c, '.' | '[' | ']');
    let mut tokens = text
        .split_inclusive(delimits)
        .flat_map(|part| match part.char_indices().next_back() {
            Some((at, last)) if delimits(last) => [&part[..at], &part[at..]],
            _ => [part, ""],
        })
        .filter(|token| !token.is_empty());
    let mut found = schema;
    while let Some(token) = tokens.next() {
        match token {
            "." => {
                let name = tokens.next().ok_or("unexpected end of JSON path")?;
                let inner = match (&found["properties"], &found["additionalProperties"]) {
                    (Value::Object(properties), _) => properties.get(name),
                    (_, inner) => Some(inner).filter(|inner| inner.is_object()),
                };
                found = inner.ok_or("does not refer to a valid field")?;
            }
            "[" => return Err("array notation is not allowed".into()),
            other => return Err(format!("expected [ or . but got: {other}")),
        }
    }
    Ok(found)
}
