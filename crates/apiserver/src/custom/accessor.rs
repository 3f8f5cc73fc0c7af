//! What stands at a path of an object whose schema may allow anything there, and upstream's words where it is of another
//! type than was looked for.

use apimachinery::value::Value;

/// The whole number at a path; none where nothing is. Refuses what is no number, or is below what is no map.
pub(crate) fn int64(object: &Value, path: &[String]) -> Result<Option<i64>, String> {
    let Some(value) = nested(object, path)? else { return Ok(None) };
    value.as_i64().map(Some).ok_or_else(|| refusal(path, value, "int64"))
}

/// The text at a path; none where nothing is. Refuses what is no text, or is below what is no map.
pub(crate) fn string<'v>(object: &'v Value, path: &[String]) -> Result<Option<&'v str>, String> {
    let Some(value) = nested(object, path)? else { return Ok(None) };
    value.as_str().map(Some).ok_or_else(|| refusal(path, value, "string"))
}

/// Puts a value at a path, and makes the maps on the way to it. Refuses where something else is on the way.
pub(crate) fn set(object: &mut Value, path: &[String], value: Value) -> Result<(), String> {
    let mut at = object;
    for (i, name) in path.iter().enumerate() {
        let Value::Object(map) = at else {
            let way = dotted(&path[..i]);
            return Err(format!("value cannot be set because {way} is not a map[string]interface{{}}"));
        };
        at = map.entry(name.as_str()).or_insert_with(|| Value::Object(Default::default()));
    }
    *at = value;
    Ok(())
}

fn nested<'v>(object: &'v Value, path: &[String]) -> Result<Option<&'v Value>, String> {
    let mut at = object;
    for (i, name) in path.iter().enumerate() {
        match at {
            Value::Null => return Ok(None),
            Value::Object(map) => match map.get(name) {
                Some(value) => at = value,
                None => return Ok(None),
            },
            other => return Err(refusal(&path[..=i], other, "map[string]interface{}")),
        }
    }
    Ok(Some(at))
}

fn refusal(path: &[String], found: &Value, expected: &str) -> String {
    let (path, value, ty) = (dotted(path), shown(found), go_type(found));
    format!("{path} accessor error: {value} is of the type {ty}, expected {expected}")
}

/// A path as messages have it: `.spec.replicas`.
pub(crate) fn dotted(path: &[String]) -> String {
    format!(".{}", path.join("."))
}

/// A value as Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => {
            apimachinery::value::go_float(number.as_f64().unwrap_or_default())
        }
        value => schema::patch::go_format(value),
    }
}

/// The Go type of a value that was read from JSON.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn path(dotted: &str) -> Vec<String> {
        dotted.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn numbers_are_found_or_refused() {
        let check = |object: Value, expected: Result<Option<i64>, &str>| {
            let found = int64(&object, &path("spec.replicas"));
            assert_eq!(found.as_ref().map(|n| *n).map_err(String::as_str), expected, "{object}");
        };
        check(json!({"spec": {"replicas": 3}}), Ok(Some(3)));
        check(json!({"spec": {}}), Ok(None));
        check(json!({"spec": null}), Ok(None));
        let refusal = ".spec.replicas accessor error: <nil> is of the type <nil>, expected int64";
        check(json!({"spec": {"replicas": null}}), Err(refusal));
        let refusal = ".spec.replicas accessor error: 1.5 is of the type float64, expected int64";
        check(json!({"spec": {"replicas": 1.5}}), Err(refusal));
        let refusal = ".spec.replicas accessor error: [1] is of the type []interface {}, expected map[string]interface{}";
        check(json!({"spec": [1]}), Err(refusal));
    }

    #[test]
    fn a_value_is_put_where_maps_are_or_nothing_is() {
        let mut object = json!({"spec": {"a": 1}});
        assert_eq!(set(&mut object, &path("spec.how.replicas"), 2.into()), Ok(()));
        assert_eq!(object, json!({"spec": {"a": 1, "how": {"replicas": 2}}}));
        let refused = set(&mut object, &path("spec.a.replicas"), 2.into());
        assert_eq!(
            refused.unwrap_err(),
            "value cannot be set because .spec.a is not a map[string]interface{}"
        );
    }
}
