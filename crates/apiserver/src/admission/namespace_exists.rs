//! NamespaceExists: nothing is written in a namespace that is not there.

use super::lookup::Objects;
use super::{Attributes, Operation, Plugin, When};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use std::sync::Arc;

/// Looks up namespaces.
pub(super) struct NamespaceExists(pub Arc<Objects>);

impl NamespaceExists {
    fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let concerned = a.operation != Operation::Connect && !a.namespace.is_empty();
        if !concerned || a.is("", "namespaces") || self.0.pending("", a.namespace)?.is_some() {
            return Ok(());
        }
        Err(self.0.resource.not_found(a.namespace))
    }
}

impl Plugin for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update, Operation::Delete])
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(self.check(a)))
    }
}
