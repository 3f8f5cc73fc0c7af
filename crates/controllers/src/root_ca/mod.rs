//! Publishes the API server's certificate authority into every namespace, as the ConfigMap `kube-root-ca.crt`.
//! Upstream: `root-ca-certificate-publisher`.

use crate::Context;
use crate::support::{NamespaceState, feed, queue};
use api::Kind as _;
use api::core::v1::ConfigMap;
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Informer, ObjectKey, Projection};
use component::metrics::{CounterVec, HistogramVec, Opts, Registry, Stability, exponential_buckets};
use std::time::Instant;

const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.",
);

struct Published {
    ca: Option<String>,
}

impl Projection for Published {
    type Kind = ConfigMap;

    fn project(map: &ConfigMap) -> Self {
        Published { ca: map.data.get(KEY).cloned() }
    }
}

/// How often it was published, and how long that took, by the code of the answer.
fn counters(registry: &Registry) -> (CounterVec, HistogramVec) {
    let opts = |name| Opts {
        name,
        help: "Number of namespace syncs happened in root ca cert publisher.",
        stability: Stability::Alpha,
    };
    let syncs = registry.counter_vec(opts("root_ca_cert_publisher_sync_total"), &["code"]);
    let buckets = exponential_buckets(0.001, 2.0, 15);
    let took =
        registry.histogram_vec(opts("root_ca_cert_publisher_sync_duration_seconds"), &["code"], &buckets);
    (syncs, took)
}

/// Runs until shutdown. Keys are namespaces.
pub(crate) async fn run(context: Context) {
    let namespaces: Informer<NamespaceState> = context.informers.get();
    let query = Query::of::<ConfigMap>().fields(format!("metadata.name={NAME}"));
    let maps: Informer<Published> = context.informers.query(query);
    let queue = queue();
    feed(&namespaces, &queue, |namespace| [namespace.key().clone()]);
    feed(&maps, &queue, |map| [ObjectKey::new("", map.namespace())]);
    namespaces.synced().await;
    maps.synced().await;
    let (client, cluster) = (context.client, context.cluster);
    let (syncs, took) = counters(&context.metrics);
    work("root_ca_cert_publisher", queue, Writes::default(), 1, context.shutdown, move |key| {
        let (namespaces, maps) = (namespaces.clone(), maps.clone());
        let (client, cluster) = (client.clone(), cluster.clone());
        let (syncs, took) = (syncs.clone(), took.clone());
        async move {
            let began = Instant::now();
            if !namespaces.get(&key).is_some_and(|namespace| namespace.active) {
                return Ok(Outcome::Done);
            }
            let maps_api = client.namespaced::<ConfigMap>(&key.name);
            let done = match maps.named(&key.name, NAME) {
                Some(map) if map.ca.as_deref() == Some(cluster.root_ca.as_str()) => return Ok(Outcome::Done),
                Some(map) => {
                    let mut map = map.decode()?;
                    map.data = [(KEY.to_owned(), cluster.root_ca.clone())].into();
                    maps_api.update(&map).await
                }
                None => {
                    let mut map = ConfigMap::new();
                    map.metadata.name = NAME.into();
                    map.metadata.annotations.insert(DESCRIPTION.0.into(), DESCRIPTION.1.into());
                    map.data.insert(KEY.into(), cluster.root_ca.clone());
                    maps_api.create(&map).await
                }
            };
            let code = done.as_ref().err().map_or(200, |error| error.code().unwrap_or(500)).to_string();
            syncs.with(&[&code]).inc();
            took.with(&[&code]).observe(began.elapsed().as_secs_f64());
            match done {
                Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => Err(error),
                _ => Ok(Outcome::Done),
            }
        }
    })
    .await;
}
