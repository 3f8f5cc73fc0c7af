//! `aggregator_unavailable_*`: which APIServices are not available, and how often they came to be so.

use apimachinery::value::Value;
use component::metrics::{CounterVec, GaugeVec, Opts, Registry, Stability};
use parking_lot::Mutex;
use std::collections::BTreeSet;

pub(super) struct Measures {
    unavailable: GaugeVec,
    total: CounterVec,
    /// Those that are told of.
    told: Mutex<BTreeSet<String>>,
}

impl Measures {
    pub(super) fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        Measures {
            unavailable: registry.gauge_vec(
                alpha(
                    "aggregator_unavailable_apiservice",
                    "Gauge of APIServices which are marked as unavailable broken down by APIService name.",
                ),
                &["name"],
            ),
            total: registry.counter_vec(
                alpha(
                    "aggregator_unavailable_apiservice_total",
                    "Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
                ),
                &["name", "reason"],
            ),
            told: Mutex::default(),
        }
    }

    /// Tells no longer of those that are gone.
    pub(super) fn forget(&self, objects: &[Value]) {
        let there: BTreeSet<&str> = objects.iter().map(crate::object::name).collect();
        self.told.lock().retain(|name| {
            let stays = there.contains(name.as_str());
            if !stays {
                self.unavailable.remove(&[name]);
            }
            stays
        });
    }

    pub(super) fn is_available(&self, name: &str, available: bool) {
        self.told.lock().insert(name.to_owned());
        self.unavailable.with(&[name]).set(if available { 0.0 } else { 1.0 });
    }

    pub(super) fn became_unavailable(&self, name: &str, reason: &str) {
        self.total.with(&[name, reason]).inc();
    }
}
