//! The cells of additional printer columns.

use super::json_path::JsonPath;
use apimachinery::time::Time;
use apimachinery::value::Value;

/// The age of what happened at `then`, as tables show it.
pub fn human_duration(then: Time, now: Time) -> String {
    if then.is_zero() { "<unknown>".to_owned() } else { now.since(then).human() }
}

/// The cell of a column of a type (`string`, `integer`, `number`, `boolean`, `date`); null where there is no value.
pub fn cell(path: &JsonPath, ty: &str, object: &Value, now: Time) -> Value {
    let Some(value) = path.find(object).first().copied() else { return Value::Null };
    match (ty, value) {
        (_, Value::Null) => Value::Null,
        ("string", value) => text(value).into(),
        ("integer", Value::Number(n)) => n.as_i64().or(n.as_f64().map(|f| f as i64)).into(),
        ("number", Value::Number(n)) => n.as_f64().into(),
        ("boolean", Value::Bool(b)) => (*b).into(),
        ("date", Value::String(text)) => match text.parse::<Time>() {
            Ok(then) => human_duration(then, now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// A value as a template would print it: text as it is, lists and maps as JSON.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => {
            let mut out = Vec::new();
            crate::encode::write_value(&mut out, value);
            String::from_utf8(out).unwrap_or_default()
        }
        other => crate::patch::go_format(other),
    }
}
