//! What the files of a directory declare. In: text. Out: objects that can be applied.

use apimachinery::value::Value;
use schema::decode::{FieldValidation, yaml_document};
use std::fmt;

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub api_version: String,
    pub kind: String,
    /// As written; empty where nothing is.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Key { api_version, kind, namespace, name } = self;
        match namespace.as_str() {
            "" => write!(f, "{api_version} {kind} {name}"),
            namespace => write!(f, "{api_version} {kind} {namespace}/{name}"),
        }
    }
}

/// An object as a file declares it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Declared {
    pub key: Key,
    pub object: Value,
}

/// The objects of a file, in order: YAML documents or JSON, members of lists one by one.
pub(super) fn read(text: &str) -> Result<Vec<Declared>, String> {
    let mut all = Vec::new();
    for (number, document) in documents(text).into_iter().enumerate() {
        let found = (|| {
            let decoded =
                yaml_document(document, FieldValidation::Strict).map_err(|error| error.to_string())?;
            match decoded.strict.is_empty() {
                true => declare(decoded.value, &mut all),
                false => Err(decoded.strict.join(", ")),
            }
        })();
        found.map_err(|why| format!("document {}: {why}", number + 1))?;
    }
    Ok(all)
}

/// Parts between lines of `---` that hold more than comments.
fn documents(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut at) = (Vec::new(), 0, 0);
    for line in text.split_inclusive('\n') {
        let parts_here = line.strip_prefix("---").is_some_and(|rest| {
            rest.trim_end().is_empty() || rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#')
        });
        if parts_here {
            parts.push(&text[from..at]);
            from = at + line.len();
        }
        at += line.len();
    }
    parts.push(&text[from..]);
    let says_something =
        |part: &&str| part.lines().map(str::trim).any(|line| !line.is_empty() && !line.starts_with('#'));
    parts.into_iter().filter(says_something).collect()
}

fn declare(mut object: Value, all: &mut Vec<Declared>) -> Result<(), String> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    if api_version.is_empty() || kind.is_empty() {
        return Err("apiVersion and kind are required".into());
    }
    if kind.ends_with("List") && object["items"].is_array() {
        let Value::Array(items) = object["items"].take() else { return Ok(()) };
        return items.into_iter().try_for_each(|item| declare(item, all));
    }
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    if name.is_empty() {
        return Err(format!("{kind}: metadata.name is required"));
    }
    all.push(Declared { key: Key { api_version, kind, namespace, name }, object });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> String {
        match read(text) {
            Err(why) => why,
            Ok(all) => all.iter().map(|d| d.key.to_string()).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn documents_and_lists_are_taken_apart() {
        let text = "# first\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n--- # and\napiVersion: v1\nkind: List\n\
            items:\n- apiVersion: v1\n  kind: ConfigMap\n  metadata: {name: b, namespace: a}\n- {apiVersion: apps/v1, kind: Deployment, metadata: {name: c}}\n---\n\n";
        assert_eq!(told(text), "v1 Namespace a; v1 ConfigMap a/b; apps/v1 Deployment c");
        assert_eq!(
            told(r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "d"}}"#),
            "v1 Secret d"
        );
        assert_eq!(told(""), "");
    }

    #[test]
    fn what_is_no_object_is_told_by_document() {
        let first = "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\n";
        for (second, why) in [
            ("kind: X\n", "document 2: apiVersion and kind are required"),
            (
                "apiVersion: v1\nkind: X\nmetadata: {generateName: x-}\n",
                "document 2: X: metadata.name is required",
            ),
            ("a: [\n", "document 2: error converting YAML to JSON"),
            (
                "a: 1\na: 2\n",
                "document 2: error converting YAML to JSON: yaml: unmarshal errors:\n  line 2: key \"a\" already set in map",
            ),
        ] {
            let said = told(&format!("{first}{second}"));
            assert!(said.starts_with(why), "{said}");
        }
    }
}
