//! The node's lease in `kube-node-lease`: the heartbeat that says the kubelet lives. Upstream: component-helpers `lease`.

use crate::context::Context;
use api::Kind as _;
use api::coordination::v1::Lease;
use api::core::v1::Node;
use apimachinery::meta::OwnerReference;
use apimachinery::time::MicroTime;

const NAMESPACE: &str = "kube-node-lease";

/// Renews, creating it when it is not there. `known` is the lease as it was written last.
pub(crate) async fn renew(context: &Context, known: Option<Lease>, node: &Node) -> client::Result<Lease> {
    let leases = context.client.namespaced::<Lease>(NAMESPACE);
    if let Some(known) = known {
        match leases.update(&fill(context, known, node)).await {
            Err(error) if error.is_conflict() || error.is_not_found() => {}
            other => return other,
        }
    }
    match leases.get_opt(&context.config.node_name).await? {
        Some(found) => leases.update(&fill(context, found, node)).await,
        None => {
            let mut fresh = Lease::new();
            fresh.metadata.name = context.config.node_name.clone();
            fresh.metadata.namespace = NAMESPACE.into();
            leases.create(&fill(context, fresh, node)).await
        }
    }
}

fn fill(context: &Context, mut lease: Lease, node: &Node) -> Lease {
    let config = &context.config;
    lease.spec.holder_identity = Some(config.node_name.clone());
    lease.spec.lease_duration_seconds = i32::try_from(config.node_lease_duration.as_secs()).ok();
    lease.spec.renew_time = Some(MicroTime::from_unix_micros(crate::clock::now() / 1000));
    if lease.metadata.owner_references.is_empty() && !node.metadata.uid.is_empty() {
        lease.metadata.owner_references = vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: config.node_name.clone(),
            uid: node.metadata.uid.clone(),
            ..Default::default()
        }];
    }
    lease
}
