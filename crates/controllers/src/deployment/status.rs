//! The status of a Deployment: counts, availability, and whether the rollout gets on. Pure.

use super::sets::{max_unavailable, wanted};
use api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use apimachinery::time::Time;

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";

const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
const COMPLETE: &str = "NewReplicaSetAvailable";

fn condition(kind: &str, status: &str, reason: &str, message: String, now: Time) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        last_update_time: Some(now),
        last_transition_time: Some(now),
        reason: reason.into(),
        message,
    }
}

fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// Sets a condition unless it says the same already; the transition is when the status changed.
fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(old) = find(status, &condition.type_) {
        if old.status == condition.status && old.reason == condition.reason {
            return;
        }
        if old.status == condition.status {
            condition.last_transition_time = old.last_transition_time;
        }
    }
    remove(status, &condition.type_.clone());
    status.conditions.push(condition);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.retain(|condition| condition.type_ != kind);
}

/// Counts and availability.
pub(super) fn calculate(
    deployment: &Deployment,
    sets: &[ReplicaSet],
    newest: Option<&ReplicaSet>,
    now: Time,
) -> DeploymentStatus {
    let sum = |count: fn(&ReplicaSet) -> i32| sets.iter().map(count).sum::<i32>();
    let available = sum(|set| set.status.available_replicas);
    let terminating: Option<i32> = sets.iter().map(|set| set.status.terminating_replicas).sum();
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(|set| set.status.replicas),
        updated_replicas: newest.map_or(0, |set| set.status.replicas),
        ready_replicas: sum(|set| set.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sum(super::sets::size) - available).max(0),
        terminating_replicas: terminating,
        collision_count: deployment.status.collision_count,
        conditions: deployment.status.conditions.clone(),
    };
    let enough = available >= wanted(deployment) - max_unavailable(deployment);
    let (value, reason, text) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition(AVAILABLE, value, reason, text.into(), now));
    status
}

/// Whether all pods are new and available.
pub(super) fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = wanted(deployment);
    status.updated_replicas == wanted
        && status.replicas == wanted
        && status.available_replicas == wanted
        && status.observed_generation >= deployment.metadata.generation
}

/// Follows whether a rollout gets on.
pub(super) struct Progress<'a> {
    deployment: &'a Deployment,
    now: Time,
    /// What this look itself has to say of the progress.
    said: Option<DeploymentCondition>,
}

impl<'a> Progress<'a> {
    pub(super) fn new(deployment: &'a Deployment, now: Time) -> Self {
        Progress { deployment, now, said: None }
    }

    fn deadline(&self) -> Option<i64> {
        self.deployment.spec.progress_deadline_seconds.filter(|d| *d != i32::MAX).map(i64::from)
    }

    fn known(&self) -> Option<&DeploymentCondition> {
        self.said.as_ref().or(find(&self.deployment.status, PROGRESSING))
    }

    fn say(&mut self, status: &str, reason: &str, message: String) {
        if self.deadline().is_some() {
            self.said = Some(condition(PROGRESSING, status, reason, message, self.now));
        }
    }

    /// A paused rollout has no deadline; a resumed one begins anew.
    pub(super) fn pause_or_resume(&mut self) {
        let reason = self.known().map(|condition| condition.reason.clone());
        let paused = self.deployment.spec.paused;
        match reason.as_deref() {
            Some(TIMED_OUT) => {}
            Some(PAUSED) if !paused => {
                self.say("Unknown", "DeploymentResumed", "Deployment is resumed".into())
            }
            Some(PAUSED) => {}
            _ if paused => self.say("Unknown", PAUSED, "Deployment is paused".into()),
            _ => {}
        }
    }

    pub(super) fn found(&mut self, set: &ReplicaSet) {
        if self.known().is_none() {
            let text = format!("Found new replica set {:?}", set.metadata.name);
            self.say("True", "FoundNewReplicaSet", text);
        }
    }

    pub(super) fn created(&mut self, set: &ReplicaSet) {
        let text = format!("Created new replica set {:?}", set.metadata.name);
        self.say("True", "NewReplicaSetCreated", text);
    }

    /// The status, without a judgement of the progress.
    pub(super) fn keep(self, sets: &[ReplicaSet], newest: Option<&ReplicaSet>) -> DeploymentStatus {
        let mut status = calculate(self.deployment, sets, newest, self.now);
        if let Some(said) = self.said {
            set(&mut status, said);
        }
        status
    }

    /// The status, and when to judge again if nothing happens.
    pub(super) fn judge(
        self,
        sets: &[ReplicaSet],
        newest: Option<&ReplicaSet>,
    ) -> (DeploymentStatus, Option<Time>) {
        let (deployment, now) = (self.deployment, self.now);
        let mut status = calculate(deployment, sets, newest, now);
        let deadline = self.deadline();
        match deadline {
            None => remove(&mut status, PROGRESSING),
            Some(deadline) => {
                let fresh = self.said.is_some();
                if let Some(said) = self.said {
                    set(&mut status, said);
                }
                let known = find(&status, PROGRESSING).cloned();
                let done = status.replicas == status.updated_replicas
                    && known.as_ref().is_some_and(|condition| condition.reason == COMPLETE);
                if !done && !fresh {
                    progress(deployment, &mut status, newest, deadline, known.as_ref(), now);
                }
            }
        }
        let newest_failure = newest.and_then(failure);
        match newest_failure.or_else(|| sets.iter().find_map(failure)) {
            Some(failure) => set(&mut status, failure),
            None => remove(&mut status, FAILURE),
        }
        let again = deadline.and_then(|deadline| next_judgement(deployment, &status, deadline));
        (status, again)
    }
}

fn progress(
    deployment: &Deployment,
    status: &mut DeploymentStatus,
    newest: Option<&ReplicaSet>,
    deadline: i64,
    known: Option<&DeploymentCondition>,
    now: Time,
) {
    let who = match newest {
        Some(set) => format!("ReplicaSet {:?}", set.metadata.name),
        None => format!("Deployment {:?}", deployment.metadata.name),
    };
    let old = &deployment.status;
    let moved = status.updated_replicas > old.updated_replicas
        || status.replicas - status.updated_replicas < old.replicas - old.updated_replicas
        || status.ready_replicas > old.ready_replicas
        || status.available_replicas > old.available_replicas;
    if is_complete(deployment, status) {
        let text = format!("{who} has successfully progressed.");
        set(status, condition(PROGRESSING, "True", COMPLETE, text, now));
    } else if moved {
        let text = format!("{who} is progressing.");
        let mut new = condition(PROGRESSING, "True", "ReplicaSetUpdated", text, now);
        // Said anew though the reason is the same: the time of the update is what the deadline counts from.
        if let Some(known) = known.filter(|known| known.status == "True") {
            new.last_transition_time = known.last_transition_time;
        }
        remove(status, PROGRESSING);
        set(status, new);
    } else if known.is_some_and(|known| timed_out(known, deadline, now)) {
        let text = format!("{who} has timed out progressing.");
        set(status, condition(PROGRESSING, "False", TIMED_OUT, text, now));
    }
}

fn timed_out(known: &DeploymentCondition, deadline: i64, now: Time) -> bool {
    match known.reason.as_str() {
        COMPLETE => false,
        TIMED_OUT => true,
        _ => known.last_update_time.is_some_and(|since| since.unix() + deadline <= now.unix()),
    }
}

fn next_judgement(deployment: &Deployment, status: &DeploymentStatus, deadline: i64) -> Option<Time> {
    let known = find(status, PROGRESSING)?;
    if is_complete(deployment, status) || known.reason == TIMED_OUT || known.reason == COMPLETE {
        return None;
    }
    Some(Time::from_unix(known.last_update_time?.unix() + deadline))
}

fn failure(owner: &ReplicaSet) -> Option<DeploymentCondition> {
    let found = owner.status.conditions.iter().find(|condition| condition.type_ == FAILURE)?;
    Some(DeploymentCondition {
        type_: found.type_.clone(),
        status: found.status.clone(),
        last_update_time: found.last_transition_time,
        last_transition_time: found.last_transition_time,
        reason: found.reason.clone(),
        message: found.message.clone(),
    })
}

/// The status when the newest set could not be created.
pub(super) fn creation_failed(
    deployment: &Deployment,
    message: String,
    now: Time,
) -> Option<DeploymentStatus> {
    deployment.spec.progress_deadline_seconds.filter(|d| *d != i32::MAX)?;
    let mut status = deployment.status.clone();
    set(&mut status, condition(PROGRESSING, "False", "ReplicaSetCreateError", message, now));
    Some(status)
}
