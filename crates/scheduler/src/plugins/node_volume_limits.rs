//! A node has no more volumes of a CSI driver than the driver says it can have there.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;
use std::collections::HashSet;

pub(super) struct NodeVolumeLimits;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let (pod, storage) = (cycle.pod, &cycle.cache.surroundings.storage);
        if pod.facts.claims.is_empty() || !storage.has_limits() {
            return None;
        }
        let names = pod.facts.claims.iter().map(|used| used.name.as_str());
        let ours = storage.csi_volumes(pod.namespace(), names);
        if ours.is_empty() {
            return None;
        }
        stateless(move |node| {
            let limits = storage.limits(&node.info.name).filter(|limits| !limits.is_empty());
            let Some(limits) = limits else { return Ok(()) };
            let mut there: HashSet<(&str, String)> = HashSet::new();
            for other in node.info.pods.values() {
                let names = other.claims.iter().map(|used| used.name.as_str());
                there.extend(storage.csi_volumes(other.namespace(), names));
            }
            for (driver, volume) in storage.attached(&node.info.name) {
                if let Some((_, handle)) = storage.volume(volume).and_then(|volume| volume.csi.as_ref()) {
                    there.insert((driver, handle.clone()));
                }
            }
            let count = |driver: &str| {
                let new = ours.difference(&there).filter(|(of, _)| *of == driver).count();
                let old = there.iter().filter(|(of, _)| *of == driver).count();
                (new, new + old)
            };
            let full = |(driver, limit): (&String, &i64)| {
                let (new, all) = count(driver);
                new > 0 && all as i64 > *limit
            };
            if limits.iter().any(full) {
                return Err(Refusal::new("node(s) exceed max volume count"));
            }
            Ok(())
        })
    }

    fn helped_by(&self, event: &Event<'_>, waiter: &Waiter) -> bool {
        match event {
            Event::DriversOfNode { .. } => true,
            Event::Detached => !waiter.claims.is_empty(),
            Event::PodGone(pod) => !pod.claims.is_empty(),
            Event::Claim { old, new } => old.is_none() && waiter.uses(new),
            _ => false,
        }
    }
}
