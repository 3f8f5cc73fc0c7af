//! `apiserver_flowcontrol_*`. What is hot is kept beside what it counts and read when somebody asks.

use super::level::Kind;
use super::queues::Seen;
use super::work::SeatSeconds;
use crate::observed::{self, KINDS, Peak};
use apimachinery::clock::Clock;
use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, RatioHistogram, RatioHistogramVec,
    Registry, Stability,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

const DURATIONS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];

/// What is counted of a flow schema's requests at a level.
#[derive(Debug)]
pub(super) struct Pair {
    pub level: String,
    pub schema: String,
    pub dispatched: Counter,
    pub executing: AtomicI64,
    pub seats: AtomicI64,
    waiting: AtomicI64,
    seats_waiting: AtomicI64,
    pub waited: Histogram,
    pub refused_wait: Histogram,
    pub regular_seconds: Histogram,
    pub watch_seconds: Histogram,
    pub estimated: Histogram,
    pub queue_length: Histogram,
    pub watch_count: Histogram,
    pub no_accommodation: Counter,
}

impl Pair {
    pub(super) fn waiting(&self, requests: i64, seats: u32) {
        self.waiting.fetch_add(requests, Ordering::Relaxed);
        self.seats_waiting.fetch_add(requests * i64::from(seats), Ordering::Relaxed);
    }
}

type Pairs = Arc<Mutex<BTreeMap<(String, String), Arc<Pair>>>>;

/// All of them.
#[derive(Clone)]
pub(super) struct Metrics {
    pairs: Pairs,
    rejected: CounterVec,
    dispatched: CounterVec,
    waits: HistogramVec,
    seconds: HistogramVec,
    estimated: HistogramVec,
    queue_length: HistogramVec,
    watch_count: HistogramVec,
    no_accommodation: CounterVec,
    gauges: [GaugeVec; 12],
    bounds: [GaugeVec; 2],
    utilization: [RatioHistogramVec; 3],
    /// Reads, and writes.
    requests: [Requests; 2],
    pub fair_fraction: Gauge,
}

/// The gauges of a level, in the order of [`GAUGES`].
const GAUGES: [(&str, Stability, &str); 12] = [
    (
        "nominal_limit_seats",
        Stability::Beta,
        "Nominal number of execution seats configured for each priority level",
    ),
    (
        "lower_limit_seats",
        Stability::Alpha,
        "Configured lower bound on number of execution seats available to each priority level",
    ),
    (
        "upper_limit_seats",
        Stability::Alpha,
        "Configured upper bound on number of execution seats available to each priority level",
    ),
    (
        "current_limit_seats",
        Stability::Alpha,
        "current derived number of execution seats available to each priority level",
    ),
    (
        "demand_seats_high_watermark",
        Stability::Alpha,
        "High watermark, over last adjustment period, of demand_seats",
    ),
    (
        "demand_seats_average",
        Stability::Alpha,
        "Time-weighted average, over last adjustment period, of demand_seats",
    ),
    (
        "demand_seats_stdev",
        Stability::Alpha,
        "Time-weighted standard deviation, over last adjustment period, of demand_seats",
    ),
    ("demand_seats_smoothed", Stability::Alpha, "Smoothed seat demands"),
    ("target_seats", Stability::Alpha, "Seat allocation targets"),
    ("current_r", Stability::Alpha, "R(time of last change)"),
    ("dispatch_r", Stability::Alpha, "R(time of last dispatch)"),
    ("latest_s", Stability::Alpha, "S(most recently dispatched request)"),
];

/// How much of what there is was used, for how long: of a level's seats and places in queues, and of the server's.
const UTILIZATION: [(&str, &str, &[f64]); 4] = [
    (
        "priority_level_request_utilization",
        "Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)",
        &[0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0],
    ),
    (
        "priority_level_seat_utilization",
        "Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
        &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0],
    ),
    (
        "demand_seats",
        "Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
        &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.8, 4.0, 6.0],
    ),
    (
        "read_vs_write_current_requests",
        "Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution",
        &[0.0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0],
    ),
];

fn utilization(registry: &Registry, of: usize, labels: &[&str], clock: &Arc<dyn Clock>) -> RatioHistogramVec {
    let (name, help, buckets) = UTILIZATION[of];
    let name = format!("apiserver_flowcontrol_{name}");
    let opts = Opts { name: &name, help, stability: Stability::Alpha };
    let clock = clock.clone();
    registry.ratio_histogram_vec(opts, labels, buckets, move || clock.monotonic())
}

/// How many of the server's requests that read, or that write, are served and wait.
#[derive(Debug, Clone)]
pub(super) struct Requests {
    pub executing: RatioHistogram,
    waiting: RatioHistogram,
    peak: Arc<Peak>,
}

impl Requests {
    pub(super) fn wait(&self, now: Duration) {
        self.waiting.add(now, 1.0);
        self.peak.begin();
    }

    pub(super) fn waited(&self, now: Duration) {
        self.waiting.add(now, -1.0);
        self.peak.end();
    }

    /// So many may be served and wait, in all levels. Before there are objects, none may wait: that none do is no part.
    fn limit(&self, now: Duration, executing: u32, waiting: usize) {
        self.executing.limit(now, f64::from(executing.max(1)));
        self.waiting.limit(now, waiting.max(1) as f64);
    }
}

/// A level's requests and seats, as parts of what it has.
pub(super) struct Utilization {
    pub executing: RatioHistogram,
    pub waiting: RatioHistogram,
    pub seats: RatioHistogram,
    /// The seats of those who wait, too.
    pub demand: RatioHistogram,
}

impl Utilization {
    pub(super) fn limit(&self, now: Duration, seats: u32) {
        let seats = f64::from(seats);
        [&self.executing, &self.seats, &self.demand].iter().for_each(|part| part.limit(now, seats));
    }

    pub(super) fn places(&self, now: Duration, kind: Kind) {
        self.waiting.limit(now, kind.places().max(1) as f64);
    }
}

/// A level's own.
pub(super) struct LevelMetrics {
    level: String,
    pub utilization: Utilization,
    rejected: CounterVec,
    pub nominal: Gauge,
    pub lower: Gauge,
    pub upper: Gauge,
    pub current_limit: Gauge,
    pub demand: [Gauge; 4],
    pub target: Gauge,
    r: [Gauge; 3],
    bounds: [Gauge; 4],
}

impl LevelMetrics {
    pub(super) fn rejected(&self, schema: &str, reason: &str) -> Counter {
        self.rejected.with(&[&self.level, schema, reason])
    }

    /// What was seen when a request's turn came.
    pub(super) fn seen(&self, current_r: SeatSeconds, seen: &Seen) {
        let values = [current_r, current_r, seen.latest_s];
        self.r.iter().zip(values).for_each(|(gauge, value)| gauge.set(value.to_f64()));
        let values = [seen.next_s[0], seen.next_s[1], seen.discounted_s[0], seen.discounted_s[1]];
        self.bounds.iter().zip(values).for_each(|(gauge, value)| gauge.set(value.to_f64()));
    }
}

impl Metrics {
    pub(super) fn new(registry: &Registry, clock: &Arc<dyn Clock>) -> Self {
        fn opts<'a>(name: &'a str, help: &'a str, stability: Stability) -> Opts<'a> {
            Opts { name, help, stability }
        }
        let both = &["priority_level", "flow_schema"];
        let (beta, alpha) = (Stability::Beta, Stability::Alpha);
        let pairs: Pairs = Arc::default();
        collect(registry, &pairs);
        let read_vs_write = utilization(registry, 3, &["phase", "request_kind"], clock);
        let requests = KINDS.map(|kind| Requests {
            executing: read_vs_write.with(&["executing", kind]),
            waiting: read_vs_write.with(&["waiting", kind]),
            peak: Arc::default(),
        });
        observed::collect(
            registry,
            "apiserver_current_inqueue_requests",
            "[ALPHA] Maximal number of queued requests in this apiserver per request kind in last second.",
            requests.each_ref().map(|requests| requests.peak.clone()),
        );
        let bounds = |name: &str, help: &str| {
            registry.gauge_vec(opts(name, help, alpha), &["priority_level", "bound"])
        };
        Metrics {
            pairs,
            rejected: registry.counter_vec(
                opts(
                    "apiserver_flowcontrol_rejected_requests_total",
                    "Number of requests rejected by API Priority and Fairness subsystem",
                    beta,
                ),
                &["priority_level", "flow_schema", "reason"],
            ),
            dispatched: registry.counter_vec(
                opts(
                    "apiserver_flowcontrol_dispatched_requests_total",
                    "Number of requests executed by API Priority and Fairness subsystem",
                    beta,
                ),
                both,
            ),
            waits: registry.histogram_vec(
                opts(
                    "apiserver_flowcontrol_request_wait_duration_seconds",
                    "Length of time a request spent waiting in its queue",
                    beta,
                ),
                &["priority_level", "flow_schema", "execute"],
                &DURATIONS,
            ),
            seconds: registry.histogram_vec(
                opts(
                    "apiserver_flowcontrol_request_execution_seconds",
                    "Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
                    alpha,
                ),
                &["priority_level", "flow_schema", "type"],
                &DURATIONS,
            ),
            estimated: registry.histogram_vec(
                opts(
                    "apiserver_flowcontrol_work_estimated_seats",
                    "Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
                    alpha,
                ),
                both,
                &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0],
            ),
            queue_length: registry.histogram_vec(
                opts(
                    "apiserver_flowcontrol_request_queue_length_after_enqueue",
                    "Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
                    alpha,
                ),
                both,
                &[0.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0],
            ),
            watch_count: registry.histogram_vec(
                opts(
                    "apiserver_flowcontrol_watch_count_samples",
                    "count of watchers for mutating requests in API Priority and Fairness",
                    alpha,
                ),
                both,
                &[0.0, 1.0, 10.0, 100.0, 1000.0, 10000.0],
            ),
            no_accommodation: registry.counter_vec(
                opts(
                    "apiserver_flowcontrol_request_dispatch_no_accommodation_total",
                    "Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats",
                    alpha,
                ),
                both,
            ),
            gauges: GAUGES.map(|(name, stability, help)| {
                let name = format!("apiserver_flowcontrol_{name}");
                registry.gauge_vec(opts(&name, help, stability), &["priority_level"])
            }),
            bounds: [
                bounds(
                    "apiserver_flowcontrol_next_s_bounds",
                    "min and max, over queues, of S(oldest waiting request in queue)",
                ),
                bounds(
                    "apiserver_flowcontrol_next_discounted_s_bounds",
                    "min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
                ),
            ],
            utilization: [
                utilization(registry, 0, &["phase", "priority_level"], clock),
                utilization(registry, 1, &["phase", "priority_level"], clock),
                utilization(registry, 2, &["priority_level"], clock),
            ],
            requests,
            fair_fraction: registry.gauge(opts(
                "apiserver_flowcontrol_seat_fair_frac",
                "Fair fraction of server's concurrency to allocate to each priority level that can use it",
                alpha,
            )),
        }
    }

    pub(super) fn level(&self, level: &str) -> LevelMetrics {
        let [
            nominal,
            lower,
            upper,
            current,
            peak,
            mean,
            deviation,
            smoothed,
            target,
            r,
            dispatch_r,
            latest_s,
        ] = &self.gauges;
        let of = |gauge: &GaugeVec| gauge.with(&[level]);
        let bound = |gauge: &GaugeVec, bound: &str| gauge.with(&[level, bound]);
        let [next, discounted] = &self.bounds;
        let [requests, seats, demand] = &self.utilization;
        LevelMetrics {
            level: level.to_owned(),
            utilization: Utilization {
                executing: requests.with(&["executing", level]),
                waiting: requests.with(&["waiting", level]),
                seats: seats.with(&["executing", level]),
                demand: demand.with(&[level]),
            },
            rejected: self.rejected.clone(),
            nominal: of(nominal),
            lower: of(lower),
            upper: of(upper),
            current_limit: of(current),
            demand: [of(peak), of(mean), of(deviation), of(smoothed)],
            target: of(target),
            r: [of(r), of(dispatch_r), of(latest_s)],
            bounds: [
                bound(next, "min"),
                bound(next, "max"),
                bound(discounted, "min"),
                bound(discounted, "max"),
            ],
        }
    }

    /// Those that read, or those that write.
    pub(super) fn requests(&self, write: bool) -> &Requests {
        &self.requests[usize::from(write)]
    }

    /// So many may be served and wait, in all levels.
    pub(super) fn limit(&self, now: Duration, executing: u32, waiting: usize) {
        self.requests.iter().for_each(|requests| requests.limit(now, executing, waiting));
    }

    /// A level that is no more.
    pub(super) fn forget(&self, level: &str) {
        self.gauges.iter().for_each(|gauge| gauge.remove(&[level]));
        let [requests, seats, demand] = &self.utilization;
        requests.remove(&["executing", level]);
        requests.remove(&["waiting", level]);
        seats.remove(&["executing", level]);
        demand.remove(&[level]);
        self.pairs.lock().retain(|(of, _), _| of != level);
    }

    pub(super) fn pair(&self, level: &str, schema: &str) -> Arc<Pair> {
        let mut pairs = self.pairs.lock();
        let make = || {
            Arc::new(Pair {
                level: level.to_owned(),
                schema: schema.to_owned(),
                dispatched: self.dispatched.with(&[level, schema]),
                executing: AtomicI64::new(0),
                seats: AtomicI64::new(0),
                waiting: AtomicI64::new(0),
                seats_waiting: AtomicI64::new(0),
                waited: self.waits.with(&[level, schema, "true"]),
                refused_wait: self.waits.with(&[level, schema, "false"]),
                regular_seconds: self.seconds.with(&[level, schema, "regular"]),
                watch_seconds: self.seconds.with(&[level, schema, "watch"]),
                estimated: self.estimated.with(&[level, schema]),
                queue_length: self.queue_length.with(&[level, schema]),
                watch_count: self.watch_count.with(&[level, schema]),
                no_accommodation: self.no_accommodation.with(&[level, schema]),
            })
        };
        pairs.entry((level.to_owned(), schema.to_owned())).or_insert_with(make).clone()
    }
}

/// Gauges that are read off.
fn collect(registry: &Registry, pairs: &Pairs) {
    type Read = fn(&Pair) -> &AtomicI64;
    const ALL: [(&str, &str, Read); 4] = [
        (
            "current_executing_requests",
            "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
            |pair| &pair.executing,
        ),
        (
            "current_executing_seats",
            "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
            |pair| &pair.seats,
        ),
        (
            "current_inqueue_requests",
            "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
            |pair| &pair.waiting,
        ),
        (
            "current_inqueue_seats",
            "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
            |pair| &pair.seats_waiting,
        ),
    ];
    let pairs = pairs.clone();
    registry.collector(move |encoder| {
        let pairs: Vec<Arc<Pair>> = pairs.lock().values().cloned().collect();
        for (name, help, read) in ALL {
            let name = format!("apiserver_flowcontrol_{name}");
            let labels = ["priority_level".to_owned(), "flow_schema".to_owned()];
            let mut family = encoder.family(&name, help, "gauge", &labels);
            for pair in &pairs {
                let value = read(pair).load(Ordering::Relaxed) as f64;
                family.value(&[&pair.level, &pair.schema], value);
            }
        }
    });
}
