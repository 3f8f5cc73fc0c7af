//! Which ended pods are too many. Pure.

use super::PodFacts;
use client::Cached;
use std::sync::Arc;

/// `--terminated-pod-gc-threshold`.
pub(super) const TERMINATED_THRESHOLD: usize = 12500;

/// Why a pod is removed, as metrics say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Terminated,
    OutOfService,
    Orphaned,
    Unscheduled,
}

impl Reason {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Reason::Terminated => "terminated",
            Reason::OutOfService => "out-of-service",
            Reason::Orphaned => "orphaned",
            Reason::Unscheduled => "unscheduled",
        }
    }
}

type Pod = Arc<Cached<PodFacts>>;

/// The pods beyond the threshold: evicted ones first, then the oldest.
pub(super) fn surplus(mut ended: Vec<Pod>, threshold: usize) -> Vec<Pod> {
    let count = ended.len().saturating_sub(threshold);
    ended.sort_by(|a, b| (!a.evicted, a.created, a.name()).cmp(&(!b.evicted, b.created, b.name())));
    ended.truncate(count);
    ended
}
