//! `…/scale`: the number of replicas of anything that has one, as an `autoscaling/v1` Scale.

mod answer;
mod shape;

use crate::body::Answer;
use crate::custom::accessor;
use crate::handlers::{self, Form, Patch, Typed, WriteOptions};
use crate::object;
use crate::registry::{Ownership, Side as _, Stored, UpdateOptions, WriteContext, another, same_namespace};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use schema::apply::scale::of_parent;
use schema::apply::{self, OneShape};
use shape::{OfScale, Replicas, Scale, managed_scale, scale};
use std::sync::Arc;

/// Where upstream makes the list of the Scales of custom resources that it knows.
const CUSTOM_SCHEME: &str = "k8s.io/client-go/scale/util.go:146";

/// What is to become of a Scale.
enum Change {
    Put(Value),
    Patch(Patch),
    /// An apply, by whom and when.
    Apply {
        applied: Value,
        manager: Arc<str>,
        force: bool,
        now: Time,
    },
}

pub(crate) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let verb = call.info.verb.as_str();
    if !matches!(verb, "get" | "update" | "patch") {
        return Err(Status::method_not_supported(&resource.group_resource(), verb));
    }
    let form = handlers::form(resource, &call)?;
    match verb {
        "get" => get(server, resource, &call, form).await,
        _ => write(server, resource, &call, form).await,
    }
}

async fn get(server: &Server, resource: &Arc<Served>, call: &Call, form: Form) -> Result<Answer, Status> {
    let stored = server.registry.read(resource, &call.info.namespace, &call.info.name).await?;
    let scale = scale_of(resource, &stored).map_err(Status::plain_error)?;
    if !scale.counted {
        let paths = resource.strategy.scale_paths();
        let path = paths.map(|paths| accessor::dotted(&paths.spec_replicas)).unwrap_or_default();
        return Err(Status::internal_error(format!("the spec replicas field {path:?} does not exist")));
    }
    answer::answer(resource, &scale, form, server.registry.now())
}

async fn write(server: &Server, resource: &Arc<Served>, call: &Call, form: Form) -> Result<Answer, Status> {
    let (change, options) = read(server, resource, call).await?;
    let side = OfScale(resource.clone());
    let mut context = WriteContext { side: Some(&side), ..handlers::context(call, resource, &options) };
    if matches!(change, Change::Apply { .. }) {
        context.ownership = Ownership::Settled;
    }
    let replicas = Replicas::of(&server.registry.resources, resource);
    let changed = |current: Option<&Value>| {
        let current = current.ok_or_else(|| resource.not_found(&call.info.name));
        let changed = current.and_then(|current| change.object(&side, &replicas, call, current));
        Box::pin(std::future::ready(changed)) as BoxFuture<'_, _>
    };
    let options = UpdateOptions { create: false, replace: change.is_versioned() };
    let updated = server.registry.update(&context, &call.info.name, options, &changed).await?;
    let scale = scale_of(resource, &updated.stored).map_err(Status::bad_request)?;
    answer::answer(resource, &scale, form, server.registry.now())
}

async fn read(
    server: &Server,
    resource: &Arc<Served>,
    call: &Call,
) -> Result<(Change, WriteOptions), Status> {
    if call.info.verb == "update" {
        let scale = handlers::read_body(call, "autoscaling", ("v1", ""), "Scale").await?;
        return Ok((Change::Put(scale), WriteOptions::for_update(call)?));
    }
    let media = match &resource.custom {
        Some(_) => Patch::media_of_custom(call)?,
        None => Patch::media(call)?,
    };
    let bytes = call.body.read().await?;
    let options = WriteOptions::for_patch(call, media.kind())?;
    let patch = Patch { media, bytes, validation: options.field_validation, force: options.force };
    if !media.applies() {
        return Ok((Change::Patch(patch), options));
    }
    let applied = patch.applied(patch.validation)?;
    handlers::warn(applied.strict);
    let manager = options.field_manager.as_str().into();
    let (applied, force, now) = (applied.value, patch.force, server.registry.now());
    Ok((Change::Apply { applied, manager, force, now }, options))
}

impl Change {
    /// Whether the client means a certain version of the object, and nothing later.
    fn is_versioned(&self) -> bool {
        matches!(self, Change::Put(scale) if !object::meta_str(scale, "resourceVersion").is_empty())
    }

    /// The object as it is to be, from what it is now.
    fn object(
        &self,
        side: &OfScale,
        replicas: &Replicas,
        call: &Call,
        current: &Value,
    ) -> Result<Value, Status> {
        let resource = &side.0;
        if let Change::Put(scale) = self {
            check_name(scale, &call.info.name)?;
            if is_other(scale, current) {
                let of = (call.info.namespace.as_str(), call.info.name.as_str());
                return Err(another(resource, of, object::uid(scale), current));
            }
        }
        let scale = self.scale(resource, replicas, current)?;
        same_namespace(&call.info.namespace, &scale)?;
        check_name(&scale, &call.info.name)?;
        let mut value = current.clone();
        side.take(&mut value, &scale)?;
        if is_other(&scale, current) && resource.custom.is_none() {
            return Err(other_uid(resource, &scale, current));
        }
        if matches!(self, Change::Apply { .. }) {
            let of = |object: &Value| object["metadata"]["managedFields"].clone();
            let paths = |version: &str| replicas.path(version);
            value["metadata"]["managedFields"] =
                of_parent(&of(current), &of(&scale), &paths, &resource.api_version);
        }
        // Who names no version means whatever is there.
        let asked = object::meta_str(&scale, "resourceVersion");
        if !asked.is_empty() {
            object::set_meta(&mut value, "resourceVersion", asked);
        }
        Ok(value)
    }

    /// The Scale as it is to be.
    fn scale(&self, resource: &Served, replicas: &Replicas, current: &Value) -> Result<Value, Status> {
        let live = managed_scale(resource, replicas, current)?;
        let table = api::table();
        match self {
            Change::Put(scale) => Ok(scale.clone()),
            Change::Patch(patch) => {
                let ty = table.kind("autoscaling", "v1", "Scale").ok_or_else(Status::path_not_found)?;
                let scheme = if resource.custom.is_some() { CUSTOM_SCHEME } else { handlers::SCHEME };
                let (api_version, kind) = ("autoscaling/v1", "Scale");
                let of = Typed { table, ty, api_version, kind, scheme, custom: false };
                let (scale, strict) = patch.apply_to(&of, live)?;
                handlers::warn(strict);
                Ok(scale)
            }
            Change::Apply { applied, manager, force, now } => {
                let request = apply::Request {
                    table,
                    ty: table.kind("autoscaling", "v1", "Scale"),
                    api_version: "autoscaling/v1",
                    kind: "Scale",
                    subresource: "scale",
                    manager,
                    now: *now,
                    reset_fields: None,
                    versions: &OneShape,
                };
                apply::apply(&request, Some(&live), applied, *force).map_err(|e| e.status())
            }
        }
    }
}

fn check_name(scale: &Value, name: &str) -> Result<(), Status> {
    match object::name(scale) {
        own if own == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        other => Err(Status::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}

/// Whether a Scale says that it is of another object of the name.
fn is_other(scale: &Value, current: &Value) -> bool {
    !object::uid(scale).is_empty() && object::uid(scale) != object::uid(current)
}

fn other_uid(resource: &Served, scale: &Value, current: &Value) -> Status {
    let row = &resource.row;
    let of = GroupResource::new(row.group.to_string(), format!("{}/scale", row.resource));
    let (uid, has) = (object::uid(scale), object::uid(current));
    let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {has}");
    Status::conflict(&of, object::name(current), why)
}

/// The Scale of a stored object.
fn scale_of(resource: &Served, stored: &Stored) -> Result<Scale, String> {
    let mut scale = scale(resource, &stored.value)?;
    object::set_meta(&mut scale.value, "resourceVersion", stored.revision.to_string());
    Ok(scale)
}
