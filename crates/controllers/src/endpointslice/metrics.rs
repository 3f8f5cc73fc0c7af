//! What the controller counts: its looks, what they change, and how full the slices are. Upstream:
//! `endpoint_slice_controller_*`.

use super::plan::{MAX_ENDPOINTS, Plan};
use client::ObjectKey;
use component::metrics::{
    CounterVec, Encoder, Histogram, HistogramVec, Opts, Registry, Stability, exponential_buckets,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use Stability::{Alpha, Beta};

/// What a service has.
struct Kept {
    endpoints: usize,
    slices: usize,
    /// How many slices it would have were they all full.
    desired: usize,
    distribution: Option<String>,
}

pub(super) struct Metrics {
    added: Histogram,
    removed: Histogram,
    changes: CounterVec,
    changed: HistogramVec,
    looks: CounterVec,
    services: Arc<Mutex<HashMap<ObjectKey, Kept>>>,
}

const fn opts<'a>(name: &'a str, stability: Stability, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability }
}

/// Figures of all services: what they are called, and what of a service is summed up.
const SUMS: [(Opts<'_>, fn(&Kept) -> usize); 3] = [
    (opts("endpoint_slice_controller_endpoints_desired", Beta, "Number of endpoints desired"), |kept| {
        kept.endpoints
    }),
    (opts("endpoint_slice_controller_num_endpoint_slices", Beta, "Number of EndpointSlices"), |kept| {
        kept.slices
    }),
    (
        opts(
            "endpoint_slice_controller_desired_endpoint_slices",
            Beta,
            "Number of EndpointSlices that would exist with perfect endpoint allocation",
        ),
        |kept| kept.desired,
    ),
];

const DISTRIBUTIONS: Opts<'_> = opts(
    "endpoint_slice_controller_services_count_by_traffic_distribution",
    Beta,
    "Number of Services using some specific trafficDistribution",
);

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let services: Arc<Mutex<HashMap<ObjectKey, Kept>>> = Arc::default();
        let known = Arc::downgrade(&services);
        registry.collector(move |encoder| {
            if let Some(services) = known.upgrade() {
                collect(&services.lock(), encoder);
            }
        });
        let per_look =
            |name, help| registry.histogram(opts(name, Beta, help), &exponential_buckets(2.0, 2.0, 15));
        Metrics {
            added: per_look(
                "endpoint_slice_controller_endpoints_added_per_sync",
                "Number of endpoints added on each Service sync",
            ),
            removed: per_look(
                "endpoint_slice_controller_endpoints_removed_per_sync",
                "Number of endpoints removed on each Service sync",
            ),
            changes: registry.counter_vec(
                opts("endpoint_slice_controller_changes", Alpha, "Number of EndpointSlice changes"),
                &["operation"],
            ),
            changed: registry.histogram_vec(
                opts(
                    "endpoint_slice_controller_endpointslices_changed_per_sync",
                    Alpha,
                    "Number of EndpointSlices changed on each Service sync",
                ),
                &["topology", "traffic_distribution"],
                component::metrics::DEFAULT_BUCKETS,
            ),
            looks: registry.counter_vec(
                opts("endpoint_slice_controller_syncs", Alpha, "Number of EndpointSlice syncs"),
                &["result"],
            ),
            services,
        }
    }

    /// What is to be done for a service that has so many slices, and how its traffic is distributed.
    pub(super) fn planned(&self, key: &ObjectKey, plan: &Plan, slices: usize, distribution: Option<&str>) {
        self.added.observe(plan.added as f64);
        self.removed.observe(plan.removed as f64);
        let changed = plan.create.len() + plan.update.len() + plan.delete.len();
        self.changed.with(&["Disabled", distribution.unwrap_or_default()]).observe(changed as f64);
        let kept = Kept {
            endpoints: plan.groups.iter().sum(),
            slices: slices + plan.create.len() - plan.delete.len(),
            desired: plan.groups.iter().map(|endpoints| endpoints.div_ceil(MAX_ENDPOINTS).max(1)).sum(),
            distribution: distribution.map(str::to_owned),
        };
        self.services.lock().insert(key.clone(), kept);
    }

    /// A slice was made (`create`), changed (`update`) or removed (`delete`).
    pub(super) fn change(&self, operation: &str) {
        self.changes.with(&[operation]).inc();
    }

    pub(super) fn looked(&self, succeeded: bool) {
        self.looks.with(&[if succeeded { "success" } else { "error" }]).inc();
    }

    /// A service is gone.
    pub(super) fn forget(&self, key: &ObjectKey) {
        self.services.lock().remove(key);
    }
}

fn collect(services: &HashMap<ObjectKey, Kept>, encoder: &mut Encoder) {
    for (opts, of) in SUMS {
        let sum: usize = services.values().map(of).sum();
        encoder.family(opts.name, &opts.help(), "gauge", &[]).value::<&str>(&[], sum as f64);
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for distribution in services.values().filter_map(|kept| kept.distribution.as_deref()) {
        *counts.entry(distribution).or_default() += 1;
    }
    let labels = ["traffic_distribution".to_owned()];
    let mut out = encoder.family(DISTRIBUTIONS.name, &DISTRIBUTIONS.help(), "gauge", &labels);
    counts.iter().for_each(|(distribution, count)| out.value(&[distribution], *count as f64));
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn services_are_summed_up_as_long_as_they_are_there() {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry);
        let key = |name: &str| ObjectKey::new("ns", name);
        let plan =
            |groups: &[usize], added| Plan { groups: groups.to_vec(), added, removed: 2, ..Plan::default() };
        metrics.planned(&key("wide"), &plan(&[101, 0], 101), 4, Some("PreferSameZone"));
        metrics.planned(&key("small"), &plan(&[3], 0), 1, None);
        metrics.planned(&key("gone"), &plan(&[50], 50), 1, None);
        metrics.forget(&key("gone"));
        metrics.change("create");
        metrics.looked(false);
        let text = registry.render();
        let told: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).collect();
        expect![[r#"
            endpoint_slice_controller_changes{operation="create"} 1
            endpoint_slice_controller_desired_endpoint_slices 4
            endpoint_slice_controller_endpoints_added_per_sync_sum 151
            endpoint_slice_controller_endpoints_added_per_sync_count 3
            endpoint_slice_controller_endpoints_desired 104
            endpoint_slice_controller_endpoints_removed_per_sync_sum 6
            endpoint_slice_controller_endpoints_removed_per_sync_count 3
            endpoint_slice_controller_endpointslices_changed_per_sync_sum{topology="Disabled",traffic_distribution=""} 0
            endpoint_slice_controller_endpointslices_changed_per_sync_count{topology="Disabled",traffic_distribution=""} 2
            endpoint_slice_controller_endpointslices_changed_per_sync_sum{topology="Disabled",traffic_distribution="PreferSameZone"} 0
            endpoint_slice_controller_endpointslices_changed_per_sync_count{topology="Disabled",traffic_distribution="PreferSameZone"} 1
            endpoint_slice_controller_num_endpoint_slices 5
            endpoint_slice_controller_services_count_by_traffic_distribution{traffic_distribution="PreferSameZone"} 1
            endpoint_slice_controller_syncs{result="error"} 1"#]]
        .assert_eq(&told.join("\n"));
    }
}
