//! Writes the EndpointSlices of Services with selectors. Upstream: `endpointslice-controller`.

mod act;
mod metrics;
mod plan;

use crate::Context;
use crate::endpoint_triggers::{Triggers, stamp};
use crate::service_pods::{PodFacts, ServiceFacts, feed_pods, selected};
use crate::support::{feed, queue};
use api::core::v1::{Node, Service};
use api::discovery::v1::EndpointSlice;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Change, Informer, ObjectKey, Projection};
use metrics::Metrics;
use plan::Observed;
use std::collections::HashMap;
use std::sync::Arc;

const WORKERS: usize = 5;
const MANAGER: &str = "endpointslice-controller.k8s.io";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// What is kept of a slice: whose it is.
pub(crate) struct SliceFacts {
    service: Option<String>,
}

impl Projection for SliceFacts {
    type Kind = EndpointSlice;

    fn project(slice: &EndpointSlice) -> Self {
        let labels = &slice.metadata.labels;
        let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
        SliceFacts { service: labels.get(SERVICE_NAME).filter(|_| ours).cloned() }
    }

    fn indices() -> &'static [Index<Self>] {
        &[("service", |slice| {
            slice.service.iter().map(|service| format!("{}/{service}", slice.namespace())).collect()
        })]
    }
}

/// What is kept of a node: where it is.
struct NodeFacts {
    zone: Option<String>,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        NodeFacts { zone: node.metadata.labels.get("topology.kubernetes.io/zone").cloned() }
    }
}

struct Loop {
    services: Informer<ServiceFacts>,
    pods: Informer<PodFacts>,
    nodes: Informer<NodeFacts>,
    slices: Informer<SliceFacts>,
    triggers: Triggers,
    act: act::Act,
}

/// Runs until shutdown. Keys are services.
pub(crate) async fn run(context: Context) {
    let informers = &context.informers;
    let services: Informer<ServiceFacts> = informers.get();
    let pods: Informer<PodFacts> = informers.get();
    let nodes: Informer<NodeFacts> = informers.get();
    let slices: Informer<SliceFacts> = informers.get();
    services.synced().await;
    nodes.synced().await;
    pods.synced().await;
    slices.synced().await;
    let queue = queue();
    feed(&services, &queue, |service| [service.key().clone()]);
    feed_pods(&pods, &services, &queue);
    feed(&slices, &queue, |slice| {
        slice.service.as_ref().map(|service| ObjectKey::new(slice.namespace(), service))
    });
    // A node that moves to another zone takes its endpoints along.
    let (all, moved) = (services.clone(), queue.clone());
    nodes.subscribe(move |change| {
        if matches!(change, Change::Updated { old, new } if old.zone != new.zone) {
            all.list().iter().for_each(|service| moved.add(service.key().clone()));
        }
    });
    let writes = Writes::default();
    let act = act::Act {
        client: context.client,
        writes: writes.clone(),
        slices: slices.clone(),
        metrics: Metrics::new(&context.metrics),
    };
    let this = Arc::new(Loop { services, pods, nodes, slices, triggers: Triggers::default(), act });
    work("endpoint_slice", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move {
            let outcome = this.reconcile(&key).await;
            this.act.metrics.looked(outcome.is_ok());
            outcome
        }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> client::Result<Outcome> {
        // Slices of a service that is gone are the garbage collector's.
        let Some(cached) = self.services.get(key) else {
            self.triggers.forget(key);
            self.act.metrics.forget(key);
            return Ok(Outcome::Done);
        };
        if cached.selector.is_none() {
            return Ok(Outcome::Done);
        }
        let service: Service = cached.decode()?;
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let pods = selected(&self.pods, &cached);
        let triggered = self.triggers.changed(key, service.metadata.creation_timestamp, &pods);
        let slices = self.slices.by_index("service", &format!("{}/{}", key.namespace, key.name));
        let slices = slices.iter().map(|slice| slice.decode()).collect::<client::Result<Vec<_>>>()?;
        let zones: HashMap<&str, String> = pods
            .iter()
            .filter_map(|pod| Some((pod.node.as_str(), self.nodes.named("", &pod.node)?.zone.clone()?)))
            .collect();
        let there = slices.len();
        let mut plan = plan::plan(&Observed { service: &service, pods: &pods, zones: &zones, slices });
        self.act.metrics.planned(key, &plan, there, service.spec.traffic_distribution.as_deref());
        for slice in plan.create.iter_mut().chain(&mut plan.update) {
            stamp(&mut slice.metadata, triggered);
        }
        self.act.take(key, plan).await?;
        Ok(Outcome::Done)
    }
}
