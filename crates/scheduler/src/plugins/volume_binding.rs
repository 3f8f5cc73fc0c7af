//! The claims of a pod: they must be there and bound, and where their volumes are is where the pod can go.

use crate::facts::PodInfo;
use crate::framework::{Cycle, Event, Filter, Plugin, Refusal, stateless};
use crate::surroundings::{Claim, Surroundings};
use rules::ephemeral_volume::{claim_name, is_for_pod};

pub(super) struct VolumeBinding;

/// The claims that a pod names, and whether they are of ephemeral volumes.
fn named(pod: &PodInfo) -> impl Iterator<Item = (String, bool)> + '_ {
    pod.pod.spec.volumes.iter().filter_map(|volume| match &volume.persistent_volume_claim {
        Some(source) => Some((source.claim_name.clone(), false)),
        None => volume.ephemeral.as_ref().map(|_| (claim_name(&pod.pod, &volume.name), true)),
    })
}

/// The claim, if it can be used. Upstream: `podHasPVCs`.
fn usable<'a>(
    around: &'a Surroundings,
    pod: &PodInfo,
    name: &str,
    ephemeral: bool,
) -> Result<&'a Claim, String> {
    let Some(claim) = around.claim(pod.namespace(), name) else {
        return Err(match ephemeral {
            true => {
                format!(
                    "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                )
            }
            false => format!("persistentvolumeclaim {name:?} not found"),
        });
    };
    if claim.lost {
        let volume = &claim.volume;
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.deleting {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if ephemeral {
        is_for_pod(&pod.pod, &claim.owned)?;
    }
    Ok(claim)
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn refuse(&self, cycle: Cycle<'_>) -> Option<String> {
        let around = &cycle.cache.surroundings;
        let mut unbound = false;
        for (name, ephemeral) in named(cycle.pod) {
            match usable(around, cycle.pod, &name, ephemeral) {
                Ok(claim) => unbound |= !claim.bound,
                Err(why) => return Some(why),
            }
        }
        unbound.then(|| "pod has unbound immediate PersistentVolumeClaims".into())
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let around = &cycle.cache.surroundings;
        let claims = named(cycle.pod).filter_map(|(name, _)| around.claim(cycle.pod.namespace(), &name));
        let volumes: Vec<_> = claims.map(|claim| around.volume(&claim.volume)).collect();
        if volumes.is_empty() {
            return None;
        }
        stateless(move |node| {
            for volume in &volumes {
                let Some(affinity) = volume else {
                    let why = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                    return Err(Refusal::unresolvable(why));
                };
                let matches = |wanted| {
                    rules::node_affinity::matches_selector(wanted, &node.info.name, &node.facts.labels)
                };
                if !affinity.as_ref().is_none_or(matches) {
                    return Err(Refusal::unresolvable(
                        "node(s) didn't match PersistentVolume's node affinity",
                    ));
                }
            }
            Ok(())
        })
    }

    fn helped_by(&self, event: &Event<'_>) -> bool {
        matches!(event, Event::Volumes) || event.node_changed(|node| &node.labels)
    }
}
