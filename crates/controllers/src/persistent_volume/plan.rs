//! Pure: what is to be done about a claim, and about a volume, for what is known of them.

use client::recorder::EventType;
use rules::volumes::{Claim, Volume};

/// An event to tell: how serious, its reason, and its message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tell(pub EventType, pub &'static str, pub String);

impl Tell {
    fn normal(reason: &'static str, message: impl Into<String>) -> Self {
        Tell(EventType::Normal, reason, message.into())
    }

    fn warning(reason: &'static str, message: impl Into<String>) -> Self {
        Tell(EventType::Warning, reason, message.into())
    }
}

/// What is known of a claim's surroundings.
#[derive(Debug, Default)]
pub(super) struct ClaimSight<'a> {
    /// The scheduler chooses among volumes.
    pub delayed: bool,
    /// The volume that the claim names, if it is there.
    pub named: Option<&'a Volume>,
    /// The volume that is best for it.
    pub best: Option<&'a Volume>,
    pub default_class: Option<String>,
    /// Pods that use it and have no node yet.
    pub waiting: Vec<String>,
}

/// What is to be done about a claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClaimStep {
    Bind(String),
    /// It goes on waiting.
    Wait(Option<Tell>),
    /// It gets the default class, and is looked at again.
    Classify(String),
    /// Somebody is to make a volume for it.
    Provision,
    /// It lost its volume, for good.
    Lose(Tell),
    /// Another has its volume, which nobody should have brought about.
    Misbound(Tell, String),
}

/// Upstream: `syncClaim`.
pub(super) fn claim(claim: &Claim, sight: ClaimSight<'_>) -> ClaimStep {
    if claim.bind_completed {
        return bound_claim(claim, sight.named);
    }
    if !claim.volume.is_empty() {
        return claim_of_a_volume(claim, sight.named);
    }
    if let Some(volume) = sight.best {
        return ClaimStep::Bind(volume.name.clone());
    }
    if let (None, Some(class)) = (&claim.class, sight.default_class) {
        return ClaimStep::Classify(class);
    }
    if sight.delayed && claim.selected_node.is_none() {
        return ClaimStep::Wait(Some(match sight.waiting.as_slice() {
            [] => Tell::normal(
                "WaitForFirstConsumer",
                "waiting for first consumer to be created before binding",
            ),
            [one] => Tell::normal("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            several => {
                let message = format!("waiting for pods {} to be scheduled", several.join(","));
                Tell::normal("WaitForPodScheduled", message)
            }
        }));
    }
    if !claim.class().is_empty() {
        return ClaimStep::Provision;
    }
    let message = "no persistent volumes available for this claim and no storage class is set";
    ClaimStep::Wait(Some(Tell::normal("FailedBinding", message)))
}

fn bound_claim(claim: &Claim, named: Option<&Volume>) -> ClaimStep {
    let lost = |reason, message: &str| ClaimStep::Lose(Tell::warning(reason, message));
    if claim.volume.is_empty() {
        return lost(
            "ClaimLost",
            "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
        );
    }
    let Some(volume) = named else {
        return lost("ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!");
    };
    match &volume.claim {
        Some(reference) if reference.uid != claim.uid => {
            lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
        }
        _ => ClaimStep::Bind(volume.name.clone()),
    }
}

fn claim_of_a_volume(claim: &Claim, named: Option<&Volume>) -> ClaimStep {
    let Some(volume) = named else { return ClaimStep::Wait(None) };
    let Some(reference) = &volume.claim else {
        return match claim.refuses(volume) {
            Some(why) => {
                let message = format!("Cannot bind to requested volume {:?}: {why}", volume.name);
                ClaimStep::Wait(Some(Tell::warning("VolumeMismatch", message)))
            }
            None => ClaimStep::Bind(volume.name.clone()),
        };
    };
    if volume.is_for(claim) {
        return ClaimStep::Bind(volume.name.clone());
    }
    let message = format!("volume {:?} already bound to a different claim.", volume.name);
    let tell = Tell::warning("FailedBinding", message);
    if !claim.bound_by_controller {
        return ClaimStep::Wait(Some(tell));
    }
    let (ours, theirs) = (claim.key(), format!("{}/{}", reference.namespace, reference.name));
    let error = format!(
        "invalid binding of claim {ours:?} to volume {:?}: volume already claimed by {theirs:?}",
        volume.name
    );
    ClaimStep::Misbound(tell, error)
}

/// What is to be done about a volume.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum VolumeStep {
    Available,
    Bound,
    /// Its claim is gone, or got another volume: what its reclaim policy says.
    Reclaim,
    /// It can never be its claim's, and both are told.
    Mismatched {
        volume: Tell,
        claim: Tell,
    },
    /// Its claim is to take it.
    Offer,
    /// Its claim took another: it is free again.
    Unbind,
}

/// What is known of a volume's surroundings.
#[derive(Debug)]
pub(super) struct VolumeSight<'a> {
    /// The claim that it is for, unless that is gone.
    pub claim: Option<&'a Claim>,
    /// It was made for that claim, and is to go with it.
    pub dispensable: bool,
}

/// Upstream: `syncVolume`.
pub(super) fn volume(volume: &Volume, sight: VolumeSight<'_>) -> VolumeStep {
    if volume.claim.as_ref().is_none_or(|claim| claim.uid.is_empty()) {
        return VolumeStep::Available;
    }
    let Some(claim) = sight.claim else { return VolumeStep::Reclaim };
    if claim.volume.is_empty() {
        if claim.block == volume.block {
            return VolumeStep::Offer;
        }
        return VolumeStep::Mismatched {
            volume: Tell::warning(
                "VolumeMismatch",
                format!(
                    "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
                    claim.name
                ),
            ),
            claim: Tell::warning(
                "VolumeMismatch",
                format!(
                    "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
                    volume.name
                ),
            ),
        };
    }
    if claim.volume == volume.name {
        return VolumeStep::Bound;
    }
    if sight.dispensable { VolumeStep::Reclaim } else { VolumeStep::Unbind }
}
