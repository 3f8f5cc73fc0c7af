//! The three patches of the API: JSON patch (RFC 6902), merge patch (RFC 7386) and strategic-merge patch.
//!
//! A patch is parsed once and applied as often as the write loop has to run. What comes out is a tree that still has
//! to go through [`crate::decode::normalise`], which is where unknown fields and wrong types of the result are found.

use crate::decode::{self, FieldValidation};
use apimachinery::value::Value;
use std::fmt::Write as _;

mod json;
mod merge;
mod strategic;

pub use json::JsonPatch;
pub use merge::merge;
pub use strategic::strategic;

/// Upstream's limit on the operations of one JSON patch.
pub const MAX_OPERATIONS: usize = 10_000;
/// Upstream's limit on what the copy operations of one JSON patch may add.
pub const MAX_COPY_BYTES: usize = 3 * 1024 * 1024;

/// Which answer a patch that cannot be applied gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchFailure {
    /// 400: the patch itself is malformed.
    BadRequest,
    /// 413: more operations than allowed.
    TooLarge,
    /// 422: the patch does not apply to this object.
    Unprocessable,
    /// 500 upstream, in the words of an internal error.
    Internal,
}

/// A patch that cannot be applied; the words are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatchError {
    pub failure: PatchFailure,
    pub message: String,
}

impl PatchError {
    fn new(failure: PatchFailure, message: impl Into<String>) -> Self {
        PatchError { failure, message: message.into() }
    }

    /// Whether all that is wrong is that a `test` operation did not hold.
    pub fn is_failed_test(&self) -> bool {
        // What is tested for but is not there does not hold either.
        let words = [": test failed", ": missing value"];
        self.failure == PatchFailure::Unprocessable
            && (self.message.ends_with(words[0])
                || self.message.starts_with("error in test for path") && self.message.ends_with(words[1]))
    }
}

/// Parses the body of a merge or strategic-merge patch, which must be an object, and tells duplicate fields.
pub fn parse_object(text: &[u8], validation: FieldValidation) -> Result<decode::Decoded, PatchError> {
    parse_as(text, validation, Wording::MergePatch)
}

/// [`parse_object`] for a strategic-merge patch: upstream words its mistakes otherwise, and takes `null` for nothing.
pub fn parse_strategic(text: &[u8], validation: FieldValidation) -> Result<decode::Decoded, PatchError> {
    parse_as(text, validation, Wording::Strategic)
}

#[derive(PartialEq)]
enum Wording {
    MergePatch,
    Strategic,
}

fn parse_as(
    text: &[u8],
    validation: FieldValidation,
    wording: Wording,
) -> Result<decode::Decoded, PatchError> {
    let prefix = if wording == Wording::MergePatch { "error decoding patch: " } else { "" };
    let bad = |message: String| PatchError::new(PatchFailure::BadRequest, message);
    let mut decoded = decode::free_json(text, validation).map_err(|e| bad(format!("{prefix}{e}")))?;
    let found = match &decoded.value {
        Value::Object(_) => return Ok(decoded),
        Value::Null if wording == Wording::Strategic => {
            decoded.value = Value::Object(Default::default());
            return Ok(decoded);
        }
        Value::Null => return Err(bad("Invalid JSON Patch".into())),
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
    };
    Err(bad(format!(
        "{prefix}json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"
    )))
}

/// A tree as Go prints it with `%v`, for messages.
pub fn go_format(value: &Value) -> String {
    let mut out = String::new();
    go_format_into(&mut out, value);
    out
}

fn go_format_into(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::String(text) => out.push_str(text),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&apimachinery::value::go_general_float(float)),
            None => drop(write!(out, "{value}")),
        },
        Value::Bool(_) => drop(write!(out, "{value}")),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                go_format_into(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push(' ');
                }
                let _ = write!(out, "{key}:");
                go_format_into(out, value);
            }
            out.push(']');
        }
    }
}
