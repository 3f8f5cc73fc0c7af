//! Applies the defaults that stand in rows, into structs and lists that are present, never making one for it.
//! Other defaulting is the typed hooks' work. For custom resources this is all there is; there a `null` gives way to
//! the default unless the field is nullable (always written).

use crate::decode::zero;
use crate::row::{Field, Presence, Type, TypeId};
use crate::table::Table;
use apimachinery::value::Value;

/// Sets what is absent and has a default.
pub fn apply(table: &Table, id: TypeId, value: &mut Value) {
    if !table.reaches_default(id) {
        return;
    }
    let Value::Object(map) = value else { return };
    let row = table.ty(id);
    for (i, default) in table.defaults(id) {
        let field = &row.fields[usize::from(*i)];
        // A zero default of a field that cannot tell absent from zero says nothing: canonical form leaves it out.
        if !field.pointer && field.presence != Presence::Always && *default == zero(table, &field.ty) {
            continue;
        }
        let unset = match map.get(field.name.as_ref()) {
            None => true,
            Some(present) => is_unset(table, field, present),
        };
        if unset {
            map.insert(field.name.as_ref(), default.clone());
        }
    }
    // Walk what is there, not what could be there.
    for (name, value) in map.iter_mut() {
        let Some(i) = table.index(id, name) else { continue };
        within(table, &row.fields[i].ty, value);
    }
}

fn is_unset(table: &Table, field: &Field, value: &Value) -> bool {
    match value {
        Value::Null => !(field.pointer && field.presence == Presence::Always),
        _ => !field.pointer && *value == zero(table, &field.ty),
    }
}

fn within(table: &Table, ty: &Type, value: &mut Value) {
    match (ty, value) {
        (Type::Ref(id), value) => apply(table, *id, value),
        (Type::List(item), Value::Array(items)) if reaches(table, item) => {
            items.iter_mut().for_each(|v| within(table, item, v));
        }
        (Type::Map(item), Value::Object(map)) if reaches(table, item) => {
            map.values_mut().for_each(|v| within(table, item, v));
        }
        _ => {}
    }
}

fn reaches(table: &Table, ty: &Type) -> bool {
    ty.element().is_some_and(|id| table.reaches_default(id))
}
