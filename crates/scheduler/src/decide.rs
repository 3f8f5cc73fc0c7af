//! Pure: a pod and what is known in; a node, or the reasons against all of them, out. Every node is filtered and scored;
//! nothing is sampled.

use crate::framework::{Candidate, Cycle, Filter, Refusal};
use crate::plugins::{PLUGINS, PluginSet};
use crate::preempt::{self, Preemption};
use crate::reservation::Reservation;
use crate::stopwatch::{Point, Status, Stopwatch};
use client::ObjectKey;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// No node would do.
#[derive(Debug)]
pub struct Failure {
    pub error: FitError,
    /// The plugins that refused nodes.
    pub refused_by: PluginSet,
    /// A claim to devices that is better given back.
    pub release: Option<ObjectKey>,
    /// What making room would take.
    pub preemption: Preemption,
}

impl Failure {
    fn new(error: FitError, refused_by: PluginSet) -> Box<Self> {
        Box::new(Failure { error, refused_by, release: None, preemption: Preemption::Nothing })
    }

    /// Whether the pod asks for what is wrong, rather than for what is not to be had.
    pub fn is_broken(&self) -> bool {
        self.error.broken.is_some()
    }
}

/// Why no node would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FitError {
    pub nodes: usize,
    /// How many nodes have a reason against them; none for one that no node has a part in.
    reasons: BTreeMap<String, usize>,
    /// What is said of its claims to devices, and what preemption says to it.
    preemption: Option<(&'static str, String)>,
    /// What the pod asks for is wrong.
    broken: Option<String>,
}

const NO_CLAIMS: &str = "no new claims to deallocate";

impl FitError {
    pub(crate) fn new(nodes: usize) -> Self {
        FitError { nodes, ..FitError::default() }
    }

    pub(crate) fn count(&mut self, reason: &str, nodes: usize) {
        if nodes > 0 {
            *self.reasons.entry(reason.into()).or_default() += nodes;
        }
    }
}

impl FitError {
    fn failure(
        mut self,
        cycle: Cycle<'_>,
        refused_by: PluginSet,
        release: Option<ObjectKey>,
        preemption: Preemption,
    ) -> Box<Failure> {
        let claim = release.as_ref().and_then(|key| cycle.cache.surroundings.devices.claim(key));
        let extended = claim.is_some_and(|claim| claim.extended);
        let claims = match &release {
            Some(_) if extended => "deletion of ResourceClaim completed",
            Some(_) => "deallocation of ResourceClaim completed",
            None if cycle.pod.facts.devices.is_empty() => NO_CLAIMS,
            None => "still not schedulable",
        };
        self.preemption = preemption.message().map(|message| (claims, message));
        Box::new(Failure { error: self, refused_by, release, preemption })
    }
}

impl std::fmt::Display for FitError {
    /// Upstream's `FailedScheduling` message.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(broken) = &self.broken {
            return f.write_str(broken);
        }
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        let mut counts: Vec<String> = self
            .reasons
            .iter()
            .map(|(reason, n)| if *n == 0 { reason.clone() } else { format!("{n} {reason}") })
            .collect();
        counts.sort();
        if !counts.is_empty() {
            write!(f, " {}.", counts.join(", "))?;
        }
        match &self.preemption {
            Some((claims, preemption)) => write!(f, " {claims}, preemption: {preemption}"),
            None => Ok(()),
        }
    }
}

/// The filters of one decision, ready to be asked.
#[derive(Default)]
pub(crate) struct Filters<'a> {
    prepared: Vec<(usize, Box<dyn Filter<'a> + 'a>)>,
    /// How often each was asked, clones included.
    asked: Rc<[Cell<u64>]>,
}

impl Clone for Filters<'_> {
    fn clone(&self) -> Self {
        let prepared = self.prepared.iter().map(|(i, filter)| (*i, filter.boxed())).collect();
        Filters { prepared, asked: self.asked.clone() }
    }
}

impl<'a> Filters<'a> {
    fn prepare(cycle: Cycle<'a>) -> Self {
        let prepared = PLUGINS.iter().enumerate().filter_map(|(i, plugin)| Some((i, plugin.filter(cycle)?)));
        let prepared: Vec<_> = prepared.collect();
        let asked = prepared.iter().map(|_| Cell::new(0)).collect();
        Filters { prepared, asked }
    }

    /// Notes which plugins take part, and how often they were asked.
    fn count(&self, stopwatch: &mut Stopwatch) {
        for ((plugin, _), asked) in self.prepared.iter().zip(&*self.asked) {
            stopwatch.count(Point::PreFilter, *plugin, 1);
            stopwatch.count(Point::Filter, *plugin, asked.get());
        }
    }

    /// The first refusal, with the plugin it comes from.
    pub(crate) fn ask(&self, node: Candidate<'_>) -> Result<(), (usize, Refusal)> {
        self.prepared.iter().zip(&*self.asked).try_for_each(|((i, filter), asked)| {
            asked.update(|times| times + 1);
            filter.filter(node).map_err(|refusal| (*i, refusal))
        })
    }

    /// The first refusal, also with the pods in place for which room is kept there and that come before this one.
    pub(crate) fn ask_with_nominated(
        &self,
        cycle: Cycle<'_>,
        node: Candidate<'_>,
    ) -> Result<(), (usize, Refusal)> {
        let ours = &cycle.pod.facts;
        let before = cycle.cache.nominated_to(&node.info.name);
        let mut before = before.filter(|p| p.priority >= ours.priority && p.uid != ours.uid).peekable();
        if before.peek().is_some() {
            let (mut filters, mut info) = (self.clone(), node.info.clone());
            for pod in before {
                info.add(pod);
                filters.moved(pod, node, 1);
            }
            filters.ask(Candidate { info: &info, facts: node.facts })?;
        }
        // Affinity may need the nominated pods not to be counted on.
        self.ask(node)
    }

    pub(crate) fn moved(
        &mut self,
        pod: &client::Cached<crate::facts::PodFacts>,
        node: Candidate<'_>,
        by: i64,
    ) {
        for (_, filter) in &mut self.prepared {
            filter.moved(pod, node, by);
        }
    }
}

/// Where a pod goes, and what is to be done about its claims before.
#[derive(Debug)]
pub struct Placement {
    pub node: Arc<str>,
    pub reservation: Option<Reservation>,
}

/// Chooses a node, and volumes and devices on it. `stopwatch` runs meanwhile.
pub fn place(cycle: Cycle<'_>, turn: usize, stopwatch: &mut Stopwatch) -> Result<Placement, Box<Failure>> {
    let node = decide(cycle, turn, stopwatch)?;
    let reserved = |at| {
        let parts = PLUGINS.iter().filter_map(|plugin| plugin.reserve(cycle, at));
        parts.reduce(Reservation::merge)
    };
    let reservation = cycle.cache.node(&node).and_then(reserved);
    stopwatch.lap(Point::Reserve, Status::Success);
    Ok(Placement { node, reservation })
}

/// Chooses a node. Among equals, `turn` decides, so that equal nodes fill evenly. `stopwatch` runs meanwhile.
pub fn decide(cycle: Cycle<'_>, turn: usize, stopwatch: &mut Stopwatch) -> Result<Arc<str>, Box<Failure>> {
    let mut error = FitError::new(cycle.cache.len());
    let mut refused_by = PluginSet::default();
    if cycle.cache.is_empty() {
        return Err(Failure::new(error, refused_by));
    }
    if let Some((plugin, why)) =
        PLUGINS.iter().enumerate().find_map(|(i, plugin)| Some((i, plugin.refuse(cycle)?)))
    {
        refused_by.insert(plugin);
        stopwatch.count(Point::PreFilter, plugin, 1);
        stopwatch.lap(Point::PreFilter, Status::UnschedulableAndUnresolvable);
        let refused: Vec<_> =
            cycle.cache.nodes().map(|node| (node, Refusal::unresolvable(why.as_str()))).collect();
        error.reasons.insert(why, 0);
        let release = release(cycle, &BTreeMap::new());
        let preemption = preempt::preempt(cycle, &Filters::default(), &refused, turn);
        stopwatch.lap(Point::PostFilter, preemption.status());
        return Err(error.failure(cycle, refused_by, release, preemption));
    }
    let filters = Filters::prepare(cycle);
    stopwatch.lap(Point::PreFilter, Status::Success);
    // Where room was made for it, it goes if it still can.
    let nominated = cycle.cache.nomination(&cycle.pod.facts.uid).and_then(|name| cycle.cache.node(name));
    if let Some(node) = nominated
        && filters.ask_with_nominated(cycle, node).is_ok()
    {
        filters.count(stopwatch);
        stopwatch.lap(Point::Filter, Status::Success);
        return Ok(node.info.name.clone());
    }
    let nodes: Vec<Candidate<'_>> = match only(cycle) {
        Some((names, plugins)) => {
            let nodes: Vec<_> = names.iter().filter_map(|name| cycle.cache.node(name)).collect();
            let said: Vec<&str> = plugins.iter().map(|i| PLUGINS[*i].name()).collect();
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", said.join(" "));
            error.count(&reason, error.nodes - nodes.len());
            plugins.into_iter().for_each(|plugin| refused_by.insert(plugin));
            nodes
        }
        None => cycle.cache.nodes().collect(),
    };
    let (mut feasible, mut refused) = (Vec::with_capacity(nodes.len()), Vec::new());
    let mut by_plugin: BTreeMap<usize, Vec<Candidate<'_>>> = BTreeMap::new();
    for node in nodes {
        match filters.ask_with_nominated(cycle, node) {
            Ok(()) => feasible.push(node),
            Err((plugin, refusal)) if refusal.everywhere => {
                filters.count(stopwatch);
                stopwatch.lap(Point::Filter, Status::Error);
                let (plugin, why) = (PLUGINS[plugin].name(), refusal.reasons.join(", "));
                error.broken = Some(format!("running {plugin:?} filter plugin: {why}"));
                return Err(Failure::new(error, refused_by));
            }
            Err((plugin, refusal)) => {
                refused_by.insert(plugin);
                by_plugin.entry(plugin).or_default().push(node);
                refusal.reasons.iter().for_each(|reason| error.count(reason, 1));
                refused.push((node, refusal));
            }
        }
    }
    stopwatch.lap(Point::Filter, Status::Success);
    filters.count(stopwatch);
    if feasible.is_empty() {
        let release = release(cycle, &by_plugin);
        let preemption = preempt::preempt(cycle, &filters, &refused, turn);
        stopwatch.lap(Point::PostFilter, preemption.status());
        return Err(error.failure(cycle, refused_by, release, preemption));
    }
    Ok(best(cycle, &feasible, turn, stopwatch))
}

/// A claim that a plugin has given back, by the nodes that it refused.
fn release(cycle: Cycle<'_>, refused: &BTreeMap<usize, Vec<Candidate<'_>>>) -> Option<ObjectKey> {
    PLUGINS.iter().enumerate().find_map(|(i, plugin)| {
        let refused = refused.get(&i).map_or(&[][..], Vec::as_slice);
        plugin.release(cycle, refused)
    })
}

/// The only nodes worth looking at, by name, and the plugins that say so.
fn only(cycle: Cycle<'_>) -> Option<(BTreeSet<String>, Vec<usize>)> {
    let asked = PLUGINS.iter().enumerate().filter_map(|(i, plugin)| Some((plugin.only(cycle.pod)?, vec![i])));
    asked.reduce(|(names, plugins), (more, plugin)| (&names & &more, [plugins, plugin].concat()))
}

fn best(cycle: Cycle<'_>, feasible: &[Candidate<'_>], turn: usize, stopwatch: &mut Stopwatch) -> Arc<str> {
    if let [only] = feasible {
        return only.info.name.clone();
    }
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for (at, plugin) in PLUGINS.iter().enumerate().filter(|(_, p)| p.weight() > 0) {
        let Some(ranking) = plugin.score(cycle, feasible) else { continue };
        stopwatch.more(Point::PreScore);
        stopwatch.count(Point::PreScore, at, 1);
        stopwatch.count(Point::Score, at, feasible.len() as u64);
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = ranking.score(*node);
        }
        ranking.normalize(feasible, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * plugin.weight();
        }
        stopwatch.more(Point::Score);
    }
    let best = totals.iter().copied().max().unwrap_or(0);
    let winners = totals.iter().filter(|total| **total == best).count();
    let mut equals = feasible.iter().zip(&totals).filter(|(_, total)| **total == best);
    match equals.nth(turn % winners.max(1)) {
        Some((node, _)) => node.info.name.clone(),
        None => feasible[0].info.name.clone(),
    }
}
