//! A Scale as it is answered: as itself, as a table, as its metadata.

use super::shape::Scale;
use crate::body::{self, Answer};
use crate::handlers::{self, CREATED, Form, Include, NAME, Version};
use crate::object;
use crate::resources::Served;
use apimachinery::json;
use apimachinery::meta::ListMeta;
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use hooks::Column;
use http::StatusCode;

const fn column(name: &'static str, ty: &'static str, description: &'static str) -> Column {
    Column { name, ty, format: "", priority: 0, description }
}

/// The columns of the Scales of built-in kinds.
const COLUMNS: [Column; 4] = [
    column("Name", "string", NAME.description),
    column("Desired", "integer", "replicas is the desired number of instances for the scaled object."),
    column(
        "Available",
        "integer",
        "replicas is the actual number of observed instances of the scaled object.",
    ),
    column("Age", "string", CREATED.description),
];

/// Those of custom kinds, which make them as they make columns of their own.
const CUSTOM_COLUMNS: [Column; 4] = [
    NAME,
    column("Desired", "integer", "Number of desired replicas"),
    column("Available", "integer", "Number of actual replicas"),
    column("Age", "date", CREATED.description),
];

/// The answer with a Scale in the form that is wanted.
pub(super) fn answer(resource: &Served, scale: &Scale, form: Form, now: Time) -> Result<Answer, Status> {
    let scale = &scale.value;
    let table = api::table();
    let ty = table.kind("autoscaling", "v1", "Scale").ok_or_else(Status::path_not_found)?;
    let mut bytes = match form {
        Form::Object => schema::encode::json(table, ty, scale),
        Form::MetadataList(_) => return Err(handlers::no_list(go_type(resource))),
        Form::Metadata(version) => handlers::partial(table, ty, &scale["metadata"], version),
        Form::Table(include, version) => as_table(resource, scale, ty, (include, version), now),
    };
    bytes.push(b'\n');
    Ok(body::json(StatusCode::OK, bytes))
}

fn go_type(resource: &Served) -> &'static str {
    if resource.custom.is_some() { "*v1.Scale" } else { "*autoscaling.Scale" }
}

fn as_table(
    resource: &Served,
    scale: &Value,
    ty: schema::TypeId,
    (include, version): (Include, Version),
    now: Time,
) -> Vec<u8> {
    let table = api::table();
    let columns = if resource.custom.is_some() { &CUSTOM_COLUMNS } else { &COLUMNS };
    let mut row = b"{\"cells\":".to_vec();
    schema::encode::write_value(&mut row, &cells(resource, scale, now));
    row.extend_from_slice(b",\"object\":");
    match include {
        Include::None => row.extend_from_slice(b"null"),
        Include::Metadata => row.extend(handlers::partial(table, ty, &scale["metadata"], version)),
        Include::Object => row.extend(schema::encode::json(table, ty, scale)),
    }
    row.push(b'}');
    let resource_version = object::meta_str(scale, "resourceVersion").to_owned();
    let metadata = ListMeta { resource_version, ..Default::default() };
    let columns = columns.iter().map(handlers::definition).collect();
    handlers::table(Some(columns), &metadata, Some(&[row]), version)
}

fn cells(resource: &Served, scale: &Value, now: Time) -> Value {
    let number = |part: &str| scale[part]["replicas"].as_i64().unwrap_or(0);
    let desired = match number("spec") {
        // Columns of custom kinds read JSON, which zero replicas are left out of.
        0 if resource.custom.is_some() => Value::Null,
        desired => desired.into(),
    };
    json!([object::name(scale), desired, number("status"), hooks::object_age(scale, now)])
}
