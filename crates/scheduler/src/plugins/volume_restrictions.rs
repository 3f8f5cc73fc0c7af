//! A claim for one pod at a time is used by one, and a disk that cannot be shared by one pod of a node.

use crate::cache::Pod as Placed;
use crate::facts::{Disk, PodFacts};
use crate::framework::{Candidate, Cycle, Event, Filter, Plugin, Refusal};
use crate::queue::Waiter;
use client::{Cached, ObjectKey};
use rules::volumes::AccessModes;
use std::collections::BTreeSet;

const DISK: &str = "node(s) had no available disk";
const IN_USE: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";

pub(super) struct VolumeRestrictions;

#[derive(Clone)]
struct Restrictions<'a> {
    namespace: &'a str,
    /// Claims of the pod that are for one pod at a time.
    exclusive: BTreeSet<&'a str>,
    /// How many uses of these there are.
    uses: i64,
    disks: &'a [Disk],
}

impl Restrictions<'_> {
    fn count(&self, pod: &Cached<PodFacts>) -> i64 {
        if pod.namespace() != self.namespace {
            return 0;
        }
        let named = pod.claims.iter().filter(|used| !used.ephemeral);
        named.filter(|used| self.exclusive.contains(used.name.as_str())).count() as i64
    }
}

impl<'a> Filter<'a> for Restrictions<'a> {
    fn filter(&self, node: Candidate<'_>) -> Result<(), Refusal> {
        let busy = |pod: &Placed| pod.disks.iter().any(|disk| self.disks.iter().any(|d| d.conflicts(disk)));
        if !self.disks.is_empty() && node.info.pods.values().any(busy) {
            return Err(Refusal::new(DISK));
        }
        if self.uses > 0 { Err(Refusal::new(IN_USE)) } else { Ok(()) }
    }

    fn moved(&mut self, pod: &Cached<PodFacts>, _: Candidate<'_>, by: i64) {
        self.uses += by * self.count(pod);
    }

    fn boxed(&self) -> Box<dyn Filter<'a> + 'a> {
        Box::new(self.clone())
    }
}

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let facts = &cycle.pod.facts;
        if facts.claims.is_empty() && facts.disks.is_empty() {
            return None;
        }
        let (namespace, storage) = (cycle.pod.namespace(), &cycle.cache.surroundings.storage);
        let one_pod = AccessModes::of(&["ReadWriteOncePod"]);
        let exclusive = |name: &str| {
            let claim = storage.claim(&ObjectKey::new(namespace, name));
            claim.is_some_and(|claim| claim.modes.contains(one_pod))
        };
        let named = facts.claims.iter().filter(|used| !used.ephemeral).map(|used| used.name.as_str());
        let exclusive: BTreeSet<&str> = named.filter(|name| exclusive(name)).collect();
        let used = exclusive.iter().filter(|name| cycle.cache.uses_claim(namespace, name));
        let uses = used.count() as i64;
        if uses == 0 && facts.disks.is_empty() {
            return None;
        }
        Some(Box::new(Restrictions { namespace, exclusive, uses, disks: &facts.disks }))
    }

    fn helped_by(&self, event: &Event<'_>, waiter: &Waiter) -> bool {
        match event {
            Event::PodGone(pod) => waiter.shares(pod),
            Event::Node { old, .. } => old.is_none(),
            Event::Claim { old, new } => old.is_none() && waiter.uses(new),
            _ => false,
        }
    }
}
