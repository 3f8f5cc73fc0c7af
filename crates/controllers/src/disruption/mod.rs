//! Keeps the status of disruption budgets, which evictions ask. Upstream: `disruption-controller`.

mod plan;
mod scales;

use crate::Context;
use crate::pods::{BY_NAMESPACE, PodFacts};
use crate::support::{WallClock, feed, queue};
use api::core::v1::Pod;
use api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use apimachinery::labels::Selector;
use apimachinery::time::{Duration, Time};
use client::controller::{Outcome, Writes, run as work};
use client::informer::Index;
use client::{Cached, Client, Informer, ObjectKey, Projection, Recorder, Result};
use plan::PodRef;
pub(crate) use plan::printed as printed_selector;
use std::sync::Arc;

const WORKERS: usize = 1;
/// How long a pod may say that it goes without going.
const STALE: i64 = 2 * 60;

/// What is kept of a budget.
struct BudgetFacts {
    selector: Selector,
}

impl Projection for BudgetFacts {
    type Kind = PodDisruptionBudget;

    fn project(budget: &PodDisruptionBudget) -> Self {
        let selector = Selector::from_label_selector(budget.spec.selector.as_ref());
        BudgetFacts { selector: selector.unwrap_or_else(|_| Selector::nothing()) }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |budget| vec![budget.namespace().to_owned()])]
    }
}

struct Loop {
    budgets: Informer<BudgetFacts>,
    pods: Informer<PodFacts>,
    client: Client,
    recorder: Recorder,
    writes: Writes<ObjectKey>,
    clock: WallClock,
}

/// When a pod's word that it goes is stale.
fn stale_from(pod: &PodFacts) -> Option<Time> {
    let since = pod.disrupted.filter(|_| !pod.deleting && !pod.terminal())?;
    Some(since.plus(Duration::from_seconds(STALE)))
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let budgets: Informer<BudgetFacts> = context.informers.get();
    let pods: Informer<PodFacts> = context.informers.get();
    budgets.synced().await;
    let (queue, stale) = (queue(), queue());
    feed(&budgets, &queue, |budget| [budget.key().clone()]);
    let near = budgets.clone();
    feed(&pods, &queue, move |pod| keys_of_pod(&near, pod));
    feed(&pods, &stale, |pod| stale_from(pod).map(|_| pod.key().clone()));
    pods.synced().await;
    let writes = Writes::default();
    let this = Arc::new(Loop {
        budgets,
        pods,
        recorder: Recorder::new(context.client.clone(), "controllermanager", ""),
        client: context.client,
        writes: writes.clone(),
        clock: context.clock,
    });
    let budgets = this.clone();
    let budgets = work("disruption", queue, writes, WORKERS, context.shutdown.clone(), move |key| {
        let this = budgets.clone();
        async move { this.reconcile(&key).await }
    });
    let stale =
        work("stale_pod_disruption", stale, Writes::default(), WORKERS, context.shutdown, move |key| {
            let this = this.clone();
            async move { this.clear(&key).await }
        });
    tokio::join!(budgets, stale);
}

fn keys_of_pod(budgets: &Informer<BudgetFacts>, pod: &Cached<PodFacts>) -> Vec<ObjectKey> {
    let near = budgets.by_index(BY_NAMESPACE, pod.namespace());
    near.iter().filter(|b| b.selector.matches(&pod.labels)).map(|b| b.key().clone()).collect()
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.budgets.get(key) else { return Ok(Outcome::Done) };
        let budget = cached.decode()?;
        let mut pods = self.pods.by_index(BY_NAMESPACE, &key.namespace);
        pods.retain(|pod| cached.selector.matches(&pod.labels));
        let now = self.clock.now();
        let (status, again) = match self.judge(&budget, &pods, now).await {
            Ok((status, again)) => (status, again),
            // Upstream fails safe at once, and tries again when something changes.
            Err(why) => (plan::failed(&budget, why, now), None),
        };
        self.write_status(key, &budget, status).await?;
        Ok(self.clock.outcome(again))
    }

    async fn judge(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[PodRef],
        now: Time,
    ) -> std::result::Result<(PodDisruptionBudgetStatus, Option<Time>), String> {
        if pods.is_empty() {
            self.recorder.normal(budget, "NoPods", "No matching pods found");
        }
        let told = |why: String| {
            let text = format!("Failed to calculate the number of expected pods: {why}");
            self.recorder.warning(budget, "CalculateExpectedPodCountFailed", text);
            why
        };
        let scale = match plan::asks_scale(budget) {
            true => scales::expected(&self.client, pods).await.map_err(|error| told(error.to_string()))?,
            false => plan::Scale::default(),
        };
        if scale.unmanaged {
            let text = format!(
                "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                plan::printed(budget.spec.selector.as_ref())
            );
            self.recorder.warning(budget, "UnmanagedPods", text);
        }
        let plan = plan::plan(budget, pods, &scale, now).map_err(told)?;
        for pod in plan.not_deleted.iter().filter_map(|pod| pod.decode().ok()) {
            // Upstream prints the namespace twice.
            let at = &budget.metadata.namespace;
            let text = format!("Pod was expected by PDB {at}/{at} to be deleted but it wasn't");
            self.recorder.warning(&pod, "NotDeleted", text);
        }
        Ok((plan.status, plan.again))
    }

    async fn write_status(
        &self,
        key: &ObjectKey,
        budget: &PodDisruptionBudget,
        status: PodDisruptionBudgetStatus,
    ) -> Result<()> {
        if status == budget.status {
            return Ok(());
        }
        let mut changed = budget.clone();
        changed.status = status;
        match self.client.namespaced::<PodDisruptionBudget>(&key.namespace).update_status(&changed).await {
            Ok(written) => {
                self.writes.note(key, &self.budgets, &written.metadata.resource_version);
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            // An eviction spent some of it meanwhile.
            Err(error) => Err(error),
        }
    }

    /// Takes back a pod's word that it goes.
    async fn clear(&self, key: &ObjectKey) -> Result<Outcome> {
        let Some(cached) = self.pods.get(key) else { return Ok(Outcome::Done) };
        let Some(from) = stale_from(&cached) else { return Ok(Outcome::Done) };
        let now = self.clock.now();
        if from > now {
            return Ok(self.clock.outcome(Some(from)));
        }
        let changed = plan::undisrupted(&cached.decode()?, now);
        match self.client.namespaced::<Pod>(&key.namespace).update_status(&changed).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(Outcome::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::play;

    #[test]
    fn stories() {
        play("disruption", &[|c| Box::pin(super::run(c))]);
    }
}
