//! The claims of a token, read as Go reads JSON into strings, booleans and lists.

use apimachinery::value::Value;
use cel::value::Val;

pub(super) type Claims = apimachinery::value::Map;

/// What Go calls a JSON value in its errors.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn mismatch(value: &Value, wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go value of type {wanted}", kind(value))
}

fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        other => Err(mismatch(other, "string")),
    }
}

/// A claim that is a string.
pub(super) fn string(claims: &Claims, name: &str) -> Result<String, String> {
    text(claims.get(name).ok_or("claim not present")?)
}

/// A claim that is a boolean.
pub(super) fn boolean(claims: &Claims, name: &str) -> Result<bool, String> {
    match claims.get(name).ok_or("claim not present")? {
        Value::Bool(value) => Ok(*value),
        Value::Null => Ok(false),
        other => Err(mismatch(other, "bool")),
    }
}

/// A claim that is a list of strings, or a single one.
pub(super) fn strings(value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Array(items) => match items.iter().map(text).collect() {
            Ok(all) => Ok(all),
            Err(_) => Err(mismatch(value, "string")),
        },
        Value::Null => Ok(Vec::new()),
        one => Ok(vec![text(one)?]),
    }
}

/// The strings that an expression returned: a string or a list of them; empty ones are none.
pub(super) fn string_list(value: &Val<'_>) -> Result<Vec<String>, String> {
    const WRONG: &str = "expression must return a string or a list of strings";
    let mut all = match value {
        Val::Null => Vec::new(),
        Val::String(one) => vec![one.to_string()],
        Val::List(items) => {
            let mut all = Vec::new();
            for item in items.iter() {
                let item = item.map_err(|e| e.to_string())?;
                all.push(item.as_str().ok_or(WRONG)?.to_owned());
            }
            all
        }
        _ => return Err(WRONG.into()),
    };
    all.retain(|item| !item.is_empty());
    Ok(all)
}
