//! A volume whose labels say in which zone it is, is used in that zone. Of cloud volumes of old; newer ones say it by
//! node affinity.

use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;
use crate::storage::rows::PLACES;
use client::ObjectKey;

pub(super) struct VolumeZone;

/// The claims that a pod names itself.
fn keys(cycle: Cycle<'_>) -> impl Iterator<Item = ObjectKey> {
    let claims = cycle.pod.facts.claims.iter().filter(|used| !used.ephemeral);
    claims.map(move |used| ObjectKey::new(cycle.pod.namespace(), &used.name))
}

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn refuse(&self, cycle: Cycle<'_>) -> Option<String> {
        let storage = &cycle.cache.surroundings.storage;
        keys(cycle).find_map(|key| {
            let volume = &storage.claim(&key)?.volume;
            let missing = !volume.is_empty() && storage.volume(volume).is_none();
            missing.then(|| format!("persistentvolume {volume:?} not found"))
        })
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let storage = &cycle.cache.surroundings.storage;
        let volumes = keys(cycle).filter_map(|key| storage.volume(&storage.claim(&key)?.volume));
        let places: Vec<_> = volumes.flat_map(|volume| volume.places()).collect();
        if places.is_empty() {
            return None;
        }
        stateless(move |node| {
            // A node that says nowhere where it is, is wherever the volume is.
            if PLACES.iter().all(|(key, _)| node.label(key).is_none()) {
                return Ok(());
            }
            let there = |(key, now, values): &(&str, &str, Vec<&str>)| {
                let place = node.label(key).or_else(|| node.label(now));
                place.is_some_and(|place| values.contains(&place))
            };
            if places.iter().all(there) {
                return Ok(());
            }
            Err(Refusal::unresolvable("node(s) had no available volume zone"))
        })
    }

    fn helped_by(&self, event: &Event<'_>, waiter: &Waiter) -> bool {
        match event {
            Event::StorageClass { old, new } => old.is_none() && new.delayed,
            Event::Claim { new, .. } => waiter.uses(new),
            Event::Volume { old, new } => old.is_none_or(|old| !old.places().eq(new.places())),
            _ => event.node_changed(|node| &node.labels),
        }
    }
}
