//! Operators on values.

use std::cmp::Ordering;
use std::sync::Arc;

use apimachinery::value::go_general_float;
use base64::Engine;

use super::{Error, Evaluated, List, NO_OVERLOAD, Val, failed};
use crate::time::{MAX_SECONDS, MIN_SECONDS, Timestamp, duration_text};
use crate::types::Type;

const INT_OVERFLOW: Error = failed("integer overflow");
const UINT_OVERFLOW: Error = failed("unsigned integer overflow");
pub(crate) const TIMESTAMP_OVERFLOW: Error = failed("timestamp overflow");
const DIVISION_BY_ZERO: Error = failed("division by zero");
const MODULUS_BY_ZERO: Error = failed("modulus by zero");
const NAN: Error = failed("NaN values cannot be ordered");

/// The whole number that a float is, if it is one and fits.
pub(crate) fn double_to_int(value: f64) -> Option<i64> {
    to_int(value).ok().filter(|whole| *whole as f64 == value)
}

/// Like [`double_to_int`], without a sign.
pub(crate) fn double_to_uint(value: f64) -> Option<u64> {
    to_uint(value).ok().filter(|whole| *whole as f64 == value)
}

fn to_int(value: f64) -> Result<i64, Error> {
    if !value.is_finite() || value <= i64::MIN as f64 || value >= i64::MAX as f64 {
        return Err(INT_OVERFLOW);
    }
    Ok(value as i64)
}

fn to_uint(value: f64) -> Result<u64, Error> {
    if !value.is_finite() || !(0.0..18_446_744_073_709_551_616.0).contains(&value) {
        return Err(UINT_OVERFLOW);
    }
    Ok(value as u64)
}

/// `==`
pub(crate) fn equal<'a>(left: &Val<'a>, right: &Val<'a>) -> Result<bool, Error> {
    Ok(match (left, right) {
        (Val::Null, Val::Null) => true,
        (Val::Null, _) | (_, Val::Null) => false,
        (Val::Bool(a), Val::Bool(b)) => a == b,
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            numbers(left, right) == Some(Ordering::Equal)
        }
        (Val::String(a), Val::String(b)) => **a == **b,
        (Val::Bytes(a), Val::Bytes(b)) => a == b,
        (Val::Duration(a), Val::Duration(b)) => a == b,
        (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b).is_eq(),
        (Val::List(list), _) => list.equals(right)?,
        (Val::Map(map), _) => map.equals(right)?,
        (Val::Type(a), Val::Type(b)) => a.name() == b.name(),
        (Val::Optional(Some(a)), Val::Optional(Some(b))) => equal(a, b)?,
        (Val::Optional(a), Val::Optional(b)) => a.is_none() && b.is_none(),
        (Val::Preserved(a), b) | (b, Val::Preserved(a)) => b.to_json().is_ok_and(|b| **a == b),
        (Val::Object(a), Val::Object(b)) => {
            if a.name != b.name || a.fields.len() != b.fields.len() {
                return Ok(false);
            }
            for (name, value) in &a.fields {
                match b.fields.iter().find(|(other, _)| other == name) {
                    Some((_, other)) if equal(value, other)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Val::Ip(a), Val::Ip(b)) => a == b,
        (Val::Cidr(a), Val::Cidr(b)) => a == b,
        (Val::Url(a), Val::Url(b)) => a.to_string() == b.to_string(),
        (Val::Quantity(a), Val::Quantity(b)) => a == b,
        (Val::Semver(a), Val::Semver(b)) => a.precedence(b).is_eq(),
        (Val::Format(a), Val::Format(b)) => a.name == b.name,
        (
            Val::Ip(_)
            | Val::Cidr(_)
            | Val::Url(_)
            | Val::Quantity(_)
            | Val::Semver(_)
            | Val::Format(_)
            | Val::Authorization(_),
            _,
        ) => return Err(NO_OVERLOAD),
        _ => false,
    })
}

/// The order of two numbers of whatever kind; none beside a NaN.
fn numbers(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => Some(a.cmp(b)),
        (Val::Uint(a), Val::Uint(b)) => Some(a.cmp(b)),
        (Val::Int(a), Val::Uint(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Uint(a), Val::Int(b)) => Some(i128::from(*a).cmp(&i128::from(*b))),
        (Val::Double(a), Val::Double(b)) => a.partial_cmp(b),
        (Val::Double(a), Val::Int(b)) => a.partial_cmp(&(*b as f64)),
        (Val::Double(a), Val::Uint(b)) => a.partial_cmp(&(*b as f64)),
        (_, Val::Double(_)) => numbers(right, left).map(Ordering::reverse),
        _ => None,
    }
}

/// `<` and its kin.
pub(crate) fn compare(left: &Val<'_>, right: &Val<'_>) -> Result<Ordering, Error> {
    match (left, right) {
        (Val::Bool(a), Val::Bool(b)) => Ok(a.cmp(b)),
        (Val::String(a), Val::String(b)) => Ok((**a).cmp(&**b)),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(a.cmp(b)),
        (Val::Duration(a), Val::Duration(b)) => Ok(a.cmp(b)),
        (Val::Timestamp(a), Val::Timestamp(b)) => Ok(a.cmp(b)),
        (Val::Double(value), _) if value.is_nan() => Err(NAN),
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), Val::Int(_) | Val::Uint(_) | Val::Double(_)) => {
            numbers(left, right).ok_or(NAN)
        }
        _ => Err(NO_OVERLOAD),
    }
}

/// Whether values of this kind have an order at all.
pub(crate) const fn is_comparable(value: &Val<'_>) -> bool {
    matches!(
        value,
        Val::Bool(_)
            | Val::Int(_)
            | Val::Uint(_)
            | Val::Double(_)
            | Val::String(_)
            | Val::Bytes(_)
            | Val::Duration(_)
            | Val::Timestamp(_)
    )
}

/// `left op right` is not known for the left operand's kind. Kinds with methods of their own answer for them.
fn unknown(operator: &str, left: &Val<'_>) -> Error {
    match left {
        Val::String(_) | Val::Timestamp(_) | Val::Duration(_) | Val::Optional(_) => NO_OVERLOAD,
        _ => super::failed_with(format!("no such overload: {operator}")),
    }
}

/// `+`
pub(crate) fn add<'a>(left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_add(*b).ok_or(INT_OVERFLOW)?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a.checked_add(*b).ok_or(UINT_OVERFLOW)?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a + b),
        (Val::String(a), Val::String(b)) => Val::from([&**a, &**b].concat()),
        (Val::Bytes(a), Val::Bytes(b)) => Val::Bytes(Arc::from([&**a, &**b].concat())),
        (Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_add(*b).ok_or(INT_OVERFLOW)?),
        (Val::Duration(by), Val::Timestamp(time)) | (Val::Timestamp(time), Val::Duration(by)) => {
            Val::Timestamp(time.plus((*by).into())?)
        }
        (Val::List(a), Val::List(b)) => Val::List(a.plus(b)?),
        (
            Val::Int(_)
            | Val::Uint(_)
            | Val::Double(_)
            | Val::String(_)
            | Val::Bytes(_)
            | Val::Duration(_)
            | Val::Timestamp(_)
            | Val::List(_),
            _,
        ) => return Err(NO_OVERLOAD),
        _ => return Err(unknown("_+_", left)),
    })
}

/// `-`
pub(crate) fn subtract<'a>(left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_sub(*b).ok_or(INT_OVERFLOW)?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a.checked_sub(*b).ok_or(UINT_OVERFLOW)?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a - b),
        (Val::Duration(a), Val::Duration(b)) => Val::Duration(a.checked_sub(*b).ok_or(INT_OVERFLOW)?),
        (Val::Timestamp(time), Val::Duration(by)) => Val::Timestamp(time.plus(-i128::from(*by))?),
        (Val::Timestamp(a), Val::Timestamp(b)) => Val::Duration(a.since(b).ok_or(INT_OVERFLOW)?),
        (Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_) | Val::Timestamp(_), _) => {
            return Err(NO_OVERLOAD);
        }
        _ => return Err(unknown("_-_", left)),
    })
}

/// `*`
pub(crate) fn multiply<'a>(left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    Ok(match (left, right) {
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_mul(*b).ok_or(INT_OVERFLOW)?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a.checked_mul(*b).ok_or(UINT_OVERFLOW)?),
        (Val::Double(a), Val::Double(b)) => Val::Double(a * b),
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), _) => return Err(NO_OVERLOAD),
        _ => return Err(unknown("_*_", left)),
    })
}

/// `/`
pub(crate) fn divide<'a>(left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    Ok(match (left, right) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => return Err(DIVISION_BY_ZERO),
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_div(*b).ok_or(INT_OVERFLOW)?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a / b),
        (Val::Double(a), Val::Double(b)) => Val::Double(a / b),
        (Val::Int(_) | Val::Uint(_) | Val::Double(_), _) => return Err(NO_OVERLOAD),
        _ => return Err(unknown("_/_", left)),
    })
}

/// `%`
pub(crate) fn modulo<'a>(left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    Ok(match (left, right) {
        (Val::Int(_), Val::Int(0)) | (Val::Uint(_), Val::Uint(0)) => return Err(MODULUS_BY_ZERO),
        (Val::Int(a), Val::Int(b)) => Val::Int(a.checked_rem(*b).ok_or(INT_OVERFLOW)?),
        (Val::Uint(a), Val::Uint(b)) => Val::Uint(a % b),
        (Val::Int(_) | Val::Uint(_), _) => return Err(NO_OVERLOAD),
        _ => return Err(unknown("_%_", left)),
    })
}

/// `-value`
pub(crate) fn negate<'a>(value: &Val<'a>) -> Evaluated<'a> {
    Ok(match value {
        Val::Int(value) => Val::Int(value.checked_neg().ok_or(INT_OVERFLOW)?),
        Val::Double(value) => Val::Double(-value),
        Val::Duration(value) => Val::Duration(value.checked_neg().ok_or(INT_OVERFLOW)?),
        Val::Bool(_) => return Err(NO_OVERLOAD),
        _ => return Err(unknown("-_", value)),
    })
}

/// `wanted in container`
pub(crate) fn contains<'a>(wanted: &Val<'a>, container: &Val<'a>) -> Result<bool, Error> {
    match container {
        Val::List(list) => list.contains(wanted),
        Val::Map(map) => Ok(map.find(wanted)?.is_some()),
        _ => Err(NO_OVERLOAD),
    }
}

/// The list with one more element.
pub(crate) fn append<'a>(list: Val<'a>, item: Val<'a>) -> Evaluated<'a> {
    match list {
        Val::List(mut list) if list.is_made() => {
            list.push(item);
            Ok(Val::List(list))
        }
        other => add(&other, &Val::List(List::of(vec![item]))),
    }
}

/// The value as another type: `int("1")`.
pub(crate) fn convert<'a>(value: &Val<'a>, to: &Type) -> Evaluated<'a> {
    let from = value.kind();
    if from.name() == to.name() {
        return Ok(value.clone());
    }
    let wrong = || super::failed_with(format!("type conversion error from '{from}' to '{to}'"));
    if matches!(to, Type::Type(_)) {
        return Ok(Val::Type(from));
    }
    if matches!(to, Type::String) {
        return match value {
            Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Val::from(text.to_owned())),
                Err(_) => Err(failed("invalid UTF-8 in bytes, cannot convert to string")),
            },
            Val::Null => Ok(Val::from("null")),
            Val::Double(value) => Ok(Val::from(go_general_float(*value))),
            Val::Bool(_)
            | Val::Int(_)
            | Val::Uint(_)
            | Val::Duration(_)
            | Val::Timestamp(_)
            | Val::Type(_)
            | Val::Ip(_)
            | Val::Cidr(_) => to_text(value).map(Val::from),
            _ => Err(wrong()),
        };
    }
    Ok(match (value, to) {
        (Val::Int(value), Type::Uint) => Val::Uint((*value).try_into().map_err(|_| UINT_OVERFLOW)?),
        (Val::Int(value), Type::Double) => Val::Double(*value as f64),
        (Val::Int(value), Type::Timestamp) => {
            if !(MIN_SECONDS..=MAX_SECONDS).contains(value) {
                return Err(TIMESTAMP_OVERFLOW);
            }
            Val::Timestamp(Timestamp { seconds: *value, nanos: 0, offset: 0 })
        }
        (Val::Uint(value), Type::Int) => Val::Int((*value).try_into().map_err(|_| INT_OVERFLOW)?),
        (Val::Uint(value), Type::Double) => Val::Double(*value as f64),
        (Val::Double(value), Type::Int) => Val::Int(to_int(*value)?),
        (Val::Double(value), Type::Uint) => Val::Uint(to_uint(*value)?),
        (Val::Duration(value), Type::Int) => Val::Int(*value),
        (Val::Timestamp(time), Type::Int) => Val::Int(time.seconds),
        (Val::String(text), Type::Bytes) => Val::Bytes(Arc::from(text.as_bytes())),
        (Val::String(text), Type::Int) => Val::Int(text.parse().map_err(|_| wrong())?),
        (Val::String(text), Type::Uint) if !text.starts_with('+') => {
            Val::Uint(text.parse().map_err(|_| wrong())?)
        }
        (Val::String(text), Type::Double) => Val::Double(crate::time::parse_float(text).ok_or_else(wrong)?),
        (Val::String(text), Type::Bool) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Val::Bool(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Val::Bool(false),
            _ => return Err(wrong()),
        },
        (Val::String(text), Type::Duration) => {
            Val::Duration(crate::time::parse_duration(text).ok_or_else(wrong)?)
        }
        (Val::String(text), Type::Timestamp) => {
            let time = Timestamp::parse(text).ok_or_else(wrong)?;
            if !(MIN_SECONDS..=MAX_SECONDS).contains(&time.seconds) {
                return Err(TIMESTAMP_OVERFLOW);
            }
            Val::Timestamp(time)
        }
        _ => return Err(wrong()),
    })
}

/// The text that `string()` makes of a value that is none.
pub(crate) fn to_text(value: &Val<'_>) -> Result<String, Error> {
    Ok(match value {
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) => go_general_float(*value),
        Val::String(text) => text.to_string(),
        Val::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        Val::Duration(value) => duration_text(*value),
        Val::Timestamp(time) => time.to_string(),
        Val::Type(value) => value.name().into(),
        Val::Ip(address) => address.to_string(),
        Val::Cidr(prefix) => prefix.to_string(),
        Val::Url(url) => url.to_string(),
        Val::Quantity(quantity) => quantity.to_string(),
        Val::Semver(version) => version.to_string(),
        _ => return Err(NO_OVERLOAD),
    })
}
