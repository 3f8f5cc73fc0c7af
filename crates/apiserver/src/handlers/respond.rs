//! In which form an object is answered: as itself, as a table, as metadata only.

use super::negotiate::{Media, negotiate};
use crate::body::{self, Answer};
use crate::registry::Stored;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::meta::ListMeta;
use apimachinery::meta::table::{TableColumnDefinition, TableRowCondition};
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use apimachinery::value::to_json_vec;
use bytes::BytesMut;
use hooks::Column;
use http::StatusCode;
use schema::encode::{Body, TypeMeta};

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    Object,
    Metadata(Version),
    /// The metadata of each object of a list.
    MetadataList(Version),
    Table(Include, Version),
}

/// The version of meta.k8s.io that a client wants tables and metadata in; they differ in name only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    V1,
    V1Beta1,
}

impl Version {
    pub(super) fn api_version(self) -> &'static str {
        match self {
            Version::V1 => "meta.k8s.io/v1",
            Version::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What a table's rows carry of their objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Include {
    None,
    Metadata,
    Object,
}

/// The form and the media type an `Accept` header asks for: its best alternative that this server has.
pub(super) fn accepted(resource: &Served, call: &Call) -> Result<(Form, Media), Status> {
    let row = &resource.row;
    let has_table = hooks::has_table(&row.group, &row.kind, &call.info.subresource);
    let found = negotiate(call.encodings, &call.parts.headers, |clause, media| {
        let [kind, group, version] = ["as", "g", "v"].map(|p| clause.param(p));
        if kind.is_none() && group.is_none() && version.is_none() {
            // Objects of custom resources have no message.
            return (resource.custom.is_none() || media != Media::Protobuf).then_some(Form::Object);
        }
        let version = match (group, version) {
            (Some("meta.k8s.io"), Some("v1")) => Version::V1,
            (Some("meta.k8s.io"), Some("v1beta1")) => Version::V1Beta1,
            _ => return None,
        };
        match kind {
            // Tables have no protobuf form.
            Some("Table") if media != Media::Protobuf && has_table => {
                Some(Form::Table(Include::Metadata, version))
            }
            Some("PartialObjectMetadata") => Some(Form::Metadata(version)),
            Some("PartialObjectMetadataList") => Some(Form::MetadataList(version)),
            _ => None,
        }
    });
    let Some((form, media, _)) = found else { return Err(call.encodings.not_acceptable()) };
    let form = match form {
        Form::Table(_, version) => Form::Table(include(&call.info.query)?, version),
        form => form,
    };
    Ok((form, media))
}

/// The form alone, for answers that the edge writes in the wanted media type.
pub fn form(resource: &Served, call: &Call) -> Result<Form, Status> {
    accepted(resource, call).map(|(form, _)| form)
}

fn include(query: &crate::request::Query) -> Result<Include, Status> {
    match query.get("includeObject") {
        None | Some("" | "Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: {}",
            apimachinery::field::Error::invalid(
                &apimachinery::field::Path::new("includeObject"),
                other,
                "must be 'Metadata', 'Object', 'None', or empty",
            )
        ))),
    }
}

/// The column of names.
pub(crate) const NAME: Column = Column {
    name: "Name",
    ty: "string",
    format: "name",
    priority: 0,
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources may allow \
                  a client to request the generation of an appropriate name automatically. Name is primarily intended for \
                  creation idempotence and configuration definition. Cannot be updated. More info: \
                  https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
};
/// The column of times of creation.
pub(crate) const CREATED: Column = Column {
    name: "Created At",
    ty: "date",
    format: "",
    priority: 0,
    description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is not \
                  guaranteed to be set in happens-before order across separate operations. Clients may not set this value. \
                  It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More \
                  info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
};

/// A column as tables describe it.
pub(crate) fn definition(column: &Column) -> TableColumnDefinition {
    TableColumnDefinition {
        name: column.name.into(),
        type_: column.ty.into(),
        format: column.format.into(),
        description: column.description.into(),
        priority: column.priority,
    }
}

/// The column definitions of a resource's table.
pub(super) fn columns(resource: &Served) -> Vec<TableColumnDefinition> {
    let own = resource.strategy.column_definitions();
    if let Some(own) = own.and_then(|own| apimachinery::value::from_value(own).ok()) {
        return own;
    }
    [NAME, CREATED].iter().map(definition).collect()
}

/// One row of a table, as JSON: its cells, and as much of the object as is wanted. `object` is in the hub version.
pub(super) fn row(
    resource: &Served,
    object: &Value,
    (include, version): (Include, Version),
    now: Time,
) -> Vec<u8> {
    let cells = if resource.strategy.column_definitions().is_none() {
        vec![object["metadata"]["name"].clone(), object["metadata"]["creationTimestamp"].clone()]
    } else {
        resource.strategy.cells(object, now)
    };
    let mut out = b"{\"cells\":".to_vec();
    schema::encode::write_value(&mut out, &Value::Array(cells));
    let conditions: Vec<TableRowCondition> = resource
        .strategy
        .row_conditions(object)
        .into_iter()
        .filter_map(|condition| apimachinery::value::from_value(condition).ok())
        .collect();
    if !conditions.is_empty() {
        out.extend_from_slice(b",\"conditions\":");
        out.extend(to_json_vec(&conditions).unwrap_or_default());
    }
    out.extend_from_slice(b",\"object\":");
    match include {
        Include::None => out.extend_from_slice(b"null"),
        Include::Metadata => out.extend_from_slice(&partial(resource, object, version)),
        Include::Object => {
            let mut served = resource.to_served(object.clone());
            served["kind"] = resource.row.kind.as_ref().into();
            schema::encode::write(&resource.table, resource.ty, &served, &mut out);
        }
    }
    out.push(b'}');
    out
}

/// An object's metadata alone, as JSON.
pub(super) fn partial(resource: &Served, object: &Value, version: Version) -> Vec<u8> {
    let metadata = &object["metadata"];
    let write = |metadata: &Value| partial_of(&resource.table, resource.ty, metadata, version);
    let hidden = hooks::hidden_annotation(&resource.row.group, &resource.row.kind);
    match hidden.filter(|key| metadata["annotations"].get(key).is_some()) {
        None => write(metadata),
        Some(key) => {
            let mut metadata = metadata.clone();
            if let Some(annotations) = metadata["annotations"].as_object_mut() {
                annotations.remove(key);
            }
            write(&metadata)
        }
    }
}

/// The same, of any type.
pub(crate) fn partial_of(
    table: &schema::Table,
    ty: schema::TypeId,
    metadata: &Value,
    version: Version,
) -> Vec<u8> {
    let mut out = head("PartialObjectMetadata", version);
    schema::encode::write_metadata(table, ty, metadata, &mut out);
    out.push(b'}');
    out
}

/// The beginning of a document, up to its metadata.
pub(super) fn head(kind: &str, version: Version) -> Vec<u8> {
    format!(r#"{{"kind":"{kind}","apiVersion":"{}","metadata":"#, version.api_version()).into_bytes()
}

/// A table around rows, as JSON. In a watch only the first one has its columns described.
pub(crate) fn table(
    columns: Option<Vec<TableColumnDefinition>>,
    metadata: &ListMeta,
    rows: Option<&[Vec<u8>]>,
    version: Version,
) -> Vec<u8> {
    let mut out = head("Table", version);
    out.extend(to_json_vec(metadata).unwrap_or_default());
    out.extend_from_slice(br#","columnDefinitions":"#);
    out.extend(to_json_vec(&columns).unwrap_or_default());
    out.extend_from_slice(br#","rows":"#);
    match rows {
        Some(rows) => {
            out.push(b'[');
            out.extend(rows.join(&b','));
            out.push(b']');
        }
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    out
}

impl Server {
    /// Answers one object in the wanted form.
    pub(crate) fn object(&self, resource: &Served, stored: &Stored, code: StatusCode, form: Form) -> Answer {
        match form {
            // Its form at rest may be another one.
            Form::Object if resource.custom.is_some() && !resource.is_own_form(&stored.body) => {
                body::json(code, line(schema::encode::json(&resource.table, resource.ty, &stored.value)))
            }
            Form::Object => {
                let meta = type_meta(resource);
                let mut out = BytesMut::with_capacity(stored.body.max_len(Some(&meta)) + 1);
                write(resource, &stored.body, Some(&meta), stored.revision, &mut out);
                out.extend_from_slice(b"\n");
                body::json(code, out.freeze())
            }
            Form::Metadata(version) => body::json(code, line(partial(resource, &stored.value, version))),
            Form::MetadataList(_) => body::status(&no_list(&resource.go_type())),
            Form::Table(include, version) => {
                let rows = vec![row(resource, &stored.value, (include, version), self.registry.now())];
                let mut metadata = ListMeta::default();
                if stored.revision != 0 {
                    metadata.resource_version = stored.revision.to_string();
                }
                body::json(code, line(table(Some(columns(resource)), &metadata, Some(&rows), version)))
            }
        }
    }
}

/// The refusal of a list of metadata where there is one object.
pub(crate) fn no_list(ty: &str) -> Status {
    Status::not_acceptable_form("PartialObjectMetadataList", false, ty)
}

/// Appends the JSON of an object in the served version, with its revision, and with type metadata where it is wanted.
pub(super) fn write(
    resource: &Served,
    stored: &Body<impl AsRef<[u8]>>,
    meta: Option<&TypeMeta>,
    revision: u64,
    out: &mut BytesMut,
) {
    if resource.is_verbatim() {
        return stored.write(out, meta, revision);
    }
    let served = served_tree(resource, stored, meta, revision);
    out.extend_from_slice(&schema::encode::json(&resource.table, resource.ty, &served));
}

/// The protobuf message of an object in the served version.
pub(super) fn message(resource: &Served, stored: &Body<impl AsRef<[u8]>>, revision: u64) -> Vec<u8> {
    api::protobuf().encode_message(resource.ty, &served_tree(resource, stored, None, revision))
}

fn served_tree(
    resource: &Served,
    stored: &Body<impl AsRef<[u8]>>,
    meta: Option<&TypeMeta>,
    revision: u64,
) -> Value {
    let mut served = resource.to_served(stored.value(None, revision).unwrap_or_default());
    if resource.custom.is_some() {
        return served;
    }
    if let Some(map) = served.as_object_mut() {
        map.remove("apiVersion");
        if let Some(meta) = meta {
            map.insert("kind", meta.kind().into());
            map.insert("apiVersion", meta.api_version().into());
        }
    }
    served
}

/// The type metadata of a resource in its served version.
pub(super) fn type_meta(resource: &Served) -> TypeMeta {
    TypeMeta::new(&resource.row.kind, &resource.api_version)
}

/// A document with the newline that ends it.
pub(super) fn line(mut document: Vec<u8>) -> Vec<u8> {
    document.push(b'\n');
    document
}
