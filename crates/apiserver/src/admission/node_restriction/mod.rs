//! NodeRestriction: a kubelet changes its own node and the pods on it, and nothing that would widen its reach.

mod labels;
mod node;
mod pods;
mod tokens;

use super::lookup::Objects;
use super::{Attributes, Operation, Plugin, When};
use crate::authz::Authorizer;
use crate::object;
use crate::resources::{Resources, Served};
use apimachinery::gvk::GroupResource;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::sync::Arc;
use store::Store;

/// See the module.
pub(super) struct NodeRestriction {
    store: Arc<dyn Store>,
    resources: Arc<Resources>,
    authorizers: Vec<Arc<dyn Authorizer>>,
    pods: Arc<Served>,
    nodes: Arc<Served>,
}

fn refuse(a: &Attributes<'_>, why: impl Into<String>) -> Status {
    // The name of a new object is not in the address.
    let name = match (a.name.is_empty(), a.object.as_deref()) {
        (true, Some(object)) => object::name(object),
        _ => a.name,
    };
    Status::forbidden(&a.resource.group_resource(), name, why.into())
}

/// The name of the object that a request is about, whether it is new or not.
fn name<'a>(a: &'a Attributes<'_>) -> &'a str {
    match (a.operation, a.object.as_deref()) {
        (Operation::Create, Some(object)) => object::name(object),
        _ => a.name,
    }
}

impl NodeRestriction {
    pub(super) fn new(
        store: &Arc<dyn Store>,
        resources: &Arc<Resources>,
        authorizers: &[Arc<dyn Authorizer>],
    ) -> Option<Self> {
        Some(NodeRestriction {
            store: store.clone(),
            resources: resources.clone(),
            authorizers: authorizers.to_vec(),
            pods: resources.get("", "v1", "pods")?,
            nodes: resources.get("", "v1", "nodes")?,
        })
    }

    /// An object that must be there.
    fn get(&self, resource: &Arc<Served>, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        let objects = Objects::new(self.store.clone(), resource.clone());
        // As upstream's listers name what they do not find.
        let what = || GroupResource::new(resource.row.group.to_string(), resource.row.kind.to_lowercase());
        objects.get(namespace, name)?.ok_or_else(|| Status::not_found(&what(), name))
    }

    /// An object of a resource that this server may not serve.
    fn find(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Result<Arc<Value>, Status> {
        let served = self.resources.get(group, "v1", resource).ok_or_else(Status::path_not_found)?;
        self.get(&served, namespace, name)
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if !a.user.in_group(crate::user::NODES) || !a.user.name.starts_with("system:node:") {
            return Ok(());
        }
        let node = a.user.node_name().unwrap_or_default();
        if node.is_empty() {
            return Err(refuse(a, format!("could not determine node from user {}", quote(&a.user.name))));
        }
        let row = &a.resource.row;
        match (row.group.as_ref(), row.resource.as_ref(), a.subresource) {
            ("", "pods", "") => self.pod(a, node),
            ("", "pods", "status") => pods::status(a, node),
            ("", "pods", "eviction") => self.eviction(a, node),
            ("", "pods", other) => Err(refuse(
                a,
                format!(
                    "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                    quote(other)
                ),
            )),
            ("", "nodes", _) => node::check(a, node),
            ("", "persistentvolumeclaims", "status") => pods::claim_status(a, node),
            ("", "persistentvolumeclaims", _) => Err(refuse(a, "may only update PVC status")),
            ("", "serviceaccounts", "token") if a.operation == Operation::Create => self.token(a, node).await,
            ("certificates.k8s.io", "podcertificaterequests", _) => self.pod_certificate(a, node),
            ("certificates.k8s.io", "certificatesigningrequests", _) => node::signing_request(a, node),
            ("coordination.k8s.io", "leases", _) if a.namespace != "kube-node-lease" => {
                Err(refuse(a, "can only access leases in the \"kube-node-lease\" system namespace"))
            }
            ("coordination.k8s.io", "leases", _) if name(a) != node => {
                Err(refuse(a, "can only access node lease with the same name as the requesting node"))
            }
            ("storage.k8s.io", "csinodes", _) if name(a) != node => {
                Err(refuse(a, "can only access CSINode with the same name as the requesting node"))
            }
            ("resource.k8s.io", "resourceslices", _) => node::slice(a, node),
            _ => Ok(()),
        }
    }
}

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update, Operation::Delete])
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(attributes))
    }
}
