//! What a decision comes to: a binding, a condition that says why there is none, or room that is made.

use crate::cache::Pod as Placed;
use crate::decide::Failure;
use crate::facts::PodInfo;
use crate::metrics::{Outcome, took};
use crate::preempt::Preemption;
use crate::queue::{Attempt, Cause, Waiter};
use crate::scheduler::{DEFAULT_SCHEDULER, Scheduler};
use crate::stopwatch::Point;
use api::Kind as _;
use api::core::v1::{Binding, Node, ObjectReference, Pod};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::Time;
use apimachinery::value::Value;
use client::recorder::{EventType, reference};
use client::{Error, Patch, PatchParams};
use futures::future::try_join_all;
use tokio::time::Instant;

/// Whether a pod whose binding failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Later,
    Never,
}

impl Scheduler {
    /// Whether it came about.
    pub(crate) async fn bind(&self, pod: &PodInfo, attempt: Attempt, node: &str) -> bool {
        let began = std::time::Instant::now();
        let meta = &pod.pod.metadata;
        let mut binding = Binding::new();
        binding.metadata.name = meta.name.clone();
        binding.metadata.namespace = meta.namespace.clone();
        binding.metadata.uid = meta.uid.clone();
        binding.target = ObjectReference { kind: Node::KIND.into(), name: node.into(), ..Default::default() };
        let api = self.client.namespaced::<Pod>(&meta.namespace);
        let bound = api.post::<_, Value>(&meta.name, "binding", &binding).await;
        self.metrics.lap(&took(Point::Bind, began, bound.is_ok()));
        match bound {
            Ok(_) => {
                self.metrics.ended(&attempt, Outcome::Scheduled);
                let message = format!("Successfully assigned {}/{} to {node}", meta.namespace, meta.name);
                self.recorder.event(&reference(&pod.pod), EventType::Normal, "Scheduled", message);
                true
            }
            Err(error) => {
                tracing::debug!(pod = %pod.facts.key(), %error, "binding failed");
                let again = if error.is_not_found() { Again::Never } else { Again::Later };
                self.give_up(pod, &attempt, again);
                false
            }
        }
    }

    /// Takes an assignment back that did not come about.
    pub(crate) fn give_up(&self, pod: &PodInfo, attempt: &Attempt, again: Again) {
        self.metrics.ended(attempt, Outcome::Error);
        let mut state = self.state.lock();
        state.cache.forget(&pod.facts.uid);
        if again == Again::Later {
            state.queue.put_back(Waiter::of(&pod.facts), Cause::Error, false, Instant::now());
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Says why a pod found no node, and makes room for it where that helps.
    pub(crate) async fn fail(&self, pod: PodInfo, attempt: Attempt, failure: Failure) {
        let (outcome, reason) = match failure.is_broken() {
            true => (Outcome::Error, "SchedulerError"),
            false => (Outcome::Unschedulable, "Unschedulable"),
        };
        self.metrics.ended(&attempt, outcome);
        let message = failure.error.to_string();
        let about = reference(&pod.pod);
        self.recorder.event(&about, EventType::Warning, "FailedScheduling", message.clone());
        let nomination = match &failure.preemption {
            Preemption::Room { node, .. } => Some(&**node),
            Preemption::Hopeless(_) => Some(""),
            Preemption::NotEligible(_) | Preemption::Nothing => None,
        };
        self.tell(&pod.pod, reason, &message, nomination).await;
        if let Some(key) = &failure.release {
            self.release(&pod, key).await;
        }
        let Preemption::Room { node, victims } = failure.preemption else { return };
        let began = Instant::now();
        let made = self.make_room(&pod, &node, victims).await;
        self.metrics.room_made(made.is_ok(), began.elapsed());
        if let Err(error) = &made {
            tracing::warn!(pod = %pod.facts.key(), %error, "could not make room");
        }
        self.state.lock().queue.unhold(pod.facts.key(), made.is_err());
        self.wake.notify_one();
    }

    /// Sets the condition `PodScheduled`, and `status.nominatedNodeName` when there is a nomination to set or to take back.
    pub(crate) async fn tell(&self, pod: &Pod, reason: &str, message: &str, nomination: Option<&str>) {
        let status = &pod.status;
        let known = rules::pod_conditions::find(&status.conditions, rules::pod_conditions::POD_SCHEDULED);
        let told = known.is_some_and(|c| c.status == "False" && c.reason == reason && c.message == message);
        let nomination = nomination.filter(|name| *name != status.nominated_node_name);
        let mut patch = json!({});
        if !told {
            let mut condition = json!({
                "type": "PodScheduled", "status": "False", "reason": reason, "message": message,
                "observedGeneration": pod.metadata.generation,
            });
            if known.is_none_or(|c| c.status != "False") {
                condition["lastTransitionTime"] = now();
            }
            patch["conditions"] = json!([condition]);
        }
        match nomination {
            Some("") => patch["nominatedNodeName"] = Value::Null,
            Some(node) => patch["nominatedNodeName"] = node.into(),
            None if told => return,
            None => {}
        }
        self.patch_status(&pod.metadata.namespace, &pod.metadata.name, &pod.metadata.uid, patch).await.unwrap_or_else(
            |error| tracing::debug!(pod = %pod.metadata.name, %error, "could not tell that a pod is unschedulable"),
        );
    }

    /// What is gone meanwhile is no error.
    pub(crate) async fn patch_status(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        status: Value,
    ) -> Result<(), Error> {
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": status}));
        let api = self.client.namespaced::<Pod>(namespace);
        match api.patch_status(name, &patch, &PatchParams::default()).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends the victims, and takes back the nominations of lesser pods to the node, which will not fit any more.
    async fn make_room(&self, pod: &PodInfo, node: &str, victims: Vec<Placed>) -> Result<(), Error> {
        let lesser: Vec<Placed> = {
            let mut state = self.state.lock();
            let nominated = state.cache.nominated_to(node).filter(|p| p.priority < pod.facts.priority);
            let lesser: Vec<Placed> = nominated.cloned().collect();
            lesser.iter().for_each(|p| state.cache.denominate(&p.uid));
            lesser
        };
        for other in lesser {
            let patch = json!({"nominatedNodeName": null});
            self.patch_status(other.namespace(), other.name(), &other.uid, patch).await?;
        }
        try_join_all(victims.iter().filter(|v| !v.deleting).map(|victim| self.preempt(pod, node, victim)))
            .await?;
        Ok(())
    }

    async fn preempt(&self, pod: &PodInfo, node: &str, victim: &Placed) -> Result<(), Error> {
        let (namespace, name) = (victim.namespace(), victim.name());
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{DEFAULT_SCHEDULER}: preempting to accommodate a higher priority pod"),
            "lastTransitionTime": now(),
        });
        self.patch_status(namespace, name, &victim.uid, json!({"conditions": [condition]})).await?;
        let api = self.client.namespaced::<Pod>(namespace);
        let this_one = Preconditions { uid: Some(victim.uid.to_string()), ..Default::default() };
        let options = DeleteOptions { preconditions: Some(this_one), ..Default::default() };
        match api.delete(name, &options).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        let about = ObjectReference {
            kind: Pod::KIND.into(),
            api_version: Pod::api_version(),
            namespace: namespace.into(),
            name: name.into(),
            uid: victim.uid.to_string(),
            resource_version: victim.revision().to_string(),
            ..Default::default()
        };
        let message = format!("Preempted by pod {} on node {node}", pod.facts.uid);
        self.recorder.event(&about, EventType::Normal, "Preempted", message);
        Ok(())
    }
}

fn now() -> Value {
    Time::from(SystemClock::default().now()).to_string().into()
}
