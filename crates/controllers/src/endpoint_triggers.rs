//! When the change happened that endpoints are written for: the earliest of what is new since the last look. Readers
//! measure by it how long programming the network takes. Upstream: `TriggerTimeTracker`.

use crate::service_pods::PodFacts;
use apimachinery::meta::ObjectMeta;
use apimachinery::time::Time;
use client::{Cached, ObjectKey};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// Writes when the change happened onto what is written for it.
pub(crate) fn stamp(meta: &mut ObjectMeta, triggered: Option<Time>) {
    match triggered {
        Some(at) => meta.annotations.insert(ANNOTATION.into(), at.to_string()),
        None => meta.annotations.remove(ANNOTATION),
    };
}

#[derive(Default)]
struct Last {
    service: Option<Time>,
    pods: HashMap<Arc<str>, Time>,
}

#[derive(Default)]
pub(crate) struct Triggers(Mutex<HashMap<ObjectKey, Last>>);

impl Triggers {
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.0.lock().remove(key);
    }

    /// The earliest time at which something changed that was not known at the last call.
    pub(crate) fn changed(
        &self,
        key: &ObjectKey,
        service: Time,
        pods: &[Arc<Cached<PodFacts>>],
    ) -> Option<Time> {
        let mut known = self.0.lock();
        let last = known.entry(key.clone()).or_default();
        let mut times = HashMap::new();
        let mut earliest: Option<Time> = None;
        for pod in pods {
            let Some(at) = pod.ready_changed else { continue };
            if last.pods.get(&pod.key().name).is_none_or(|before| at > *before) {
                earliest = Some(earliest.map_or(at, |e| e.min(at)));
            }
            times.insert(pod.key().name.clone(), at);
        }
        if last.service.is_none_or(|before| service > before) {
            earliest = Some(earliest.map_or(service, |e| e.min(service)));
        }
        *last = Last { service: Some(service), pods: times };
        earliest
    }
}
