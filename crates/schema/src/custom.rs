//! Custom resources: a definition's OpenAPI v3 schema compiled to a small table, which the same readers then read.
//!
//! Custom objects are free trees: they are read as they stand, then brought into canonical form here (metadata as the
//! typed struct would leave it, unknown fields dropped, nulls where none may be dropped), and written with sorted
//! keys. What the rows do not say, the limits on values, stands in a tree of [`Check`]s beside them.

use crate::decode::{self, DecodeError, Decoded, FieldValidation};
use crate::row::{Type, TypeId};
use crate::table::Table;
use apimachinery::value::Value;

mod check;
mod columns;
mod compile;
mod embedded;
mod formats;
mod json_path;
mod lists;
mod nulls;
mod pattern;
pub mod structural;
mod validate;

pub use check::{Additional, Check, Kind, Limits, Rule, is_supported_format};
pub use columns::{cell, human_duration};
pub use compile::compile;
pub use json_path::JsonPath;
pub use lists::validate_lists;
pub use pattern::Pattern;
pub use validate::{Ratchet, validate};

pub use embedded::validate_embedded;

/// The name of the metadata's type in a custom table.
pub(crate) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Brings a free tree into the canonical form of its type.
pub(crate) fn canonical(
    table: &Table,
    id: TypeId,
    mut decoded: Decoded,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    decoded = typed(table, id, decoded, validation)?;
    if let Some(checks) = table.checks() {
        nulls::prune(checks, &mut decoded.value);
    }
    Ok(decoded)
}

/// The canonical form, but for nulls where the schema allows none.
pub(crate) fn typed(
    table: &Table,
    id: TypeId,
    decoded: Decoded,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let Decoded { mut value, mut strict } = decoded;
    let Value::Object(map) = &mut value else {
        return Err(DecodeError(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            go_kind(&value)
        )));
    };
    for key in ["kind", "apiVersion"] {
        if let Some(found) = map.get(key).filter(|v| !v.is_string()) {
            return Err(DecodeError(format!(
                ".{key} accessor error: {found} is of the type {}, expected string",
                go_type_of(found)
            )));
        }
    }
    let report = |strict: &mut Vec<String>, more: Vec<String>| {
        for message in more {
            if validation != FieldValidation::Ignore && !strict.contains(&message) {
                strict.push(message);
            }
        }
    };
    if let Some(meta_type) = table.type_named(META)
        && let Some(metadata) = map.remove("metadata")
    {
        let read = decode::normalise_type(table, &Type::Ref(meta_type), metadata, validation)?;
        let prefixed = |text: String| text.replacen("field \"", "field \"metadata.", 1);
        report(&mut strict, read.strict.into_iter().map(prefixed).collect());
        map.insert("metadata", read.value);
    }
    let dropped = crate::prune::prune(table, id, &mut value);
    report(&mut strict, dropped.into_iter().map(|path| format!("unknown field \"{path}\"")).collect());
    if let Some(checks) = table.checks() {
        embedded::coerce(table, checks, &mut value);
    }
    Ok(Decoded { value, strict })
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(_) => "number",
        Value::Bool(_) => "bool",
        Value::Null => "null",
        Value::Object(_) => "object",
    }
}

/// The Go type that a value of a free tree has.
pub(crate) fn go_type_of(value: &Value) -> &'static str {
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
