//! Writes the Endpoints of Services with selectors. Upstream: `endpoint-controller`.

mod plan;

use crate::Context;
use crate::endpoint_triggers::Triggers;
use crate::service_pods::{PodFacts, ServiceFacts, feed_pods, selected};
use crate::support::{delete_by_name, feed, queue};
use api::core::v1::{Endpoints, Service};
use client::controller::{Outcome, Writes, run as work};
use client::recorder::{EventType, reference};
use client::{Change, Client, Error, Informer, ObjectKey, Projection, Recorder};
use std::sync::Arc;

const WORKERS: usize = 5;
/// On Endpoints that once served leader election; they have no Service and stay.
pub(crate) const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// What is kept of Endpoints.
struct Facts {
    elects: bool,
}

impl Projection for Facts {
    type Kind = Endpoints;

    fn project(endpoints: &Endpoints) -> Self {
        Facts { elects: endpoints.metadata.annotations.contains_key(LEADER) }
    }
}

struct Loop {
    client: Client,
    recorder: Recorder,
    services: Informer<ServiceFacts>,
    pods: Informer<PodFacts>,
    endpoints: Informer<Facts>,
    triggers: Triggers,
    writes: Writes<ObjectKey>,
}

/// Runs until shutdown. Keys are services.
pub(crate) async fn run(context: Context) {
    let services: Informer<ServiceFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    let endpoints: Informer<Facts> = context.informers.get();
    services.synced().await;
    pods.synced().await;
    endpoints.synced().await;
    let queue = queue();
    feed(&services, &queue, |service| [service.key().clone()]);
    feed_pods(&pods, &services, &queue);
    let deleted = queue.clone();
    endpoints.subscribe(move |change| {
        if let Change::Deleted(gone) = change {
            deleted.add(gone.key().clone());
        }
    });
    // Endpoints whose Service went while nobody looked; later on, Endpoints without a Service are their maker's.
    for left in endpoints.list().iter().filter(|endpoints| !endpoints.elects) {
        queue.add(left.key().clone());
    }
    let writes = Writes::default();
    let this = Arc::new(Loop {
        recorder: Recorder::new(context.client.clone(), "endpoint-controller", ""),
        client: context.client,
        services,
        pods,
        endpoints,
        triggers: Triggers::default(),
        writes: writes.clone(),
    });
    work("endpoint", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(cached) = self.services.get(key) else {
            self.triggers.forget(key);
            return match delete_by_name::<Endpoints>(&self.client, &key.namespace, &key.name).await {
                Err(error) if !error.is_not_found() => Err(error),
                _ => Ok(Outcome::Done),
            };
        };
        if cached.selector.is_none() {
            return Ok(Outcome::Done);
        }
        let service: Service = cached.decode()?;
        let pods = selected(&self.pods, &cached);
        let triggered = self.triggers.changed(key, service.metadata.creation_timestamp, &pods);
        let current = self.endpoints.get(key).map(|endpoints| endpoints.decode()).transpose()?;
        let subsets = plan::subsets(&service, &pods);
        let Some(wanted) = plan::endpoints(&service, current.as_ref(), subsets, triggered) else {
            return Ok(Outcome::Done);
        };
        let api = self.client.namespaced::<Endpoints>(&key.namespace);
        let written = match &current {
            None => api.create(&wanted).await,
            Some(_) => api.update(&wanted).await,
        };
        match written {
            Ok(written) => {
                self.writes.note(key, &self.endpoints, &written.metadata.resource_version);
                Ok(Outcome::Done)
            }
            Err(error) if current.is_none() && error.is_namespace_terminating() => Ok(Outcome::Done),
            Err(error) => {
                let (reason, text) = match current {
                    None => (
                        "FailedToCreateEndpoint",
                        format!("Failed to create endpoint for service {key}: {error}"),
                    ),
                    Some(_) => {
                        ("FailedToUpdateEndpoint", format!("Failed to update endpoint {key}: {error}"))
                    }
                };
                self.recorder.event(&reference(&wanted), EventType::Warning, reason, text);
                Err(error)
            }
        }
    }
}
