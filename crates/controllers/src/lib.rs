//! The controllers of the controller manager: one folder each, one line each in [`CONTROLLERS`].
//!
//! A folder reads the same everywhere: `mod.rs` (what it watches, how an event becomes a key), `plan.rs` (pure: what was
//! observed and `now` in, actions out), `act.rs` (the only writes), `status.rs` (pure). Each runs as its own service
//! account, `system:serviceaccount:kube-system:<name>`; they share one set of informers.

mod admission_policy_status;
mod bootstrap_signer;
mod certificates;
mod cluster_dns;
mod clusterrole_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod device_taint_eviction;
mod disruption;
mod endpoint;
mod endpoint_subsets;
mod endpoint_triggers;
mod endpointslice;
mod endpointslicemirroring;
mod ephemeral_volume;
mod garbage_collector;
mod history;
mod job;
mod legacy_token_cleaner;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod persistent_volume;
mod placed_pods;
mod pod_certificate_cleaner;
mod pod_control;
mod pod_end;
mod pod_gc;
mod podautoscaler;
mod pods;
mod protection;
mod replicaset;
mod resource_claim;
mod resource_quota;
mod root_ca;
mod service_account_tokens;
mod service_cidrs;
mod service_pods;
mod serviceaccount;
mod statefulset;
mod support;
mod taint_eviction;
#[cfg(test)]
mod testing;
mod token_cleaner;
mod trust_bundle_publisher;
mod ttl;
mod ttl_after_finished;

use client::{Client, Informers};
use component::gates::FeatureGates;
use component::metrics::Registry;
use futures::future::BoxFuture;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
pub use support::WallClock;
use tokio_util::sync::CancellationToken;

/// What every controller knows of its cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The certificate authority of the API server, PEM: what `kube-root-ca.crt` publishes.
    pub root_ca: String,
    /// Ranges from which nodes get their pod addresses, and the length of a node's own prefix.
    pub pod_cidrs: Vec<(IpAddr, u8)>,
    pub node_mask: u8,
    /// The name of the cluster's DNS zone.
    pub domain: String,
    /// Where each node's DNS server listens.
    pub dns_port: u16,
    /// What the cluster signs with; without it, nothing is signed.
    pub signing: Option<Signing>,
}

/// The keys of a cluster.
#[derive(Debug, Clone)]
pub struct Signing {
    /// Signs the certificates of clients and kubelets.
    pub authority: Arc<pki::Authority>,
    /// `--cluster-signing-duration`: how long they are good for, unless less is asked for.
    pub duration: Duration,
    /// Signs tokens of service accounts that live in secrets; without it, there are none.
    pub tokens: Option<Arc<pki::jwt::Signer>>,
}

/// What one controller is given.
#[derive(Debug, Clone)]
pub struct Context {
    /// Requests as this controller's own service account.
    pub client: Client,
    /// Shared with every other controller; reads only.
    pub informers: Informers,
    pub cluster: Arc<Cluster>,
    /// Where controllers count what they do.
    pub metrics: Registry,
    pub clock: WallClock,
    pub gates: Arc<FeatureGates>,
    pub shutdown: CancellationToken,
}

/// How long controllers may take to stop. One that waits for its caches when a term ends never gets them.
const STOP: Duration = Duration::from_secs(1);

type Controller = fn(Context) -> BoxFuture<'static, ()>;

/// In place of an account: the controller manager's own user.
pub const MANAGER: &str = "";

/// The name of a controller's service account, and how it runs (until the context's `shutdown`).
pub const CONTROLLERS: &[(&str, Controller)] = &[
    ("bootstrap-signer", |context| Box::pin(bootstrap_signer::run(context))),
    ("certificate-controller", |context| Box::pin(certificates::run(context))),
    ("clusterrole-aggregation-controller", |context| Box::pin(clusterrole_aggregation::run(context))),
    ("cronjob-controller", |context| Box::pin(cronjob::run(context))),
    ("daemon-set-controller", |context| Box::pin(daemonset::run(context))),
    ("deployment-controller", |context| Box::pin(deployment::run(context))),
    ("device-taint-eviction-controller", |context| Box::pin(device_taint_eviction::run(context))),
    ("disruption-controller", |context| Box::pin(disruption::run(context))),
    ("endpoint-controller", |context| Box::pin(endpoint::run(context))),
    ("endpointslice-controller", |context| Box::pin(cluster_dns::run(context))),
    ("endpointslice-controller", |context| Box::pin(endpointslice::run(context))),
    ("endpointslicemirroring-controller", |context| Box::pin(endpointslicemirroring::run(context))),
    ("ephemeral-volume-controller", |context| Box::pin(ephemeral_volume::run(context))),
    ("expand-controller", |context| Box::pin(persistent_volume::expand::run(context))),
    ("generic-garbage-collector", |context| Box::pin(garbage_collector::run(context))),
    ("horizontal-pod-autoscaler", |context| Box::pin(podautoscaler::run(context))),
    ("job-controller", |context| Box::pin(job::run(context))),
    ("kube-apiserver-serving-clustertrustbundle-publisher", |context| {
        Box::pin(trust_bundle_publisher::run(context))
    }),
    ("legacy-service-account-token-cleaner", |context| Box::pin(legacy_token_cleaner::run(context))),
    ("namespace-controller", |context| Box::pin(namespace::run(context))),
    ("node-controller", |context| Box::pin(node_ipam::run(context))),
    ("node-controller", |context| Box::pin(node_lifecycle::run(context))),
    ("node-controller", |context| Box::pin(taint_eviction::run(context))),
    ("persistent-volume-binder", |context| Box::pin(persistent_volume::run(context))),
    ("pod-garbage-collector", |context| Box::pin(pod_gc::run(context))),
    ("podcertificaterequestcleaner", |context| Box::pin(pod_certificate_cleaner::run(context))),
    ("pv-protection-controller", |context| Box::pin(protection::run_volumes(context))),
    ("pvc-protection-controller", |context| Box::pin(protection::run_claims(context))),
    ("replicaset-controller", |context| Box::pin(replicaset::run(context))),
    ("replication-controller", |context| Box::pin(replicaset::run_replication(context))),
    ("resource-claim-controller", |context| Box::pin(resource_claim::run(context))),
    ("resourcequota-controller", |context| Box::pin(resource_quota::run(context))),
    ("root-ca-cert-publisher", |context| Box::pin(root_ca::run(context))),
    ("service-account-controller", |context| Box::pin(serviceaccount::run(context))),
    ("service-cidrs-controller", |context| Box::pin(service_cidrs::run(context))),
    ("statefulset-controller", |context| Box::pin(statefulset::run(context))),
    ("token-cleaner", |context| Box::pin(token_cleaner::run(context))),
    // It holds the key of all accounts: no account may be it.
    (MANAGER, |context| Box::pin(service_account_tokens::run(context))),
    ("ttl-after-finished-controller", |context| Box::pin(ttl_after_finished::run(context))),
    ("ttl-controller", |context| Box::pin(ttl::run(context))),
    ("volumeattributesclass-protection-controller", |context| Box::pin(protection::classes::run(context))),
    ("validatingadmissionpolicy-status-controller", |context| {
        Box::pin(admission_policy_status::run(context))
    }),
];

/// Runs every controller until `shutdown`. `client` gives the client of a service account of `kube-system`, or that of [`MANAGER`].
pub async fn run(
    client: impl Fn(&str) -> Client,
    informers: Informers,
    cluster: Cluster,
    metrics: Registry,
    gates: Arc<FeatureGates>,
    shutdown: CancellationToken,
) {
    let cluster = Arc::new(cluster);
    let mut running = tokio::task::JoinSet::new();
    let mut names = HashMap::new();
    let queues = client::measures::Queues::new(&metrics);
    for (name, controller) in CONTROLLERS {
        let context = Context {
            client: client(name),
            informers: informers.clone(),
            cluster: cluster.clone(),
            metrics: metrics.clone(),
            clock: WallClock::default(),
            gates: gates.clone(),
            shutdown: shutdown.clone(),
        };
        let controller = client::controller::counted(queues.clone(), controller(context));
        names.insert(running.spawn(controller).id(), name);
    }
    let ended = async {
        while let Some(ended) = running.join_next_with_id().await {
            let name = names.remove(&ended.as_ref().map_or_else(|error| error.id(), |(id, ())| *id));
            if let Err(error) = ended {
                tracing::error!(name, %error, "a controller ended abnormally");
            }
        }
    };
    let late = async {
        shutdown.cancelled().await;
        tokio::time::sleep(STOP).await;
    };
    tokio::select! {
        () = ended => {}
        () = late => {
            tracing::debug!(controllers = ?names.values(), "these controllers did not stop by themselves");
            running.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::transport::{ResponseBody, Transport};

    /// A server that lets everybody wait.
    struct Silent;

    impl Transport for Silent {
        fn send(
            &self,
            _: http::Request<bytes::Bytes>,
        ) -> BoxFuture<'static, client::Result<http::Response<ResponseBody>>> {
            Box::pin(std::future::pending())
        }
    }

    /// A term may be over before the caches of its controllers have filled; the next one must be able to begin.
    #[tokio::test(start_paused = true)]
    async fn controllers_that_still_wait_for_their_caches_end() {
        let (shutdown, silent) = (CancellationToken::new(), Client::new(Arc::new(Silent), "test"));
        let informers = Informers::new(&silent, shutdown.clone());
        let cluster = Cluster {
            root_ca: String::new(),
            pod_cidrs: Vec::new(),
            node_mask: 24,
            domain: "cluster.local".into(),
            dns_port: 53,
            signing: None,
        };
        let client = move |_: &str| silent.clone();
        let running = tokio::spawn(run(
            client,
            informers,
            cluster,
            Registry::default(),
            Arc::new(FeatureGates::new(&[])),
            shutdown.clone(),
        ));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!running.is_finished());
        shutdown.cancel();
        tokio::time::timeout(2 * STOP, running).await.unwrap().unwrap();
    }
}
