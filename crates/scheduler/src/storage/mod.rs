//! What a decision reads of claims, volumes and those who make them; with what was decided about them counted from the
//! moment it is decided, before it is written and seen (assumed).

pub mod rows;

use crate::reservation::Reservation;
use client::ObjectKey;
use rows::{CapacityRow, ClaimRow, ClassRow, DriverRow, VolumeRow};
use rules::volumes::{Claim, Reference, Volume};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

/// Something known at a revision.
#[derive(Debug)]
struct Known<T> {
    row: T,
    revision: u64,
}

/// Read by decisions. Ordered by name, so that of equals always the same is taken.
#[derive(Debug, Default)]
pub struct Storage {
    claims: HashMap<ObjectKey, Known<ClaimRow>>,
    volumes: BTreeMap<Arc<str>, Known<VolumeRow>>,
    classes: HashMap<Arc<str>, ClassRow>,
    /// CSI drivers, by name.
    drivers: HashMap<Arc<str>, DriverRow>,
    capacities: HashMap<ObjectKey, CapacityRow>,
    /// How many volumes of a driver a node can have, by node and driver.
    limits: HashMap<Arc<str>, BTreeMap<String, i64>>,
    /// Driver and volume of attachments, by node and attachment.
    attachments: HashMap<String, HashMap<Arc<str>, (String, String)>>,
    /// Volumes that are decided to be a claim's, as of the revision at which that was decided.
    assumed_volumes: HashMap<Arc<str>, Known<Reference>>,
    /// Claims that are decided to get a volume made for a node.
    assumed_nodes: HashMap<ObjectKey, Known<Arc<str>>>,
}

impl Storage {
    /// A claim, and the node for which its volume is to be made.
    pub fn claim(&self, key: &ObjectKey) -> Option<&Claim> {
        self.claims.get(key).map(|known| &known.row.0)
    }

    /// The node for which a claim's volume is to be, or is decided to be made.
    pub fn selected_node<'a>(&'a self, key: &ObjectKey, claim: &'a Claim) -> Option<&'a str> {
        let assumed = self.assumed_nodes.get(key).map(|known| &*known.row);
        assumed.or(claim.selected_node.as_deref())
    }

    pub fn volume(&self, name: &str) -> Option<&VolumeRow> {
        self.volumes.get(name).map(|known| &known.row)
    }

    pub fn class(&self, name: &str) -> Option<&ClassRow> {
        self.classes.get(name)
    }

    pub fn driver(&self, name: &str) -> Option<&DriverRow> {
        self.drivers.get(name)
    }

    pub fn capacities(&self) -> impl Iterator<Item = &CapacityRow> {
        self.capacities.values()
    }

    /// How many volumes of each driver a node can have.
    pub fn limits(&self, node: &str) -> Option<&BTreeMap<String, i64>> {
        self.limits.get(node)
    }

    /// Whether any node limits the volumes of any driver.
    pub fn has_limits(&self) -> bool {
        self.limits.values().any(|drivers| !drivers.is_empty())
    }

    /// Driver and volume of what is attached to a node.
    pub fn attached(&self, node: &str) -> impl Iterator<Item = &(String, String)> {
        self.attachments.get(node).into_iter().flat_map(HashMap::values)
    }

    /// The volumes of a claim's class that are not decided to be another's; or the one that is decided to be its.
    pub fn volumes_for<'a>(&'a self, claim: &'a Claim) -> impl Iterator<Item = &'a Volume> {
        let class = claim.class();
        let decided = self.assumed_volumes.iter().find(|(_, known)| known.row.uid == claim.uid);
        let decided = decided.map(|(name, _)| &**name);
        let of_class = self.volumes.values().map(|known| &known.row.facts).filter(move |v| v.class == class);
        of_class.filter(move |volume| match decided {
            Some(name) => volume.name == name,
            None => !self.assumed_volumes.contains_key(volume.name.as_str()),
        })
    }

    pub fn set_claim(&mut self, key: &ObjectKey, row: ClaimRow, revision: u64) {
        if self.assumed_nodes.get(key).is_some_and(|assumed| assumed.revision < revision) {
            self.assumed_nodes.remove(key);
        }
        self.claims.insert(key.clone(), Known { row, revision });
    }

    pub fn set_volume(&mut self, name: &str, row: VolumeRow, revision: u64) {
        if self.assumed_volumes.get(name).is_some_and(|assumed| assumed.revision < revision) {
            self.assumed_volumes.remove(name);
        }
        self.volumes.insert(name.into(), Known { row, revision });
    }

    pub fn set_class(&mut self, name: &str, row: ClassRow) {
        self.classes.insert(name.into(), row);
    }

    pub fn set_driver(&mut self, name: &str, row: DriverRow) {
        self.drivers.insert(name.into(), row);
    }

    pub fn set_capacity(&mut self, key: &ObjectKey, row: CapacityRow) {
        self.capacities.insert(key.clone(), row);
    }

    pub fn set_limits(&mut self, node: &str, limits: BTreeMap<String, i64>) {
        self.limits.insert(node.into(), limits);
    }

    pub fn set_attachment(&mut self, name: &str, node: &str, driver: &str, volume: &str) {
        let of_node = self.attachments.entry(node.into()).or_default();
        of_node.insert(name.into(), (driver.into(), volume.into()));
    }

    /// From now on the volumes are the claims', and the claims wait for volumes of the node.
    pub fn assume(&mut self, reservation: &Reservation, node: &str) {
        for (volume, claim) in &reservation.volumes {
            let (Some(known), Some(claim)) = (self.volumes.get(volume), self.claims.get(claim)) else {
                continue;
            };
            let claim = &claim.row.0;
            let (namespace, name, uid) = (claim.namespace.clone(), claim.name.clone(), claim.uid.clone());
            let row = Reference { namespace, name, uid };
            self.assumed_volumes.insert(volume.clone(), Known { row, revision: known.revision });
        }
        for claim in &reservation.provisions {
            if let Some(known) = self.claims.get(claim) {
                let assumed = Known { row: node.into(), revision: known.revision };
                self.assumed_nodes.insert(claim.clone(), assumed);
            }
        }
    }

    /// Takes back what was decided.
    pub fn forget(&mut self, reservation: &Reservation) {
        for (volume, _) in &reservation.volumes {
            self.assumed_volumes.remove(volume);
        }
        for claim in &reservation.provisions {
            self.assumed_nodes.remove(claim);
        }
    }

    /// The revision at which a volume is known.
    pub fn volume_revision(&self, name: &str) -> Option<u64> {
        self.volumes.get(name).map(|known| known.revision)
    }

    /// The revision at which a claim is known.
    pub fn claim_revision(&self, key: &ObjectKey) -> Option<u64> {
        self.claims.get(key).map(|known| known.revision)
    }

    /// Driver and handle by which a claim's volume counts on a node; one that is not made yet counts by its claim.
    /// Upstream: `getCSIDriverInfo`.
    pub fn csi_volume(&self, key: &ObjectKey) -> Option<(&str, String)> {
        let claim = self.claim(key)?;
        match self.volume(&claim.volume).filter(|_| !claim.volume.is_empty()) {
            Some(volume) => volume.csi.as_ref().map(|(driver, handle)| (driver.as_str(), handle.clone())),
            None => {
                let class = self.class(claim.class())?;
                // No handle that a driver gives out begins so.
                Some((class.provisioner.as_str(), format!("\0{key}")))
            }
        }
    }

    /// Driver and handle of everything that the claims of a pod bring to a node.
    pub fn csi_volumes<'a>(
        &'a self,
        namespace: &str,
        claims: impl Iterator<Item = &'a str>,
    ) -> HashSet<(&'a str, String)> {
        claims.filter_map(|name| self.csi_volume(&ObjectKey::new(namespace, name))).collect()
    }
}
