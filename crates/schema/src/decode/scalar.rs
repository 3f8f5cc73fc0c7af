//! Text of scalars into canonical text.

use super::Cx;
use crate::row::{Shape, Type};
use crate::table::Table;
use apimachinery::quantity::Quantity;
use apimachinery::time::{MicroTime, Time};
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;

/// What upstream says of a malformed quantity.
pub(super) const QUANTITY_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// How Go would name the type in a message.
pub fn go_type(table: &Table, ty: &Type) -> String {
    match ty {
        Type::String => "string".into(),
        Type::Bool => "bool".into(),
        Type::Int32 => "int32".into(),
        Type::Int64 => "int64".into(),
        Type::Double => "float64".into(),
        Type::Bytes => "[]uint8".into(),
        Type::Time => "v1.Time".into(),
        Type::MicroTime => "v1.MicroTime".into(),
        Type::Quantity => "resource.Quantity".into(),
        Type::IntOrString => "intstr.IntOrString".into(),
        Type::Any => "interface {}".into(),
        Type::Object => "map[string]interface {}".into(),
        Type::List(item) => format!("[]{}", go_type(table, item)),
        Type::Map(item) => format!("map[string]{}", go_type(table, item)),
        Type::Ref(id) => {
            let row = table.ty(*id);
            match (row.shape, &row.scalar) {
                (Shape::Scalar, Some(ty)) => go_type(table, ty),
                _ => {
                    let mut parts = row.name.rsplitn(3, '.');
                    let kind = parts.next().unwrap_or_default();
                    format!("{}.{kind}", parts.next().unwrap_or_default())
                }
            }
        }
    }
}

pub(super) fn bytes(cx: &mut Cx<'_>, text: Cow<'_, str>) -> Value {
    // Go's decoder skips line ends.
    let text = if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], "")) } else { text };
    match STANDARD.decode(text.as_bytes()) {
        Ok(_) => Value::String(text.into_owned()),
        Err(error) => {
            cx.fail(bad_base64(&error, text.len()));
            Value::Null
        }
    }
}

/// What Go says of text of this length that is no base64.
pub(crate) fn bad_base64(error: &base64::DecodeError, length: usize) -> String {
    let at = match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => *at,
        base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => length / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}

fn canonical<T: FromStr<Err: Display> + Display>(
    cx: &mut Cx<'_>,
    text: &str,
    is_zero: fn(&T) -> bool,
) -> Value {
    match text.parse::<T>() {
        Ok(value) if is_zero(&value) => Value::Null,
        Ok(value) => Value::String(value.to_string()),
        Err(error) => {
            cx.fail(error.to_string());
            Value::Null
        }
    }
}

pub(super) fn time(cx: &mut Cx<'_>, text: Cow<'_, str>) -> Value {
    canonical(cx, &text, Time::is_zero)
}

pub(super) fn micro_time(cx: &mut Cx<'_>, text: Cow<'_, str>) -> Value {
    canonical(cx, &text, MicroTime::is_zero)
}

pub(super) fn quantity(cx: &mut Cx<'_>, text: Cow<'_, str>) -> Value {
    let text = text.trim();
    // Of resources no less than a thousandth is told; only these may say less.
    if text.contains(['n', 'u', '.', 'e'])
        && cx.is_resource()
        && let Ok(mut quantity) = text.parse::<Quantity>()
        && !quantity.round_up(-3)
    {
        return Value::String(quantity.to_string());
    }
    canonical(cx, text, |_: &Quantity| false)
}
