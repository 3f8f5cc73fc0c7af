//! The names of a definition, requested and accepted.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::validation::is_dns1035_label;
use apimachinery::value::Value;

fn label(errors: &mut ErrorList, path: &Path, text: &str) {
    let problems = is_dns1035_label(text);
    if !problems.is_empty() {
        errors.push(Error::invalid(path, text, problems.join(",")));
    }
}

/// All that is wrong with names that are there.
pub(super) fn validate(path: &Path, names: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let text = |key: &str| names[key].as_str().unwrap_or_default();
    for key in ["plural", "singular"] {
        if !text(key).is_empty() {
            label(&mut errors, &path.child(key), text(key));
        }
    }
    for key in ["kind", "listKind"] {
        let problems = is_dns1035_label(&text(key).to_lowercase());
        if !text(key).is_empty() && !problems.is_empty() {
            let why = format!("may have mixed case, but should otherwise match: {}", problems.join(","));
            errors.push(Error::invalid(&path.child(key), text(key), why));
        }
    }
    let list = |key: &str| names[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    for (i, name) in list("shortNames").enumerate() {
        label(&mut errors, &path.child("shortNames").index(i), name);
    }
    if !text("kind").is_empty() && text("kind") == text("listKind") {
        let why = "kind and listKind may not be the same";
        errors.push(Error::invalid(&path.child("listKind"), text("listKind"), why));
    }
    for (i, name) in list("categories").enumerate() {
        label(&mut errors, &path.child("categories").index(i), name);
    }
    errors
}
