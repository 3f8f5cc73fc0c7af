//! Which ended pods are too many. Pure.

use crate::placed_pods::PlacedPod;
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

type Pod = Arc<Cached<PlacedPod>>;

/// The pods beyond the threshold: evicted ones first, then the oldest.
pub(super) fn surplus(mut ended: Vec<Pod>, threshold: usize) -> Vec<Pod> {
    let count = ended.len().saturating_sub(threshold);
    ended.sort_by(|a, b| (!a.evicted, a.created, a.name()).cmp(&(!b.evicted, b.created, b.name())));
    ended.truncate(count);
    ended
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::time::Time;
    use client::ObjectKey;
    use client::source::Raw;

    #[test]
    fn evicted_pods_and_old_ones_go_first() {
        let pod = |name: &str, evicted: bool, created: i64| {
            let raw = Raw { key: ObjectKey::new("a", name), revision: 1, bytes: Default::default() };
            let created = Time::from_unix(created);
            let projection = PlacedPod {
                node: String::new(),
                deleting: false,
                ended: true,
                evicted,
                created,
                claims: Vec::new(),
            };
            Arc::new(Cached { raw, uid: name.into(), projection })
        };
        let ended =
            vec![pod("new", false, 9), pod("old", false, 1), pod("evicted", true, 9), pod("older", false, 1)];
        let names = |threshold| -> Vec<String> {
            surplus(ended.clone(), threshold).iter().map(|pod| pod.name().to_owned()).collect()
        };
        assert_eq!(names(0), ["evicted", "old", "older", "new"]);
        assert_eq!(names(2), ["evicted", "old"]);
        assert!(names(9).is_empty());
    }
}
