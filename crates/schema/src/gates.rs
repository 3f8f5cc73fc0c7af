//! Drops fields whose feature gate is off, unless the stored object already uses the same field somewhere: an object
//! written while the gate was on keeps working. One step for all kinds.

use crate::row::{Type, TypeId};
use crate::table::Table;
use apimachinery::value::Value;
use std::collections::HashSet;

type Fields = HashSet<(TypeId, usize)>;

/// Drops gated-off fields from `new` that `old` does not use.
pub fn drop_disabled(
    table: &Table,
    id: TypeId,
    new: &mut Value,
    old: Option<&Value>,
    enabled: &dyn Fn(&str) -> bool,
) {
    if !table.reaches_gate(id) {
        return;
    }
    let mut used = Fields::new();
    collect(table, id, new, enabled, &mut used);
    if used.is_empty() {
        return;
    }
    if let Some(old) = old {
        let mut kept = Fields::new();
        collect(table, id, old, enabled, &mut kept);
        used.retain(|f| !kept.contains(f));
    }
    if !used.is_empty() {
        remove(table, id, new, &used);
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn collect(table: &Table, id: TypeId, value: &Value, enabled: &dyn Fn(&str) -> bool, used: &mut Fields) {
    let Value::Object(map) = value else { return };
    if !table.reaches_gate(id) {
        return;
    }
    let row = table.ty(id);
    for (name, value) in map {
        let Some(i) = table.index(id, name) else { continue };
        let field = &row.fields[i];
        if let Some(gate) = &field.gate
            && is_set(value)
            && !enabled(gate)
        {
            used.insert((id, i));
        }
        each(&field.ty, value, &mut |id, value| collect(table, id, value, enabled, used));
    }
}

fn each(ty: &Type, value: &Value, visit: &mut dyn FnMut(TypeId, &Value)) {
    match (ty, value) {
        (Type::Ref(id), value) => visit(*id, value),
        (Type::List(item), Value::Array(items)) => items.iter().for_each(|v| each(item, v, visit)),
        (Type::Map(item), Value::Object(map)) => map.values().for_each(|v| each(item, v, visit)),
        _ => {}
    }
}

fn remove(table: &Table, id: TypeId, value: &mut Value, fields: &Fields) {
    let Value::Object(map) = value else { return };
    if !table.reaches_gate(id) {
        return;
    }
    let row = table.ty(id);
    map.retain(|name, value| {
        let Some(i) = table.index(id, name) else { return true };
        if fields.contains(&(id, i)) {
            return false;
        }
        remove_within(table, &row.fields[i].ty, value, fields);
        true
    });
}

fn remove_within(table: &Table, ty: &Type, value: &mut Value, fields: &Fields) {
    match (ty, value) {
        (Type::Ref(id), value) => remove(table, *id, value, fields),
        (Type::List(item), Value::Array(items)) => {
            items.iter_mut().for_each(|v| remove_within(table, item, v, fields));
        }
        (Type::Map(item), Value::Object(map)) => {
            map.values_mut().for_each(|v| remove_within(table, item, v, fields));
        }
        _ => {}
    }
}
