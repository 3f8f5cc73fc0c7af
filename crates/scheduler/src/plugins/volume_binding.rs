//! The claims of a pod: they must be there, and bound or to be bound where the pod goes. Volumes that are bound say which
//! nodes reach them; for the others a volume is chosen, or made, for the node.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::queue::Waiter;
use crate::reservation::Reservation;
use crate::storage::{Storage, rows::ClassRow};
use api::core::v1::TopologySelectorTerm;
use client::ObjectKey;
use rules::ephemeral_volume::belongs;
use rules::volumes::{Claim, NO_PROVISIONER, Volume, best_on};
use std::sync::Arc;

const NOT_FOUND: &str = "node(s) didn't find available persistent volumes to bind";
const ELSEWHERE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

pub(super) struct VolumeBinding;

/// The claims that a pod names.
fn keys(pod: &PodInfo) -> impl Iterator<Item = (ObjectKey, bool)> + '_ {
    pod.facts.claims.iter().map(|used| (ObjectKey::new(pod.namespace(), &used.name), used.ephemeral))
}

/// The claim, if it can be used. Upstream: `podHasPVCs`.
fn usable<'a>(
    storage: &'a Storage,
    pod: &PodInfo,
    key: &ObjectKey,
    ephemeral: bool,
) -> Result<&'a Claim, String> {
    let name = &key.name;
    let Some(claim) = storage.claim(key) else {
        return Err(match ephemeral {
            true => {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            }
            false => format!("persistentvolumeclaim {name:?} not found"),
        });
    };
    if claim.phase == "Lost" {
        let volume = &claim.volume;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.deleting {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if ephemeral {
        belongs(&pod.pod, claim)?;
    }
    Ok(claim)
}

/// Whether the claim's volume is chosen with the node. One that names its volume is the binder's affair.
fn is_delayed(storage: &Storage, claim: &Claim) -> bool {
    claim.volume.is_empty() && storage.class(claim.class()).is_some_and(|class| class.delayed)
}

/// What a pod's claims ask of a node.
#[derive(Clone)]
struct Wanted<'a> {
    storage: &'a Storage,
    /// The volumes of claims that are bound, as far as they are there.
    bound: Vec<Option<&'a Volume>>,
    /// Claims whose volumes are to be made for a certain node.
    selected: Vec<(ObjectKey, &'a Claim, &'a str)>,
    /// Claims that may have any volume, the smallest first, with the volumes that are to be had.
    open: Vec<(ObjectKey, &'a Claim, Arc<[&'a Volume]>)>,
}

impl<'a> Wanted<'a> {
    fn new(cycle: Cycle<'a>) -> Option<Self> {
        if cycle.pod.facts.claims.is_empty() {
            return None;
        }
        let storage = &cycle.cache.surroundings.storage;
        let mut wanted = Wanted { storage, bound: Vec::new(), selected: Vec::new(), open: Vec::new() };
        for (key, _) in keys(cycle.pod) {
            let Some(claim) = storage.claim(&key) else { continue };
            if claim.is_bound() {
                wanted.bound.push(storage.volume(&claim.volume).map(|volume| &volume.facts));
            } else if let Some(node) = storage.selected_node(&key, claim) {
                wanted.selected.push((key, claim, node));
            } else {
                wanted.open.push((key, claim, storage.volumes_for(claim).collect()));
            }
        }
        wanted.open.sort_by(|(_, a, _), (_, b, _)| a.request.cmp(&b.request));
        Some(wanted)
    }

    /// What would have to be done on a node, or why the pod cannot go there. Upstream: `FindPodVolumes`.
    fn on(&self, node: Candidate<'_>) -> Result<Reservation, Vec<&'static str>> {
        let labels = &node.facts.labels;
        let mut reasons = Vec::new();
        let reached = |volume: &Option<&Volume>| volume.is_some_and(|volume| volume.reachable_from(labels));
        if let Some(bad) = self.bound.iter().find(|volume| !reached(volume)) {
            reasons.push(if bad.is_some() { ELSEWHERE } else { NO_VOLUME });
        }
        if self.selected.iter().any(|(.., selected)| **selected != *node.info.name) {
            reasons.push(NOT_FOUND);
            return Err(sorted(reasons));
        }
        let mut reservation = Reservation::default();
        let mut taken: Vec<&str> = Vec::new();
        let mut to_make: Vec<(&ObjectKey, &Claim)> =
            self.selected.iter().map(|(key, claim, _)| (key, *claim)).collect();
        for (key, claim, volumes) in &self.open {
            let among = volumes.iter().copied();
            match best_on(claim, among, labels, |volume| taken.contains(&volume.name.as_str())) {
                Some(volume) => {
                    taken.push(&volume.name);
                    reservation.volumes.push((volume.name.as_str().into(), key.clone()));
                }
                None => to_make.push((key, claim)),
            }
        }
        for (key, claim) in to_make {
            match self.can_be_made(claim, node) {
                Ok(()) => reservation.provisions.push(key.clone()),
                Err(reason) => {
                    reasons.push(reason);
                    break;
                }
            }
        }
        if reasons.is_empty() { Ok(reservation) } else { Err(sorted(reasons)) }
    }

    /// Whether a volume can be made for a claim on a node. Upstream: `checkVolumeProvisions`.
    fn can_be_made(&self, claim: &Claim, node: Candidate<'_>) -> Result<(), &'static str> {
        let Some(class) = self.storage.class(claim.class()) else { return Err(NOT_FOUND) };
        if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER {
            return Err(NOT_FOUND);
        }
        if !allowed(&class.topologies, node) {
            return Err(NOT_FOUND);
        }
        if self.has_space(claim, class, node) { Ok(()) } else { Err(NO_SPACE) }
    }

    /// Upstream: `hasEnoughCapacity`. Drivers that do not say what they have are believed to have enough.
    fn has_space(&self, claim: &Claim, class: &ClassRow, node: Candidate<'_>) -> bool {
        if !self.storage.driver(&class.provisioner).is_some_and(|driver| driver.tells_capacity) {
            return true;
        }
        let size = claim.request.value();
        self.storage.capacities().any(|capacity| {
            capacity.class == claim.class()
                && capacity.limit.is_some_and(|limit| limit >= size)
                && capacity.nodes.as_ref().is_some_and(|nodes| nodes.matches(&node.facts.labels))
        })
    }
}

/// In upstream's order.
fn sorted(mut reasons: Vec<&'static str>) -> Vec<&'static str> {
    const ORDER: [&str; 4] = [ELSEWHERE, NOT_FOUND, NO_SPACE, NO_VOLUME];
    reasons.sort_by_key(|reason| ORDER.iter().position(|known| known == reason));
    reasons.dedup();
    reasons
}

/// Whether a class lets volumes be made on a node: any term, of which all must hold.
fn allowed(terms: &[TopologySelectorTerm], node: Candidate<'_>) -> bool {
    terms.is_empty()
        || terms.iter().any(|term| {
            let expressions = &term.match_label_expressions;
            !expressions.is_empty()
                && expressions.iter().all(|e| {
                    let value = node.label(&e.key);
                    value.is_some_and(|value| e.values.iter().any(|v| v == value))
                })
        })
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn refuse(&self, cycle: Cycle<'_>) -> Option<String> {
        let storage = &cycle.cache.surroundings.storage;
        let mut unbound = false;
        for (key, ephemeral) in keys(cycle.pod) {
            match usable(storage, cycle.pod, &key, ephemeral) {
                Ok(claim) => unbound |= !claim.is_usable() && !is_delayed(storage, claim),
                Err(why) => return Some(why),
            }
        }
        unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".into())
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let wanted = Arc::new(Wanted::new(cycle)?);
        stateless(move |node| match wanted.on(node) {
            Ok(_) => Ok(()),
            Err(reasons) => {
                let reasons = reasons.into_iter().map(Into::into).collect();
                Err(Refusal { reasons, unresolvable: true, ..Refusal::default() })
            }
        })
    }

    fn reserve(&self, cycle: Cycle<'_>, node: Candidate<'_>) -> Option<Reservation> {
        Wanted::new(cycle)?.on(node).ok().filter(|reservation| !reservation.is_empty())
    }

    fn helped_by(&self, event: &Event<'_>, waiter: &Waiter) -> bool {
        match event {
            Event::Claim { new, .. } => waiter.uses(new),
            Event::Volume { .. } | Event::DriverSilent | Event::MoreCapacity => true,
            Event::DriversOfNode { new } => *new,
            Event::StorageClass { old, new } => old.is_none_or(|old| old.topologies != new.topologies),
            _ => event.node_changed(|node| &node.labels),
        }
    }
}
