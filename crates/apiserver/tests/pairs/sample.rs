//! A value for every type, made of what the table says of it.

use apimachinery::json;
use apimachinery::value::Value;
use schema::row::{Field, Shape, Type};
use schema::{Table, TypeId};

/// How deep samples of structs go.
const DEPTH: usize = 5;

/// A plausible value of a field.
pub fn field(table: &Table, field: &Field, depth: usize) -> Value {
    if let (Type::String, Some(first)) = (&field.ty, field.enum_values.first()) {
        return json!(first);
    }
    value(table, &field.ty, depth)
}

/// Types that contain themselves are not looked into a second time.
fn is_recursive(table: &Table, id: TypeId) -> bool {
    table.ty(id).name.ends_with(".JSONSchemaProps")
}

pub fn value(table: &Table, ty: &Type, depth: usize) -> Value {
    match ty {
        Type::String => json!("sample"),
        Type::Bool => json!(true),
        Type::Int32 | Type::Int64 => json!(1),
        Type::Double => json!(1.5),
        Type::Bytes => json!("c2FtcGxl"),
        Type::Time => json!("2030-01-02T03:04:05Z"),
        Type::MicroTime => json!("2030-01-02T03:04:05.000006Z"),
        Type::Quantity => json!("1500m"),
        Type::IntOrString => json!(1),
        Type::Any | Type::Object => json!({"a": "b"}),
        Type::List(inner) => json!([value(table, inner, depth)]),
        Type::Map(inner) => json!({"key": value(table, inner, depth)}),
        Type::Ref(id) if is_recursive(table, *id) => json!({"type": "string"}),
        Type::Ref(id) => object(table, *id, depth + 1),
    }
}

/// A struct with all its fields.
pub fn object(table: &Table, id: TypeId, depth: usize) -> Value {
    let row = table.ty(id);
    if let (Shape::Scalar, Some(scalar)) = (row.shape, &row.scalar) {
        return value(table, scalar, depth);
    }
    if row.name.ends_with(".ObjectMeta") {
        return json!({"labels": {"key": "sample"}, "annotations": {"key": "sample"}});
    }
    if depth > DEPTH {
        return json!({});
    }
    let fields = row.fields.iter().map(|f| (f.name.to_string(), field(table, f, depth)));
    Value::Object(fields.collect())
}
