//! The status of an owner, from its pods. Pure.

use super::owner::Owner;
use crate::pods::PodFacts;
use api::apps::v1::{ReplicaSetCondition, ReplicaSetStatus};
use apimachinery::time::Time;
use client::Cached;
use std::fmt::Display;
use std::sync::Arc;

const FAILURE: &str = "ReplicaFailure";

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// `failure` is why pods could not be created or deleted.
pub(super) fn calculate<K: Owner>(
    owner: &K,
    active: &[Arc<Cached<PodFacts>>],
    terminating: usize,
    failure: Option<&impl Display>,
    now: Time,
) -> ReplicaSetStatus {
    let mut status = owner.status();
    let template = owner.template();
    let labelled =
        |pod: &PodFacts| template.metadata.labels.iter().all(|(k, v)| pod.labels.get(k) == Some(v));
    let having = |test: &dyn Fn(&PodFacts) -> bool| count(active.iter().filter(|pod| test(pod)).count());
    status.replicas = count(active.len());
    status.fully_labeled_replicas = having(&labelled);
    status.ready_replicas = having(&|pod| pod.ready);
    status.available_replicas = having(&|pod| pod.available(owner.min_ready_seconds(), now));
    status.terminating_replicas = K::COUNTS_TERMINATING.then(|| count(terminating));
    status.observed_generation = owner.metadata().generation;
    let known = status.conditions.iter().any(|condition| condition.type_ == FAILURE);
    match failure {
        None => status.conditions.retain(|condition| condition.type_ != FAILURE),
        Some(_) if known => {}
        Some(failure) => status.conditions.push(ReplicaSetCondition {
            type_: FAILURE.into(),
            status: "True".into(),
            last_transition_time: Some(now),
            reason: if active.len() < owner.replicas() { "FailedCreate" } else { "FailedDelete" }.into(),
            message: failure.to_string(),
        }),
    }
    status
}
