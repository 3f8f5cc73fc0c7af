//! OwnerReferencesPermissionEnforcement: who changes an object's owners may delete it, and who lets it hold up its owner's
//! deletion may set that owner's finalizers.

use super::lookup::authorize;
use super::{Attributes, Operation, Plugin, When};
use crate::authz::{self, Authorizer};
use crate::resources::Resources;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::sync::Arc;

pub(super) struct OwnerReferencesPermissionEnforcement {
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    pub resources: Arc<Resources>,
}

fn owners(object: Option<&Value>) -> &[Value] {
    let list = object.and_then(|o| o["metadata"]["ownerReferences"].as_array());
    list.map(Vec::as_slice).unwrap_or_default()
}

impl OwnerReferencesPermissionEnforcement {
    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let pods_status = a.is_of("", "pods", "status");
        let (new, old) = (owners(a.object.as_deref()), owners(a.old));
        if pods_status || new == old {
            return Ok(());
        }
        let row = &a.resource.row;
        let base = authz::Attributes {
            subresource: a.subresource,
            namespace: a.namespace,
            name: a.name,
            ..authz::Attributes::about(a.user, "delete", (&row.group, &row.version, &row.resource))
        };
        if a.operation != Operation::Create
            && let Err(reason) = authorize(&self.authorizers, &base).await
        {
            return Err(a.forbidden(format!(
                "cannot set an ownerRef on a resource you can't delete: {reason}, <nil>"
            )));
        }
        let blocking: Vec<&Value> = new
            .iter()
            .filter(|r| r["blockOwnerDeletion"] == true)
            .filter(|r| !old.iter().any(|o| o["uid"] == r["uid"] && o["blockOwnerDeletion"] == true))
            .collect();
        if blocking.is_empty() {
            return Ok(());
        }
        let anything = authz::Attributes {
            subresource: "finalizers",
            name: "*",
            ..authz::Attributes::about(a.user, "update", ("*", "*", "*"))
        };
        if authorize(&self.authorizers, &anything).await.is_ok() {
            return Ok(());
        }
        for reference in blocking {
            let text = |key: &str| reference[key].as_str().unwrap_or_default();
            let (version, kind) = (text("apiVersion"), text("kind"));
            let Some(owner) = self.resources.of_kind(version, kind) else {
                let (group, version) = version.split_once('/').unwrap_or(("", version));
                return Err(a.forbidden(format!(
                    "cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion {} Kind {kind}: no matches for kind {kind:?} in version \"{}{version}\"",
                    text("apiVersion"),
                    if group.is_empty() { String::new() } else { format!("{group}/") },
                )));
            };
            let row = &owner.row;
            let on = authz::Attributes {
                subresource: "finalizers",
                namespace: if row.namespaced { a.namespace } else { "" },
                name: text("name"),
                ..authz::Attributes::about(a.user, "update", (&row.group, &row.version, &row.resource))
            };
            if let Err(reason) = authorize(&self.authorizers, &on).await {
                return Err(a.forbidden(format!(
                    "cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: {reason}, <nil>"
                )));
            }
        }
        Ok(())
    }
}

impl Plugin for OwnerReferencesPermissionEnforcement {
    fn name(&self) -> &'static str {
        "OwnerReferencesPermissionEnforcement"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(a))
    }
}
