//! `…/scale`: the number of replicas of anything that has one, as an `autoscaling/v1` Scale.

use crate::body::{self, Answer};
use crate::handlers::{self, Form, Include, Patch, Typed, WriteOptions};
use crate::object;
use crate::registry::{Ownership, Side, Stored, UpdateOptions, WriteContext, another};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::decode::Decode as _;
use apimachinery::gvk::GroupResource;
use apimachinery::meta::ListMeta;
use apimachinery::meta::table::TableColumnDefinition;
use apimachinery::status::Status;
use apimachinery::time::Time;
use futures::future::BoxFuture;
use http::StatusCode;
use schema::apply::scale::{of_parent, of_scale};
use schema::apply::{self, OneShape};
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn at<'v>(object: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(object, |value, name| &value[name.as_str()])
}

/// The Scale of an object.
fn scale(resource: &Served, object: &Value) -> Value {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    if let Some(paths) = resource.strategy.scale_paths() {
        let mut status = json!({"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)});
        if let Some(selector) = paths.selector.as_ref().and_then(|p| at(object, p).as_str()) {
            status["selector"] = selector.into();
        }
        return json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {"replicas": at(object, &paths.spec_replicas).as_i64().unwrap_or(0)},
            "status": status,
        });
    }
    let selector = &object["spec"]["selector"];
    let labels = selector
        .get("matchLabels")
        .or_else(|| selector.get("matchExpressions").is_none().then_some(selector));
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if let Ok(typed) = apimachinery::meta::LabelSelector::from_value(selector)
        && selector.get("matchLabels").or(selector.get("matchExpressions")).is_some()
        && let Ok(selector) = apimachinery::labels::Selector::from_label_selector(Some(&typed))
    {
        terms = vec![selector.to_string()];
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": terms.join(",")},
    })
}

/// Where an object keeps its number of replicas.
fn replicas(resource: &Served) -> Vec<String> {
    match resource.strategy.scale_paths() {
        Some(paths) => paths.spec_replicas.clone(),
        None => vec!["spec".into(), "replicas".into()],
    }
}

/// The Scale of an object with those who manage it.
fn managed_scale(resource: &Served, object: &Value) -> Value {
    let mut live = scale(resource, object);
    let path = replicas(resource);
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let managed = of_scale(&object["metadata"]["managedFields"], &path);
    if !managed.is_null() {
        live["metadata"]["managedFields"] = managed;
    }
    live
}

/// The Scale of an object after a patch.
fn patched(resource: &Served, current: &Value, patch: &Patch) -> Result<Value, Status> {
    let table = api::table();
    let ty = table.kind("autoscaling", "v1", "Scale").ok_or_else(Status::path_not_found)?;
    let of = Typed { table, ty, api_version: "autoscaling/v1", kind: "Scale", custom: false };
    let (scale, strict) = patch.apply_to(&of, managed_scale(resource, current))?;
    handlers::warn(strict);
    Ok(scale)
}

/// The Scale of an object after an apply: by whom, whether by force, and when.
fn applied_to(
    resource: &Served,
    current: &Value,
    applied: &Value,
    (manager, force, now): (&str, bool, Time),
) -> Result<Value, Status> {
    let table = api::table();
    let live = managed_scale(resource, current);
    let request = apply::Request {
        table,
        ty: table.kind("autoscaling", "v1", "Scale"),
        api_version: "autoscaling/v1",
        kind: "Scale",
        subresource: "scale",
        manager,
        now,
        reset_fields: None,
        versions: &OneShape,
    };
    apply::apply(&request, Some(&live), applied, force).map_err(|e| e.status())
}

pub(crate) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let name = call.info.name.clone();
    let form = handlers::form(resource, &call)?;
    let answer = |stored: &Stored| answer(&scale_of(resource, stored), form, server.registry.now());
    if call.info.verb == "get" {
        let stored = server.registry.read(resource, &call.info.namespace, &name).await?;
        return answer(&stored);
    }
    let (patch, put, options) = match call.info.verb.as_str() {
        "patch" => {
            let media = match &resource.custom {
                Some(_) => Patch::media_of_custom(&call)?,
                None => Patch::media(&call)?,
            };
            let bytes = call.body.read().await?;
            let options = WriteOptions::for_patch(&call, media.kind())?;
            let patch = Patch { media, bytes, validation: options.field_validation, force: options.force };
            (Some(patch), None, options)
        }
        _ => {
            let scale = handlers::read_body(&call, "autoscaling", ("v1", ""), "Scale").await?;
            (None, Some(scale), WriteOptions::for_update(&call)?)
        }
    };
    let side = OfScale(resource.clone());
    let mut context = WriteContext { side: Some(&side), ..handlers::context(&call, resource, &options) };
    let applied = match &patch {
        Some(patch) if patch.media.applies() => {
            context.ownership = Ownership::Settled;
            let applied = patch.applied(patch.validation)?;
            handlers::warn(applied.strict);
            Some(applied.value)
        }
        _ => None,
    };
    let manager = context.field_manager.clone();
    let now = server.registry.now();
    let change = |current: Option<&Value>| {
        let result = (|| {
            let current = current.ok_or_else(|| resource.not_found(&name))?;
            let scale = match (&put, &patch, &applied) {
                (Some(scale), ..) => scale.clone(),
                (None, Some(patch), Some(applied)) => {
                    applied_to(resource, current, applied, (&manager, patch.force, now))?
                }
                (None, Some(patch), None) => patched(resource, current, patch)?,
                (None, None, _) => scale(resource, current),
            };
            if object::name(&scale).is_empty() {
                return Err(Status::bad_request(format!(
                    "the name of the object ({name} based on URL) was undeterminable: name must be provided"
                )));
            }
            if object::name(&scale) != name {
                return Err(Status::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    object::name(&scale)
                )));
            }
            let mut value = current.clone();
            let uid = object::uid(&scale);
            let is_other = !uid.is_empty() && uid != object::uid(current);
            if is_other && put.is_some() {
                return Err(another(resource, (&call.info.namespace, &name), uid, current));
            }
            side.take(&mut value, &scale)?;
            if is_other {
                let of = GroupResource::new(
                    resource.row.group.to_string(),
                    format!("{}/scale", resource.row.resource),
                );
                let has = object::uid(current);
                let why =
                    format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {has}");
                return Err(Status::conflict(&of, &name, why));
            }
            if applied.is_some() {
                let of = |object: &Value| object["metadata"]["managedFields"].clone();
                let path = replicas(resource);
                let path: Vec<&str> = path.iter().map(String::as_str).collect();
                let managed = of_parent(&of(current), &of(&scale), &path, &resource.api_version);
                value["metadata"]["managedFields"] = managed;
            }
            // Who names no version means whatever is there.
            let asked = object::meta_str(&scale, "resourceVersion");
            if !asked.is_empty() {
                object::set_meta(&mut value, "resourceVersion", asked);
            }
            Ok(value)
        })();
        Box::pin(std::future::ready(result)) as BoxFuture<'_, _>
    };
    let versioned = put.as_ref().is_some_and(|scale| !object::meta_str(scale, "resourceVersion").is_empty());
    let options = UpdateOptions { create: false, replace: versioned };
    let updated = server.registry.update(&context, &name, options, &change).await?;
    answer(&updated.stored)
}

/// The Scale is what admission sees and may change.
#[derive(Debug)]
struct OfScale(Arc<Served>);

impl Side for OfScale {
    fn shown(&self, object: &Value) -> Value {
        scale(&self.0, object)
    }

    fn take(&self, object: &mut Value, scale: &Value) -> Result<(), Status> {
        let replicas = &scale["spec"]["replicas"];
        let wanted = if replicas.is_null() { 0 } else { replicas.as_i64().unwrap_or(-1) };
        // Custom kinds judge for themselves.
        if wanted < 0 && self.0.custom.is_none() {
            let at = apimachinery::field::Path::new("spec").child("replicas");
            let error =
                apimachinery::field::Error::invalid(&at, replicas, "must be greater than or equal to 0");
            let kind = apimachinery::gvk::GroupKind::new("autoscaling", "Scale");
            return Err(Status::invalid(&kind, object::name(object), &error.into()));
        }
        match self.0.strategy.scale_paths() {
            Some(paths) => {
                *paths.spec_replicas.iter().fold(object, |v, name| &mut v[name.as_str()]) = wanted.into();
            }
            None => object["spec"]["replicas"] = wanted.into(),
        }
        Ok(())
    }
}

/// The Scale of a stored object.
fn scale_of(resource: &Served, stored: &Stored) -> Value {
    let mut scale = scale(resource, &stored.value);
    object::set_meta(&mut scale, "resourceVersion", stored.revision.to_string());
    scale
}

/// Answers a Scale in the form that is wanted.
fn answer(scale: &Value, form: Form, now: Time) -> Result<Answer, Status> {
    let table = api::table();
    let ty = table.kind("autoscaling", "v1", "Scale").ok_or_else(Status::path_not_found)?;
    let mut bytes = match form {
        Form::Object => schema::encode::json(table, ty, scale),
        Form::MetadataList(_) => return Err(handlers::no_list("*autoscaling.Scale")),
        Form::Metadata(version) => handlers::partial(table, ty, &scale["metadata"], version),
        Form::Table(include, version) => {
            let column = |name: &str, ty: &str, description: &str| TableColumnDefinition {
                name: name.into(),
                type_: ty.into(),
                description: description.into(),
                ..Default::default()
            };
            let columns = vec![
                column("Name", "string", NAME),
                column(
                    "Desired",
                    "integer",
                    "replicas is the desired number of instances for the scaled object.",
                ),
                column(
                    "Available",
                    "integer",
                    "replicas is the actual number of observed instances of the scaled object.",
                ),
                column("Age", "string", AGE),
            ];
            let cells = json!([
                object::name(scale),
                scale["spec"]["replicas"].as_i64().unwrap_or(0),
                scale["status"]["replicas"].as_i64().unwrap_or(0),
                hooks::object_age(scale, now),
            ]);
            let mut row = b"{\"cells\":".to_vec();
            schema::encode::write_value(&mut row, &cells);
            row.extend_from_slice(b",\"object\":");
            match include {
                Include::None => row.extend_from_slice(b"null"),
                Include::Metadata => row.extend(handlers::partial(table, ty, &scale["metadata"], version)),
                Include::Object => row.extend(schema::encode::json(table, ty, scale)),
            }
            row.push(b'}');
            let metadata = ListMeta {
                resource_version: object::meta_str(scale, "resourceVersion").to_owned(),
                ..Default::default()
            };
            handlers::table(Some(columns), &metadata, Some(&[row]), version)
        }
    };
    bytes.push(b'\n');
    Ok(body::json(StatusCode::OK, bytes))
}

const NAME: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const AGE: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
