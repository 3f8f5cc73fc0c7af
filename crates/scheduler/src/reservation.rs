//! What is decided for a pod beside its node, and done before it is bound.

use crate::devices::extended::Extended;
use crate::surroundings::Surroundings;
use api::resource::v1::AllocationResult;
use client::ObjectKey;
use std::sync::Arc;

/// A claim to devices that the pod is to use.
#[derive(Debug, Clone, PartialEq)]
pub struct ClaimReservation {
    /// Without a name for a claim that is yet to be made.
    pub key: ObjectKey,
    /// Of the claim; or of the pod, for one that is yet to be made.
    pub uid: String,
    /// What the claim is to get, if it has not got it.
    pub allocation: Option<Arc<AllocationResult>>,
    /// What it is to be made for.
    pub extended: Option<Extended>,
}

/// What was decided about a pod's claims. Plugins each decide a part.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reservation {
    /// Volumes that are there, each for a claim.
    pub volumes: Vec<(Arc<str>, ObjectKey)>,
    /// Claims for which a volume is to be made for the node.
    pub provisions: Vec<ObjectKey>,
    /// All its claims to devices.
    pub claims: Vec<ClaimReservation>,
}

impl Reservation {
    pub fn is_empty(&self) -> bool {
        !self.has_volumes() && self.claims.is_empty()
    }

    /// Whether anything is to be done about volumes.
    pub fn has_volumes(&self) -> bool {
        !(self.volumes.is_empty() && self.provisions.is_empty())
    }

    /// Adds what another plugin decided.
    pub fn merge(mut self, other: Self) -> Self {
        self.volumes.extend(other.volumes);
        self.provisions.extend(other.provisions);
        self.claims.extend(other.claims);
        self
    }

    /// From now on it counts.
    pub fn assume(&self, surroundings: &mut Surroundings, node: &str) {
        surroundings.storage.assume(self, node);
        for claim in &self.claims {
            if let Some(allocation) = &claim.allocation {
                surroundings.devices.fly(&claim.uid, allocation);
            }
        }
    }

    /// It will not come about.
    pub fn forget(&self, surroundings: &mut Surroundings) {
        surroundings.storage.forget(self);
        for claim in &self.claims {
            surroundings.devices.land(&claim.uid);
        }
    }
}
