//! ReplicaSets and ReplicationControllers as one: what they want, and their status.

use api::Kind;
use api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use api::core::v1::{PodTemplateSpec, ReplicationController};
use apimachinery::labels::Selector;
use std::borrow::Cow;

/// A kind that wants so many pods of a template. Statuses are those of ReplicaSets.
pub(super) trait Owner: Kind {
    /// The component that events come from.
    const COMPONENT: &'static str;
    /// Whether the status counts terminating pods.
    const COUNTS_TERMINATING: bool;

    fn selector(&self) -> Selector;
    fn replicas(&self) -> usize;
    fn min_ready_seconds(&self) -> i32;
    fn template(&self) -> Cow<'_, PodTemplateSpec>;
    fn status(&self) -> ReplicaSetStatus;
    fn set_status(&mut self, status: ReplicaSetStatus);
}

fn count(replicas: Option<i32>) -> usize {
    usize::try_from(replicas.unwrap_or(1)).unwrap_or(0)
}

impl Owner for ReplicaSet {
    const COMPONENT: &'static str = "replicaset-controller";
    const COUNTS_TERMINATING: bool = true;

    fn selector(&self) -> Selector {
        // A selector that cannot be read selects nothing.
        Selector::from_label_selector(self.spec.selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
    }

    fn replicas(&self) -> usize {
        count(self.spec.replicas)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }

    fn template(&self) -> Cow<'_, PodTemplateSpec> {
        Cow::Borrowed(&self.spec.template)
    }

    fn status(&self) -> ReplicaSetStatus {
        self.status.clone()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        self.status = status;
    }
}

impl Owner for ReplicationController {
    const COMPONENT: &'static str = "replication-controller";
    const COUNTS_TERMINATING: bool = false;

    fn selector(&self) -> Selector {
        match self.spec.selector.is_empty() {
            true => Selector::nothing(),
            false => Selector::from_set(&self.spec.selector),
        }
    }

    fn replicas(&self) -> usize {
        count(self.spec.replicas)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec.min_ready_seconds
    }

    fn template(&self) -> Cow<'_, PodTemplateSpec> {
        match &self.spec.template {
            Some(template) => Cow::Borrowed(template),
            None => Cow::Owned(PodTemplateSpec::default()),
        }
    }

    fn status(&self) -> ReplicaSetStatus {
        let status = apimachinery::value::to_value(&self.status).and_then(apimachinery::value::from_value);
        // One shape under two names: it cannot fail.
        status.unwrap_or_default()
    }

    fn set_status(&mut self, status: ReplicaSetStatus) {
        let status = apimachinery::value::to_value(&status).and_then(apimachinery::value::from_value);
        self.status = status.unwrap_or_default();
    }
}
