//! What to do about the pods of a DaemonSet. Pure.
//!
//! One look either gives every node its one pod, or, when all have theirs, rolls the template out.

use super::nodes::{Fit, is_updated};
use crate::pods::{Phase, PodFacts};
use api::apps::v1::{DaemonSet, DaemonSetStatus};
use apimachinery::int_or_string::{IntOrString, Rounding};
use apimachinery::time::Time;
use client::Cached;
use client::recorder::EventType;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pods that one look makes or removes at most, each.
const BURST: usize = 250;

pub(super) type Pod = Arc<Cached<PodFacts>>;

/// What a look sees.
pub(super) struct Observed<'a> {
    pub set: &'a DaemonSet,
    /// Every node, and whether the set's pods belong there.
    pub nodes: &'a BTreeMap<String, Fit>,
    /// The set's pods by the node they are on or meant for; those that ended and are being deleted left out.
    pub pods: &'a BTreeMap<String, Vec<Pod>>,
    /// Of the set's present template.
    pub hash: &'a str,
    /// Until when a node's failed pods are left alone.
    pub held: &'a dyn Fn(&str) -> Option<Time>,
    pub now: Time,
}

/// What to do.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Nodes to make pods for.
    pub create: Vec<String>,
    /// Names of pods to remove.
    pub delete: Vec<String>,
    /// Nodes whose pod failed and is removed.
    pub failed: Vec<String>,
    pub tell: Vec<(EventType, &'static str, String)>,
    pub status: DaemonSetStatus,
    pub again: Option<Time>,
}

pub(super) fn plan(observed: &Observed) -> Plan {
    let view = View(observed);
    let mut plan = Plan { status: view.status(), ..Plan::default() };
    let seconds = observed.set.spec.min_ready_seconds;
    let soon = observed.pods.values().flatten().filter_map(|pod| pod.available_from(seconds));
    plan.again = soon.filter(|then| *then > observed.now).min();
    view.manage(&mut plan);
    if plan.create.is_empty()
        && plan.delete.is_empty()
        && observed.set.spec.update_strategy.type_ == "RollingUpdate"
    {
        view.roll(&mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

struct View<'a>(&'a Observed<'a>);

/// Scheduled pods first, then the older.
fn by_age(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    (a.node.is_empty(), a.created, a.name()).cmp(&(b.node.is_empty(), b.created, b.name()))
}

fn sorted<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Vec<&'a Pod> {
    let mut pods: Vec<&Pod> = pods.into_iter().collect();
    pods.sort_by(|a, b| by_age(a, b));
    pods
}

impl View<'_> {
    fn available(&self, pod: &PodFacts) -> bool {
        pod.available(self.0.set.spec.min_ready_seconds, self.0.now)
    }

    fn updated(&self, pod: &PodFacts) -> bool {
        is_updated(self.0.set, &pod.labels, self.0.hash)
    }

    fn desired(&self) -> usize {
        self.0.nodes.values().filter(|fit| fit.run).count()
    }

    fn scaled(&self, value: Option<&IntOrString>) -> usize {
        let all = i32::try_from(self.desired()).unwrap_or(i32::MAX);
        // Validation lets nothing else through.
        let scaled = value.and_then(|value| value.scaled_value(all, Rounding::Up).ok());
        usize::try_from(scaled.unwrap_or(0)).unwrap_or(0)
    }

    /// How many nodes may have two pods, and how many none.
    fn fences(&self) -> (usize, usize) {
        let strategy = &self.0.set.spec.update_strategy;
        let rolling = strategy.rolling_update.as_ref().filter(|_| strategy.type_ == "RollingUpdate");
        let surge = self.scaled(rolling.and_then(|r| r.max_surge.as_ref()));
        let unavailable = self.scaled(rolling.and_then(|r| r.max_unavailable.as_ref()));
        // Percentages may both come to nothing.
        if surge == 0 && unavailable == 0 && self.desired() > 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn surges(&self) -> bool {
        let strategy = &self.0.set.spec.update_strategy;
        let rolling = strategy.rolling_update.as_ref().filter(|_| strategy.type_ == "RollingUpdate");
        let surge = rolling.and_then(|r| r.max_surge.as_ref());
        surge.is_some_and(|surge| surge.scaled_value(100, Rounding::Up).unwrap_or(0) > 0)
    }

    /// Gives every node its pod.
    fn manage(&self, plan: &mut Plan) {
        let none = Vec::new();
        for (name, fit) in self.0.nodes {
            let pods = self.0.pods.get(name).unwrap_or(&none);
            if fit.run && pods.is_empty() {
                plan.create.push(name.clone());
            } else if fit.stay {
                self.keep_one(name, fit.run, pods, plan);
            } else {
                let living = pods.iter().filter(|pod| !pod.deleting);
                plan.delete.extend(living.map(|pod| pod.name().to_owned()));
            }
        }
        // Pods that wait for a node that is gone.
        let strays = self.0.pods.iter().filter(|(node, _)| !self.0.nodes.contains_key(*node));
        let strays = strays.flat_map(|(_, pods)| pods).filter(|pod| pod.node.is_empty() && !pod.deleting);
        plan.delete.extend(strays.map(|pod| pod.name().to_owned()));
    }

    fn keep_one(&self, node: &str, run: bool, pods: &[Pod], plan: &mut Plan) {
        let mut running = Vec::new();
        for pod in pods.iter().filter(|pod| !pod.deleting) {
            let who = format!("{}/{}", pod.namespace(), pod.name());
            match pod.phase {
                Phase::Failed => {
                    if let Some(until) = (self.0.held)(node) {
                        plan.again = Some(plan.again.map_or(until, |again| again.min(until)));
                        continue;
                    }
                    let text = format!("Found failed daemon pod {who} on node {node}, will try to kill it");
                    plan.tell.push((EventType::Warning, "FailedDaemonPod", text));
                    plan.failed.push(node.to_owned());
                    plan.delete.push(pod.name().to_owned());
                }
                Phase::Succeeded => {
                    let text =
                        format!("Found succeeded daemon pod {who} on node {node}, will try to delete it");
                    plan.tell.push((EventType::Normal, "SucceededDaemonPod", text));
                    plan.delete.push(pod.name().to_owned());
                }
                _ => running.push(pod),
            }
        }
        let running = sorted(running);
        if !self.surges() {
            plan.delete.extend(running.iter().skip(1).map(|pod| pod.name().to_owned()));
            return;
        }
        if running.len() <= 1 {
            // The old one failed, or is on its way out: its successor need not wait for it.
            if running.is_empty() && run {
                plan.create.push(node.to_owned());
            }
            return;
        }
        let (mut new, mut old) = (None, None);
        for pod in running {
            let is_new =
                pod.labels.get(crate::history::REVISION_LABEL).is_some_and(|hash| hash == self.0.hash);
            let place = if is_new { &mut new } else { &mut old };
            match place {
                None => *place = Some(pod),
                Some(_) => plan.delete.push(pod.name().to_owned()),
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!old.ready || self.available(new))
        {
            plan.delete.push(old.name().to_owned());
        }
    }

    /// The updated and the outdated pod of a node; none if there is more than one of either.
    fn pair<'p>(&self, pods: &'p [Pod]) -> Option<(Option<&'p Pod>, Option<&'p Pod>)> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|pod| !pod.deleting) {
            let place = if self.updated(pod) { &mut new } else { &mut old };
            if place.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    /// Nodes that have pods of the set, or should.
    fn places(&self) -> BTreeMap<&str, &[Pod]> {
        let mut places: BTreeMap<&str, &[Pod]> = BTreeMap::new();
        for (name, _) in self.0.nodes.iter().filter(|(_, fit)| fit.run) {
            places.insert(name, &[]);
        }
        places.extend(self.0.pods.iter().map(|(node, pods)| (node.as_str(), pods.as_slice())));
        places
    }

    fn roll(&self, plan: &mut Plan) {
        match self.fences() {
            (0, unavailable) => self.roll_in_place(unavailable, plan),
            (surge, _) => self.roll_beside(surge, plan),
        }
    }

    /// Old pods go before new ones come.
    fn roll_in_place(&self, most: usize, plan: &mut Plan) {
        let (mut missing, mut candidates) = (0, Vec::new());
        for pods in self.places().into_values() {
            match self.pair(pods) {
                // One of two, or none: the node is between pods.
                None | Some((None, None) | (Some(_), Some(_))) => missing += 1,
                Some((Some(new), None)) => missing += usize::from(!self.available(new)),
                Some((None, Some(old))) if !self.available(old) => {
                    // What serves nobody may go at once.
                    plan.delete.push(old.name().to_owned());
                    missing += 1;
                }
                Some((None, Some(old))) => candidates.push(old.name().to_owned()),
            }
        }
        candidates.truncate(most.saturating_sub(missing));
        plan.delete.extend(candidates);
    }

    /// New pods come before old ones go.
    fn roll_beside(&self, most: usize, plan: &mut Plan) {
        let (mut surging, mut available) = (0_usize, 0_usize);
        let (mut candidates, mut leaving) = (Vec::new(), Vec::new());
        for (node, pods) in self.places() {
            let Some((new, old)) = self.pair(pods) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.available(pod)));
            let run = self.0.nodes.get(node).is_some_and(|fit| fit.run);
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) => match (self.available(old), run) {
                    (false, false) => plan.delete.push(old.name().to_owned()),
                    (false, true) => plan.create.push(node.to_owned()),
                    (true, false) => leaving.push(old.name().to_owned()),
                    (true, true) => candidates.push(node.to_owned()),
                },
                (Some(new), Some(_)) if !self.available(new) => surging += 1,
                (Some(_), Some(old)) => plan.delete.push(old.name().to_owned()),
            }
        }
        leaving.truncate(available.saturating_sub(self.desired()));
        plan.delete.extend(leaving);
        candidates.truncate(most.saturating_sub(surging));
        plan.create.extend(candidates);
    }

    fn status(&self) -> DaemonSetStatus {
        let Observed { set, nodes, pods, .. } = *self.0;
        let mut status = DaemonSetStatus {
            observed_generation: set.metadata.generation,
            collision_count: set.status.collision_count,
            conditions: set.status.conditions.clone(),
            ..Default::default()
        };
        for (name, fit) in nodes {
            let here = sorted(pods.get(name).into_iter().flatten());
            match (fit.run, here.first()) {
                (true, first) => {
                    status.desired_number_scheduled += 1;
                    let Some(pod) = first else { continue };
                    status.current_number_scheduled += 1;
                    status.number_ready += i32::from(pod.ready);
                    status.number_available += i32::from(self.available(pod));
                    status.updated_number_scheduled += i32::from(self.updated(pod));
                }
                (false, Some(_)) => status.number_misscheduled += 1,
                (false, None) => {}
            }
        }
        status.number_unavailable = status.desired_number_scheduled - status.number_available;
        status
    }
}
