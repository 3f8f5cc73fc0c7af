//! In which form an object is answered: as itself, as a table, as metadata only.

use crate::body::{self, Answer};
use crate::registry::Stored;
use crate::resources::Served;
use crate::server::Server;
use api::hooks::Column;
use apimachinery::status::Status;
use apimachinery::time::Time;
use http::StatusCode;
use schema::encode::{Body, TypeMeta};
use serde_json::{Value, json};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    Object,
    Metadata,
    Table(Include),
}

/// What a table's rows carry of their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Include {
    None,
    Metadata,
    Object,
}

const ACCEPTED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The form an `Accept` header asks for: its first alternative that this server has.
pub fn form(headers: &http::HeaderMap, query: &crate::request::Query) -> Result<Form, Status> {
    let accept = headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("*/*");
    for alternative in accept.split(',') {
        let mut parts = alternative.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, "" | "*/*" | "application/*" | "application/json") {
            continue;
        }
        let params: Vec<(&str, &str)> = parts.filter_map(|p| p.split_once('=')).collect();
        let param = |name: &str| params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let meta = param("g") == Some("meta.k8s.io") && matches!(param("v"), Some("v1" | "v1beta1"));
        match param("as") {
            None => return Ok(Form::Object),
            Some("Table") if meta => {
                let include = match query.get("includeObject") {
                    None | Some("" | "Metadata") => Include::Metadata,
                    Some("None") => Include::None,
                    Some("Object") => Include::Object,
                    Some(other) => {
                        return Err(Status::bad_request(format!(
                            "unrecognized includeObject value: {other:?}"
                        )));
                    }
                };
                return Ok(Form::Table(include));
            }
            Some("PartialObjectMetadata" | "PartialObjectMetadataList") if meta => return Ok(Form::Metadata),
            Some(_) => {}
        }
    }
    Err(Status::not_acceptable(&ACCEPTED))
}

const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow \
                  a client to request the generation of an appropriate name automatically. Name is primarily intended for \
                  creation idempotence and configuration definition. Cannot be updated. More info: \
                  https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
};
const AGE: Column = Column {
    name: "Created At",
    ty: "date",
    format: "",
    priority: 0,
    description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                  guaranteed to be set in happens-before order across separate operations. Clients may not set this value. \
                  It is represented in RFC3339 form and is in UTC. Populated by the system. Read-only. Null for lists. More \
                  info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
};

/// The column definitions of a resource's table.
pub(super) fn columns(resource: &Served) -> Value {
    if let Some(own) = resource.strategy.column_definitions() {
        return own;
    }
    let one = |c: &Column| json!({"name": c.name, "type": c.ty, "format": c.format, "description": c.description, "priority": c.priority});
    [NAME, AGE].iter().map(one).collect()
}

/// One row: its cells, and as much of the object as is wanted. `object` is in the hub version.
pub(super) fn row(resource: &Served, object: &Value, include: Include, now: Time) -> Value {
    let cells = if resource.strategy.column_definitions().is_none() {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    } else {
        resource.strategy.cells(object, now)
    };
    match include {
        Include::None => json!({"cells": cells, "object": null}),
        Include::Metadata => json!({"cells": cells, "object": partial(object)}),
        Include::Object => json!({"cells": cells, "object": object}),
    }
}

/// An object's metadata alone.
pub(super) fn partial(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

/// A table around rows.
pub(super) fn table(columns: Option<Value>, metadata: Value, rows: Vec<Value>) -> Value {
    json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": columns.unwrap_or(Value::Null), "rows": rows})
}

impl Server {
    /// Answers one object in the wanted form.
    pub(crate) fn object(&self, resource: &Served, stored: &Stored, code: StatusCode, form: Form) -> Answer {
        match form {
            Form::Object => {
                body::json(code, self.bytes(resource, &stored.body, Some(&stored.value), stored.revision))
            }
            Form::Metadata => body::document(code, &partial(&stored.value)),
            Form::Table(include) => {
                let revision = json!({"resourceVersion": stored.revision.to_string()});
                let rows = vec![row(resource, &stored.value, include, self.registry.now())];
                body::document(code, &table(Some(columns(resource)), revision, rows))
            }
        }
    }

    /// The JSON of an object in the served version, with type metadata and revision.
    pub(crate) fn bytes<B: AsRef<[u8]>>(
        &self,
        resource: &Served,
        stored: &Body<B>,
        value: Option<&Value>,
        revision: u64,
    ) -> bytes::Bytes {
        let meta = TypeMeta::new(&resource.row.kind, &resource.api_version);
        if resource.is_verbatim(stored) {
            return stored.splice(Some(&meta), revision);
        }
        let hub = match value {
            Some(value) => value.clone(),
            None => stored.value(Some(&meta), revision).unwrap_or_default(),
        };
        schema::encode::json(&resource.table, resource.ty, &resource.to_served(hub)).into()
    }
}
