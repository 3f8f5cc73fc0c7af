//! JSON and YAML text to a `Value` in canonical form: exactly what Go's decoding into the typed struct and encoding
//! it again would leave. Known fields only, zero values as the row's presence says, times and quantities canonical.
//!
//! One pass: a serde seed carries the row along the parser. What strict field validation would report (unknown and
//! duplicate fields) is collected with its path; the first type mismatch is remembered in Go's words while the rest of
//! the text is still checked for syntax. Custom resources are read with [`free_json`] and pruned afterwards.

use crate::row::{Field, Presence, Shape, Type, TypeId, TypeRow};
use crate::table::Table;
use apimachinery::value::{Key, Value};
use std::fmt::Write as _;

mod scalar;
mod surrogates;
mod syntax;
mod visit;
mod yaml;
mod yaml_keys;

pub(crate) use scalar::bad_base64;
pub use scalar::go_type;
pub use surrogates::without_halves;

/// The `fieldValidation` parameter of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A decoded object and what strict field validation has to say about its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// `unknown field "spec.foo"`, `duplicate field "spec.x"`; empty with [`FieldValidation::Ignore`].
    pub strict: Vec<String>,
}

/// Text that cannot be read as the wanted type; the words are Go's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

/// What upstream says of a strict request with unknown or duplicate fields.
pub fn strict_message(strict: &[String]) -> String {
    format!("strict decoding error: {}", strict.join(", "))
}

/// Decodes JSON as a type of the table.
pub fn json(
    table: &Table,
    id: TypeId,
    text: &[u8],
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if table.checks().is_some() {
        return crate::custom::canonical(table, id, free_json(text, validation)?, validation);
    }
    let mut cx = Cx::new(table, validation);
    let ty = Type::Ref(id);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = serde::de::DeserializeSeed::deserialize(visit::Typed { cx: &mut cx, ty: &ty }, &mut parser)
        .and_then(|value| parser.end().map(|()| value))
        .map_err(|error| syntax(&error, text))?;
    cx.finish(value)
}

/// Decodes YAML (of which JSON is a part) as a type of the table.
pub fn yaml(
    table: &Table,
    id: TypeId,
    text: &str,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if looks_like_json(text.as_bytes()) {
        return json(table, id, text.as_bytes(), validation);
    }
    let value = free_yaml(text, validation)?;
    let mut decoded = normalise(table, id, value.value, validation)?;
    decoded.strict.splice(0..0, value.strict);
    Ok(decoded)
}

/// Brings a tree (a patched object, a webhook's answer) into the canonical form of its type.
pub fn normalise(
    table: &Table,
    id: TypeId,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    if table.checks().is_some() {
        let decoded = Decoded { value, strict: Vec::new() };
        return crate::custom::canonical(table, id, decoded, validation);
    }
    normalise_type(table, &Type::Ref(id), value, validation)
}

/// [`normalise`] of what an apply has made: a custom resource keeps the nulls in it, for validation to judge. Upstream drops
/// them where it reads an object, and reads none here.
pub fn normalise_applied(table: &Table, id: TypeId, value: Value) -> Result<Decoded, DecodeError> {
    if table.checks().is_some() {
        let decoded = Decoded { value, strict: Vec::new() };
        return crate::custom::typed(table, id, decoded, FieldValidation::Ignore);
    }
    normalise_type(table, &Type::Ref(id), value, FieldValidation::Ignore)
}

/// [`normalise`] for any type, as the metadata of a custom resource.
pub fn normalise_type(
    table: &Table,
    ty: &Type,
    value: Value,
    validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    let mut cx = Cx::new(table, validation);
    let value = serde::de::DeserializeSeed::deserialize(visit::Typed { cx: &mut cx, ty }, value)
        .map_err(|error| DecodeError(error.to_string()))?;
    cx.finish(value)
}

/// Decodes JSON without a type: nothing dropped, integers and floats apart, duplicates reported.
pub fn free_json(text: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let table = Table::empty();
    let mut cx = Cx::new(table, validation);
    let mut parser = serde_json::Deserializer::from_slice(text);
    let value = serde::de::DeserializeSeed::deserialize(visit::Free { cx: &mut cx }, &mut parser)
        .and_then(|value| parser.end().map(|()| value))
        .map_err(|error| syntax(&error, text))?;
    cx.finish(value)
}

/// Decodes one YAML document without a type, as kubectl would turn it into JSON.
pub fn free_yaml(text: &str, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    if looks_like_json(text.as_bytes()) {
        return free_json(text.as_bytes(), validation);
    }
    yaml::free(text, validation)
}

/// Decodes what is YAML by its media type, JSON included: the first document, as YAML has it.
pub fn yaml_body(text: &str, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    yaml::readable(text)?;
    let text = yaml::first_document(text)?;
    if looks_like_json(text.as_bytes())
        && let Ok(mut decoded) = free_json(text.as_bytes(), validation)
    {
        if !decoded.strict.is_empty() {
            decoded.strict = vec![yaml_keys::complaint(text)];
        }
        return Ok(decoded);
    }
    yaml::free(text, validation).map_err(|DecodeError(why)| {
        DecodeError(why.strip_prefix("error converting YAML to JSON: ").map_or(why.clone(), str::to_owned))
    })
}

/// Decodes what is YAML by its media type, JSON included: keys that stand twice are told by line even there.
pub fn yaml_document(text: &str, validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let mut decoded = free_yaml(text, validation)?;
    if !decoded.strict.is_empty() {
        let why = yaml_keys::complaint(text);
        decoded.strict = vec![format!("error converting YAML to JSON: {why}")];
    }
    Ok(decoded)
}

/// Whether text is JSON rather than YAML, judged as upstream does: by the first byte that is not white space.
pub fn looks_like_json(text: &[u8]) -> bool {
    text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'{')
}

/// The `apiVersion` and `kind` of an object's JSON, in that order; empty where they are absent. The whole text is
/// checked, as it is before anything else is made of it.
pub fn type_meta(text: &[u8]) -> Result<(String, String), DecodeError> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    serde::de::Deserializer::deserialize_any(&mut parser, visit::TypeMeta)
        .and_then(|meta| parser.end().map(|()| meta))
        .map_err(|error| syntax(&error, text))?
        .map_err(DecodeError)
}

fn syntax(error: &serde_json::Error, text: &[u8]) -> DecodeError {
    DecodeError(match syntax::mistake(text) {
        Some(mistake) => mistake,
        None if apimachinery::value::json_depth(text) >= 128 => "exceeded max depth".into(),
        None if error.to_string().starts_with("number out of range") => out_of_range(error, text),
        None => error.to_string(),
    })
}

/// A number that no float holds.
fn out_of_range(error: &serde_json::Error, text: &[u8]) -> String {
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let end = error.column().min(line.len());
    let before = line[..end].iter().rev().take_while(|byte| is_number(byte)).count();
    let after = line[end..].iter().take_while(|byte| is_number(byte)).count();
    let number = String::from_utf8_lossy(&line[end - before..end + after]);
    format!("json: cannot unmarshal number {number} into Go value of type float64")
}

/// One step from an object to a part of it.
enum Seg<'t> {
    Field(&'t str, &'t TypeRow),
    Key(Key),
    Index(usize),
}

/// Upstream stops collecting there, lest a hostile object fill the memory with complaints.
const MAX_STRICT: usize = 100;

/// What a decoding pass carries along.
struct Cx<'t> {
    table: &'t Table,
    path: Vec<Seg<'t>>,
    report: bool,
    strict: Vec<String>,
    /// The first mismatch: later ones are not told, as in Go.
    error: Option<String>,
}

impl<'t> Cx<'t> {
    fn new(table: &'t Table, validation: FieldValidation) -> Self {
        Cx {
            table,
            path: Vec::with_capacity(16),
            report: validation != FieldValidation::Ignore,
            strict: Vec::new(),
            error: None,
        }
    }

    /// The type of schemas, where a schema may stand.
    fn schema_here(&self, ty: &Type) -> Option<&'t Type> {
        let Some(Seg::Field(name, row)) = self.path.last() else { return None };
        row.schema_in(name, ty)
    }

    fn finish(self, value: Value) -> Result<Decoded, DecodeError> {
        match self.error {
            Some(error) => Err(DecodeError(error)),
            None => Ok(Decoded { value, strict: self.strict }),
        }
    }

    /// `spec.containers[0].name`.
    fn path(&self, last: &str) -> String {
        let mut out = String::new();
        for seg in &self.path {
            match seg {
                Seg::Index(i) => {
                    let _ = write!(out, "[{i}]");
                    continue;
                }
                Seg::Field(name, _) => push_step(&mut out, name),
                Seg::Key(name) => push_step(&mut out, name),
            }
        }
        push_step(&mut out, last);
        out
    }

    #[cold]
    fn strict(&mut self, what: &str, field: &str) {
        if self.report && self.strict.len() < MAX_STRICT {
            let message = format!("{what} field \"{}\"", self.path(field));
            if !self.strict.contains(&message) {
                self.strict.push(message);
            }
        }
    }

    /// Whether what is read is an amount in a list of resources.
    fn is_resource(&self) -> bool {
        let [.., Seg::Field(name, row), Seg::Key(_)] = self.path.as_slice() else { return false };
        row.field(name).and_then(|field| field.go).is_some_and(|go| go.ty == "v1.ResourceList")
    }

    #[cold]
    fn fail(&mut self, message: String) {
        self.error.get_or_insert(message);
    }

    /// Go's `UnmarshalTypeError`: names the innermost struct and the fields on the way, without list indices.
    #[cold]
    fn mismatch(&mut self, found: &str, wanted: &str) {
        if self.error.is_some() {
            return;
        }
        let mut fields = String::new();
        let (mut owner, mut named) = (None, None);
        for seg in &self.path {
            match seg {
                Seg::Field(name, row) => {
                    let go = row.field(name).and_then(|field| field.go);
                    let within = go.map_or("", |go| go.within);
                    if !within.is_empty() {
                        push_step(&mut fields, within);
                    }
                    push_step(&mut fields, name);
                    owner = Some(*row);
                    named = go.map(|go| go.ty).filter(|ty| !ty.is_empty());
                }
                _ => named = named.and_then(element),
            }
        }
        let wanted = named.unwrap_or(wanted);
        self.error = Some(match owner {
            Some(row) => {
                let owner = row.name.rsplit('.').next().unwrap_or_default();
                format!(
                    "json: cannot unmarshal {found} into Go struct field {owner}.{fields} of type {wanted}"
                )
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {wanted}"),
        });
    }
}

/// What Go's lists and maps of this name are made of.
pub(crate) fn element(ty: &'static str) -> Option<&'static str> {
    let element = ty.strip_prefix("[]").or_else(|| Some(ty.strip_prefix("map[")?.split_once(']')?.1));
    element.map(|ty| ty.trim_start_matches('*'))
}

fn push_step(out: &mut String, step: &str) {
    if !out.is_empty() {
        out.push('.');
    }
    out.push_str(step);
}

/// What stands in the canonical form for a field that is absent: nothing, or what Go writes all the same.
pub fn missing(table: &Table, field: &Field) -> Option<Value> {
    match (field.pointer, field.presence) {
        (true, Presence::Always) => Some(Value::Null),
        (true, _) | (_, Presence::OmitZero) => None,
        (false, Presence::Always) => Some(zero(table, &field.ty)),
        // Go never takes a struct for empty, nor what marshals itself.
        (false, Presence::OmitEmpty) => match &field.ty {
            Type::Ref(_)
            | Type::Time
            | Type::MicroTime
            | Type::Quantity
            | Type::IntOrString
            | Type::Any
            | Type::Object => Some(zero(table, &field.ty)),
            _ => None,
        },
    }
}

/// The zero value of a type, as Go writes it.
pub fn zero(table: &Table, ty: &Type) -> Value {
    match ty {
        // A free tree has what it was given, and nothing else.
        Type::Ref(_) if table.checks().is_some() => Value::Object(Default::default()),
        Type::String => Value::String(String::new()),
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::Double | Type::IntOrString => Value::from(0),
        Type::Quantity => Value::from("0"),
        Type::Bytes
        | Type::Time
        | Type::MicroTime
        | Type::Any
        | Type::Object
        | Type::List(_)
        | Type::Map(_) => Value::Null,
        Type::Ref(id) => {
            let row = table.ty(*id);
            match (row.shape, &row.scalar) {
                (Shape::Scalar, Some(scalar)) => zero(table, scalar),
                _ => Value::Object(
                    table
                        .filled(*id)
                        .iter()
                        .map(|i| &row.fields[usize::from(*i)])
                        .filter_map(|f| Some((f.name.as_ref(), missing(table, f)?)))
                        .collect(),
                ),
            }
        }
    }
}

/// Whether Go would leave a present value of this field out.
pub fn omitted(table: &Table, field: &Field, value: &Value) -> bool {
    if field.pointer {
        return value.is_null() && field.presence != Presence::Always;
    }
    match field.presence {
        Presence::Always => false,
        Presence::OmitZero => *value == zero(table, &field.ty) || value.is_null(),
        Presence::OmitEmpty => match (&field.ty, value) {
            (Type::String | Type::Bytes, Value::String(s)) => s.is_empty(),
            (Type::Bool, Value::Bool(b)) => !b,
            (Type::Int32 | Type::Int64 | Type::Double, Value::Number(n)) => n.as_f64() == Some(0.0),
            (Type::List(_), Value::Array(items)) => items.is_empty(),
            (Type::Map(_), Value::Object(map)) => map.is_empty(),
            (
                Type::String | Type::Bytes | Type::Bool | Type::Int32 | Type::Int64 | Type::Double,
                Value::Null,
            ) => true,
            (Type::List(_) | Type::Map(_), Value::Null) => true,
            _ => false,
        },
    }
}
