//! Which devices of a node claims can have. The first solution counts: claims and their requests in order, pools by name,
//! those last whose devices take time to be bound, devices in the order in which their driver published them. All
//! combinations are tried. Upstream: KEP-4381, `structured.Allocator`.
//!
//! A claim whose search takes longer than [`PATIENCE`] has it given up: nothing else is decided meanwhile.

use super::Devices;
use super::capacity::Amounts;
use super::constraint::{Asker, Constraint};
use super::pools::{Pool, State, consumes};
use super::request::{Alternative, Broken, Request, Spot, broken};
use super::rows::{Claim, DeviceId};
use crate::framework::Candidate;
use api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};
use apimachinery::quantity::Quantity;
use rules::resource_claim::tolerates;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// The most devices of a claim.
const MAX_DEVICES: usize = 32;
/// How long looking for the devices of one pod on one node may take.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// The clock is looked at once in so many steps.
const STEPS: u32 = 64;

/// Stands for the identity of a share, until it is decided that it is to be.
pub const SHARE: &str = "share";

/// Why a node has not got the devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// They are not there, or others have them.
    Here(&'static str),
    /// What is asked for is wrong, or looking for it takes too long.
    Everywhere(String),
}

impl From<Broken> for Refused {
    fn from(Broken(why): Broken) -> Self {
        Refused::Everywhere(why)
    }
}

/// How far a search has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Done,
    /// Not by this way.
    No,
    /// The claim would have too many devices.
    TooMany,
}

/// A device that is given to a request.
struct Given<'a> {
    spot: Spot<'a>,
    request: usize,
    alternative: usize,
    /// What of its capacity, if it is shared.
    share: Option<Amounts>,
    /// Its counters were taken for it.
    counted: bool,
}

struct Asked<'a> {
    claim: &'a Claim,
    requests: Vec<Request<'a>>,
    constraints: Vec<Constraint<'a>>,
    given: Vec<Given<'a>>,
    /// The alternative by which each request is met.
    picked: Vec<usize>,
}

/// Where to go on looking.
#[derive(Debug, Clone, Copy, Default)]
struct Behind {
    pool: usize,
    slice: usize,
    device: usize,
}

/// A device that one of the claims, by its place, asks for: a request, an alternative of it, and the how manieth.
#[derive(Debug, Clone, Copy)]
struct Turn {
    claim: usize,
    request: usize,
    alternative: usize,
    nth: usize,
}

/// What is left of a counter, by set and name.
type Counters<'a> = HashMap<(&'a str, &'a str), Quantity>;

struct Search<'a> {
    devices: &'a Devices,
    node: Candidate<'a>,
    pools: Vec<Pool<'a>>,
    claims: Vec<Asked<'a>>,
    /// The claims, by their place, that are about to have a device for themselves.
    whole: HashMap<&'a DeviceId, Vec<usize>>,
    /// What is about to be had of devices that are shared, one entry for each that shares.
    shares: HashMap<&'a DeviceId, Vec<Amounts>>,
    /// Of the pools that were asked for it.
    left: HashMap<usize, Counters<'a>>,
    selected: HashMap<(usize, usize, usize, &'a DeviceId), bool>,
    deadline: Option<Instant>,
    steps: u32,
}

impl Devices {
    /// What each of the claims gets on the node.
    pub fn allocate(
        &self,
        node: Candidate<'_>,
        claims: &[&Claim],
        deadline: Option<Instant>,
    ) -> Result<Vec<AllocationResult>, Refused> {
        let mut search = Search {
            devices: self,
            node,
            pools: self.pools(node),
            claims: Vec::with_capacity(claims.len()),
            whole: HashMap::new(),
            shares: HashMap::new(),
            left: HashMap::new(),
            selected: HashMap::new(),
            deadline,
            steps: 0,
        };
        for claim in claims {
            search.ask(claim)?;
        }
        if search.claim(0)? == Step::Done {
            return Ok(search.claims.iter().map(|asked| asked.result(node)).collect());
        }
        let invalid = search.pools.iter().any(|pool| pool.state == State::Invalid);
        Err(Refused::Here(match invalid {
            true => "invalid resource pools were encountered",
            false => "cannot allocate all claims",
        }))
    }
}

impl<'a> Search<'a> {
    /// Prepares a claim, and says if it cannot be met anywhere.
    fn ask(&mut self, claim: &'a Claim) -> Result<(), Refused> {
        let requests = claim.asks.requests.iter();
        let requests = requests.map(|request| Request::new(self.devices, claim, request));
        let mut requests = requests.collect::<Result<Vec<_>, _>>()?;
        for request in &mut requests {
            let name = request.name;
            for alternative in &mut request.alternatives {
                if alternative.all.is_some() {
                    let called = alternative.name.unwrap_or(name);
                    let all = self.all(claim, called, alternative)?;
                    alternative.count = all.len();
                    alternative.all = Some(all);
                }
            }
        }
        let least: usize = requests.iter().map(Request::least).sum();
        if least > MAX_DEVICES {
            return Err(Refused::Everywhere(format!(
                "claim {}/{}: number of requested devices {least} exceeds the claim limit of {MAX_DEVICES}",
                claim.namespace, claim.name
            )));
        }
        let mut constraints = Vec::new();
        for (i, constraint) in claim.asks.constraints.iter().enumerate() {
            constraints.push(Constraint::of(constraint).ok_or_else(|| {
                Refused::Everywhere(format!(
                    "claim {}/{}, constraint #{i}: empty constraint (unsupported constraint type?)",
                    claim.namespace, claim.name
                ))
            })?);
        }
        let picked = vec![0; requests.len()];
        self.claims.push(Asked { claim, requests, constraints, given: Vec::new(), picked });
        Ok(())
    }

    /// All devices that an alternative means. Which those are is not known while a pool is being published.
    fn all(
        &self,
        claim: &'a Claim,
        request: &str,
        alternative: &Alternative<'a>,
    ) -> Result<Vec<Spot<'a>>, Broken> {
        let mut all = Vec::new();
        for (at, pool) in self.pools.iter().enumerate() {
            let state = match pool.state {
                State::Good => None,
                State::Incomplete => Some("being updated"),
                State::Invalid => Some("invalid"),
            };
            if let Some(state) = state {
                let pool = pool.name();
                return Err(broken(
                    claim,
                    request,
                    format_args!("asks for all devices, but resource pool {pool} is currently {state}"),
                ));
            }
            for slice in pool.slices.iter().copied() {
                for index in 0..slice.devices.len() {
                    let spot = Spot { pool: at, slice, index };
                    if alternative.selects(self.devices, claim, spot, self.node)?
                        && alternative.consumes(self.devices, spot, None).is_some()
                    {
                        all.push(spot);
                    }
                }
            }
        }
        Ok(all)
    }

    fn claim(&mut self, claim: usize) -> Result<Step, Refused> {
        if claim == self.claims.len() { Ok(Step::Done) } else { self.request(claim, 0) }
    }

    fn request(&mut self, claim: usize, request: usize) -> Result<Step, Refused> {
        let Some(asked) = self.claims[claim].requests.get(request) else {
            // That a later claim has too many is no fault of this one's.
            return Ok(match self.claim(claim + 1)? {
                Step::TooMany => Step::No,
                step => step,
            });
        };
        let first = Turn { claim, request, alternative: 0, nth: 0 };
        if !asked.chooses() {
            return self.device(first, Behind::default());
        }
        let mut nothing = Step::TooMany;
        for alternative in 0..asked.alternatives.len() {
            match self.device(Turn { alternative, ..first }, Behind::default())? {
                Step::Done => {
                    self.claims[claim].picked[request] = alternative;
                    return Ok(Step::Done);
                }
                Step::No => nothing = Step::No,
                // The next may take fewer.
                Step::TooMany => {}
            }
        }
        Ok(nothing)
    }

    fn device(&mut self, turn: Turn, from: Behind) -> Result<Step, Refused> {
        self.steps += 1;
        let is_late = |deadline| Instant::now() >= deadline;
        if self.steps.is_multiple_of(STEPS) && self.deadline.is_some_and(is_late) {
            let node = &self.node.info.name;
            return Err(Refused::Everywhere(format!("node {node}: timed out trying to allocate devices")));
        }
        let asked = &self.claims[turn.claim];
        let alternative = &asked.requests[turn.request].alternatives[turn.alternative];
        if alternative.all.as_ref().is_some_and(Vec::is_empty) {
            return Ok(Step::No);
        }
        if turn.nth >= alternative.count {
            return self.request(turn.claim, turn.request + 1);
        }
        if asked.given.len() + alternative.count - turn.nth > MAX_DEVICES {
            return Ok(Step::TooMany);
        }
        let next = Turn { nth: turn.nth + 1, ..turn };
        // In which order all devices are taken makes no difference.
        if let Some(spot) = alternative.all.as_ref().map(|all| all[turn.nth]) {
            if !self.take(turn, spot)? {
                return Ok(Step::No);
            }
            let step = self.device(next, Behind::default())?;
            if step != Step::Done {
                self.give_back(turn.claim);
            }
            return Ok(step);
        }
        for pool in from.pool..self.pools.len() {
            if self.pools[pool].state != State::Good {
                continue;
            }
            let slices = if pool == from.pool { from.slice } else { 0 };
            for at in slices..self.pools[pool].slices.len() {
                let slice = self.pools[pool].slices[at];
                let devices = if (pool, at) == (from.pool, from.slice) { from.device } else { 0 };
                for index in devices..slice.devices.len() {
                    let spot = Spot { pool, slice, index };
                    if !self.is_free(turn, spot)
                        || !self.is_selected(turn, spot)?
                        || !self.take(turn, spot)?
                    {
                        continue;
                    }
                    let behind = Behind { pool, slice: at, device: index + 1 };
                    let step = self.device(next, behind)?;
                    if step == Step::Done {
                        return Ok(step);
                    }
                    self.give_back(turn.claim);
                    if step == Step::TooMany {
                        return Ok(step);
                    }
                }
            }
        }
        Ok(Step::No)
    }

    fn alternative(&self, turn: Turn) -> &Alternative<'a> {
        &self.claims[turn.claim].requests[turn.request].alternatives[turn.alternative]
    }

    /// Whether nobody has the device for himself; or, if that does not matter, this claim has it not already.
    fn is_free(&self, turn: Turn, spot: Spot<'a>) -> bool {
        let about = self.whole.get(spot.id());
        if self.alternative(turn).admin {
            return !about.is_some_and(|claims| claims.contains(&turn.claim));
        }
        about.is_none_or(Vec::is_empty) && !self.devices.taken.is_whole(spot.id())
    }

    fn is_selected(&mut self, turn: Turn, spot: Spot<'a>) -> Result<bool, Broken> {
        let key = (turn.claim, turn.request, turn.alternative, spot.id());
        if let Some(known) = self.selected.get(&key) {
            return Ok(*known);
        }
        let claim = self.claims[turn.claim].claim;
        let selected = self.alternative(turn).selects(self.devices, claim, spot, self.node)?;
        self.selected.insert(key, selected);
        Ok(selected)
    }

    /// What is about to be had of a shared device, in sum.
    fn sharing(&self, id: &DeviceId) -> Option<Amounts> {
        let shares = self.shares.get(id).filter(|shares| !shares.is_empty())?;
        let mut sum = Amounts::new();
        for (name, amount) in shares.iter().flatten() {
            sum.entry(name.clone()).or_default().add(amount);
        }
        Some(sum)
    }

    /// Gives a device to a request, if it may have it. Fails where all devices are wanted, and a constraint is against it.
    fn take(&mut self, turn: Turn, spot: Spot<'a>) -> Result<bool, Broken> {
        let (id, device, features) = (spot.id(), spot.device(), self.devices.features);
        let shared = features.consumable_capacity && device.allow_multiple_allocations == Some(true);
        let alternative = self.alternative(turn);
        let may_share = shared && alternative.admin;
        if !(may_share || self.is_free(turn, spot)) {
            return Ok(false);
        }
        if !features.partitionable_devices && !device.consumes_counters.is_empty() {
            return Ok(false);
        }
        let kept_off = self.devices.taints(id, device).any(|taint| {
            matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
                && !alternative.tolerations.iter().any(|toleration| tolerates(toleration, taint))
        });
        if kept_off {
            return Ok(false);
        }
        let asked = &self.claims[turn.claim];
        let request = &asked.requests[turn.request];
        let asker = Asker { request: request.name, alternative: alternative.name };
        if !asked.constraints.iter().all(|constraint| constraint.accepts(asker, id, device)) {
            if alternative.all.is_none() {
                return Ok(false);
            }
            let why =
                format_args!("cannot add device {id} because a claim constraint would not be satisfied")
                    .to_string();
            return Err(broken(asked.claim, asker.alternative.unwrap_or(asker.request), why));
        }
        let sharing = self.sharing(id);
        let amounts = alternative.consumes(self.devices, spot, sharing.as_ref());
        let Some(amounts) = amounts else { return Ok(false) };
        // Of a shared device the counters are taken but once.
        let in_use = sharing.is_some() || self.devices.taken.consumed(id).is_some();
        let are_taken = shared && in_use;
        let counted = !(device.consumes_counters.is_empty() || are_taken);
        if counted && !self.count(spot) {
            return Ok(false);
        }
        let asked = &mut self.claims[turn.claim];
        asked.constraints.iter_mut().for_each(|constraint| constraint.add(asker, id, device));
        if shared {
            self.shares.entry(id).or_default().push(amounts.clone());
        } else {
            self.whole.entry(id).or_default().push(turn.claim);
        }
        let share = shared.then_some(amounts);
        let (request, alternative) = (turn.request, turn.alternative);
        asked.given.push(Given { spot, request, alternative, share, counted });
        Ok(true)
    }

    /// Takes the last device of a claim back.
    fn give_back(&mut self, claim: usize) {
        let asked = &mut self.claims[claim];
        let Some(given) = asked.given.pop() else { return };
        let request = &asked.requests[given.request];
        let asker =
            Asker { request: request.name, alternative: request.alternatives[given.alternative].name };
        asked.constraints.iter_mut().for_each(|constraint| constraint.remove(asker));
        let id = given.spot.id();
        if given.share.is_some() {
            self.shares.entry(id).or_default().pop();
        } else if let Some(claims) = self.whole.get_mut(id)
            && let Some(at) = claims.iter().rposition(|of| *of == claim)
        {
            claims.remove(at);
        }
        if given.counted
            && let Some(left) = self.left.get_mut(&given.spot.pool)
        {
            for (counter, amount) in consumes(given.spot.device()) {
                left.entry(counter).or_default().add(&amount.value);
            }
        }
    }

    /// Takes the counters that a device consumes, if there is enough of all.
    fn count(&mut self, spot: Spot<'a>) -> bool {
        let (pools, taken) = (&self.pools, &self.devices.taken);
        let left = self.left.entry(spot.pool).or_insert_with(|| left(&pools[spot.pool], taken));
        let enough = |(counter, amount): ((&'a str, &'a str), &api::resource::v1::Counter)| {
            left.get(&counter).is_some_and(|left| *left >= amount.value)
        };
        if !consumes(spot.device()).all(enough) {
            return false;
        }
        for (counter, amount) in consumes(spot.device()) {
            left.entry(counter).or_default().sub(&amount.value);
        }
        true
    }
}

/// What the devices that are in use leave of a pool's counters; less than nothing, if a driver has promised too much.
fn left<'a>(pool: &Pool<'a>, taken: &super::Taken) -> Counters<'a> {
    let mut left = Counters::new();
    for (set, counters) in &pool.counters {
        left.extend(counters.counters.iter().map(|(name, c)| ((*set, name.as_str()), c.value.clone())));
    }
    for slice in pool.slices.iter().chain(&pool.elsewhere) {
        let used =
            slice.devices.iter().zip(&slice.spec.devices).filter(|(known, _)| taken.is_taken(&known.id));
        for (counter, amount) in used.flat_map(|(_, device)| consumes(device)) {
            if let Some(left) = left.get_mut(&counter) {
                left.sub(&amount.value);
            }
        }
    }
    left
}

impl Asked<'_> {
    fn result(&self, node: Candidate<'_>) -> AllocationResult {
        let devices = DeviceAllocationResult {
            results: self.given.iter().map(|given| self.given(given)).collect(),
            config: self.config(),
        };
        AllocationResult { devices, node_selector: self.node_selector(node), ..Default::default() }
    }

    fn given(&self, given: &Given<'_>) -> DeviceRequestAllocationResult {
        let request = &self.requests[given.request];
        let alternative = &request.alternatives[given.alternative];
        let (id, device) = (given.spot.id(), given.spot.device());
        DeviceRequestAllocationResult {
            request: request.called(given.alternative),
            driver: id.driver.clone(),
            pool: id.pool.clone(),
            device: id.device.clone(),
            admin_access: alternative.admin.then_some(true),
            tolerations: alternative.tolerations.to_vec(),
            binding_conditions: device.binding_conditions.clone(),
            binding_failure_conditions: device.binding_failure_conditions.clone(),
            share_id: given.share.as_ref().map(|_| SHARE.to_owned()),
            consumed_capacity: given.share.clone().unwrap_or_default(),
        }
    }

    /// What classes say to the drivers, each once, then what the claim says.
    fn config(&self) -> Vec<DeviceAllocationConfiguration> {
        let mut config: Vec<DeviceAllocationConfiguration> = Vec::new();
        let mut of_class: HashMap<&str, std::ops::Range<usize>> = HashMap::new();
        for (request, picked) in self.requests.iter().zip(&self.picked) {
            let (name, class) = (request.called(*picked), request.alternatives[*picked].class);
            if let Some(known) = of_class.get(class.name.as_str()) {
                for one in &mut config[known.clone()] {
                    one.requests.push(name.clone());
                }
                continue;
            }
            let start = config.len();
            config.extend(class.spec.config.iter().map(|one| DeviceAllocationConfiguration {
                source: "FromClass".into(),
                requests: vec![name.clone()],
                opaque: one.opaque.clone(),
            }));
            of_class.insert(&class.name, start..config.len());
        }
        for one in &self.claim.asks.config {
            // Once for each request that it is for; once, if it is for all.
            let times = if one.requests.is_empty() {
                1
            } else {
                let requests = self.requests.iter().zip(&self.picked);
                let named = |name: &str| one.requests.iter().any(|request| request == name);
                requests.filter(|(r, picked)| named(r.name) || named(&r.called(**picked))).count()
            };
            config.extend((0..times).map(|_| DeviceAllocationConfiguration {
                source: "FromClaim".into(),
                requests: one.requests.clone(),
                opaque: one.opaque.clone(),
            }));
        }
        config
    }

    /// Where all devices can be had together; everywhere, if none says where.
    fn node_selector(&self, node: Candidate<'_>) -> Option<NodeSelector> {
        let mut term = NodeSelectorTerm::default();
        for given in &self.given {
            let (spec, device) = (&given.spot.slice.spec, given.spot.device());
            let (name, selector) = match spec.per_device_node_selection {
                Some(true) => (&device.node_name, &device.node_selector),
                _ => (&spec.node_name, &spec.node_selector),
            };
            if name.is_some() || device.binds_to_node == Some(true) {
                let this = NodeSelectorRequirement {
                    key: "metadata.name".into(),
                    operator: "In".into(),
                    values: vec![node.info.name.to_string()],
                };
                term = NodeSelectorTerm { match_fields: vec![this], ..Default::default() };
                break;
            }
            if let Some([more]) = selector.as_ref().map(|selector| selector.node_selector_terms.as_slice()) {
                add(&mut term.match_fields, &more.match_fields);
                add(&mut term.match_expressions, &more.match_expressions);
            }
        }
        let empty = term.match_fields.is_empty() && term.match_expressions.is_empty();
        (!empty).then(|| NodeSelector { node_selector_terms: vec![term] })
    }
}

/// Adds the requirements that are not there yet; the order of their values does not matter.
fn add(to: &mut Vec<NodeSelectorRequirement>, more: &[NodeSelectorRequirement]) {
    let values = |r: &NodeSelectorRequirement| r.values.iter().cloned().collect::<BTreeSet<_>>();
    for requirement in more {
        let same = |known: &NodeSelectorRequirement| {
            (&known.key, &known.operator) == (&requirement.key, &requirement.operator)
                && values(known) == values(requirement)
        };
        if !to.iter().any(same) {
            to.push(requirement.clone());
        }
    }
}
