//! `apiserver_flowcontrol_*`. What is hot is kept beside what it counts and read when somebody asks.

use super::queues::Seen;
use super::work::SeatSeconds;
use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

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

/// A level's own.
pub(super) struct LevelMetrics {
    level: String,
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
    pub(super) fn new(registry: &Registry) -> Self {
        fn opts<'a>(name: &'a str, help: &'a str, stability: Stability) -> Opts<'a> {
            Opts { name, help, stability }
        }
        let both = &["priority_level", "flow_schema"];
        let (beta, alpha) = (Stability::Beta, Stability::Alpha);
        let pairs: Pairs = Arc::default();
        collect(registry, &pairs);
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
        LevelMetrics {
            level: level.to_owned(),
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

    /// A level that is no more.
    pub(super) fn forget(&self, level: &str) {
        self.gauges.iter().for_each(|gauge| gauge.remove(&[level]));
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
