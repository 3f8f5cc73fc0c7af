//! A JSON value, with what is usual to ask of one: the names are those of `serde_json`.

use super::{Key, Map, Number};
use std::borrow::Cow;
use std::fmt;
use std::ops;

/// A JSON value. It is what `serde_json::Value` is, with another kind of [`Map`]: a third of what a write cost was memory
/// taken and given back for trees of owned names.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Value>),
    Object(Map),
}

impl Value {
    /// A member by its name, or an item by its place.
    pub fn get<I: Index>(&self, index: I) -> Option<&Value> {
        index.index_into(self)
    }

    /// Like [`Value::get`], to be changed.
    pub fn get_mut<I: Index>(&mut self, index: I) -> Option<&mut Value> {
        index.index_into_mut(self)
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    pub fn is_boolean(&self) -> bool {
        matches!(self, Value::Bool(_))
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Value::Number(_))
    }

    pub fn is_i64(&self) -> bool {
        matches!(self, Value::Number(number) if number.is_i64())
    }

    pub fn is_u64(&self) -> bool {
        matches!(self, Value::Number(number) if number.is_u64())
    }

    pub fn is_f64(&self) -> bool {
        matches!(self, Value::Number(number) if number.is_f64())
    }

    pub fn is_string(&self) -> bool {
        matches!(self, Value::String(_))
    }

    pub fn is_array(&self) -> bool {
        matches!(self, Value::Array(_))
    }

    pub fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub fn as_number(&self) -> Option<&Number> {
        match self {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    pub fn as_u64(&self) -> Option<u64> {
        self.as_number()?.as_u64()
    }

    pub fn as_f64(&self) -> Option<f64> {
        self.as_number()?.as_f64()
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_array(&self) -> Option<&Vec<Value>> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Value>> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    pub fn as_object(&self) -> Option<&Map> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    pub fn as_object_mut(&mut self) -> Option<&mut Map> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The value, in whose place a null is left.
    pub fn take(&mut self) -> Value {
        std::mem::take(self)
    }

    /// The value that a JSON pointer (RFC 6901) leads to.
    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        steps(pointer)?.try_fold(self, |at, step| match at {
            Value::Object(members) => members.get(&step),
            Value::Array(items) => items.get(place(&step)?),
            _ => None,
        })
    }

    /// Like [`Value::pointer`], to be changed.
    pub fn pointer_mut(&mut self, pointer: &str) -> Option<&mut Value> {
        steps(pointer)?.try_fold(self, |at, step| match at {
            Value::Object(members) => members.get_mut(&step),
            Value::Array(items) => items.get_mut(place(&step)?),
            _ => None,
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        }
    }
}

/// The steps of a JSON pointer.
fn steps(pointer: &str) -> Option<impl Iterator<Item = String>> {
    let mut steps = pointer.split('/');
    let whole = steps.next() == Some("");
    whole.then(|| steps.map(|step| step.replace("~1", "/").replace("~0", "~")))
}

/// The place that a step names.
fn place(step: &str) -> Option<usize> {
    let plain = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| plain)
}

/// What a value can be asked for: the name of a member, or the place of an item.
pub trait Index {
    #[doc(hidden)]
    fn index_into<'v>(&self, value: &'v Value) -> Option<&'v Value>;
    #[doc(hidden)]
    fn index_into_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value>;
    #[doc(hidden)]
    fn index_or_insert<'v>(&self, value: &'v mut Value) -> &'v mut Value;
}

impl Index for usize {
    fn index_into<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.as_array()?.get(*self)
    }
    fn index_into_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        value.as_array_mut()?.get_mut(*self)
    }
    fn index_or_insert<'v>(&self, value: &'v mut Value) -> &'v mut Value {
        match value {
            Value::Array(items) => {
                let length = items.len();
                items.get_mut(*self).unwrap_or_else(|| panic!("no item {self} in an array of {length}"))
            }
            _ => panic!("no item {self} in what is {}", value.kind()),
        }
    }
}

impl Index for str {
    fn index_into<'v>(&self, value: &'v Value) -> Option<&'v Value> {
        value.as_object()?.get(self)
    }
    fn index_into_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
        value.as_object_mut()?.get_mut(self)
    }
    fn index_or_insert<'v>(&self, value: &'v mut Value) -> &'v mut Value {
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        match value {
            Value::Object(members) => members.entry(self).or_insert(Value::Null),
            _ => panic!("no member {self:?} in what is {}", value.kind()),
        }
    }
}

/// Asked for by what stands for a name or a place.
macro_rules! index {
    ($($ty:ty => [$($of:tt)*]),+ $(,)?) => {$(
        impl<$($of)*> Index for $ty {
            fn index_into<'v>(&self, value: &'v Value) -> Option<&'v Value> {
                (**self).index_into(value)
            }
            fn index_into_mut<'v>(&self, value: &'v mut Value) -> Option<&'v mut Value> {
                (**self).index_into_mut(value)
            }
            fn index_or_insert<'v>(&self, value: &'v mut Value) -> &'v mut Value {
                (**self).index_or_insert(value)
            }
        }
    )+};
}

index!(String => [], Key => [], &T => [T: ?Sized + Index]);

impl<I: Index> ops::Index<I> for Value {
    type Output = Value;
    /// What is not there is null.
    fn index(&self, index: I) -> &Value {
        static NULL: Value = Value::Null;
        index.index_into(self).unwrap_or(&NULL)
    }
}

impl<I: Index> ops::IndexMut<I> for Value {
    /// A member that is not there is made; of null an object is made.
    ///
    /// # Panics
    ///
    /// Where there is no such item, or what is asked for a member is no object.
    fn index_mut(&mut self, index: I) -> &mut Value {
        index.index_or_insert(self)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("Null"),
            Value::Bool(value) => write!(f, "Bool({value})"),
            Value::Number(number) => fmt::Debug::fmt(number, f),
            Value::String(text) => write!(f, "String({text:?})"),
            Value::Array(items) => {
                f.write_str("Array ")?;
                fmt::Debug::fmt(items, f)
            }
            Value::Object(members) => {
                f.write_str("Object ")?;
                fmt::Debug::fmt(members, f)
            }
        }
    }
}

/// JSON text; with `#` over several lines.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text =
            if f.alternate() { serde_json::to_string_pretty(self) } else { serde_json::to_string(self) };
        f.write_str(&text.map_err(|_| fmt::Error)?)
    }
}

impl std::str::FromStr for Value {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text)
    }
}

macro_rules! from_numbers {
    ($($ty:ty)+) => {$(
        impl From<$ty> for Value {
            fn from(number: $ty) -> Self {
                Value::Number(number.into())
            }
        }
    )+};
}

from_numbers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

/// What JSON has no number for is null.
impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Self {
        Value::Number(number)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::String(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::String(text.to_owned())
    }
}

impl From<Cow<'_, str>> for Value {
    fn from(text: Cow<'_, str>) -> Self {
        Value::String(text.into_owned())
    }
}

impl From<Key> for Value {
    fn from(text: Key) -> Self {
        Value::String(text.into())
    }
}

impl From<Map> for Value {
    fn from(members: Map) -> Self {
        Value::Object(members)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Clone + Into<Value>> From<&[T]> for Value {
    fn from(items: &[T]) -> Self {
        items.iter().cloned().collect()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(items: [T; N]) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl From<()> for Value {
    fn from((): ()) -> Self {
        Value::Null
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<Key>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        Value::Object(members.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(number),
            serde_json::Value::String(text) => Value::String(text),
            serde_json::Value::Array(items) => items.into_iter().collect(),
            serde_json::Value::Object(members) => members.into_iter().collect(),
        }
    }
}

impl From<Value> for serde_json::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => serde_json::Value::Bool(value),
            Value::Number(number) => serde_json::Value::Number(number),
            Value::String(text) => serde_json::Value::String(text),
            Value::Array(items) => items.into_iter().map(serde_json::Value::from).collect(),
            Value::Object(members) => {
                let members = members.into_iter();
                members.map(|(key, value)| (String::from(key), serde_json::Value::from(value))).collect()
            }
        }
    }
}

/// Compared to what a scalar is written as.
macro_rules! eq {
    ($($ty:ty: $value:ident, $other:ident => $equal:expr;)+) => {$(
        impl PartialEq<$ty> for Value {
            fn eq(&self, $other: &$ty) -> bool {
                let $value = self;
                $equal
            }
        }
        impl PartialEq<Value> for $ty {
            fn eq(&self, other: &Value) -> bool {
                other == self
            }
        }
    )+};
}

eq! {
    str: value, other => value.as_str() == Some(other);
    &str: value, other => value.as_str() == Some(other);
    String: value, other => value.as_str() == Some(other);
    Key: value, other => value.as_str() == Some(other);
    bool: value, other => value.as_bool() == Some(*other);
    i32: value, other => value.as_i64() == Some(i64::from(*other));
    i64: value, other => value.as_i64() == Some(*other);
    u16: value, other => value.as_u64() == Some(u64::from(*other));
    u32: value, other => value.as_u64() == Some(u64::from(*other));
    u64: value, other => value.as_u64() == Some(*other);
    usize: value, other => value.as_u64() == Some(*other as u64);
    f64: value, other => value.as_f64() == Some(*other);
}

/// Looked at, too: a literal is no reference.
macro_rules! eq_by_reference {
    ($($ty:ty)+) => {$(
        impl PartialEq<$ty> for &Value {
            fn eq(&self, other: &$ty) -> bool {
                **self == *other
            }
        }
    )+};
}

eq_by_reference!(bool i32 i64 u16 u32 u64 usize f64 String);

#[cfg(test)]
mod tests {
    use crate::json;
    use crate::value::Value;

    #[test]
    fn pointers_lead_to_what_they_name() {
        let value = json!({"a": {"b/c": [1, {"~": true}]}, "": 2});
        for (pointer, want) in [
            ("", Some(value.clone())),
            ("/", Some(json!(2))),
            ("/a/b~1c/0", Some(json!(1))),
            ("/a/b~1c/1/~0", Some(json!(true))),
            ("/a/b~1c/01", None),
            ("/a/b~1c/2", None),
            ("/x", None),
            ("a", None),
        ] {
            assert_eq!(value.pointer(pointer), want.as_ref(), "{pointer}");
        }
    }

    #[test]
    fn members_are_made_when_something_is_put_in_them() {
        let mut value = Value::Null;
        value["a"]["b"] = json!([1]);
        value["a"]["b"][0] = json!("x");
        assert_eq!(value, json!({"a": {"b": ["x"]}}));
        assert_eq!(value["a"]["c"]["d"], Value::Null);
        assert_eq!(value["a"]["b"][7], Value::Null);
    }

    #[test]
    fn the_library_writes_and_reads_the_same() {
        let text = r#"{"a":[1,-2,1.5,18446744073709551615,null,true,"\u0001é"],"b":{"c":{}}}"#;
        let (ours, theirs): (Value, serde_json::Value) = (text.parse().unwrap(), text.parse().unwrap());
        assert_eq!(ours.to_string(), theirs.to_string());
        assert_eq!(format!("{ours:#}"), format!("{theirs:#}"));
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
        assert_eq!(Value::from(theirs.clone()), ours);
        assert_eq!(serde_json::Value::from(ours), theirs);
    }
}
