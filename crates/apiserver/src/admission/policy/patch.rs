//! What a mutation's expression evaluated to, applied to an object: an apply configuration or a JSON patch.

use crate::resources::Served;
use apimachinery::json;
use apimachinery::value::{Map, Value};
use cel::value::{List, Object, Val};
use schema::apply::Typed;
use schema::decode::FieldValidation;
use schema::patch::JsonPatch;

/// Merges an `Object{…}` into an object of a served version.
pub(super) fn apply_configuration(object: &Value, made: &Val<'_>, served: &Served) -> Result<Value, String> {
    let Val::Object(made) = made else {
        return Err(format!("unsupported return type from ApplyConfiguration expression: {}", made.kind()));
    };
    let mut wrong = Vec::new();
    check_names(made, &["Object".to_owned()], &mut wrong);
    if !wrong.is_empty() {
        return Err(format!("type mismatch: {}", wrong.join("\n")));
    }
    let mut patch = Val::Object(made.clone()).to_json().map_err(|error| error.to_string())?;
    for key in ["apiVersion", "kind"] {
        patch[key] = object[key].clone();
    }
    let typed = Typed { table: &served.table, ty: Some(served.ty) };
    let failed = |what: &str| format!("error applying patch: {what}");
    typed.validate(&patch).map_err(|errors| {
        failed(&format!("failed to convert patch object to typed object: {}", errors.join("\n")))
    })?;
    let atomics = typed.atomics(&patch);
    if !atomics.is_empty() {
        return Err(failed(&format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
            atomics.join(", ")
        )));
    }
    Ok(typed.merge(object, &patch))
}

/// The name of a made object's type must be the way that leads to it.
fn check_names(object: &Object<'_>, path: &[String], wrong: &mut Vec<String>) {
    let expected = path.join(".");
    if *object.name != *expected {
        wrong.push(format!(
            "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
            &*object.name
        ));
    }
    for (field, value) in &object.fields {
        let mut below = path.to_vec();
        below.push(field.to_string());
        check_values(value, &below, wrong);
    }
}

fn check_values(value: &Val<'_>, path: &[String], wrong: &mut Vec<String>) {
    match value {
        Val::Object(object) => check_names(object, path, wrong),
        Val::List(list) => list.iter().flatten().for_each(|item| check_values(&item, path, wrong)),
        Val::Map(map) => {
            let entries = map.entries().unwrap_or_default();
            entries.iter().for_each(|(_, value)| check_values(value, path, wrong));
        }
        _ => {}
    }
}

/// Applies a list of `JSONPatch{…}`.
pub(super) fn json_patch(object: &Value, made: &Val<'_>) -> Result<Value, String> {
    let Val::List(operations) = made else {
        return Err("type mismatch: JSONPatchType.expression should evaluate to array".into());
    };
    let operations = operations_of(operations)?;
    let text = serde_json::to_vec(&operations).map_err(|error| error.to_string())?;
    let patch =
        JsonPatch::parse(&text, FieldValidation::Ignore).map_err(|error| format!("JSON Patch: {error}"))?;
    match patch.apply(object.clone()) {
        Ok(patched) => Ok(patched),
        // A test that does not hold means that there is nothing to do.
        Err(error) if error.is_failed_test() => Ok(object.clone()),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}

fn operations_of(list: &List<'_>) -> Result<Value, String> {
    let mut operations = Vec::with_capacity(list.len());
    for operation in list.iter() {
        let operation = operation.map_err(|error| error.to_string())?;
        let Val::Object(object) = &operation else {
            return Err(format!(
                "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch, got element of {}",
                operation.kind()
            ));
        };
        let mut members = Map::new();
        for key in ["op", "path"] {
            members.insert(key, json!(""));
        }
        for (field, value) in &object.fields {
            if let Val::Object(made) = value {
                let mut wrong = Vec::new();
                check_names(made, &[made.name.to_string()], &mut wrong);
                if !wrong.is_empty() {
                    return Err(format!("type mismatch: {}", wrong.join("\n")));
                }
            }
            let value = value.to_json().map_err(|error| {
                format!(
                    "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {error}"
                )
            })?;
            if &**field != "from" || value != "" {
                members.insert(field.to_string(), value);
            }
        }
        operations.push(Value::Object(members));
    }
    Ok(Value::Array(operations))
}
