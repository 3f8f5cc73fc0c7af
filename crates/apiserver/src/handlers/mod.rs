//! The verbs on resources. No handler names a kind; what only some resources can do is in [`crate::rooms`].

mod delete;
mod input;
mod list_body;
mod negotiate;
mod options;
mod patch;
mod read;
mod respond;
mod route;
mod watch;
mod write;

pub(crate) use input::{SCHEME, Typed, body as read_body, either as read_either, kind as read_kind, warn};
pub(crate) use negotiate::preferred;
pub use negotiate::{Encodings, Media, Style};
pub use options::WriteOptions;
pub use patch::Patch;
pub(crate) use respond::{CREATED, NAME, definition, no_list, partial_of as partial, table};
pub use respond::{Form, Include, Version, form};
pub(crate) use route::{accepts, accepts_discovery};

use crate::body::Answer;
use crate::registry::{Ownership, WriteContext};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupResource;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::{self, BoxFuture};
use http::Method;
use std::sync::Arc;

impl Server {
    /// Finds the resource and hands the request to its verb; who uses what is on its way out is told so.
    pub(crate) async fn resource(self: &Arc<Self>, call: Call) -> Result<Answer, Status> {
        let info = &call.info;
        let resources = &self.registry.resources;
        let Some(resource) = resources.get(&info.group, &info.version, &info.resource) else {
            return Err(Status::path_not_found());
        };
        if resource.custom.is_none() {
            route::check(&resource, &call)?;
        }
        let warning = match &resource.custom {
            Some(custom) => custom.warning.clone(),
            None => hooks::deprecation(&resource.row.group, &resource.row.version, &resource.row.kind),
        };
        // Refusals too.
        if let Some(warning) = warning {
            crate::context::warn(warning);
            crate::context::annotate("k8s.io/deprecated".into(), "true".into());
            let removed =
                hooks::removed_release(&resource.row.group, &resource.row.version, &resource.row.kind);
            let removed = removed.filter(|_| resource.custom.is_none());
            if let Some(observed) = &self.gate.observed {
                observed.deprecated(info, removed.unwrap_or_default());
            }
            if let Some(removed) = removed {
                crate::context::annotate("k8s.io/removed-release".into(), removed.into());
            }
        }
        self.verb(&resource, call).await
    }

    /// What the verb comes to. Each is on the heap: together they would make the task of every request as large as that of
    /// the largest verb.
    fn verb<'a>(
        self: &'a Arc<Self>,
        resource: &'a Arc<Served>,
        call: Call,
    ) -> BoxFuture<'a, Result<Answer, Status>> {
        let refuse =
            |status| -> BoxFuture<'a, Result<Answer, Status>> { Box::pin(future::ready(Err(status))) };
        let info = &call.info;
        if resource.row.namespaced
            && info.namespace.is_empty()
            && !matches!(info.verb.as_str(), "list" | "watch" | "create")
        {
            return refuse(Status::path_not_found());
        }
        if !resource.has(&info.subresource) {
            return refuse(match &resource.custom {
                Some(_) => resource.not_found(&info.name),
                None => Status::path_not_found(),
            });
        }
        let row = resource.subresources.get(&info.subresource).unwrap_or(&resource.row);
        let verb = if call.parts.method == Method::HEAD { "get" } else { info.verb.as_str() };
        if !info.subresource.is_empty() {
            // A subresource that is the object itself, seen from one side, goes the generic way.
            let itself = resource.subresources.get(&info.subresource).is_some_and(|s| {
                s.kind == resource.row.kind && s.kind_group_version.is_none() && s.allows("update")
            });
            if !itself {
                return Box::pin(self.room(resource, call));
            }
        }
        if resource.prefix.is_empty() {
            return Box::pin(self.room(resource, call));
        }
        let not_allowed = || match &resource.custom {
            Some(_) => Status::method_not_supported(&resource.group_resource(), verb),
            None => not_allowed(),
        };
        if !row.allows(verb) {
            return refuse(not_allowed());
        }
        match verb {
            "get" => Box::pin(self.get(resource, call)),
            "list" => Box::pin(self.list(resource, call)),
            "watch" => Box::pin(self.watch(resource, call)),
            "create" if info.name.is_empty() => Box::pin(self.create(resource, call)),
            "update" if !info.name.is_empty() => Box::pin(self.update(resource, call)),
            "patch" if !info.name.is_empty() => Box::pin(self.patch(resource, call)),
            "delete" => Box::pin(self.delete(resource, call)),
            "deletecollection" => Box::pin(self.delete_collection(resource, call)),
            _ => refuse(not_allowed()),
        }
    }
}

/// Notes the object that a request sends, `value` being in the hub version, for the audit log: defaulted, as upstream's
/// decoders leave it.
fn record(server: &Server, resource: &Served, value: &Value) {
    let Some(record) = crate::context::record() else { return };
    record.request_object(value, || {
        let mut value = value.clone();
        server.registry.default(resource, &mut value);
        schema::encode::json(&resource.table, resource.ty, &resource.to_served(value))
    });
}

/// 405, in the words of upstream's router.
pub(crate) fn not_allowed() -> Status {
    let mut status = Status::method_not_supported(&GroupResource::default(), "");
    status.message = "the server does not allow this method on the requested resource".into();
    status.details = Some(Box::default());
    status
}

/// The context of a write from its request.
pub(crate) fn context<'a>(
    call: &'a Call,
    resource: &'a Arc<Served>,
    options: &WriteOptions,
) -> WriteContext<'a> {
    WriteContext {
        user: &call.user,
        verb: &call.info.verb,
        resource,
        namespace: &call.info.namespace,
        subresource: &call.info.subresource,
        dry_run: options.dry_run,
        field_manager: options.field_manager.clone().into(),
        ownership: Ownership::Track,
        side: None,
    }
}
