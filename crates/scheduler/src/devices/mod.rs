//! What a decision reads of claims to devices, of their classes, and of what drivers have; with what was decided about
//! claims counted from the moment it is decided, before it is written and seen.

pub mod allocate;
mod capacity;
mod constraint;
pub mod extended;
mod features;
mod pools;
mod request;
pub mod rows;
pub mod taint_rules;
pub mod verdicts;

use api::resource::v1::AllocationResult;
use apimachinery::quantity::Quantity;
use cel::device::Selector;
use client::ObjectKey;
pub use features::Features;
use parking_lot::Mutex;
use rows::{Claim, ClassRow, DeviceId, Slice};
use rules::resource_claim::{CLASS_PREFIX, Wanted, not_its_own};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use taint_rules::RuleRow;
use verdicts::{Changes, Verdicts};

/// So many expressions are kept compiled.
const COMPILED: usize = 64;

/// Something known at a revision.
#[derive(Debug)]
struct Known {
    claim: Arc<Claim>,
    revision: u64,
}

/// A pool, by driver and name.
type PoolId = (String, String);

/// What is in use of the devices.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Whoever has a share of a device has all of it.
    exclusive: bool,
    /// Devices that are somebody's alone.
    whole: HashMap<DeviceId, usize>,
    /// Devices that several share.
    shared: HashMap<DeviceId, Shares>,
}

#[derive(Debug, Default)]
struct Shares {
    count: usize,
    consumed: BTreeMap<String, Quantity>,
}

impl Taken {
    fn is_whole(&self, id: &DeviceId) -> bool {
        self.whole.contains_key(id)
    }

    fn is_taken(&self, id: &DeviceId) -> bool {
        self.is_whole(id) || self.shared.contains_key(id)
    }

    /// How much of a shared device is in use.
    fn consumed(&self, id: &DeviceId) -> Option<&BTreeMap<String, Quantity>> {
        self.shared.get(id).map(|shares| &shares.consumed)
    }

    /// What is given for administration is not taken from anybody.
    fn add(&mut self, allocation: &AllocationResult) {
        for given in allocation.devices.results.iter().filter(|given| given.admin_access != Some(true)) {
            let id = DeviceId::of(given);
            if self.exclusive || given.share_id.is_none() {
                *self.whole.entry(id).or_default() += 1;
                continue;
            }
            let shares = self.shared.entry(id).or_default();
            shares.count += 1;
            for (name, amount) in &given.consumed_capacity {
                shares.consumed.entry(name.clone()).or_default().add(amount);
            }
        }
    }

    fn remove(&mut self, allocation: &AllocationResult) {
        for given in allocation.devices.results.iter().filter(|given| given.admin_access != Some(true)) {
            let id = DeviceId::of(given);
            if self.exclusive || given.share_id.is_none() {
                if let Some(count) = self.whole.get_mut(&id) {
                    *count -= 1;
                    if *count == 0 {
                        self.whole.remove(&id);
                    }
                }
                continue;
            }
            let Some(shares) = self.shared.get_mut(&id) else { continue };
            shares.count -= 1;
            for (name, amount) in &given.consumed_capacity {
                shares.consumed.entry(name.clone()).or_default().sub(amount);
            }
            if shares.count == 0 {
                self.shared.remove(&id);
            }
        }
    }
}

/// Read by decisions.
#[derive(Debug, Default)]
pub struct Devices {
    features: Features,
    claims: HashMap<ObjectKey, Known>,
    /// The newest revision that the watch of claims has brought.
    seen: u64,
    /// What was decided and is not seen yet, by the uid of the claim; or of the pod, whose claim is yet to be made.
    in_flight: HashMap<String, Arc<AllocationResult>>,
    /// Claims made for extended resources, by the uid of their pod.
    extended: HashMap<String, ObjectKey>,
    classes: BTreeMap<String, Arc<ClassRow>>,
    /// The class that gives an extended resource, by the resource.
    by_resource: HashMap<String, Arc<ClassRow>>,
    slices: BTreeMap<String, Arc<Slice>>,
    /// Names of slices that are of one node only.
    of_node: HashMap<String, BTreeSet<String>>,
    /// Names of the others.
    of_many: BTreeSet<String>,
    of_pool: HashMap<PoolId, BTreeSet<String>>,
    rules: BTreeMap<String, RuleRow>,
    taken: Taken,
    compiled: Compiled,
    changes: Changes,
    verdicts: Verdicts,
}

#[derive(Debug, Default)]
struct Compiled(Mutex<HashMap<String, Result<Selector, String>>>);

impl Compiled {
    fn get(&self, expression: &str, features: Features) -> Result<Selector, String> {
        let mut known = self.0.lock();
        if let Some(compiled) = known.get(expression) {
            return compiled.clone();
        }
        if known.len() >= COMPILED {
            known.clear();
        }
        let features = cel::device::Features {
            consumable_capacity: features.consumable_capacity,
            list_attributes: features.list_attributes,
        };
        let compiled = Selector::compile(expression, features);
        known.insert(expression.to_owned(), compiled.clone());
        compiled
    }
}

impl Devices {
    /// Nothing yet, of which these features are to be in use.
    pub fn new(features: Features) -> Self {
        let taken = Taken { exclusive: !features.consumable_capacity, ..Default::default() };
        Devices { features, taken, ..Default::default() }
    }

    pub fn features(&self) -> Features {
        self.features
    }

    pub fn claim(&self, key: &ObjectKey) -> Option<&Arc<Claim>> {
        self.claims.get(key).map(|known| &known.claim)
    }

    pub fn class(&self, name: &str) -> Option<&Arc<ClassRow>> {
        self.classes.get(name)
    }

    /// The class that gives an extended resource. Of several that name it the newest counts, then the first by name.
    /// Upstream: `ExtendedResourceCache`.
    pub fn class_for(&self, resource: &str) -> Option<&Arc<ClassRow>> {
        let implied = || self.classes.get(resource.strip_prefix(CLASS_PREFIX)?);
        self.by_resource.get(resource).or_else(implied)
    }

    /// Whether any class gives the resource.
    pub fn gives(&self, resource: &str) -> bool {
        let may = self.features.extended_resources && !self.classes.is_empty();
        may && self.class_for(resource).is_some()
    }

    /// Whether a decision about the claim is on its way.
    pub fn is_in_flight(&self, uid: &str) -> bool {
        self.in_flight.contains_key(uid)
    }

    /// The claim that was made for the extended resources of a pod.
    pub fn extended_claim(&self, pod_uid: &str) -> Option<&Arc<Claim>> {
        self.claim(self.extended.get(pod_uid)?)
    }

    /// The claims that a pod names; or why one of them cannot be used. Upstream: `foreachPodResourceClaim`.
    pub fn claims_of(
        &self,
        pod: &ObjectKey,
        uid: &str,
        wanted: &[Wanted],
    ) -> Result<Vec<&Arc<Claim>>, String> {
        let mut claims = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let Some(name) = wanted.must_be(&pod.namespace, &pod.name)? else { continue };
            let Some(claim) = self.claim(&ObjectKey::new(&pod.namespace, name)) else {
                return Err(format!(
                    "could not find ResourceClaim {:?}",
                    format!("{}/{name}", pod.namespace)
                ));
            };
            if claim.deleting {
                return Err(format!("resourceclaim {name:?} is being deleted"));
            }
            if wanted.is_owned() && claim.controller.as_deref() != Some(uid) {
                return Err(not_its_own((&pod.namespace, name), (&pod.namespace, &pod.name)));
            }
            claims.push(claim);
        }
        Ok(claims)
    }

    /// Takes in a claim that the watch has brought, unless a newer one is known by an answer to a write of ours.
    pub fn set_claim(&mut self, key: &ObjectKey, claim: Arc<Claim>, revision: u64) {
        self.seen = self.seen.max(revision);
        self.keep(key, claim, revision);
    }

    /// Takes in what was answered to a write of ours, unless the watch is further already: what it says then counts, also
    /// that the claim is gone.
    pub fn written(&mut self, key: &ObjectKey, claim: Arc<Claim>, revision: u64) {
        if revision > self.seen {
            self.keep(key, claim, revision);
        }
    }

    fn keep(&mut self, key: &ObjectKey, claim: Arc<Claim>, revision: u64) {
        if self.claims.get(key).is_some_and(|known| known.revision >= revision) {
            return;
        }
        self.let_go(key);
        if let Some(allocation) = &claim.status.allocation {
            self.taken.add(allocation);
            self.taken_changed(allocation);
            self.land(&claim.uid);
        }
        if claim.extended
            && let Some(pod) = &claim.controller
        {
            self.extended.insert(pod.clone(), key.clone());
        }
        self.claims.insert(key.clone(), Known { claim, revision });
    }

    /// The watch has brought that a claim is gone.
    pub fn remove_claim(&mut self, key: &ObjectKey, revision: u64) {
        self.seen = self.seen.max(revision);
        self.let_go(key);
    }

    fn let_go(&mut self, key: &ObjectKey) {
        let Some(known) = self.claims.remove(key) else { return };
        if let Some(allocation) = &known.claim.status.allocation {
            self.taken.remove(allocation);
            self.taken_changed(allocation);
        }
        if known.claim.extended
            && let Some(pod) = &known.claim.controller
        {
            self.extended.remove(pod);
        }
    }

    /// From now on the devices are the claim's.
    pub fn fly(&mut self, uid: &str, allocation: &Arc<AllocationResult>) {
        self.land(uid);
        self.taken.add(allocation);
        self.taken_changed(allocation);
        self.in_flight.insert(uid.to_owned(), allocation.clone());
    }

    /// A decision has been written, or given up.
    pub fn land(&mut self, uid: &str) {
        if let Some(allocation) = self.in_flight.remove(uid) {
            self.taken.remove(&allocation);
            self.taken_changed(&allocation);
        }
    }

    pub fn set_class(&mut self, class: ClassRow) {
        self.remove_class(&class.name);
        self.classes.insert(class.name.clone(), Arc::new(class));
        self.index_resources();
    }

    pub fn remove_class(&mut self, name: &str) {
        if self.classes.remove(name).is_some() {
            self.index_resources();
        }
    }

    fn index_resources(&mut self) {
        self.changes.happened();
        self.by_resource.clear();
        for class in self.classes.values() {
            let Some(resource) = class.spec.extended_resource_name.as_ref().filter(|name| !name.is_empty())
            else {
                continue;
            };
            // They come by name, so that of those of one age the first stays.
            match self.by_resource.get(resource) {
                Some(known) if known.created >= class.created => {}
                _ => drop(self.by_resource.insert(resource.clone(), class.clone())),
            }
        }
    }

    pub fn set_slice(&mut self, slice: Arc<Slice>) {
        let name = slice.name.clone();
        self.remove_slice(&name);
        match node_of(&slice) {
            Some(node) => drop(self.of_node.entry(node.to_owned()).or_default().insert(name.clone())),
            None => drop(self.of_many.insert(name.clone())),
        }
        self.of_pool.entry(pool_of(&slice)).or_default().insert(name.clone());
        self.slices.insert(name, slice.clone());
        self.slice_changed(&slice);
    }

    pub fn remove_slice(&mut self, name: &str) {
        let Some(slice) = self.slices.get(name).cloned() else { return };
        self.slice_changed(&slice);
        self.slices.remove(name);
        self.of_many.remove(name);
        if let Some(node) = node_of(&slice) {
            forget(&mut self.of_node, &node.to_owned(), name);
            if !self.of_node.contains_key(node) {
                self.changes.forget(node);
            }
        }
        forget(&mut self.of_pool, &pool_of(&slice), name);
    }
}

fn forget<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<String>>, key: &K, name: &str) {
    if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

fn pool_of(slice: &Slice) -> PoolId {
    (slice.spec.driver.clone(), slice.spec.pool.name.clone())
}

/// The one node that a slice is of. Shared counters count wherever the devices are that consume them.
fn node_of(slice: &Slice) -> Option<&str> {
    let node = slice.spec.node_name.as_deref().filter(|node| !node.is_empty());
    node.filter(|_| slice.spec.shared_counters.is_empty())
}
