//! `apiserver_request_*` and its kin: what was asked, what was answered, and how long that took, under upstream's names and
//! labels. A request finds its row by one look-up; the rest are atomic additions.

use crate::body::Answer;
use crate::context::Said;
use crate::request::RequestInfo;
use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
};
use component::metrics::{exponential_buckets, linear_buckets};
use http::request::Parts;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

const COMPONENT: &str = "apiserver";
const DURATIONS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
const WATCH_LISTS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
const CONNECTS: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

/// What tells a request's row from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Labels<'a> {
    verb: &'static str,
    dry_run: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    subresource: &'a str,
    scope: &'static str,
    component: &'static str,
}

/// The counts of requests of one kind.
#[derive(Debug)]
struct Row {
    labels: [String; 8],
    total: CounterVec8,
    codes: RwLock<Vec<(u16, Counter)>>,
    seconds: Histogram,
    sli: Option<Histogram>,
    sizes: Option<Histogram>,
    /// Of requests whose bodies are objects, patches or options.
    bodies: Option<Histogram>,
    /// Of those that go on for as long as they like.
    running: Option<Gauge>,
    terminations: CounterVec8,
}

/// A family of counters whose last label is a code.
#[derive(Clone)]
struct CounterVec8(CounterVec);

impl std::fmt::Debug for CounterVec8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CounterVec8")
    }
}

impl Row {
    fn is(&self, labels: &Labels<'_>) -> bool {
        let known = self.labels.iter().map(String::as_str);
        known.eq(labels.list())
    }

    fn count(&self, code: u16) {
        if let Some((_, counter)) = self.codes.read().iter().find(|(known, _)| *known == code) {
            return counter.inc();
        }
        let text = code.to_string();
        let [verb, dry_run, group, version, resource, subresource, scope, component] = &self.labels;
        let counter = self.total.0.with(&[
            verb,
            dry_run,
            group,
            version,
            resource,
            subresource,
            scope,
            component,
            &text,
        ]);
        counter.inc();
        self.codes.write().push((code, counter));
        if matches!(code, 429 | 504) {
            self.terminated(&text);
        }
    }

    fn terminated(&self, code: &str) {
        let [verb, _, group, version, resource, subresource, scope, component] = &self.labels;
        self.terminations
            .0
            .with(&[verb, group, version, resource, subresource, scope, component, code])
            .inc();
    }
}

impl<'a> Labels<'a> {
    /// The row of a request; none for what is served by nobody here.
    fn of(parts: &Parts, info: &'a RequestInfo, known: bool) -> Option<Self> {
        let empty = Labels {
            verb: "",
            dry_run: "",
            group: "",
            version: "",
            resource: "",
            subresource: "",
            scope: "",
            component: "",
        };
        if !info.is_resource {
            // Those that upstream counts; paths from outside must not make rows.
            let subresource = match info.path.strip_prefix("/openapi/v3") {
                Some("") => "openapi/v3",
                Some(group) if group.starts_with('/') => "openapi/v3/",
                _ => ["/healthz", "/livez", "/readyz"].into_iter().find(|path| *path == info.path)?,
            };
            return Some(Labels { verb: "GET", subresource, ..empty });
        }
        if !known {
            return None;
        }
        let connect = CONNECTS.contains(&info.subresource.as_str());
        let apply = || {
            let media = parts.headers.get(http::header::CONTENT_TYPE);
            media.is_some_and(|media| media == "application/apply-patch+yaml")
        };
        let verb = match info.verb.as_str() {
            _ if connect => "CONNECT",
            "get" => "GET",
            "list" => "LIST",
            "watch" => "WATCH",
            "create" => "POST",
            "update" => "PUT",
            "patch" if apply() => "APPLY",
            "patch" => "PATCH",
            "delete" | "deletecollection" => "DELETE",
            _ => "other",
        };
        let dry_run = match info.query.get("dryRun") {
            None => "",
            Some("All") => "All",
            Some(_) => "invalid",
        };
        Some(Labels {
            verb,
            dry_run,
            group: &info.group,
            version: &info.version,
            resource: &info.resource,
            subresource: &info.subresource,
            scope: route_scope(info),
            component: COMPONENT,
        })
    }

    fn list(&self) -> [&'a str; 8] {
        [
            self.verb,
            self.dry_run,
            self.group,
            self.version,
            self.resource,
            self.subresource,
            self.scope,
            self.component,
        ]
    }
}

/// How much a request is about.
fn scope(info: &RequestInfo) -> &'static str {
    match (info.name.as_str(), info.namespace.as_str()) {
        ("", _) if info.verb == "create" => "resource",
        ("", "") => "cluster",
        ("", _) => "namespace",
        _ => "resource",
    }
}

/// How much a request's path is about: a list's selector may name an object, its path does not.
fn route_scope(info: &RequestInfo) -> &'static str {
    match (info.verb.as_str(), info.namespace.as_str()) {
        ("list" | "watch", "") => "cluster",
        ("list" | "watch", _) => "namespace",
        _ => scope(info),
    }
}

/// What the sizes of bodies call a verb whose requests have one.
fn body_verb(verb: &str, scope: &str) -> Option<&'static str> {
    Some(match verb {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" | "APPLY" => "patch",
        "DELETE" if scope == "resource" => "delete",
        "DELETE" => "delete_collection",
        _ => return None,
    })
}

/// Those that read, and those that write.
pub(crate) const KINDS: [&str; 2] = ["readOnly", "mutating"];

/// Requests under way, and the most there were since somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    now: AtomicI64,
    most: AtomicI64,
}

impl Peak {
    pub(crate) fn begin(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        if self.most.load(Ordering::Relaxed) < now {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn take(&self) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        self.most.swap(now, Ordering::Relaxed).max(now)
    }
}

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

/// A request while it is answered.
#[derive(Debug)]
pub(crate) struct Observation {
    row: Option<Arc<Row>>,
    began: Instant,
    in_flight: Option<Arc<Peak>>,
    long: bool,
}

/// A request whose answer goes on.
#[derive(Debug)]
pub(crate) struct Running {
    row: Arc<Row>,
    began: Instant,
    excluded: Duration,
    long: bool,
    /// The bytes of the answer that are sent.
    sent: usize,
}

impl Running {
    /// More of the answer is sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(sizes) = &self.row.sizes {
            sizes.observe(self.sent as f64);
        }
        if let Some(running) = self.row.running.as_ref().filter(|_| self.long) {
            running.dec();
        }
        observe(&self.row, self.began, self.excluded);
    }
}

fn observe(row: &Row, began: Instant, excluded: Duration) {
    let took = began.elapsed();
    row.seconds.observe(took.as_secs_f64());
    if let Some(sli) = &row.sli {
        sli.observe(took.saturating_sub(excluded).as_secs_f64());
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.end();
        }
    }
}

impl Observation {
    /// The request is answered. Gives what observes the rest of it, where the answer goes on.
    pub(crate) fn answered(self, answer: &Answer, said: &Said) -> Option<Running> {
        if let Some((bodies, size)) = self.row.as_ref().and_then(|row| row.bodies.as_ref()).zip(said.body) {
            bodies.observe(size as f64);
        }
        let excluded = said.excluded;
        let size = http_body::Body::size_hint(answer.body()).exact();
        self.ended(answer.status().as_u16(), size, excluded)
    }

    fn ended(self, code: u16, size: Option<u64>, excluded: Duration) -> Option<Running> {
        let row = self.row.clone()?;
        row.count(code);
        let goes_on = size.is_none();
        if let (Some(sizes), Some(size)) = (&row.sizes, size) {
            sizes.observe(size as f64);
        }
        if goes_on {
            if let Some(running) = row.running.as_ref().filter(|_| self.long) {
                running.inc();
            }
            return Some(Running { row, began: self.began, excluded, long: self.long, sent: 0 });
        }
        observe(&row, self.began, excluded);
        None
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
            bodies: body_verb(labels.verb, labels.scope)
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
        self.watch_lists.with(&[&info.group, &info.version, &info.resource, scope(info)])
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

/// Shows how many requests of each kind there were at most.
pub(crate) fn collect(registry: &Registry, name: &'static str, help: &'static str, peaks: [Arc<Peak>; 2]) {
    registry.collector(move |encoder| {
        let mut family = encoder.family(name, help, "gauge", &["request_kind".to_owned()]);
        for (kind, peak) in KINDS.into_iter().zip(&peaks) {
            family.value(&[kind], peak.take() as f64);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use http::{Method, Request};

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
