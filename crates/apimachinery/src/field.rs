//! What is wrong with an object, and where: field paths, errors and their lists, in the wording of
//! upstream's `util/validation/field`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

use crate::quote::quote;
use crate::value::to_json_string;

/// The way to a field, as `spec.containers[0].name`. Cheap to extend and to clone; its text is
/// made only when an error needs it.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Step>>);

#[derive(Debug)]
struct Step {
    parent: Path,
    element: Element,
}

#[derive(Debug)]
enum Element {
    Child(Cow<'static, str>),
    Index(usize),
    Key(Box<str>),
}

impl Path {
    /// The path of a root field.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self::none().child(name)
    }

    /// No path at all; upstream's nil. Its children are root fields.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Whether this is [`Path::none`].
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// A field of this one.
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.step(Element::Child(name.into()))
    }

    /// An item of this list.
    pub fn index(&self, index: usize) -> Self {
        self.step(Element::Index(index))
    }

    /// A value of this map.
    pub fn key(&self, key: impl Into<Box<str>>) -> Self {
        self.step(Element::Key(key.into()))
    }

    fn step(&self, element: Element) -> Self {
        Self(Some(Arc::new(Step { parent: self.clone(), element })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut steps = Vec::new();
        let mut path = self;
        while let Some(step) = &path.0 {
            steps.push(&**step);
            path = &step.parent;
        }
        if steps.is_empty() {
            return f.write_str("<nil>");
        }
        for (at, step) in steps.iter().rev().enumerate() {
            match &step.element {
                // As upstream shows a field without a name.
                Element::Child(name) if name.is_empty() => f.write_str("[]")?,
                Element::Child(name) if at == 0 => f.write_str(name)?,
                Element::Child(name) => write!(f, ".{name}")?,
                Element::Index(index) => write!(f, "[{index}]")?,
                Element::Key(key) => write!(f, "[{key}]")?,
            }
        }
        Ok(())
    }
}

impl Drop for Step {
    // Paths into recursive schemas get long; the default drop would recurse.
    fn drop(&mut self) {
        let mut next = self.parent.0.take();
        while let Some(step) = next {
            next = Arc::into_inner(step).and_then(|mut step| step.parent.0.take());
        }
    }
}

/// What kind of mistake it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    TooFew,
    TooShort,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The machine's word, used as the cause in a `Status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TooFew => "FieldValueTooFew",
            Self::TooShort => "FieldValueTooShort",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::TooFew => "Too few",
            Self::TooShort => "Too short",
            Self::Internal => "Internal error",
        })
    }
}

/// The value that was refused, as the message will show it: strings quoted, structs as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BadValue(Option<String>);

impl BadValue {
    /// A value that the message does not show.
    pub const fn omitted() -> Self {
        Self(None)
    }

    /// Any value, as JSON.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        Self(Some(to_json_string(value).unwrap_or_else(|error| error.to_string())))
    }

    /// Text that is shown as it is.
    pub fn verbatim(text: impl Into<String>) -> Self {
        Self(Some(text.into()))
    }
}

impl From<&str> for BadValue {
    fn from(text: &str) -> Self {
        Self(Some(quote(text)))
    }
}

macro_rules! bad_value {
    (quoted: $($ty:ty),+) => {
        $(impl From<$ty> for BadValue {
            fn from(text: $ty) -> Self {
                Self::from(&**text)
            }
        })+
    };
    (plain: $($ty:ty),+) => {
        $(impl From<$ty> for BadValue {
            fn from(value: $ty) -> Self {
                Self(Some(value.to_string()))
            }
        })+
    };
}
bad_value!(quoted: &String, &&str, &Cow<'_, str>, &Box<str>);
bad_value!(plain: i8, i16, i32, i64, isize, u8, u16, u32, u64, usize, bool);

impl From<String> for BadValue {
    fn from(text: String) -> Self {
        Self::from(&*text)
    }
}

impl From<f64> for BadValue {
    fn from(value: f64) -> Self {
        Self(Some(crate::value::go_float(value)))
    }
}

impl From<&crate::value::Value> for BadValue {
    fn from(value: &crate::value::Value) -> Self {
        match value {
            crate::value::Value::String(text) => Self::from(text),
            other => Self::json(other),
        }
    }
}

impl<T: Serialize> From<&[T]> for BadValue {
    fn from(list: &[T]) -> Self {
        Self::json(list)
    }
}

impl<T: Serialize> From<&Vec<T>> for BadValue {
    fn from(list: &Vec<T>) -> Self {
        Self::json(list)
    }
}

impl<T: Into<BadValue>> From<Option<T>> for BadValue {
    fn from(value: Option<T>) -> Self {
        value.map_or_else(|| Self::verbatim("null"), Into::into)
    }
}

/// One mistake in one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of mistake.
    pub kind: ErrorType,
    /// The path of the field.
    pub field: String,
    /// What was there.
    pub bad_value: BadValue,
    /// What would have been right.
    pub detail: String,
}

impl Error {
    fn make(kind: ErrorType, path: &Path, bad_value: BadValue, detail: String) -> Self {
        Self { kind, field: path.to_string(), bad_value, detail }
    }

    /// A reference to something that does not exist.
    pub fn not_found(path: &Path, value: impl Into<BadValue>) -> Self {
        Self::make(ErrorType::NotFound, path, value.into(), String::new())
    }

    /// A value is missing; `detail` may be empty.
    pub fn required(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Required, path, BadValue::omitted(), detail.into())
    }

    /// A value that must be unique is not.
    pub fn duplicate(path: &Path, value: impl Into<BadValue>) -> Self {
        Self::make(ErrorType::Duplicate, path, value.into(), String::new())
    }

    /// A value is malformed; `detail` says what it must be.
    pub fn invalid(path: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Invalid, path, value.into(), detail.into())
    }

    /// A value has the wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<BadValue>, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::TypeInvalid, path, value.into(), detail.into())
    }

    /// A value is none of the supported ones. They are listed in the given order: upstream's callers
    /// sort where the set has no order of its own.
    pub fn not_supported<V: AsRef<str>>(path: &Path, value: impl Into<BadValue>, supported: &[V]) -> Self {
        let detail = if supported.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = supported.iter().map(|value| quote(value.as_ref())).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self::make(ErrorType::NotSupported, path, value.into(), detail)
    }

    /// A value is not allowed here at all.
    pub fn forbidden(path: &Path, detail: impl Into<String>) -> Self {
        Self::make(ErrorType::Forbidden, path, BadValue::omitted(), detail.into())
    }

    /// Text longer than `max` bytes.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::make(ErrorType::TooLong, path, BadValue::omitted(), limit("may not be more than", max, "byte"))
    }

    /// Text longer than `max` characters.
    pub fn too_long_characters(path: &Path, max: usize) -> Self {
        let detail = limit("may not be more than", max, "character");
        Self::make(ErrorType::TooLong, path, BadValue::omitted(), detail)
    }

    /// Text shorter than `min` characters.
    pub fn too_short(path: &Path, min: usize) -> Self {
        Self::make(
            ErrorType::TooShort,
            path,
            BadValue::omitted(),
            limit("must be at least", min, "character"),
        )
    }

    /// A list of more than `max` items; without `actual`, the message does not say how many.
    pub fn too_many(path: &Path, actual: Option<usize>, max: usize) -> Self {
        let actual = actual.map_or(BadValue::omitted(), BadValue::from);
        Self::make(ErrorType::TooMany, path, actual, limit("must have at most", max, "item"))
    }

    /// A list of fewer than `min` items.
    pub fn too_few(path: &Path, actual: usize, min: usize) -> Self {
        Self::make(ErrorType::TooFew, path, actual.into(), limit("must have at least", min, "item"))
    }

    /// Validation itself failed.
    pub fn internal(path: &Path, why: impl fmt::Display) -> Self {
        Self::make(ErrorType::Internal, path, BadValue::omitted(), why.to_string())
    }

    /// The message without the field; the `message` of a cause.
    pub fn body(&self) -> String {
        let mut text = self.kind.to_string();
        if let Some(value) = &self.bad_value.0 {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

fn limit(rule: &str, count: usize, unit: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{rule} {count} {unit}{plural}")
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// Everything that is wrong with an object. It reads like the vector it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorList(pub Vec<Error>);

impl ErrorList {
    /// Nothing wrong yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// `Err` if there is any error.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The message of all errors, each once: one as it is, more as `[a, b]`.
    pub fn aggregate(&self) -> Option<String> {
        aggregate(self.0.iter().map(Error::to_string))
    }
}

/// Several messages as upstream's `utilerrors.Aggregate` joins them.
pub fn aggregate(messages: impl IntoIterator<Item = String>) -> Option<String> {
    let mut seen = HashSet::new();
    let unique: Vec<String> = messages.into_iter().filter(|message| seen.insert(message.clone())).collect();
    match &*unique {
        [] => None,
        [one] => Some(one.clone()),
        many => Some(format!("[{}]", many.join(", "))),
    }
}

impl Deref for ErrorList {
    type Target = Vec<Error>;

    fn deref(&self) -> &Vec<Error> {
        &self.0
    }
}

impl DerefMut for ErrorList {
    fn deref_mut(&mut self) -> &mut Vec<Error> {
        &mut self.0
    }
}

impl From<Vec<Error>> for ErrorList {
    fn from(errors: Vec<Error>) -> Self {
        Self(errors)
    }
}

impl From<Error> for ErrorList {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl Extend<Error> for ErrorList {
    fn extend<I: IntoIterator<Item = Error>>(&mut self, errors: I) {
        self.0.extend(errors);
    }
}

impl FromIterator<Error> for ErrorList {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        Self(errors.into_iter().collect())
    }
}

impl IntoIterator for ErrorList {
    type Item = Error;
    type IntoIter = std::vec::IntoIter<Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a ErrorList {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl fmt::Display for ErrorList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.aggregate().unwrap_or_default())
    }
}

impl std::error::Error for ErrorList {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn errors_read_as_upstream_writes_them() {
        let spec = Path::new("spec");
        let name = spec.child("containers").index(0).child("name");
        let label = Path::new("metadata").child("labels").key("a/b");
        for (error, want) in [
            (Error::required(&name, ""), "spec.containers[0].name: Required value"),
            (Error::forbidden(&Path::new(""), "no"), "[]: Forbidden: no"),
            (
                Error::required(&name, "name is needed"),
                "spec.containers[0].name: Required value: name is needed",
            ),
            (Error::invalid(&label, "a\"b", "no"), r#"metadata.labels[a/b]: Invalid value: "a\"b": no"#),
            (Error::invalid(&spec, -1, "must be positive"), "spec: Invalid value: -1: must be positive"),
            (Error::invalid(&spec, &json!({"a": "<"}), ""), r#"spec: Invalid value: {"a":"\u003c"}"#),
            (Error::invalid(&spec, &json!("s"), "x"), r#"spec: Invalid value: "s": x"#),
            (Error::invalid(&spec, None::<&str>, "x"), "spec: Invalid value: null: x"),
            (Error::type_invalid(&spec, true, "x"), "spec: Invalid value: true: x"),
            (
                Error::not_supported(&spec, "C", &["A", "B"]),
                r#"spec: Unsupported value: "C": supported values: "A", "B""#,
            ),
            (Error::forbidden(&spec, "no"), "spec: Forbidden: no"),
            (Error::duplicate(&spec, "x"), r#"spec: Duplicate value: "x""#),
            (Error::not_found(&spec, "x"), r#"spec: Not found: "x""#),
            (Error::too_long(&spec, 1), "spec: Too long: may not be more than 1 byte"),
            (Error::too_long(&spec, 63), "spec: Too long: may not be more than 63 bytes"),
            (Error::too_many(&spec, Some(3), 2), "spec: Too many: 3: must have at most 2 items"),
            (Error::too_many(&spec, None, 1), "spec: Too many: must have at most 1 item"),
            (Error::too_few(&spec, 0, 1), "spec: Too few: 0: must have at least 1 item"),
            (Error::too_short(&spec, 2), "spec: Too short: must be at least 2 characters"),
            (Error::internal(&Path::none(), "broke"), "<nil>: Internal error: broke"),
        ] {
            assert_eq!(error.to_string(), want);
        }
    }

    #[test]
    fn lists_aggregate_without_repeats() {
        let (a, b) = (Error::required(&Path::new("a"), ""), Error::forbidden(&Path::new("b"), "no"));
        for (errors, want) in [
            (vec![], None),
            (vec![a.clone(), a.clone()], Some("a: Required value")),
            (vec![a.clone(), b.clone(), a], Some("[a: Required value, b: Forbidden: no]")),
        ] {
            assert_eq!(ErrorList(errors).aggregate().as_deref(), want);
        }
    }

    #[test]
    fn a_very_long_path_drops_without_recursion() {
        let long = (0..200_000).fold(Path::none(), |path, at| path.index(at));
        assert!(!long.is_none());
    }
}
