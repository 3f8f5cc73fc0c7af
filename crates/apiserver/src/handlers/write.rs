//! POST, PUT and PATCH.

use super::context;
use super::respond::form;
use crate::body::{self, Answer};
use crate::object;
use crate::registry::UpdateOptions;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupVersionKind;
use apimachinery::status::Status;
use bytes::Bytes;
use http::StatusCode;
use schema::decode::{self, DecodeError, Decoded, FieldValidation};
use serde_json::Value;
use std::sync::Arc;

const MEDIA: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The media type of a request's body, without parameters.
pub(crate) fn media(call: &Call) -> String {
    let value =
        call.parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn field_validation(call: &Call) -> Result<FieldValidation, Status> {
    match call.info.query.get("fieldValidation") {
        None | Some("" | "Warn") => Ok(FieldValidation::Warn),
        Some("Strict") => Ok(FieldValidation::Strict),
        Some("Ignore") => Ok(FieldValidation::Ignore),
        Some(other) => Err(Status::invalid(
            &apimachinery::gvk::GroupKind::new("meta.k8s.io", "CreateOptions"),
            "",
            &apimachinery::field::Error::not_supported(
                &apimachinery::field::Path::new("fieldValidation"),
                other,
                &["", "Ignore", "Strict", "Warn"],
            )
            .into(),
        )),
    }
}

/// The words around a decoding error.
fn undecodable(resource: &Served, error: &DecodeError) -> Status {
    let (kind, version) = (&resource.row.kind, &resource.row.version);
    Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}"))
}

/// Decodes a body of any accepted media type as a type of the table.
fn decode_as(
    table: &schema::Table,
    ty: schema::TypeId,
    media: &str,
    bytes: &Bytes,
    validation: FieldValidation,
) -> Result<Result<Decoded, DecodeError>, Status> {
    Ok(match media {
        "" | "application/json" => decode::json(table, ty, bytes, validation),
        "application/yaml" => {
            let text = std::str::from_utf8(bytes).map_err(|e| Status::bad_request(e.to_string()))?;
            decode::yaml(table, ty, text, validation)
        }
        "application/vnd.kubernetes.protobuf" => {
            let decoded = api::protobuf().decode(ty, bytes);
            decoded.and_then(|value| decode::normalise(table, ty, value, FieldValidation::Ignore))
        }
        _ => return Err(Status::unsupported_media_type(&MEDIA)),
    })
}

/// Reads the body of a request whose object is not stored: a review, a binding, options.
pub(crate) async fn read_kind(call: &Call, group: &str, version: &str, kind: &str) -> Result<Value, Status> {
    let bytes = call.body.read().await?;
    let table = api::table();
    let ty = table.kind(group, version, kind).ok_or_else(Status::path_not_found)?;
    let decoded = decode_as(table, ty, &media(call), &bytes, FieldValidation::Ignore)?;
    decoded.map(|d| d.value).map_err(|e| {
        Status::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {e}"))
    })
}

/// Decodes a body as an object of the served version and brings it to the hub version.
pub(crate) fn decode_object(
    resource: &Served,
    call: &Call,
    bytes: &Bytes,
) -> Result<(Value, Vec<String>), Status> {
    let validation = field_validation(call)?;
    let decoded = decode_as(&resource.table, resource.ty, &media(call), bytes, validation)?;
    let Decoded { mut value, strict } = decoded.map_err(|e| undecodable(resource, &e))?;
    if validation == FieldValidation::Strict && !strict.is_empty() {
        return Err(undecodable(resource, &DecodeError(decode::strict_message(&strict))));
    }
    check_type(resource, &mut value)?;
    Ok((resource.to_hub(value), strict))
}

/// Absent type metadata is taken from the address; other metadata is refused.
fn check_type(resource: &Served, value: &mut Value) -> Result<(), Status> {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(value, "apiVersion"), text(value, "kind"));
    if !kind.is_empty() && kind != resource.row.kind {
        let given = GroupVersionKind::from_api_version(&version, &kind);
        let given = given.map_or(kind, |g| g.to_string());
        return Err(Status::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: converting ({given}) to ({}): unknown conversion",
            resource.row.kind, resource.row.version, resource.row.kind, resource.row.kind
        )));
    }
    if !version.is_empty() && version != resource.api_version {
        return Err(Status::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({})",
            resource.api_version
        )));
    }
    value["apiVersion"] = resource.api_version.as_str().into();
    value["kind"] = resource.row.kind.as_ref().into();
    Ok(())
}

impl Server {
    pub(super) async fn create(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let bytes = call.body.read().await?;
        let (value, strict) = decode_object(resource, &call, &bytes)?;
        let namespace = call.info.namespace.clone();
        if resource.row.namespaced && namespace.is_empty() {
            // POST to the collection of all namespaces.
            return Err(Status::bad_request("an empty namespace may not be set during creation"));
        }
        let mut context = context(&call, resource)?;
        // A namespace is in itself.
        if resource.row.kind == "Namespace" {
            context.namespace = "";
        }
        let (stored, warnings) = self.registry.create(&context, value).await?;
        let mut answer = self.object(resource, &stored, StatusCode::CREATED, form);
        body::warn(&mut answer, &strict);
        body::warn(&mut answer, &warnings);
        Ok(answer)
    }

    pub(super) async fn update(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let bytes = call.body.read().await?;
        let (value, strict) = decode_object(resource, &call, &bytes)?;
        let name = call.info.name.clone();
        match object::name(&value) {
            "" => {
                return Err(Status::bad_request(
                    "the name of the object must be specified in the request body",
                ));
            }
            same if same == name => {}
            other => {
                return Err(Status::bad_request(format!(
                    "the name of the object ({other}) does not match the name on the URL ({name})"
                )));
            }
        }
        let context = context(&call, resource)?;
        let options = UpdateOptions { create: resource.strategy.allow_create_on_update(), replace: true };
        let change = |_: Option<&Value>| {
            let value = value.clone();
            Box::pin(std::future::ready(Ok(value))) as futures::future::BoxFuture<'_, _>
        };
        let updated = self.registry.update(&context, &name, options, &change).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut answer = self.object(resource, &updated.stored, code, form);
        body::warn(&mut answer, &strict);
        body::warn(&mut answer, &updated.warnings);
        Ok(answer)
    }

    pub(super) async fn patch(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let bytes = call.body.read().await?;
        let validation = field_validation(&call)?;
        let patch = crate::handlers::patch::Patch::parse(&media(&call), bytes, &call, resource)?;
        let name = call.info.name.clone();
        let context = context(&call, resource)?;
        let strict = std::sync::Mutex::new(Vec::new());
        let change = |current: Option<&Value>| {
            let result = (|| {
                let served = current.map(|c| resource.to_served(c.clone()));
                let patched = patch.apply(
                    resource,
                    served.as_ref(),
                    context.field_manager,
                    context.subresource,
                    self.registry.now(),
                )?;
                let decoded = decode::normalise(&resource.table, resource.ty, patched, validation)
                    .map_err(|e| undecodable(resource, &e))?;
                if validation == FieldValidation::Strict && !decoded.strict.is_empty() {
                    return Err(undecodable(resource, &DecodeError(decode::strict_message(&decoded.strict))));
                }
                if let Ok(mut strict) = strict.lock() {
                    *strict = decoded.strict;
                }
                let mut value = decoded.value;
                check_type(resource, &mut value)?;
                Ok(resource.to_hub(value))
            })();
            Box::pin(std::future::ready(result)) as futures::future::BoxFuture<'_, _>
        };
        let options =
            UpdateOptions { create: patch.creates() && call.info.subresource.is_empty(), replace: false };
        let updated = self.registry.update(&context, &name, options, &change).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut answer = self.object(resource, &updated.stored, code, form);
        body::warn(&mut answer, &strict.into_inner().unwrap_or_default());
        body::warn(&mut answer, &updated.warnings);
        Ok(answer)
    }
}
