//! Whether an applied object is of its type, down to the last scalar: what merges and what is replaced as a whole alike.
//! The words are upstream's; where it goes through a map in no order, we go by name.

use super::{Node, Typed, field_step, print_path};
use crate::custom::{Check, Kind};
use crate::row::{Field, Shape, Type, TypeRow};
use crate::table::Table;
use apimachinery::value::{Key, Map, Value};
use std::collections::HashSet;

impl Typed<'_> {
    /// Checks an applied object. The error is all that is amiss, each with its path.
    pub fn validate(self, value: &Value) -> Result<(), Vec<String>> {
        let Some(id) = self.ty else { return Ok(()) };
        let mut walk = Walk { table: self.table, path: Vec::new(), errors: Vec::new() };
        let root = Place { ty: &Type::Ref(id), field: None, schema: self.table.checks(), open: false };
        walk.value(root, value);
        if walk.errors.is_empty() { Ok(()) } else { Err(walk.errors) }
    }
}

/// What upstream's schema says of values without parts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scalar {
    String,
    Numeric,
    Boolean,
    Untyped,
}

impl Scalar {
    fn of(ty: &Type) -> Self {
        match ty {
            Type::String | Type::Bytes => Scalar::String,
            Type::Bool => Scalar::Boolean,
            Type::Int32 | Type::Int64 | Type::Double => Scalar::Numeric,
            _ => Scalar::Untyped,
        }
    }

    /// Why a value is none.
    fn refusal(self, value: &Value) -> Option<String> {
        let is_whole = matches!(value, Value::Object(_) | Value::Array(_));
        match self {
            Scalar::String if !value.is_string() => {
                Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value)))
            }
            Scalar::Numeric if !value.is_number() => {
                Some(format!("expected numeric (int or float), got {}", go_type(value)))
            }
            Scalar::Boolean if !value.is_boolean() => {
                Some(format!("expected boolean, got {}", go_value(value)))
            }
            Scalar::Untyped if is_whole => Some(format!("expected any scalar, got {}", go_value(value))),
            _ => None,
        }
    }
}

/// What is known of the place of a value.
#[derive(Clone, Copy)]
struct Place<'a> {
    ty: &'a Type,
    field: Option<&'a Field>,
    /// Of what a definition describes. What has none is of a built-in type.
    schema: Option<&'a Check>,
    /// An object around it keeps what it does not know, which holds for all within.
    open: bool,
}

struct Walk<'a> {
    table: &'a Table,
    path: Vec<Key>,
    errors: Vec<String>,
}

impl<'a> Walk<'a> {
    fn fail(&mut self, why: String) {
        let at = print_path(&self.path);
        self.errors.push(if at.is_empty() { why } else { format!("{at}: {why}") });
    }

    fn below(&mut self, step: Key, place: Place<'a>, value: &Value) {
        self.path.push(step);
        self.value(place, value);
        self.path.pop();
    }

    fn value(&mut self, place: Place<'a>, value: &Value) {
        if value.is_null() {
            return;
        }
        match place.ty {
            Type::Ref(id) => self.named(place, self.table.ty(*id), value),
            Type::Map(element) => {
                let Some(map) = self.map(place, value) else { return };
                for (name, value) in map {
                    let schema = place.schema.and_then(|schema| schema.member(name));
                    let element = Place { ty: element, field: None, schema, ..place };
                    self.below(field_step(name), element, value);
                }
            }
            Type::List(item) => match value {
                Value::Array(items) => self.items(place, item, items),
                _ => self.fail(format!("expected list, got {}", go_value(value))),
            },
            Type::Object if place.schema.is_some() => drop(self.map(place, value)),
            // What is published of them names no type.
            Type::Any | Type::Object | Type::IntOrString => {}
            ty => {
                let is_formatted = place.schema.is_some_and(|schema| schema.formatted);
                let scalar = if is_formatted { Scalar::Untyped } else { Scalar::of(ty) };
                if let Some(why) = scalar.refusal(value) {
                    self.fail(why);
                }
            }
        }
    }

    fn named(&mut self, place: Place<'a>, row: &'a TypeRow, value: &Value) {
        match (row.shape, &row.scalar) {
            (Shape::Scalar, Some(scalar)) => self.value(Place { ty: scalar, ..place }, value),
            (Shape::Object, _) => {}
            _ => {
                // What a definition says of metadata does not make it another type.
                let schema = place.schema.filter(|_| row.name.is_empty());
                let place = Place { schema, ..place };
                if let Some(map) = self.map(place, value) {
                    self.members(place, row, map);
                }
            }
        }
    }

    /// The value as a map; said so where it is none.
    fn map<'v>(&mut self, place: Place<'a>, value: &'v Value) -> Option<&'v Map> {
        let is_free = place.schema.is_some_and(|schema| schema.kind == Kind::Any);
        if !value.is_object() && !is_free {
            self.fail(format!("expected map, got {}", go_value(value)));
        }
        value.as_object()
    }

    fn members(&mut self, place: Place<'a>, row: &'a TypeRow, map: &Map) {
        let schema = place.schema;
        // An object that a definition says nothing of may be any.
        if schema.is_some() && row.fields.is_empty() {
            return;
        }
        let open = place.open && schema.is_some() || row.shape == Shape::Open;
        let mut undeclared = None;
        for (name, value) in map {
            match row.field(name) {
                Some(field) => {
                    let schema = schema.and_then(|schema| schema.property(name));
                    let member = Place { ty: &field.ty, field: Some(field), schema, open };
                    self.below(field_step(name), member, value);
                }
                None => undeclared = undeclared.or(Some(name)),
            }
        }
        // Upstream looks no further than the first of them.
        if let Some(name) = undeclared.filter(|_| !open) {
            self.path.push(field_step(name));
            self.fail("field not declared in schema".into());
            self.path.pop();
        }
    }

    fn items(&mut self, place: Place<'a>, ty: &'a Type, items: &[Value]) {
        let node = Node::of(self.table, place.ty, place.field);
        let schema = place.schema.and_then(|schema| schema.items.as_deref());
        let item = Place { ty, field: None, schema, open: place.open };
        let mut seen = HashSet::new();
        for (i, value) in items.iter().enumerate() {
            let step = match node {
                Node::Set | Node::Keyed(..) => node.step(self.table, value),
                _ => Ok(format!("i:{i}").into()),
            };
            match step {
                // What comes after it is not looked at.
                Err(why) => return self.fail(format!("element {i}: {why}")),
                Ok(step) => {
                    if !seen.insert(step.clone()) {
                        let key = print_path(std::slice::from_ref(&step));
                        self.fail(format!("duplicate entries for key {key}"));
                    }
                    self.below(step, item, value);
                }
            }
        }
    }
}

/// The Go type of a value that is read from JSON.
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

/// A value as Go would write it in a program.
fn go_syntax(value: &Value) -> String {
    use apimachinery::quote::quote;
    match value {
        Value::Null => "interface {}(nil)".into(),
        Value::Bool(_) | Value::Number(_) => crate::patch::go_format(value),
        Value::String(text) => quote(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(go_syntax).collect();
            format!("{}{{{}}}", go_type(value), items.join(", "))
        }
        Value::Object(map) => {
            let members: Vec<String> =
                map.iter().map(|(name, value)| format!("{}:{}", quote(name), go_syntax(value))).collect();
            format!("{}{{{}}}", go_type(value), members.join(", "))
        }
    }
}

/// A value as upstream's validation prints it.
fn go_value(value: &Value) -> String {
    format!("&{{{}}}", crate::patch::go_format(value))
}
