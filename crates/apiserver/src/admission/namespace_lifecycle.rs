//! NamespaceLifecycle: nothing is created in a namespace that is missing or going away, and the first three stay.

use super::immediate::Immediate;
use super::lookup::Objects;
use super::{Attributes, Operation, When};
use crate::object;
use apimachinery::gvk::GroupResource;
use apimachinery::status::{Status, StatusCause};
use std::sync::Arc;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Reads namespaces from the store itself, so that it never lags behind.
pub(super) struct NamespaceLifecycle(pub Arc<Objects>);

impl Immediate for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update, Operation::Delete])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if a.operation == Operation::Delete && a.is("", "namespaces") && IMMORTAL.contains(&a.name) {
            return Err(Status::forbidden(
                &GroupResource::new("", "namespaces"),
                a.name,
                "this namespace may not be deleted",
            ));
        }
        // Only what makes something new in a namespace; reviews are no objects of it.
        let review = a.is("authorization.k8s.io", "localsubjectaccessreviews");
        if a.operation != Operation::Create || a.namespace.is_empty() || a.is("", "namespaces") || review {
            return Ok(());
        }
        let Some(namespace) = self.0.pending("", a.namespace)? else {
            return Err(self.0.resource.not_found(a.namespace));
        };
        if !object::is_being_deleted(&namespace) && namespace["status"]["phase"] != "Terminating" {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            a.namespace
        );
        let status = a.forbidden(why);
        Err(status.with_cause(StatusCause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {} is being terminated", a.namespace),
            field: "metadata.namespace".into(),
        }))
    }
}
