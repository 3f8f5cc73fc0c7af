//! Mirrors the Endpoints that users write for Services without a selector into EndpointSlices.
//! Upstream: `endpointslicemirroring-controller`.

mod act;
mod plan;

use crate::Context;
use crate::endpoint::LEADER;
use crate::service_pods::ServiceFacts;
use crate::support::feed;
use act::Act;
use api::core::v1::Endpoints;
use api::discovery::v1::EndpointSlice;
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::queue::Backoff;
use client::{Informer, ObjectKey, Projection, Queue, Recorder};
use component::metrics::{CounterVec, Opts, Stability};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;
const BACKOFF: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(100) };
pub(super) const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// What is kept of Endpoints: whether they are to be mirrored.
pub(super) struct EndpointsFacts {
    mirror: bool,
}

impl Projection for EndpointsFacts {
    type Kind = Endpoints;

    fn project(endpoints: &Endpoints) -> Self {
        let meta = &endpoints.metadata;
        let skip = meta.labels.get(SKIP).is_some_and(|skip| skip == "true");
        EndpointsFacts { mirror: !skip && !meta.annotations.contains_key(LEADER) }
    }
}

/// What is kept of a slice: whose mirror it is.
pub(super) struct SliceFacts {
    of: Option<String>,
}

impl Projection for SliceFacts {
    type Kind = EndpointSlice;

    fn project(slice: &EndpointSlice) -> Self {
        let labels = &slice.metadata.labels;
        let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
        SliceFacts { of: labels.get(SERVICE_NAME).filter(|_| ours).cloned() }
    }

    fn indices() -> &'static [Index<Self>] {
        &[("service", |slice| {
            slice.of.iter().map(|service| format!("{}/{service}", slice.namespace())).collect()
        })]
    }
}

struct Loop {
    services: Informer<ServiceFacts>,
    endpoints: Informer<EndpointsFacts>,
    slices: Informer<SliceFacts>,
    act: Act,
}

/// Runs until shutdown. Keys are Endpoints.
pub(crate) async fn run(context: Context) {
    let services: Informer<ServiceFacts> = context.informers.get();
    let endpoints: Informer<EndpointsFacts> = context.informers.get();
    let slices: Informer<SliceFacts> = context.informers.get();
    services.synced().await;
    endpoints.synced().await;
    slices.synced().await;
    let queue = Queue::new(BACKOFF);
    feed(&services, &queue, |service| [service.key().clone()]);
    feed(&endpoints, &queue, |endpoints| [endpoints.key().clone()]);
    feed(&slices, &queue, |slice| {
        slice.of.as_ref().map(|service| ObjectKey::new(slice.namespace(), service))
    });
    let changes: CounterVec = context.metrics.counter_vec(
        Opts {
            name: "endpoint_slice_mirroring_controller_changes",
            help: "Number of EndpointSlice changes",
            stability: Stability::Alpha,
        },
        &["operation"],
    );
    let writes = Writes::default();
    let act = Act {
        recorder: Recorder::new(context.client.clone(), "endpoint-slice-mirroring-controller", ""),
        client: context.client,
        writes: writes.clone(),
        slices: slices.clone(),
        changes,
    };
    let this = Arc::new(Loop { services, endpoints, slices, act });
    work("endpoint_slice_mirroring", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> client::Result<Outcome> {
        let slices = self.slices.by_index("service", &format!("{}/{}", key.namespace, key.name));
        let slices = slices.iter().map(|slice| slice.decode()).collect::<client::Result<Vec<_>>>()?;
        let endpoints = self.endpoints.get(key).filter(|endpoints| endpoints.mirror);
        let service = self.services.get(key).filter(|service| service.mirrors);
        let (Some(endpoints), Some(_)) = (endpoints, service) else {
            self.act.delete(key, slices.iter().map(|slice| slice.metadata.name.as_str())).await?;
            return Ok(Outcome::Done);
        };
        let endpoints = endpoints.decode()?;
        let plan = plan::plan(&endpoints, slices);
        self.act.take(key, &endpoints, plan).await?;
        Ok(Outcome::Done)
    }
}
