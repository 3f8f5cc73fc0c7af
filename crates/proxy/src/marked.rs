//! What changed since the last pass: the informers' handlers add to it, the loop takes it.

use crate::facts::{NodeFacts, ServiceFacts, SliceFacts};
use crate::health::Health;
use crate::metrics::Metrics;
use crate::plan::Family;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::time::Timestamp;
use client::{Change, ObjectKey};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::sync::Notify;

/// What has to be planned anew.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) services: HashSet<ObjectKey>,
    /// When the changes in slices were made.
    pub(crate) triggers: Vec<(Family, Timestamp)>,
    /// Somebody may have deleted the tables.
    pub(crate) suspect: bool,
}

/// What the informers' handlers share.
#[derive(Debug)]
pub(crate) struct Marked {
    waiting: Mutex<Waiting>,
    pub(crate) wake: Notify,
    health: Arc<Health>,
    metrics: Metrics,
    started: Timestamp,
}

impl Marked {
    pub(crate) fn new(health: Arc<Health>, metrics: Metrics) -> Self {
        let started = SystemClock::default().now();
        Marked { waiting: Mutex::default(), wake: Notify::new(), health, metrics, started }
    }

    fn add(&self, waiting: &mut Waiting, key: ObjectKey) {
        if waiting.services.insert(key) {
            self.health.queued();
            self.metrics.queued();
        }
        self.wake.notify_one();
    }

    pub(crate) fn service(&self, change: &Change<ServiceFacts>) {
        if change.old().is_some_and(|old| old.projection == change.object().projection) {
            return;
        }
        self.metrics.service_changes.inc();
        self.metrics.service_changes_pending.inc();
        self.add(&mut self.waiting.lock(), change.object().key().clone());
    }

    pub(crate) fn slice(&self, change: &Change<SliceFacts>) {
        let new = change.object();
        if change.old().is_some_and(|old| old.projection == new.projection) {
            return;
        }
        self.metrics.endpoint_changes.inc();
        self.metrics.endpoint_changes_pending.inc();
        let mut waiting = self.waiting.lock();
        let states = [Some(new), change.old()];
        for key in states.into_iter().flatten().filter_map(|s| SliceFacts::service_key(s)) {
            self.add(&mut waiting, key);
        }
        let known = change.old().and_then(|old| old.triggered);
        // What was made before this process says nothing about it.
        if let Some(time) = new.triggered.filter(|t| known != Some(*t) && *t > self.started)
            && !matches!(change, Change::Deleted(_))
        {
            waiting.triggers.push((if new.ipv4 { Family::V4 } else { Family::V6 }, time));
        }
    }

    pub(crate) fn node(&self, change: &Change<NodeFacts>) {
        let gone = matches!(change, Change::Deleted(_));
        self.health.set_eligible(!gone && change.object().eligible);
        if change.old().is_none_or(|old| old.zone != change.object().zone) {
            self.wake.notify_one();
        }
    }

    /// The tables are to be looked after.
    pub(crate) fn suspect(&self) {
        self.waiting.lock().suspect = true;
        self.wake.notify_one();
    }

    pub(crate) fn take(&self) -> Waiting {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        self.metrics.service_changes_pending.set(0.0);
        self.metrics.endpoint_changes_pending.set(0.0);
        waiting
    }
}
