//! Publishes the API server's certificate authority as a ClusterTrustBundle, for who trusts by signer's name, and removes what
//! it published of earlier ones. Only where the bundles are served. Upstream:
//! `kube-apiserver-serving-clustertrustbundle-publisher-controller`.

mod plan;

use crate::Context;
use crate::support::{delete_by_name, feed, queue};
use api::certificates::v1beta1::ClusterTrustBundle;
use client::controller::{Outcome, Writes, run as work};
use client::discovery::served;
use client::source::Query;
use client::{Client, Error, Informer, ObjectKey, Projection};
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use plan::Put;
use std::time::Instant;

/// Who signs what API servers show.
const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
const GATE: &str = "ClusterTrustBundle";

/// What a bundle of the signer holds.
struct Published {
    bundle: String,
}

impl Projection for Published {
    type Kind = ClusterTrustBundle;

    fn project(object: &ClusterTrustBundle) -> Self {
        Published { bundle: object.spec.trust_bundle.clone() }
    }
}

/// How often it was published, and how long that took, by the code of the answer.
fn counters(registry: &Registry) -> (CounterVec, HistogramVec) {
    let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
    let syncs = registry.counter_vec(
        opts(
            "clustertrustbundle_publisher_sync_total",
            "Number of syncs that occurred in cluster trust bundle publisher.",
        ),
        &["code"],
    );
    let took = registry.histogram_vec(
        opts(
            "clustertrustbundle_publisher_sync_duration_seconds",
            "The time it took to sync a cluster trust bundle.",
        ),
        &["code"],
        &exponential_buckets(0.001, 2.0, 15),
    );
    (syncs, took)
}

/// Runs until shutdown, if there is something to do. There is one key.
pub(crate) async fn run(context: Context) {
    let (syncs, took) = counters(&context.metrics);
    if !context.gates.enabled(GATE) || context.cluster.root_ca.is_empty() {
        return;
    }
    let there = served::<ClusterTrustBundle>(&context.client);
    if context.shutdown.run_until_cancelled(there).await != Some(true) {
        return;
    }
    let query = Query::of::<ClusterTrustBundle>().fields(format!("spec.signerName={SIGNER}"));
    let bundles: Informer<Published> = context.informers.query(query);
    let (queue, key) = (queue(), ObjectKey::new("", SIGNER));
    let told = key.clone();
    feed(&bundles, &queue, move |_| [told.clone()]);
    bundles.synced().await;
    queue.add(key);
    let (client, cluster) = (context.client, context.cluster);
    let writes = Writes::default();
    let noted = writes.clone();
    work("ca_cert_publisher_cluster_trust_bundles", queue, writes, 1, context.shutdown, move |key| {
        let (bundles, client, cluster) = (bundles.clone(), client.clone(), cluster.clone());
        let (noted, syncs, took) = (noted.clone(), syncs.clone(), took.clone());
        async move {
            let began = Instant::now();
            let done = publish(&client, &bundles, &cluster.root_ca, |version| {
                noted.note(&key, &bundles, version);
            })
            .await;
            let code = done.as_ref().err().map_or(200, |error| error.code().unwrap_or(500)).to_string();
            syncs.with(&[&code]).inc();
            took.with(&[&code]).observe(began.elapsed().as_secs_f64());
            done.map(|()| Outcome::Done)
        }
    })
    .await;
}

/// Writes what is planned; `noted` is told of each version written.
async fn publish(
    client: &Client,
    bundles: &Informer<Published>,
    authority: &str,
    noted: impl Fn(&str),
) -> Result<(), Error> {
    let all = bundles.list();
    let published: Vec<_> = all.iter().map(|one| (one.name(), one.bundle.as_str())).collect();
    let plan = plan::plan(SIGNER, authority, &published);
    let api = client.all::<ClusterTrustBundle>();
    let put = match plan.put {
        Some(Put::Create) => {
            let mut bundle = ClusterTrustBundle::default();
            bundle.metadata.name = plan.name;
            bundle.spec.signer_name = SIGNER.into();
            bundle.spec.trust_bundle = authority.into();
            Some(api.create(&bundle).await?)
        }
        Some(Put::Update) => match bundles.named("", &plan.name) {
            Some(old) => {
                let mut bundle = old.decode()?;
                bundle.spec.trust_bundle = authority.into();
                Some(api.update(&bundle).await?)
            }
            // It went meanwhile, and its end is a reason to come again.
            None => None,
        },
        None => None,
    };
    if let Some(put) = put {
        noted(&put.metadata.resource_version);
    }
    // All are tried; the last failure is what brings them another try.
    let mut done = Ok(());
    for name in plan.delete {
        match delete_by_name::<ClusterTrustBundle>(client, "", name).await {
            Err(error) if !error.is_not_found() => {
                tracing::warn!(bundle = name, %error, "failed to remove a cluster trust bundle");
                done = Err(error);
            }
            _ => {}
        }
    }
    done
}
