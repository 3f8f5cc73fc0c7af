//! POST, PUT and PATCH.

use super::patch::PatchMedia;
use super::respond::form;
use super::{Patch, WriteOptions, context, input};
use crate::audit::event::Level;
use crate::body::Answer;
use crate::object;
use crate::registry::{Ownership, UpdateOptions, ensure_namespace};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::FutureExt as _;
use http::StatusCode;
use std::sync::Arc;

/// Takes a second reference to the same owner away, as upstream does before and after admission.
const DUPLICATE_OWNERS: &str = ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: ";

fn without_duplicate_owners(value: &mut Value) -> Option<String> {
    let duplicates = object::dedup_owner_references(value);
    (!duplicates.is_empty()).then(|| format!("{DUPLICATE_OWNERS}{}", duplicates.join(", ")))
}

impl Server {
    pub(super) async fn create(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(resource, &call)?;
        input::media(&call)?;
        let bytes = call.body.read().await?;
        let options = WriteOptions::for_create(&call)?;
        let (mut value, strict) = input::object(resource, &call, &bytes, options.field_validation)?;
        input::warn(strict);
        super::record(self, resource, &value);
        let mut context = context(&call, resource, &options);
        // A namespace is in itself.
        if resource.is_namespace() {
            context.namespace = "";
        }
        without_duplicate_owners(&mut value).into_iter().for_each(crate::context::warn);
        let stored = self.registry.create(&context, value).await?;
        Ok(self.object(resource, &stored, StatusCode::CREATED, form))
    }

    pub(super) async fn update(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(resource, &call)?;
        let bytes = call.body.read().await?;
        let options = WriteOptions::for_update(&call)?;
        let (mut value, strict) = input::object(resource, &call, &bytes, options.field_validation)?;
        input::warn(strict);
        super::record(self, resource, &value);
        let name = call.info.name.clone();
        let context = context(&call, resource, &options);
        ensure_namespace(&context, &mut value)?;
        check_name(&value, &name)?;
        without_duplicate_owners(&mut value).into_iter().for_each(crate::context::warn);
        let creates =
            call.info.subresource.is_empty() && hooks::put_creates(&resource.row.group, &resource.row.kind);
        let options = UpdateOptions { create: creates, replace: true };
        let change = |_: Option<&Value>| {
            let value = value.clone();
            Box::pin(std::future::ready(Ok(value))) as futures::future::BoxFuture<'_, _>
        };
        let updated = self.registry.update(&context, &name, options, &change).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        Ok(self.object(resource, &updated.stored, code, form))
    }

    pub(super) async fn patch(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let media = match &resource.custom {
            Some(_) => Patch::media_of_custom(&call)?,
            None => Patch::media(&call)?,
        };
        let form = form(resource, &call)?;
        let bytes = call.body.read().await?;
        let options = WriteOptions::for_patch(&call, media.kind())?;
        record_patch(media, &bytes);
        let patch = Patch { media, bytes, validation: options.field_validation, force: options.force };
        let name = call.info.name.clone();
        let mut context = context(&call, resource, &options);
        if media.applies() {
            context.ownership = Ownership::Settled;
        }
        let checked = |patched: Result<(Value, Vec<String>), Status>| {
            let (mut value, warnings) = patched?;
            ensure_namespace(&context, &mut value)?;
            check_name(&value, &name)?;
            input::warn(warnings);
            Ok(value)
        };
        let (patch, context) = (&patch, &context);
        let change = |current: Option<&Value>| -> futures::future::BoxFuture<'_, _> {
            if !media.applies() {
                return Box::pin(std::future::ready(checked(patch.apply(resource, current, &name))));
            }
            let now = self.registry.now();
            // Nothing but conversions by webhook is waited for, and they outlive what is lent here.
            if !resource.custom.as_ref().is_some_and(|custom| custom.conversion.asks())
                && let Some(done) =
                    patch.apply_server_side(&self.registry, context, current, now).now_or_never()
            {
                return Box::pin(std::future::ready(checked(done)));
            }
            let current = current.cloned();
            Box::pin(async move {
                let applied = patch.apply_server_side(&self.registry, context, current.as_ref(), now);
                checked(applied.await)
            })
        };
        let create = media.applies() && call.info.subresource.is_empty();
        let options = UpdateOptions { create, replace: false };
        let updated = self.registry.update(context, &name, options, &change).await?;
        let code = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
        Ok(self.object(resource, &updated.stored, code, form))
    }
}

/// Notes the patch that a request sends, for the audit log. An apply's may be YAML.
fn record_patch(media: PatchMedia, bytes: &[u8]) {
    let Some(record) = crate::context::record().filter(|record| record.level() >= Level::Request) else {
        return;
    };
    if !media.applies() || schema::decode::looks_like_json(bytes) {
        return record.request_patch(bytes);
    }
    let tree = match media {
        PatchMedia::ApplyCbor => schema::cbor::document(bytes).ok(),
        _ => {
            let text = String::from_utf8_lossy(bytes);
            schema::decode::free_yaml(&text, schema::decode::FieldValidation::Ignore).ok().map(|d| d.value)
        }
    };
    if let Some(json) = tree.and_then(|tree| apimachinery::value::to_json_vec(&tree).ok()) {
        record.request_patch(&json);
    }
}

/// The name in the body is the name in the address.
fn check_name(value: &Value, name: &str) -> Result<(), Status> {
    match object::name(value) {
        same if same == name => Ok(()),
        "" => Err(Status::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        other => Err(Status::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
    }
}
