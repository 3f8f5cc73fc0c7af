//! NamespaceExists: nothing is written in a namespace that is not there.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use std::sync::Arc;

/// Looks up namespaces.
pub(super) struct NamespaceExists(pub Arc<Objects>);

impl Immediate for NamespaceExists {
    fn name(&self) -> &'static str {
        "NamespaceExists"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update, Operation::Delete])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let apart = a.namespace.is_empty() || a.is("", "namespaces");
        if apart || self.0.pending("", a.namespace)?.is_some() {
            return Ok(());
        }
        Err(self.0.resource.not_found(a.namespace))
    }
}
