//! OpenAPI v2 as the protobuf document (`openapi.v2.Document`) that clients ask for by its own media type.
//!
//! One table of members per message says which JSON member goes under which number, in ascending order.

use crate::protobuf::Back;
use apimachinery::value::{Map, Value};

/// What `Accept` names.
pub const CONTENT_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

type Write = fn(&mut Back, &Value);

enum Kind {
    Text,
    Texts,
    Flag,
    Integer,
    Number,
    /// A free value: its YAML, of which JSON is a part.
    Any,
    Anys,
    Message(Write),
    Messages(Write),
    /// An object as a message of name and value pairs under this number.
    Named(u32, Write),
}
use Kind::*;

type Member = (&'static str, u32, Kind);

const DOCUMENT: &[Member] = &[
    ("swagger", 1, Text),
    ("info", 2, Message(info)),
    ("paths", 8, Named(2, path_item)),
    ("definitions", 9, Named(1, schema)),
    ("parameters", 10, Named(1, parameter)),
    ("security", 12, Messages(security_requirement)),
    ("securityDefinitions", 13, Named(1, security_definition)),
];
const INFO: &[Member] = &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)];
const PATH_ITEM: &[Member] = &[
    ("get", 2, Message(operation)),
    ("put", 3, Message(operation)),
    ("post", 4, Message(operation)),
    ("delete", 5, Message(operation)),
    ("options", 6, Message(operation)),
    ("head", 7, Message(operation)),
    ("patch", 8, Message(operation)),
    ("parameters", 9, Messages(parameters_item)),
];
const OPERATION: &[Member] = &[
    ("tags", 1, Texts),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Texts),
    ("consumes", 7, Texts),
    ("parameters", 8, Messages(parameters_item)),
    ("responses", 9, Named(1, response)),
    ("schemes", 10, Texts),
    ("deprecated", 11, Flag),
];
const BODY_PARAMETER: &[Member] = &[
    ("description", 1, Text),
    ("name", 2, Text),
    ("in", 3, Text),
    ("required", 4, Flag),
    ("schema", 5, Message(schema)),
];
const QUERY_PARAMETER: &[Member] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("format", 7, Text),
    ("uniqueItems", 20, Flag),
];
const PATH_PARAMETER: &[Member] = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("uniqueItems", 19, Flag),
];
const RESPONSE: &[Member] = &[("description", 1, Text), ("schema", 2, Message(schema_item))];
const SCHEMA: &[Member] = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Number),
    ("maximum", 7, Number),
    ("exclusiveMaximum", 8, Flag),
    ("minimum", 9, Number),
    ("exclusiveMinimum", 10, Flag),
    ("maxLength", 11, Integer),
    ("minLength", 12, Integer),
    ("pattern", 13, Text),
    ("maxItems", 14, Integer),
    ("minItems", 15, Integer),
    ("uniqueItems", 16, Flag),
    ("maxProperties", 17, Integer),
    ("minProperties", 18, Integer),
    ("required", 19, Texts),
    ("enum", 20, Anys),
    ("additionalProperties", 21, Message(additional_properties)),
    ("type", 22, Message(type_item)),
    ("items", 23, Message(items_item)),
    ("allOf", 24, Messages(schema)),
    ("properties", 25, Named(1, schema)),
    ("example", 30, Any),
];
const API_KEY: &[Member] = &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)];

/// The document of a JSON one.
pub(super) fn document(value: &Value) -> Vec<u8> {
    let mut out = Back::new();
    members(&mut out, value, DOCUMENT, 16);
    out.into_vec()
}

/// Writes a message backwards: extensions, which have the highest number, then the members.
fn members(out: &mut Back, value: &Value, table: &[Member], extension: u32) {
    let Value::Object(map) = value else { return };
    for (name, value) in map.iter().rev().filter(|(name, _)| name.starts_with("x-")) {
        named(out, extension, name, value, any);
    }
    for (name, tag, kind) in table.iter().rev() {
        if let Some(value) = map.get(name) {
            member(out, *tag, kind, value);
        }
    }
}

fn member(out: &mut Back, tag: u32, kind: &Kind, value: &Value) {
    let items = || value.as_array().into_iter().flatten().rev();
    match kind {
        Text => text(out, tag, value),
        Texts => items().for_each(|item| text(out, tag, item)),
        Flag if value == true => out.int(tag, 1),
        Flag => {}
        Integer => out.int(tag, value.as_i64().unwrap_or_default()),
        Number => out.double(tag, value.as_f64().unwrap_or_default()),
        Any => out.nested(tag, |out| any(out, value)),
        Anys => items().for_each(|item| out.nested(tag, |out| any(out, item))),
        Message(write) => out.nested(tag, |out| write(out, value)),
        Messages(write) => items().for_each(|item| out.nested(tag, |out| write(out, item))),
        Named(inner, write) => out.nested(tag, |out| pairs(out, *inner, value, *write)),
    }
}

fn text(out: &mut Back, tag: u32, value: &Value) {
    if let Some(text) = value.as_str().filter(|t| !t.is_empty()) {
        out.bytes(tag, text.as_bytes());
    }
}

fn named(out: &mut Back, tag: u32, name: &str, value: &Value, write: Write) {
    out.nested(tag, |out| {
        out.nested(2, |out| write(out, value));
        out.bytes(1, name.as_bytes());
    });
}

fn pairs(out: &mut Back, tag: u32, value: &Value, write: Write) {
    let map: &Map = match value {
        Value::Object(map) => map,
        _ => return,
    };
    for (name, value) in map.iter().rev() {
        named(out, tag, name, value, write);
    }
}

fn any(out: &mut Back, value: &Value) {
    let mut yaml = Vec::new();
    crate::encode::write_value(&mut yaml, value);
    yaml.push(b'\n');
    out.bytes(2, &yaml);
}

fn info(out: &mut Back, value: &Value) {
    members(out, value, INFO, 7);
}

fn path_item(out: &mut Back, value: &Value) {
    members(out, value, PATH_ITEM, 10);
}

fn operation(out: &mut Back, value: &Value) {
    members(out, value, OPERATION, 13);
}

/// A reference, or a parameter.
fn parameters_item(out: &mut Back, value: &Value) {
    match value.get("$ref") {
        Some(reference) => out.nested(2, |out| text(out, 1, reference)),
        None => out.nested(1, |out| parameter(out, value)),
    }
}

/// The kind of parameter, and for all but bodies its place.
fn parameter(out: &mut Back, value: &Value) {
    match value["in"].as_str() {
        Some("body") => out.nested(1, |out| members(out, value, BODY_PARAMETER, 6)),
        Some("path") => out.nested(2, |out| out.nested(4, |out| members(out, value, PATH_PARAMETER, 22))),
        _ => out.nested(2, |out| out.nested(3, |out| members(out, value, QUERY_PARAMETER, 23))),
    }
}

fn response(out: &mut Back, value: &Value) {
    out.nested(1, |out| members(out, value, RESPONSE, 5));
}

fn schema_item(out: &mut Back, value: &Value) {
    out.nested(1, |out| schema(out, value));
}

fn schema(out: &mut Back, value: &Value) {
    members(out, value, SCHEMA, 31);
}

fn additional_properties(out: &mut Back, value: &Value) {
    match value {
        Value::Bool(allowed) => out.int(2, i64::from(*allowed)),
        value => out.nested(1, |out| schema(out, value)),
    }
}

fn type_item(out: &mut Back, value: &Value) {
    text(out, 1, value);
}

fn items_item(out: &mut Back, value: &Value) {
    out.nested(1, |out| schema(out, value));
}

fn security_requirement(out: &mut Back, value: &Value) {
    pairs(out, 1, value, |out, scopes| {
        scopes.as_array().into_iter().flatten().rev().for_each(|scope| text(out, 1, scope));
    });
}

fn security_definition(out: &mut Back, value: &Value) {
    out.nested(2, |out| members(out, value, API_KEY, 5));
}
