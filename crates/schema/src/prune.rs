//! Drops what a row does not know (structural pruning). Decoding of built-in kinds does so by itself; this is for
//! custom resources, after they were read as free trees.

use crate::row::{Shape, Type, TypeId};
use crate::table::Table;
use apimachinery::value::Value;

/// Drops unknown fields and returns their paths (`spec.foo[0].bar`), in order.
pub fn prune(table: &Table, id: TypeId, value: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    object(table, id, value, &mut String::new(), &mut dropped);
    dropped
}

fn object(table: &Table, id: TypeId, value: &mut Value, path: &mut String, dropped: &mut Vec<String>) {
    let row = table.ty(id);
    let Value::Object(map) = value else { return };
    if row.shape == Shape::Scalar {
        return;
    }
    let length = path.len();
    map.retain(|name, value| {
        if length > 0 {
            path.push('.');
        }
        path.push_str(name);
        let keep = match table.index(id, name) {
            Some(i) => {
                within(table, &row.fields[i].ty, value, path, dropped);
                true
            }
            None if row.shape == Shape::Open => true,
            None => {
                dropped.push(path.clone());
                false
            }
        };
        path.truncate(length);
        keep
    });
}

fn within(table: &Table, ty: &Type, value: &mut Value, path: &mut String, dropped: &mut Vec<String>) {
    // Nothing is known, nothing can be unknown.
    if ty.element().is_none() {
        return;
    }
    let length = path.len();
    match (ty, value) {
        (Type::Ref(id), value) => object(table, *id, value, path, dropped),
        (Type::List(item), Value::Array(items)) => {
            for (i, value) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{i}]"));
                within(table, item, value, path, dropped);
                path.truncate(length);
            }
        }
        (Type::Map(item), Value::Object(map)) => {
            for (name, value) in map {
                path.push('.');
                path.push_str(name);
                within(table, item, value, path, dropped);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
