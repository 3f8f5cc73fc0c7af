//! Makes the claims of generic ephemeral volumes, owned by their pods: with a pod its claims are collected.
//! Upstream: `ephemeral-volume-controller`.

use crate::Context;
use crate::pods::controller_reference;
use crate::support::queue;
use api::Kind as _;
use api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Change, Client, Informer, Projection, Recorder};
use component::metrics::{Counter, Opts, Registry, Stability};
use rules::ephemeral_volume::{claim_name, is_for_pod};

const BY_CLAIM: &str = "claim";

/// What is kept of a pod: the claims of its ephemeral volumes, while it is not being deleted.
struct Owner {
    claims: Vec<String>,
}

impl Projection for Owner {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let stays = pod.metadata.deletion_timestamp.is_none();
        let ephemeral = pod.spec.volumes.iter().filter(|volume| stays && volume.ephemeral.is_some());
        Owner { claims: ephemeral.map(|volume| claim_name(pod, &volume.name)).collect() }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_CLAIM, |pod| pod.claims.iter().map(|claim| format!("{}/{claim}", pod.namespace())).collect())]
    }
}

/// That a claim exists.
struct Exists;

impl Projection for Exists {
    type Kind = PersistentVolumeClaim;

    fn project(_: &PersistentVolumeClaim) -> Self {
        Exists
    }
}

struct Metrics {
    created: Counter,
    failed: Counter,
}

impl Metrics {
    fn new(registry: &Registry) -> Self {
        let counter = |name| {
            let help = "Number of PersistentVolumeClaim creation requests";
            registry.counter(Opts { name, help, stability: Stability::Alpha })
        };
        Metrics {
            created: counter("ephemeral_volume_controller_create_total"),
            failed: counter("ephemeral_volume_controller_create_failures_total"),
        }
    }
}

/// Runs until shutdown. Keys are pods.
pub(crate) async fn run(context: Context) {
    let pods: Informer<Owner> = context.informers.get();
    let claims: Informer<Exists> = context.informers.get();
    let queue = queue();
    let come = queue.clone();
    pods.subscribe(move |change| {
        // The volumes of a pod do not change.
        if let Change::Added(pod) = change
            && !pod.claims.is_empty()
        {
            come.add(pod.key().clone());
        }
    });
    let (gone, owners) = (queue.clone(), pods.clone());
    claims.subscribe(move |change| {
        // Whoever took it away: its pod needs another.
        if let Change::Deleted(claim) = change {
            let name = format!("{}/{}", claim.namespace(), claim.name());
            owners.by_index(BY_CLAIM, &name).iter().for_each(|pod| gone.add(pod.key().clone()));
        }
    });
    pods.synced().await;
    claims.synced().await;
    let recorder = Recorder::new(context.client.clone(), "ephemeral_volume", "");
    let metrics = std::sync::Arc::new(Metrics::new(&context.metrics));
    let client = context.client;
    work("ephemeral_volume", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (pods, claims, client) = (pods.clone(), claims.clone(), client.clone());
        let (recorder, metrics) = (recorder.clone(), metrics.clone());
        async move {
            let Some(cached) = pods.get(&key).filter(|pod| !pod.claims.is_empty()) else {
                return Ok(Outcome::Done);
            };
            let pod = decode(&cached)?;
            for volume in pod.spec.volumes.iter().filter(|volume| volume.ephemeral.is_some()) {
                let known = claims.named(&pod.metadata.namespace, &claim_name(&pod, &volume.name));
                let done = match known {
                    Some(claim) => is_for_pod(&pod, &decode(&claim)?),
                    None => make(&client, &metrics, &pod, volume).await,
                };
                if let Err(error) = done {
                    let message = format!("ephemeral volume {}: {error}", volume.name);
                    recorder.warning(&pod, "FailedBinding", message);
                    return Err(error);
                }
            }
            Ok::<_, String>(Outcome::Done)
        }
    })
    .await;
}

fn decode<P: Projection>(cached: &Cached<P>) -> Result<P::Kind, String> {
    cached.decode().map_err(|error| error.to_string())
}

async fn make(client: &Client, metrics: &Metrics, pod: &Pod, volume: &Volume) -> Result<(), String> {
    metrics.created.inc();
    let claim = claim(pod, volume);
    match client.namespaced(&pod.metadata.namespace).create(&claim).await {
        Ok(_) => Ok(()),
        Err(error) => {
            metrics.failed.inc();
            Err(format!("create PVC {}: {error}", claim.metadata.name))
        }
    }
}

/// The claim of an ephemeral volume.
fn claim(pod: &Pod, volume: &Volume) -> PersistentVolumeClaim {
    let mut claim = PersistentVolumeClaim::new();
    claim.metadata.name = claim_name(pod, &volume.name);
    claim.metadata.owner_references = vec![controller_reference(pod)];
    let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.clone());
    if let Some(template) = template {
        claim.metadata.annotations = template.metadata.annotations;
        claim.metadata.labels = template.metadata.labels;
        claim.spec = template.spec;
    }
    claim
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn a_story() {
        play("ephemeral_volume", &[|c| Box::pin(super::run(c))]);
    }
}
