//! Reading and editing trees, for hooks.

use apimachinery::decode::Decode;
use apimachinery::time::Time;
use apimachinery::value::Value;
use std::collections::BTreeSet;

/// Whether Go would see the zero value: absent, null, empty, 0, false.
fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Bool(b)) => !b,
        Some(Value::Number(n)) => n.as_f64() == Some(0.0),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
    }
}

/// Sets a member that cannot tell absent from zero.
pub(super) fn or(object: &mut Value, key: &str, default: impl Into<Value>) {
    if let Value::Object(map) = object
        && is_zero(map.get(key))
    {
        map.insert(key.to_owned(), default.into());
    }
}

/// Sets a member that can tell absent from zero (a pointer upstream).
pub(super) fn absent_or(object: &mut Value, key: &str, default: impl Into<Value>) {
    if let Value::Object(map) = object
        && matches!(map.get(key), None | Some(Value::Null))
    {
        map.insert(key.to_owned(), default.into());
    }
}

/// The items of a list member.
pub(super) fn each(object: &mut Value, key: &str, f: impl FnMut(&mut Value)) {
    if let Some(Value::Array(items)) = object.get_mut(key) {
        items.iter_mut().for_each(f);
    }
}

/// A member that is there.
pub(super) fn with(object: &mut Value, key: &str, f: impl FnOnce(&mut Value)) {
    if let Some(value @ Value::Object(_)) = object.get_mut(key) {
        f(value);
    }
}

/// Removes a member.
pub(super) fn remove(object: &mut Value, key: &str) {
    if let Value::Object(map) = object {
        map.remove(key);
    }
}

/// The text at a path, empty when there is none.
pub(super) fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a path, 0 when there is none.
pub(super) fn int(object: &Value, path: &[&str]) -> i64 {
    at(object, path).and_then(Value::as_i64).unwrap_or_default()
}

/// The list at a path, empty when there is none.
pub(super) fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What is at a path.
pub(super) fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, key| value.get(key))
}

/// The typed form, without `managedFields`, which no hook reads. Trees that hooks see were decoded by the same rows, so that this cannot fail;
/// should it do so, validation finds an empty object at fault.
pub(super) fn typed<T: Decode + Default>(object: &Value) -> T {
    apimachinery::value::typed(object).unwrap_or_else(|error| {
        debug_assert!(false, "{} of an unfit tree: {error}", std::any::type_name::<T>());
        T::default()
    })
}

/// How long ago a time in the object was, as columns show it.
pub(super) fn age(time: &str, now: Time) -> String {
    time.parse::<Time>().map_or_else(|_| "<unknown>".to_owned(), |then| time_age(then, now))
}

/// How long ago a time was, as kubectl shows it.
pub(super) fn time_age(then: Time, now: Time) -> String {
    if then.is_zero() { "<unknown>".to_owned() } else { now.since(then).human() }
}

/// The age of the object itself.
pub fn object_age(object: &Value, now: Time) -> String {
    age(text(object, &["metadata", "creationTimestamp"]), now)
}

/// The name as a cell.
pub(super) fn name(object: &Value) -> Value {
    text(object, &["metadata", "name"]).into()
}

/// `a,b`, or the word for none.
pub(super) fn joined<'a>(items: impl IntoIterator<Item = &'a str>, none: &str) -> String {
    let text = items.into_iter().collect::<Vec<_>>().join(",");
    if text.is_empty() { none.to_owned() } else { text }
}

/// Where load balancers listen, each once and in order: by address, else by name.
pub(super) fn load_balancers<'a>(ingress: impl Iterator<Item = &'a Value>) -> BTreeSet<&'a str> {
    let address = |i: &'a Value| match text(i, &["ip"]) {
        "" => text(i, &["hostname"]),
        ip => ip,
    };
    ingress.map(address).filter(|address| !address.is_empty()).collect()
}

/// Labels or a selector map as columns show them.
pub(super) fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let mut pairs: Vec<String> =
        pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    pairs.sort();
    joined(pairs.iter().map(String::as_str), "<none>")
}

/// A column; wide ones have priority 1.
pub(super) const fn column(
    name: &'static str,
    ty: &'static str,
    priority: i32,
    description: &'static str,
) -> super::Column {
    let format = match name.as_bytes() {
        b"Name" | b"Attacher" => "name",
        _ => "",
    };
    super::Column { name, ty, format, priority, description }
}

/// Text, or the word for none.
pub(super) fn or_none<'a>(text: &'a str, none: &'a str) -> Value {
    if text.is_empty() { none.into() } else { text.into() }
}
