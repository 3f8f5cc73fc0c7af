//! JSON patch (RFC 6902) as upstream's library has it: negative indices count from the end, what an
//! object lacks is null, and the messages are the library's.

use super::{MAX_COPY_BYTES, MAX_OPERATIONS, PatchError, PatchFailure};
use crate::decode::{self, FieldValidation};
use apimachinery::value::{Map, Value};

#[derive(Debug, Clone, PartialEq)]
struct Operation {
    op: String,
    path: Option<String>,
    from: Option<String>,
    value: Option<Value>,
}

/// A parsed JSON patch.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
    /// What strict field validation says of the patch's text.
    pub strict: Vec<String>,
}

/// Why an operation does not apply: what was tried, then the cause, as Go's wrapped errors read.
struct Failed(String);

fn missing(what: String) -> Failed {
    Failed(format!("{what}: missing value"))
}

impl JsonPatch {
    /// Parses a patch and checks its size.
    pub fn parse(text: &[u8], validation: FieldValidation) -> Result<Self, PatchError> {
        let bad = |message: String| PatchError::new(PatchFailure::BadRequest, message);
        let decoded =
            decode::free_json(text, validation).map_err(|e| bad(format!("error decoding patch: {e}")))?;
        let Value::Array(items) = decoded.value else {
            let found = match decoded.value {
                Value::Object(_) => "object",
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
                _ => return Ok(JsonPatch { operations: Vec::new(), strict: decoded.strict }),
            };
            let (prefix, wanted) = match validation {
                FieldValidation::Ignore => ("", "jsonpatch.Patch"),
                _ => ("error decoding patch: ", "[]handlers.jsonPatchOp"),
            };
            return Err(bad(format!(
                "{prefix}json: cannot unmarshal {found} into Go value of type {wanted}"
            )));
        };
        if items.len() > MAX_OPERATIONS {
            return Err(PatchError::new(
                PatchFailure::TooLarge,
                format!(
                    "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
                    items.len()
                ),
            ));
        }
        let mut strict: Vec<String> = decoded.strict.iter().map(|s| format!("json patch {s}")).collect();
        let mut operations = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let found = match &item {
                Value::Object(_) | Value::Null => "",
                Value::Array(_) => "array",
                Value::String(_) => "string",
                Value::Number(_) => "number",
                Value::Bool(_) => "bool",
            };
            let Value::Object(mut members) = item else {
                let (prefix, wanted) = match validation {
                    FieldValidation::Ignore => ("", "jsonpatch.Operation"),
                    _ => ("error decoding patch: ", "handlers.jsonPatchOp"),
                };
                return Err(bad(format!(
                    "{prefix}json: cannot unmarshal {found} into Go value of type {wanted}"
                )));
            };
            let mut text = |name: &str| match members.remove(name) {
                Some(Value::String(text)) => Some(text),
                _ => None,
            };
            let (op, path, from) = (text("op"), text("path"), text("from"));
            let value = members.remove("value");
            if validation != FieldValidation::Ignore {
                strict
                    .extend(members.keys().map(|name| format!("json patch unknown field \"[{i}].{name}\"")));
            }
            operations.push(Operation { op: op.unwrap_or_else(|| "unknown".into()), path, from, value });
        }
        Ok(JsonPatch { operations, strict })
    }

    /// The objects and lists that the operations go into, as a tree of objects; what is in lists has its place as its name.
    pub fn entered(&self) -> Value {
        let mut root = Value::Object(Map::new());
        for path in self.operations.iter().flat_map(|o| [&o.path, &o.from]).flatten() {
            let Some((above, _)) = path.rsplit_once('/') else { continue };
            let mut at = &mut root;
            for step in above.split('/').skip(1) {
                let Value::Object(members) = at else { break };
                at = members.entry(unescape(step)).or_insert_with(|| Value::Object(Map::new()));
            }
        }
        root
    }

    /// Applies all operations, or fails without saying anything of the document's state.
    pub fn apply(&self, mut doc: Value) -> Result<Value, PatchError> {
        let mut copied = 0;
        for operation in &self.operations {
            operation
                .apply(&mut doc, &mut copied)
                .map_err(|Failed(message)| PatchError::new(PatchFailure::Unprocessable, message))?;
        }
        Ok(doc)
    }
}

impl Operation {
    fn apply(&self, doc: &mut Value, copied: &mut usize) -> Result<(), Failed> {
        let op = self.op.as_str();
        if !matches!(op, "add" | "remove" | "replace" | "move" | "test" | "copy") {
            return Err(Failed(format!("Unexpected kind: {op}")));
        }
        let path = match &self.path {
            Some(path) => path.as_str(),
            None => return Err(missing(format!("{op} operation failed to decode path"))),
        };
        let value = || self.value.clone().unwrap_or(Value::Null);
        match op {
            "add" => {
                let (parent, key) = find(doc, path).ok_or_else(|| {
                    missing(format!("add operation does not apply: doc is missing path: \"{path}\""))
                })?;
                add(parent, &key, value()).map_err(|e| wrap(format!("error in add for path: '{path}'"), e))
            }
            "remove" => {
                let (parent, key) = find(doc, path).ok_or_else(|| {
                    missing(format!("remove operation does not apply: doc is missing path: \"{path}\""))
                })?;
                remove(parent, &key)
                    .map(drop)
                    .map_err(|e| wrap(format!("error in remove for path: '{path}'"), e))
            }
            "replace" if path.is_empty() => match value() {
                whole @ (Value::Object(_) | Value::Array(_)) => {
                    *doc = whole;
                    Ok(())
                }
                _ => Err(Failed("replace operation value must be object or array: %!w(<nil>)".into())),
            },
            "replace" => {
                let (parent, key) = find(doc, path).ok_or_else(|| {
                    missing(format!("replace operation does not apply: doc is missing path: {path}"))
                })?;
                // Of an object, what is not there is as good as null.
                if let Value::Object(map) = parent {
                    map.insert(key, value());
                    return Ok(());
                }
                let present = get_mut(parent, &key).map_err(|_| {
                    missing(format!("replace operation does not apply: doc is missing key: {path}"))
                })?;
                *present = value();
                Ok(())
            }
            "test" => {
                let present = match path {
                    "" => &*doc,
                    _ => {
                        let (parent, key) = find(doc, path).ok_or_else(|| {
                            missing(format!("test operation does not apply: is missing path: {path}"))
                        })?;
                        get(parent, &key).map_err(|e| wrap(format!("error in test for path: '{path}'"), e))?
                    }
                };
                if equal(present, self.value.as_ref().unwrap_or(&Value::Null)) {
                    Ok(())
                } else {
                    Err(Failed(format!("testing value {path} failed: test failed")))
                }
            }
            _ => {
                let from = match &self.from {
                    Some(from) => from.as_str(),
                    None => return Err(missing(format!("{op} operation failed to decode from"))),
                };
                let (parent, key) = find(doc, from).ok_or_else(|| {
                    missing(format!("{op} operation does not apply: doc is missing from path: {from}"))
                })?;
                let taken = if op == "move" {
                    remove(parent, &key).map_err(|e| wrap(format!("error in move for path: '{key}'"), e))?
                } else {
                    let taken = get(parent, &key)
                        .map_err(|e| wrap(format!("error in copy for from: '{from}'"), e))?
                        .clone();
                    *copied += taken.to_string().len();
                    if *copied > MAX_COPY_BYTES {
                        return Err(Failed(format!(
                            "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPY_BYTES}"
                        )));
                    }
                    taken
                };
                let (parent, key) = find(doc, path).ok_or_else(|| {
                    missing(format!("{op} operation does not apply: doc is missing destination path: {path}"))
                })?;
                let what = match op {
                    "copy" => "error while adding value during copy".to_owned(),
                    _ => format!("error in move for path: '{path}'"),
                };
                add(parent, &key, taken).map_err(|e| wrap(what, e))
            }
        }
    }
}

fn wrap(what: String, Failed(cause): Failed) -> Failed {
    Failed(format!("{what}: {cause}"))
}

/// The container that holds the last step of a path, and that step.
fn find<'a>(doc: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let mut steps = path.split_once('/')?.1.split('/');
    let last = steps.next_back()?;
    let mut at = doc;
    for step in steps {
        at = get_mut(at, &unescape(step)).ok()?;
        if !at.is_object() && !at.is_array() {
            return None;
        }
    }
    Some((at, unescape(last)))
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

fn parse_index(key: &str) -> Result<i64, Failed> {
    key.parse().map_err(|_| {
        Failed(format!("strconv.Atoi: parsing {}: invalid syntax", apimachinery::quote::quote(key)))
    })
}

/// The place of an item; negative counts from the end.
fn index(key: &str, length: usize) -> Result<usize, Failed> {
    let i = parse_index(key)?;
    let invalid = || Failed(format!("Unable to access invalid index: {i}: invalid index referenced"));
    let at = if i < 0 { i + length as i64 } else { i };
    usize::try_from(at).ok().filter(|at| *at < length).ok_or_else(invalid)
}

/// As upstream's library gets: what an object does not have is null.
fn get<'a>(container: &'a mut Value, key: &str) -> Result<&'a Value, Failed> {
    match container {
        Value::Object(map) => Ok(map.get(key).unwrap_or(&Value::Null)),
        other => get_mut(other, key).map(|value| &*value),
    }
}

fn get_mut<'a>(container: &'a mut Value, key: &str) -> Result<&'a mut Value, Failed> {
    match container {
        Value::Object(map) => {
            map.get_mut(key).ok_or_else(|| missing(format!("unable to get nonexistent key: {key}")))
        }
        Value::Array(items) => {
            let at = index(key, items.len())?;
            Ok(&mut items[at])
        }
        _ => Err(missing(format!("unable to get nonexistent key: {key}"))),
    }
}

fn add(container: &mut Value, key: &str, value: Value) -> Result<(), Failed> {
    match container {
        Value::Object(map) => {
            map.insert(key.to_owned(), value);
        }
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => {
            parse_index(key).map_err(|e| wrap(format!("value was not a proper array index: '{key}'"), e))?;
            // One past the end is a place too, also for counting from it.
            let at = index(key, items.len() + 1)?;
            items.insert(at, value);
        }
        _ => return Err(Failed("unknown object type".into())),
    }
    Ok(())
}

fn remove(container: &mut Value, key: &str) -> Result<Value, Failed> {
    match container {
        Value::Object(map) => {
            map.remove(key).ok_or_else(|| missing(format!("Unable to remove nonexistent key: {key}")))
        }
        Value::Array(items) => {
            let at = index(key, items.len())?;
            Ok(items.remove(at))
        }
        _ => Err(Failed("unknown object type".into())),
    }
}

/// Equality that does not tell `1` from `1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| equal(v, w)))
        }
        _ => a == b,
    }
}
