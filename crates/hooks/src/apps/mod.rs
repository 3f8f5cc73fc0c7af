//! The group `apps`, and ReplicationController, which is a ReplicaSet of older days.

mod controller_revision;
mod daemon_set;
mod deployment;
mod replica_set;
mod stateful_set;

pub use daemon_set::hidden_annotation;

use super::Row;

pub(super) const STRATEGIES: &[Row] = &[
    ("", "ReplicationController", &replica_set::ReplicationControllers),
    ("apps", "ControllerRevision", &controller_revision::REVISIONS),
    ("apps", "DaemonSet", &daemon_set::DaemonSets),
    ("apps", "Deployment", &deployment::Deployments),
    ("apps", "ReplicaSet", &replica_set::ReplicaSets),
    ("apps", "StatefulSet", &stateful_set::StatefulSets),
];
