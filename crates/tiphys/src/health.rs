//! The checks behind /healthz, /livez and /readyz, under upstream's names. Its post-start hooks are steps of this server's
//! start: a check holds as soon as the step is done that does the hook's work.

use apiserver::documents::Health;
use component::health::{Checks, Latch};
use component::metrics::Registry;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio_util::sync::CancellationToken;

/// The steps of a start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Steps {
    /// What every cluster has is written.
    pub bootstrapped: Latch,
    /// The server knows who may do what.
    pub informed: Latch,
    /// Custom resources are served.
    pub defined: Latch,
    /// What others serve is known, what this server serves is registered, and requests are classified as objects say.
    pub registered: Latch,
}

impl Steps {
    fn hooks(&self) -> [(&'static str, &Latch); 21] {
        [
            ("start-apiserver-admission-initializer", &self.informed),
            ("generic-apiserver-start-informers", &self.informed),
            ("priority-and-fairness-config-consumer", &self.registered),
            ("priority-and-fairness-filter", &self.registered),
            ("start-apiextensions-informers", &self.defined),
            ("start-apiextensions-controllers", &self.defined),
            ("crd-informer-synced", &self.defined),
            ("start-system-namespaces-controller", &self.bootstrapped),
            ("start-cluster-authentication-info-controller", &self.bootstrapped),
            ("start-legacy-token-tracking-controller", &self.bootstrapped),
            ("start-service-ip-repair-controllers", &self.registered),
            ("rbac/bootstrap-roles", &self.informed),
            ("scheduling/bootstrap-system-priority-classes", &self.bootstrapped),
            ("priority-and-fairness-config-producer", &self.bootstrapped),
            ("bootstrap-controller", &self.bootstrapped),
            ("start-kubernetes-service-cidr-controller", &self.bootstrapped),
            ("start-kube-aggregator-informers", &self.registered),
            ("apiservice-status-local-available-controller", &self.registered),
            ("apiservice-status-remote-available-controller", &self.registered),
            ("apiservice-registration-controller", &self.registered),
            ("apiservice-discovery-controller", &self.registered),
        ]
    }

    /// All steps are done, or need not be.
    pub(crate) fn done(&self) {
        for step in [&self.bootstrapped, &self.informed, &self.defined, &self.registered] {
            step.done();
        }
    }
}

/// The checks of the three endpoints.
pub(crate) fn checks(
    store: &Arc<dyn Store>,
    metrics: &Registry,
    steps: &Steps,
    leaving: &CancellationToken,
    livez_grace: Duration,
) -> Health {
    let [healthz, livez, readyz] =
        ["healthz", "livez", "readyz"].map(|name| Checks::new(name, Some(metrics)));
    for checks in [&healthz, &livez, &readyz] {
        checks.add("log", component::health::log);
        let kept = store.clone();
        checks.add("etcd", move || match kept.health() {
            // A full disk takes deletes still: it is no reason to start again.
            store::Health::Ok | store::Health::NoSpace => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
    let probe = crate::store::Probe::new(store.clone());
    readyz.add("etcd-readiness", move || probe.check());
    readyz.add_latch("informer-sync", &steps.informed, Duration::ZERO);
    for (checks, grace) in [(&healthz, Duration::ZERO), (&livez, livez_grace), (&readyz, Duration::ZERO)] {
        for (name, step) in steps.hooks() {
            checks.add_latch(&format!("poststarthook/{name}"), step, grace);
        }
        checks.add_latch("autoregister-completion", &steps.registered, grace);
    }
    let leaving = leaving.clone();
    readyz.add("shutdown", move || match leaving.is_cancelled() {
        true => Err("process is shutting down".into()),
        false => Ok(()),
    });
    Health { healthz, livez, readyz }
}
