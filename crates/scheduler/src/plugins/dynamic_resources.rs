//! The claims of a pod to devices: they must be there, and given, or to be had where the pod goes. Upstream:
//! `DynamicResources`.

use crate::devices::Devices;
use crate::devices::allocate::{PATIENCE, Refused, SHARE};
use crate::devices::extended::{self, Extended};
use crate::devices::rows::{Claim, Readiness};
use crate::devices::verdicts::Known;
use crate::facts::PodInfo;
use crate::framework::{Candidate, Cycle, Event, Filter, Plugin, Refusal, Scale, Score, ranking, stateless};
use crate::queue::Waiter;
use crate::reservation::{ClaimReservation, Reservation};
use api::resource::v1::AllocationResult;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::{Duration, Time};
use client::ObjectKey;
use rules::node_affinity::matches_selector;
use std::sync::Arc;
use std::time::Instant;

/// How long devices may take to be bound.
pub const BINDING_SECONDS: i64 = 600;
pub const BINDING_PATIENCE: Duration = Duration::from_seconds(BINDING_SECONDS);
/// The most alternatives of a request.
const MAX_ALTERNATIVES: usize = 8;

const ELSEWHERE: &str = "resourceclaim not available on the node";
const STALE: &str = "cannot schedule extended resource claim";

pub(super) struct DynamicResources;

/// What a pod asks of devices.
#[derive(Clone)]
struct Wanted<'a> {
    devices: &'a Devices,
    pod: &'a PodInfo,
    claims: Vec<&'a Claim>,
    /// Extended resources may be given by devices; and the claim of an earlier try that was made for them.
    extended: Option<Option<&'a Claim>>,
    now: Time,
}

/// What is to be had on a node.
struct Found {
    /// Of those claims that have nothing yet, in order; of the one for extended resources last.
    allocations: Vec<AllocationResult>,
    extended: Option<Extended>,
}

impl<'a> Wanted<'a> {
    /// Nothing when the pod has no claims; why it cannot be tried, if one is not there.
    fn of(cycle: Cycle<'a>) -> Result<Option<Self>, String> {
        let devices = &cycle.cache.surroundings.devices;
        let facts = &cycle.pod.facts;
        let claims = devices.claims_of(facts.key(), &facts.uid, &facts.devices)?;
        let claims: Vec<&Claim> = claims.into_iter().map(|claim| &**claim).collect();
        let extended = extended::asks(devices, cycle.pod)
            .then(|| devices.extended_claim(&facts.uid).map(|claim| &**claim));
        let now = Time::from(SystemClock::default().now());
        let wanted = Wanted { devices, pod: cycle.pod, claims, extended, now };
        Ok((!wanted.claims.is_empty() || wanted.extended.is_some()).then_some(wanted))
    }

    fn open(&self) -> impl Iterator<Item = &'a Claim> + '_ {
        self.claims.iter().copied().filter(|claim| !claim.is_allocated())
    }

    /// Whether a claim that is given is of no use on a node.
    fn is_lost(&self, claim: &Claim, node: Candidate<'_>) -> bool {
        let Some(allocation) = &claim.status.allocation else { return false };
        let selector = allocation.node_selector.as_ref();
        if selector.is_some_and(|s| !matches_selector(s, &node.info.name, &node.facts.labels)) {
            return true;
        }
        if !self.devices.features().binding_conditions {
            return false;
        }
        match claim.readiness() {
            Readiness::Ready => false,
            Readiness::Failed(_) => true,
            Readiness::NotYet => claim.deadline(BINDING_PATIENCE).is_some_and(|until| until < self.now),
        }
    }

    /// What each open claim gets on a node. Upstream: `Filter`.
    fn on(&self, node: Candidate<'_>) -> Result<Found, Refusal> {
        let extended = self.extended_on(node)?;
        let made = extended.as_ref().map(|extended| extended.claim(self.pod));
        let open: Vec<&Claim> = self.open().chain(made.as_ref()).collect();
        let allocations =
            if open.is_empty() { Vec::new() } else { self.look(node, &open).map_err(refusal)? };
        self.is_there(node)?;
        Ok(Found { allocations, extended })
    }

    /// What devices are to give of its extended resources on a node.
    fn extended_on(&self, node: Candidate<'_>) -> Result<Option<Extended>, Refusal> {
        match self.extended {
            None => Ok(None),
            Some(Some(_)) => Err(Refusal::unresolvable(STALE)),
            Some(None) => Extended::on(self.devices, self.pod, node).map_err(Refusal::unresolvable),
        }
    }

    fn look(&self, node: Candidate<'_>, claims: &[&Claim]) -> Result<Vec<AllocationResult>, Refused> {
        let deadline = self.devices.features().filter_timeout.then(|| Instant::now() + PATIENCE);
        self.devices.allocate(node, claims, deadline)
    }

    /// Whether the claims that are given are of use on a node.
    fn is_there(&self, node: Candidate<'_>) -> Result<(), Refusal> {
        if self.claims.iter().any(|claim| self.is_lost(claim, node)) {
            return Err(Refusal::unresolvable(ELSEWHERE));
        }
        Ok(())
    }

    /// What is known of nodes for what is open, where that is the same for all of them: it is, but for extended resources.
    fn known(&self) -> Option<Arc<Known>> {
        let open: Vec<&Claim> = self.open().collect();
        (self.extended.is_none() && !open.is_empty()).then(|| self.devices.known(&open))
    }

    /// Whether a node would do.
    fn fits(&self, node: Candidate<'_>, known: Option<&Known>) -> Result<(), Refusal> {
        if let Some(known) = known {
            let look = || self.look(node, &self.open().collect::<Vec<_>>()).map(drop);
            self.devices.has(node, known, look).map_err(refusal)?;
            return self.is_there(node);
        }
        let made = self.extended_on(node)?.map(|extended| extended.claim(self.pod));
        let open: Vec<&Claim> = self.open().chain(made.as_ref()).collect();
        if !open.is_empty() {
            let look = || self.look(node, &open).map(drop);
            self.devices.has(node, &self.devices.known(&open), look).map_err(refusal)?;
        }
        self.is_there(node)
    }

    /// How far up in their lists the alternatives stand that the claims have, or would have.
    fn score(&self, node: Candidate<'_>) -> i64 {
        let Ok(found) = self.on(node) else { return 0 };
        let mut fresh = found.allocations.iter();
        let of = |claim: &Claim, allocation: &AllocationResult| {
            let requests = claim.asks.requests.iter();
            let ranks = requests.flat_map(|request| {
                let named = request.first_available.iter().enumerate();
                named.map(move |(i, sub)| (i, format!("{}/{}", request.name, sub.name)))
            });
            let given = |name: &String| allocation.devices.results.iter().any(|given| given.request == *name);
            ranks
                .filter(|(_, name)| given(name))
                .map(|(i, _)| MAX_ALTERNATIVES.saturating_sub(i) as i64)
                .sum::<i64>()
        };
        let claims = self.claims.iter();
        let scores = claims.map(|claim| match &claim.status.allocation {
            Some(allocation) => of(claim, allocation),
            None => fresh.next().map_or(0, |allocation| of(claim, allocation)),
        });
        scores.sum()
    }
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::Here(why) => Refusal::unresolvable(why),
        Refused::Everywhere(why) => Refusal::everywhere(why),
    }
}

/// Gives each share its identity.
fn identified(mut allocation: AllocationResult) -> Arc<AllocationResult> {
    for given in &mut allocation.devices.results {
        if given.share_id.as_deref() == Some(SHARE) {
            given.share_id = Some(uuid::Uuid::new_v4().to_string());
        }
    }
    Arc::new(allocation)
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn weight(&self) -> i64 {
        2
    }

    fn refuse(&self, cycle: Cycle<'_>) -> Option<String> {
        let wanted = match Wanted::of(cycle) {
            Ok(wanted) => wanted?,
            Err(why) => return Some(why),
        };
        for claim in wanted.open() {
            if wanted.devices.is_in_flight(&claim.uid) {
                let (namespace, name) = (&claim.namespace, &claim.name);
                return Some(format!(
                    "resource claim {namespace}/{name} is in the process of being allocated"
                ));
            }
            for request in &claim.asks.requests {
                if !wanted.devices.features().prioritized_list && !request.first_available.is_empty() {
                    let (namespace, claim, request) = (&claim.namespace, &claim.name, &request.name);
                    return Some(format!(
                        "resource claim {namespace}/{claim}, request {request}: has subrequests, but the DRAPrioritizedList feature is disabled"
                    ));
                }
                let exact =
                    request.exactly.iter().map(|exact| (&exact.device_class_name, request.name.clone()));
                let subs = request.first_available.iter();
                let subs = subs.map(|sub| (&sub.device_class_name, format!("{}/{}", request.name, sub.name)));
                let mut classes = exact.chain(subs);
                let missing = classes.find(|(class, _)| wanted.devices.class(class).is_none());
                if let Some((class, request)) = missing {
                    return Some(format!("request {request}: device class {class} does not exist"));
                }
            }
        }
        None
    }

    fn filter<'a>(&self, cycle: Cycle<'a>) -> Option<Box<dyn Filter<'a> + 'a>> {
        let wanted = Arc::new(Wanted::of(cycle).ok()??);
        let known = wanted.known();
        stateless(move |node| wanted.fits(node, known.as_deref()))
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let wanted = Wanted::of(cycle).ok()??;
        let mut requests = wanted.claims.iter().flat_map(|claim| &claim.asks.requests);
        if !wanted.devices.features().prioritized_list
            || requests.all(|request| request.first_available.is_empty())
        {
            return None;
        }
        ranking(move |node| wanted.score(node), Scale::Up)
    }

    fn release(&self, cycle: Cycle<'_>, refused: &[Candidate<'_>]) -> Option<ObjectKey> {
        let wanted = Wanted::of(cycle).ok()??;
        if let Some(Some(stale)) = wanted.extended {
            return Some(ObjectKey::new(&stale.namespace, &stale.name));
        }
        let idle = |claim: &&&Claim| claim.is_allocated() && claim.is_idle_but_for(&wanted.pod.facts.uid);
        let lost = |claim: &&&Claim| refused.iter().any(|node| wanted.is_lost(claim, *node));
        let claim = wanted.claims.iter().filter(idle).find(lost)?;
        Some(ObjectKey::new(&claim.namespace, &claim.name))
    }

    fn reserve(&self, cycle: Cycle<'_>, node: Candidate<'_>) -> Option<Reservation> {
        let wanted = Wanted::of(cycle).ok()??;
        let found = wanted.on(node).ok()?;
        let mut fresh = found.allocations.into_iter().map(identified);
        let mut claims = Vec::new();
        for claim in &wanted.claims {
            let allocation = if claim.is_allocated() { None } else { Some(fresh.next()?) };
            let key = ObjectKey::new(&claim.namespace, &claim.name);
            claims.push(ClaimReservation { key, uid: claim.uid.clone(), allocation, extended: None });
        }
        if let Some(extended) = found.extended {
            let key = ObjectKey::new(wanted.pod.namespace(), "");
            let (uid, allocation) = (wanted.pod.facts.uid.to_string(), Some(fresh.next()?));
            claims.push(ClaimReservation { key, uid, allocation, extended: Some(extended) });
        }
        Some(Reservation { claims, ..Default::default() }).filter(|reservation| !reservation.is_empty())
    }

    fn helped_by(&self, event: &Event<'_>, waiter: &Waiter) -> bool {
        match event {
            Event::DeviceClaim { old, new } => {
                let given_back = old.is_some_and(|old| old.is_allocated() && !new.is_allocated());
                let changed = old.is_none_or(|old| old.status != new.status);
                given_back || changed && waiter.claims_devices(new)
            }
            Event::DeviceClass { .. } | Event::DeviceSlice { .. } => true,
            _ => event.node_changed(|node| &node.labels) || event.node_changed(|node| &node.allocatable),
        }
    }
}
