//! JSON read by its schema: what a CRD's rule sees as `self`.

use std::sync::Arc;

use apimachinery::value::Value;
use base64::Engine;

use super::{Evaluated, List, Map, Val, failed, failed_with};
use crate::schema::{Schema, SchemaType};
use crate::time::{Timestamp, parse_date, parse_schema_duration};

/// A value of a schema.
pub(crate) fn read<'a>(value: &'a Value, schema: &'a Schema) -> Evaluated<'a> {
    if value.is_null() {
        return match schema.nullable {
            true => Ok(Val::Null),
            false => Err(failed("invalid data, got null for schema with nullable=false")),
        };
    }
    if schema.int_or_string {
        return match Val::from(value) {
            value @ (Val::String(_) | Val::Int(_)) => Ok(value),
            _ => Err(failed("invalid data, expected XIntOrString value to be either a string or integer")),
        };
    }
    let expected = |what: &str| failed_with(format!("invalid data, expected {what}, got {}", go_type(value)));
    match &schema.kind {
        SchemaType::Object => match value {
            Value::Object(map) => Ok(Val::Map(Map::json(map, Some(schema)))),
            _ => Err(failed("invalid data, expected a map for the provided schema with type=object")),
        },
        SchemaType::Array => match (value, &schema.items) {
            (Value::Array(items), Some(_)) => Ok(Val::List(List::json(items, Some(schema)))),
            (Value::Array(_), None) => {
                Err(failed("invalid array type, expected Items with a non-empty Schema"))
            }
            _ => Err(failed("invalid data, expected an array for the provided schema with type=array")),
        },
        SchemaType::String => match value {
            Value::String(text) => string(text, &schema.format),
            _ => Err(expected("string")),
        },
        SchemaType::Number => value.as_f64().map(Val::Double).ok_or_else(|| expected("float")),
        SchemaType::Integer => value.as_i64().map(Val::Int).ok_or_else(|| expected("int")),
        SchemaType::Boolean => value.as_bool().map(Val::Bool).ok_or_else(|| expected("bool")),
        SchemaType::None if schema.preserve_unknown => Ok(Val::Preserved(value)),
        SchemaType::None => Err(failed(
            "invalid type, expected object, array, number, integer, boolean or string, or no type with x-kubernetes-int-or-string or x-kubernetes-preserve-unknown-fields is true, got ",
        )),
    }
}

/// An element of a list of the schema.
pub(crate) fn read_item<'a>(value: &'a Value, list: &'a Schema) -> Evaluated<'a> {
    match &list.items {
        Some(items) => read(value, items),
        None => Err(failed("invalid array type, expected Items with a non-empty Schema")),
    }
}

fn string<'a>(text: &'a str, format: &str) -> Evaluated<'a> {
    match format {
        "duration" => parse_schema_duration(text).map(Val::Duration).ok_or_else(|| {
            failed_with(format!("Invalid duration {text}: unable to parse {text} as duration"))
        }),
        "date" => parse_date(text)
            .map(Val::Timestamp)
            .ok_or_else(|| failed_with(format!("Invalid date formatted string {text}"))),
        "date-time" => Timestamp::parse_lenient(text)
            .map(Val::Timestamp)
            .ok_or_else(|| failed_with(format!("Invalid date-time formatted string {text}"))),
        "byte" => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map(|bytes| Val::Bytes(Arc::from(bytes)))
            .map_err(|_| failed_with(format!("Invalid byte formatted string {text}"))),
        _ => Ok(Val::from(text)),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
