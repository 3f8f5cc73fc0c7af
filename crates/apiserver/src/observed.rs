//! `apiserver_request_*` and its kin: what was asked, what was answered, and how long that took, under upstream's names and
//! labels. A request finds its row by one look-up; the rest are atomic additions.
//!
//! [`labels`] tell rows from each other, a [`row`] counts, an [`observation`] is a request that is being counted; [`peak`]
//! is how many there are at a time.

mod labels;
mod observation;
mod peak;
mod row;

use crate::request::RequestInfo;
use component::metrics::{Counter, CounterVec, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability};
use component::metrics::{exponential_buckets, linear_buckets};
use http::request::Parts;
use labels::Labels;
pub(crate) use observation::{Observation, Running};
use parking_lot::RwLock;
pub(crate) use peak::{KINDS, Peak, collect};
use row::{CounterVec8, Row};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Instant;

const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const WATCH_LISTS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];

/// See the module.
pub struct Observed {
    rows: RwLock<HashMap<u64, Vec<Arc<Row>>>>,
    total: CounterVec,
    seconds: HistogramVec,
    sli: HistogramVec,
    sizes: HistogramVec,
    bodies: HistogramVec,
    running: GaugeVec,
    terminations: CounterVec,
    deprecated: GaugeVec,
    watch_events: CounterVec,
    watch_sizes: HistogramVec,
    watch_lists: HistogramVec,
    terminated_watchers: CounterVec,
    /// Reads, and writes.
    in_flight: [Arc<Peak>; 2],
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").field("rows", &self.rows.read().len()).finish_non_exhaustive()
    }
}

/// The events of watches on one resource.
#[derive(Debug, Clone)]
pub(crate) struct WatchEvents {
    pub count: Counter,
    pub sizes: Histogram,
}

impl Observed {
    pub fn new(registry: &Registry) -> Self {
        fn opts<'a>(name: &'a str, help: &'a str, stability: Stability) -> Opts<'a> {
            Opts { name, help, stability }
        }
        let (stable, alpha) = (Stability::Stable, Stability::Alpha);
        const WITHOUT_DRY_RUN: [&str; 7] =
            ["verb", "group", "version", "resource", "subresource", "scope", "component"];
        let with = |more: &[&'static str]| -> Vec<&'static str> {
            let all =
                ["verb", "dry_run", "group", "version", "resource", "subresource", "scope", "component"];
            all.into_iter().chain(more.iter().copied()).collect()
        };
        let mut without_code = WITHOUT_DRY_RUN.to_vec();
        without_code.push("code");
        let of_resource = ["group", "version", "resource"];
        let in_flight: [Arc<Peak>; 2] = Default::default();
        collect(
            registry,
            "apiserver_current_inflight_requests",
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
            in_flight.clone(),
        );
        Observed {
            rows: RwLock::default(),
            total: registry.counter_vec(
                opts(
                    "apiserver_request_total",
                    "Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.",
                    stable,
                ),
                &with(&["code"]),
            ),
            seconds: registry.histogram_vec(
                opts(
                    "apiserver_request_duration_seconds",
                    "Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.",
                    stable,
                ),
                &with(&[]),
                &DURATIONS,
            ),
            sli: registry.histogram_vec(
                opts(
                    "apiserver_request_sli_duration_seconds",
                    "Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.",
                    alpha,
                ),
                &WITHOUT_DRY_RUN,
                &DURATIONS[2..],
            ),
            sizes: registry.histogram_vec(
                opts(
                    "apiserver_response_sizes",
                    "Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.",
                    stable,
                ),
                &WITHOUT_DRY_RUN,
                &exponential_buckets(1000.0, 10.0, 7),
            ),
            bodies: registry.histogram_vec(
                opts(
                    "apiserver_request_body_size_bytes",
                    "Apiserver request body size in bytes broken out by resource and verb.",
                    alpha,
                ),
                &["group", "resource", "verb"],
                &linear_buckets(50_000.0, 100_000.0, 31),
            ),
            running: registry.gauge_vec(
                opts(
                    "apiserver_longrunning_requests",
                    "Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.",
                    stable,
                ),
                &WITHOUT_DRY_RUN,
            ),
            terminations: registry.counter_vec(
                opts(
                    "apiserver_request_terminations_total",
                    "Number of requests which apiserver terminated in self-defense.",
                    alpha,
                ),
                &without_code,
            ),
            deprecated: registry.gauge_vec(
                opts(
                    "apiserver_requested_deprecated_apis",
                    "Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.",
                    stable,
                ),
                &["group", "version", "resource", "subresource", "removed_release"],
            ),
            watch_events: registry.counter_vec(
                opts("apiserver_watch_events_total", "Number of events sent in watch clients", alpha),
                &of_resource,
            ),
            watch_sizes: registry.histogram_vec(
                opts("apiserver_watch_events_sizes", "Watch event size distribution in bytes", alpha),
                &of_resource,
                &exponential_buckets(1024.0, 2.0, 8),
            ),
            terminated_watchers: registry.counter_vec(
                opts(
                    "apiserver_terminated_watchers_total",
                    "Counter of watchers closed due to unresponsiveness broken by resource type.",
                    alpha,
                ),
                &["group", "resource"],
            ),
            watch_lists: registry.histogram_vec(
                opts(
                    "apiserver_watch_list_duration_seconds",
                    "Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
                    Stability::Beta,
                ),
                &["group", "version", "resource", "scope"],
                &WATCH_LISTS,
            ),
            in_flight,
        }
    }

    /// A request has come; `known` says whether its verb, resource and subresource are served here.
    pub(crate) fn begin(&self, parts: &Parts, info: &RequestInfo, known: bool) -> Observation {
        let long = info.is_long_running();
        let row = Labels::of(parts, info, known).map(|labels| self.row(&labels));
        let in_flight = (!long).then(|| {
            let reads = matches!(info.verb.as_str(), "get" | "list" | "head");
            let in_flight = &self.in_flight[usize::from(!reads)];
            in_flight.begin();
            in_flight.clone()
        });
        Observation { row, began: Instant::now(), in_flight, long }
    }

    fn row(&self, labels: &Labels<'_>) -> Arc<Row> {
        let mut hasher = DefaultHasher::new();
        labels.hash(&mut hasher);
        let key = hasher.finish();
        let find = |rows: &HashMap<u64, Vec<Arc<Row>>>| {
            rows.get(&key).and_then(|rows| rows.iter().find(|row| row.is(labels))).cloned()
        };
        if let Some(found) = find(&self.rows.read()) {
            return found;
        }
        let mut rows = self.rows.write();
        if let Some(found) = find(&rows) {
            return found;
        }
        let all = labels.list();
        let [verb, _, group, version, resource, subresource, scope, component] = all;
        let rest = [verb, group, version, resource, subresource, scope, component];
        let made = Arc::new(Row {
            labels: all.map(str::to_owned),
            total: CounterVec8(self.total.clone()),
            codes: RwLock::default(),
            seconds: self.seconds.with(&all),
            sli: labels.dry_run.is_empty().then(|| self.sli.with(&rest)),
            sizes: matches!(labels.verb, "GET" | "LIST" | "WATCH").then(|| self.sizes.with(&rest)),
            bodies: labels::body_verb(labels.verb, labels.scope)
                .map(|verb| self.bodies.with(&[group, resource, verb])),
            running: matches!(labels.verb, "WATCH" | "CONNECT").then(|| self.running.with(&rest)),
            terminations: CounterVec8(self.terminations.clone()),
        });
        rows.entry(key).or_default().push(made.clone());
        made
    }

    /// Somebody uses what is on its way out.
    pub(crate) fn deprecated(&self, info: &RequestInfo, removed: &str) {
        let labels = [&*info.group, &*info.version, &*info.resource, &*info.subresource, removed];
        self.deprecated.with(&labels).set(1.0);
    }

    /// What tells how long lists take that begin watches.
    pub(crate) fn watch_list(&self, info: &RequestInfo) -> Histogram {
        self.watch_lists.with(&[&info.group, &info.version, &info.resource, labels::scope(info)])
    }

    /// A watcher was too slow, and lost what it had not read.
    pub(crate) fn terminated_watcher(&self, group: &str, resource: &str) {
        self.terminated_watchers.with(&[group, resource]).inc();
    }

    pub(crate) fn watch_events(&self, info: &RequestInfo) -> WatchEvents {
        let labels = [info.group.as_str(), &info.version, &info.resource];
        WatchEvents { count: self.watch_events.with(&labels), sizes: self.watch_sizes.with(&labels) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use http::{Method, Request};
    use std::time::Duration;

    #[test]
    fn requests_are_counted() {
        let registry = Registry::new();
        let observed = Observed::new(&registry);
        let begin = |method: Method, uri: &str, known| {
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            observed.begin(&parts, &RequestInfo::parse(&parts.method, &parts.uri), known)
        };
        let zero = Duration::ZERO;
        let pods = "/api/v1/namespaces/a/pods";
        for _ in 0..2 {
            begin(Method::GET, &format!("{pods}/b"), true).ended(200, Some(1500), zero);
        }
        begin(Method::POST, &format!("{pods}?dryRun=All"), true).ended(429, Some(0), zero);
        begin(Method::GET, "/apis/x.io/v1/things", false).ended(404, Some(0), zero);
        begin(Method::GET, "/readyz", false).ended(200, Some(2), zero);
        let watch = begin(Method::GET, &format!("{pods}?watch=1"), true).ended(200, None, zero);
        begin(Method::POST, &format!("{pods}/b/exec"), true).ended(101, Some(0), zero);
        let text = registry.render();
        let shown: Vec<&str> = text
            .lines()
            .filter(|line| {
                ["request_total{", "longrunning_requests{", "_count{", "terminations_total{", "inflight"]
                    .iter()
                    .any(|part| line.contains(part))
            })
            .filter(|line| !line.starts_with('#'))
            .collect();
        expect![[r#"
            apiserver_current_inflight_requests{request_kind="readOnly"} 1
            apiserver_current_inflight_requests{request_kind="mutating"} 1
            apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"} 0
            apiserver_longrunning_requests{component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="WATCH",version="v1"} 1
            apiserver_request_body_size_bytes_count{group="",resource="pods",verb="create"} 0
            apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"} 1
            apiserver_request_duration_seconds_count{component="",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1
            apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 2
            apiserver_request_duration_seconds_count{component="apiserver",dry_run="All",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1
            apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="WATCH",version="v1"} 0
            apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"} 1
            apiserver_request_sli_duration_seconds_count{component="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1
            apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 2
            apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="WATCH",version="v1"} 0
            apiserver_request_terminations_total{code="429",component="apiserver",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1
            apiserver_request_total{code="101",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="exec",verb="CONNECT",version="v1"} 1
            apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1
            apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 2
            apiserver_request_total{code="429",component="apiserver",dry_run="All",group="",resource="pods",scope="resource",subresource="",verb="POST",version="v1"} 1
            apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="pods",scope="namespace",subresource="",verb="WATCH",version="v1"} 1
            apiserver_response_sizes_count{component="",group="",resource="",scope="",subresource="/readyz",verb="GET",version=""} 1
            apiserver_response_sizes_count{component="apiserver",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 2
            apiserver_response_sizes_count{component="apiserver",group="",resource="pods",scope="namespace",subresource="",verb="WATCH",version="v1"} 0"#]].assert_eq(&shown.join("\n"));
        drop(watch);
        let text = registry.render();
        assert!(text.contains("apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"namespace\",subresource=\"\",verb=\"WATCH\",version=\"v1\"} 0"), "{text}");
    }
}
