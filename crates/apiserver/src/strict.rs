//! Configuration files, most of them of `apiserver.config.k8s.io`, decoded strictly: YAML or JSON, of a kind and version
//! that is known, without members that nobody reads.

use apimachinery::quote::quote;
use apimachinery::value::Value;

/// What members a value may have.
pub(crate) enum Shape {
    Any,
    List(&'static Shape),
    Object(&'static [(&'static str, Shape)]),
}

const GROUP: &str = "apiserver.config.k8s.io";

/// The value of a file of one kind, in one of the versions.
pub(crate) fn load(text: &str, kind: &str, versions: &[&str], shape: &Shape) -> Result<Value, String> {
    let known: Vec<String> = versions.iter().map(|version| format!("{GROUP}/{version}")).collect();
    let known: Vec<(&str, &str)> = known.iter().map(|version| (version.as_str(), kind)).collect();
    load_known(text, &known, shape)
}

/// The value of a file of one of the kinds, each an `apiVersion` and a `kind`. With [`Shape::Any`] members that nobody reads
/// are passed over.
pub(crate) fn load_known(text: &str, known: &[(&str, &str)], shape: &Shape) -> Result<Value, String> {
    let tree = schema::decode::free_yaml(text, schema::decode::FieldValidation::Strict);
    let tree = tree.map_err(|e| e.to_string())?;
    let value = tree.value;
    let found = value["kind"].as_str().unwrap_or_default();
    if found.is_empty() {
        return Err(format!("Object 'Kind' is missing in '{value}'"));
    }
    let api_version = value["apiVersion"].as_str().unwrap_or_default();
    if !known.contains(&(api_version, found)) {
        return Err(format!("no kind {} is registered for version {}", quote(found), quote(api_version)));
    }
    if matches!(shape, Shape::Any) {
        return Ok(value);
    }
    let mut unknown = tree.strict;
    strange(&value, shape, &mut String::new(), &mut unknown);
    if unknown.is_empty() {
        return Ok(value);
    }
    Err(format!("strict decoding error: {}", unknown.join(", ")))
}

fn strange(value: &Value, shape: &Shape, path: &mut String, unknown: &mut Vec<String>) {
    let length = path.len();
    match (value, shape) {
        (Value::Array(items), Shape::List(of)) => {
            for (at, item) in items.iter().enumerate() {
                path.push_str(&format!("[{at}]"));
                strange(item, of, path, unknown);
                path.truncate(length);
            }
        }
        (Value::Object(members), Shape::Object(known)) => {
            for (name, member) in members {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                match known.iter().find(|(known, _)| known == name) {
                    Some((_, shape)) => strange(member, shape, path, unknown),
                    None => unknown.push(format!("unknown field {}", quote(path))),
                }
                path.truncate(length);
            }
        }
        _ => {}
    }
}
