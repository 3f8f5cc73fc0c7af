//! What is counted of resizes in place.

use super::families::Families;
use api::core::v1::Pod;
use apimachinery::quantity::Quantity;
use component::metrics::{CounterVec, HistogramVec, Registry};

const DURATIONS: [f64; 14] = [
    10.0, 50.0, 100.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0, 120_000.0,
    300_000.0, 600_000.0,
];

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Resizes {
    requested: CounterVec,
    /// By whether it succeeded.
    pub durations: HistogramVec,
    /// By why it cannot be.
    pub infeasible: CounterVec,
    /// By what has made the room.
    pub accepted: CounterVec,
}

/// What a resize does to one number.
fn operation(old: Option<&Quantity>, new: Option<&Quantity>) -> Option<&'static str> {
    let nano = |quantity: Option<&Quantity>| quantity.map_or(0, Quantity::milli_value);
    match (nano(old), nano(new)) {
        (old, new) if old == new => None,
        (_, 0) => Some("remove"),
        (0, _) => Some("add"),
        (old, new) if new > old => Some("increase"),
        _ => Some("decrease"),
    }
}

impl Resizes {
    pub(super) fn new(registry: &Registry) -> Self {
        let of = Families(registry);
        Resizes {
            requested: of.counts(
                "kubelet_container_requested_resizes_total",
                "Number of requested resizes, counted at the container level. Different resources on the same container are counted separately. The 'requirement' label refers to 'memory' or 'limits'; the 'operation' label can be one of 'add', 'remove', 'increase' or 'decrease'.",
                &["resource", "requirement", "operation"],
            ),
            durations: of.times(
                "kubelet_pod_resize_duration_milliseconds",
                "Duration in milliseconds to actuate a pod resize",
                &["success"],
                &DURATIONS,
            ),
            infeasible: of.counts(
                "kubelet_pod_infeasible_resizes_total",
                "Number of infeasible resizes for pods.",
                &["reason_detail"],
            ),
            accepted: of.counts(
                "kubelet_pod_deferred_accepted_resizes_total",
                "Cumulative number of resizes that were accepted after being deferred.",
                &["retry_trigger"],
            ),
        }
    }

    /// Counts what a pod asks for now and did not before.
    pub(crate) fn requested(&self, old: &Pod, new: &Pod) {
        for container in crate::resize::resizable(new) {
            let Some(before) = crate::resize::resizable(old).find(|one| one.name == container.name) else {
                continue;
            };
            let (old, new) = (&before.resources, &container.resources);
            for name in crate::resize::plan::NAMES {
                for (requirement, old, new) in
                    [("requests", &old.requests, &new.requests), ("limits", &old.limits, &new.limits)]
                {
                    if let Some(operation) = operation(old.get(name), new.get(name)) {
                        self.requested.with(&[name, requirement, operation]).inc();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_resize_does() {
        for (old, new, want) in [
            ("1", "1", None),
            ("1", "1000m", None),
            ("", "", None),
            ("", "1", Some("add")),
            ("1", "", Some("remove")),
            ("1", "1500m", Some("increase")),
            ("64Mi", "32Mi", Some("decrease")),
        ] {
            let quantity = |text: &str| text.parse::<Quantity>().ok();
            assert_eq!(operation(quantity(old).as_ref(), quantity(new).as_ref()), want, "{old} to {new}");
        }
    }
}
