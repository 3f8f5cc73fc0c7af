//! Pods as a job sees them.

use crate::pods::{Controller, Phase};
use api::core::v1::{ContainerStatus, Pod};
use apimachinery::time::{Duration, Time};
use client::Projection;
use client::informer::Index;
use rules::pod_conditions;
use std::collections::BTreeMap;

pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub(super) const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// Pods by namespace and name of the job that controls them.
pub(super) const BY_JOB: &str = "job";
/// Pods without a controller, by namespace.
pub(super) const ORPHANS: &str = "orphans";

/// What is kept of a pod.
#[derive(Debug, Clone)]
pub(crate) struct PodFacts {
    pub controller: Option<Controller>,
    pub labels: BTreeMap<String, String>,
    pub phase: Phase,
    pub deleting: bool,
    pub ready: bool,
    pub created: Time,
    /// Whether it has the finalizer: its end is not counted yet.
    pub tracked: bool,
    /// Which completion it works on.
    pub index: Option<i32>,
    /// How often its index had failed before it.
    pub failures: i32,
    pub ignored_failures: i32,
    pub restarts: i64,
    pub ended: Option<Time>,
    /// Containers that ended badly, and how.
    pub exit_codes: Vec<(String, i32)>,
    pub conditions: Vec<(String, String)>,
}

impl Projection for PodFacts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        let number = |key: &str| meta.annotations.get(key).and_then(|text| text.parse().ok());
        let statuses = || pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses);
        let bad = |status: &ContainerStatus| {
            let code = status.state.terminated.as_ref()?.exit_code;
            (code != 0).then(|| (status.name.clone(), code))
        };
        // The main containers' codes are judged first.
        let codes = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let codes = codes.filter_map(bad);
        PodFacts {
            controller: Controller::of(&meta.owner_references),
            labels: meta.labels.clone(),
            phase: match pod.status.phase.as_str() {
                "Running" => Phase::Running,
                "Succeeded" => Phase::Succeeded,
                "Failed" => Phase::Failed,
                "Unknown" => Phase::Unknown,
                _ => Phase::Pending,
            },
            deleting: meta.deletion_timestamp.is_some(),
            ready: pod_conditions::is_ready(&pod.status),
            created: meta.creation_timestamp,
            tracked: meta.finalizers.iter().any(|finalizer| finalizer == FINALIZER),
            index: number(INDEX),
            failures: number(FAILURES).unwrap_or(0),
            ignored_failures: number(IGNORED_FAILURES).unwrap_or(0),
            restarts: statuses().map(|status| i64::from(status.restart_count)).sum(),
            ended: ended(pod),
            exit_codes: codes.collect(),
            conditions: pod.status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_JOB, |pod| {
                let job = pod.controller.as_ref().filter(|controller| controller.kind == "Job");
                job.map(|job| format!("{}/{}", pod.namespace(), job.name)).into_iter().collect()
            }),
            (ORPHANS, |pod| match pod.controller {
                None => vec![pod.namespace().to_owned()],
                Some(_) => Vec::new(),
            }),
        ]
    }
}

/// When the pod ended: when its last container did, or when it ceased to be ready, or when it was asked to end.
fn ended(pod: &Pod) -> Option<Time> {
    let sidecar = |status: &&ContainerStatus| {
        let mut containers = pod.spec.init_containers.iter();
        containers.any(|c| c.name == status.name && c.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = pod.status.init_container_statuses.iter().filter(sidecar);
    let ends = pod.status.container_statuses.iter().chain(sidecars);
    let ends: Option<Vec<Time>> =
        ends.map(|status| status.state.terminated.as_ref().and_then(|t| t.finished_at)).collect();
    let ready = pod_conditions::find(&pod.status.conditions, pod_conditions::READY);
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    ends.and_then(|ends| ends.into_iter().max())
        .or_else(|| ready.filter(|c| c.status == "False").and_then(|c| c.last_transition_time))
        .or_else(|| Some(pod.metadata.deletion_timestamp?.plus(Duration::from_seconds(-grace))))
}

impl PodFacts {
    pub(super) fn terminal(&self) -> bool {
        self.phase >= Phase::Succeeded
    }

    pub(super) fn active(&self) -> bool {
        !self.terminal() && !self.deleting
    }

    /// Asked to end, and still there.
    pub(super) fn terminating(&self) -> bool {
        !self.terminal() && self.deleting
    }
}
