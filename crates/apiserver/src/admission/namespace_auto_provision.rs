//! NamespaceAutoProvision: a namespace that something is created in and that is not there is created first.

use super::lookup::Objects;
use super::{Attributes, Operation, Plugin, When};
use crate::registry::WriteContext;
use crate::user::{ALL_AUTHENTICATED, MASTERS, User};
use apimachinery::json;
use apimachinery::status::Status;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Looks up namespaces.
pub(super) struct NamespaceAutoProvision(pub Arc<Objects>);

impl NamespaceAutoProvision {
    async fn provide(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if a.dry_run || a.namespace.is_empty() || a.is("", "namespaces") {
            return Ok(());
        }
        if self.0.pending("", a.namespace)?.is_some() {
            return Ok(());
        }
        // The server itself, as upstream's loopback client.
        let user = User::new("system:apiserver", &[MASTERS, ALL_AUTHENTICATED]);
        let context = WriteContext::own(&user, &self.0.resource, "", "");
        match a.registry.creation(&context, json!({"metadata": {"name": a.namespace}})).await {
            Ok(_) => Ok(()),
            Err(status) if status.is_already_exists() => Ok(()),
            Err(status) if status.is_forbidden() => Err(status),
            Err(status) => Err(a.forbidden(status.message)),
        }
    }
}

impl Plugin for NamespaceAutoProvision {
    fn name(&self) -> &'static str {
        "NamespaceAutoProvision"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create])
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { self.provide(a).await })
    }
}
