//! A metrics registry: counters, gauges and histograms by label values, written in the Prometheus text format with
//! exactly the names given. Label values are looked up once (`with`) and the handle kept; updating it is an atomic add.
//! One registry per component: two components of one process may have a metric of the same name.

mod limits;
mod ratio;
mod text;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};

pub use limits::Limits;
pub use ratio::RatioHistogram;
pub use text::{CONTENT_TYPE, Encoder};
pub use value::{Counter, Gauge, Histogram};

/// More children than this are counted, not shown: a label with values from outside must not fill the memory.
const MAX_CHILDREN: usize = 20_000;

/// What the help of a [`RatioHistogram`] begins with.
const EXPERIMENTAL: &str = "EXPERIMENTAL: ";

/// Upstream's promise about a metric, shown at the head of its help text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stability {
    Stable,
    Beta,
    Alpha,
    Internal,
    /// The help text stands alone, as for `process_*` and `go_*`.
    Unmarked,
}

/// What a metric is called and what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Opts<'a> {
    pub name: &'a str,
    pub help: &'a str,
    pub stability: Stability,
}

impl Opts<'_> {
    /// The help text as it is shown.
    pub fn help(&self) -> String {
        match self.stability {
            Stability::Stable => format!("[STABLE] {}", self.help),
            Stability::Beta => format!("[BETA] {}", self.help),
            Stability::Alpha => format!("[ALPHA] {}", self.help),
            Stability::Internal => format!("[INTERNAL] {}", self.help),
            Stability::Unmarked => self.help.to_owned(),
        }
    }
}

/// The metrics of one component.
#[derive(Clone, Default)]
pub struct Registry(Arc<Inner>);

#[derive(Default)]
struct Inner {
    families: RwLock<BTreeMap<String, Family>>,
    collectors: Mutex<Vec<Box<dyn Fn(&mut Encoder) + Send + Sync>>>,
    /// Whether the families themselves are counted.
    counts_families: AtomicBool,
    limits: Limits,
    /// Those that somebody would have measured if they were not disabled.
    hidden: Mutex<BTreeSet<String>>,
    /// How often a label was given a value that it may not have.
    unexpected: Counter,
}

#[derive(Clone)]
enum Family {
    Counter(Vector<Counter>),
    Gauge(Vector<Gauge>),
    Histogram(Vector<Histogram>),
    Ratio(Vector<RatioHistogram>),
}

impl Family {
    fn help(&self) -> &str {
        match self {
            Family::Counter(v) => &v.0.help,
            Family::Gauge(v) => &v.0.help,
            Family::Histogram(v) => &v.0.help,
            Family::Ratio(v) => &v.0.help,
        }
    }
}

/// A metric with labels: a value per combination of label values.
pub struct Vector<M>(Arc<VectorInner<M>>);

impl<M> Clone for Vector<M> {
    fn clone(&self) -> Self {
        Vector(self.0.clone())
    }
}

struct VectorInner<M> {
    help: String,
    labels: Vec<String>,
    children: RwLock<BTreeMap<Box<[Box<str>]>, M>>,
    make: Box<dyn Fn() -> M + Send + Sync>,
    /// The values that each label may have, where they are limited.
    allowed: Option<Vec<Option<BTreeSet<String>>>>,
    /// How often others were given.
    unexpected: Counter,
    /// What values beyond the limit are added to, unseen.
    overflow: M,
}

pub type CounterVec = Vector<Counter>;
pub type GaugeVec = Vector<Gauge>;
pub type HistogramVec = Vector<Histogram>;
pub type RatioHistogramVec = Vector<RatioHistogram>;

impl<M: Clone> Vector<M> {
    fn new(
        opts: &Opts<'_>,
        labels: &[&str],
        limits: &Inner,
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self {
        Vector(Arc::new(VectorInner {
            allowed: limits.limits.of(opts.name, labels),
            unexpected: limits.unexpected.clone(),
            help: opts.help(),
            labels: labels.iter().map(|l| l.to_string()).collect(),
            children: RwLock::default(),
            overflow: make(),
            make: Box::new(make),
        }))
    }

    /// The handle for these label values, in the order in which the labels were declared. Keep it where it is hot.
    ///
    /// Values that are missing read as empty, surplus ones are dropped: a wrong count is a bug that a test shows, not
    /// a reason to stop serving.
    pub fn with(&self, values: &[&str]) -> M {
        debug_assert_eq!(values.len(), self.0.labels.len(), "label values of {:?}", self.0.labels);
        let n = self.0.labels.len();
        let value = |i: usize| {
            let value = values.get(i).copied().unwrap_or_default();
            let allowed = self.0.allowed.as_ref().and_then(|labels| labels.get(i)?.as_ref());
            if allowed.is_none_or(|allowed| allowed.contains(value)) {
                return value.into();
            }
            self.0.unexpected.inc();
            limits::UNEXPECTED.into()
        };
        let key: Box<[Box<str>]> = (0..n).map(value).collect();
        if let Some(found) = self.0.children.read().get(&key) {
            return found.clone();
        }
        let mut children = self.0.children.write();
        if children.len() >= MAX_CHILDREN && !children.contains_key(&key) {
            return self.0.overflow.clone();
        }
        children.entry(key).or_insert_with(|| (self.0.make)()).clone()
    }

    /// Forgets one combination, when what it was about is gone.
    pub fn remove(&self, values: &[&str]) {
        let key: Box<[Box<str>]> = values.iter().map(|v| Box::from(*v)).collect();
        self.0.children.write().remove(&key);
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.0.children.write().clear();
    }

    fn each(&self, mut f: impl FnMut(&[Box<str>], &M)) {
        // Copied out, so that writing a large family does not hold up its users.
        let children: Vec<_> = self.0.children.read().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        for (values, metric) in &children {
            f(values, metric);
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("families", &self.0.families.read().len()).finish_non_exhaustive()
    }
}

impl Registry {
    pub fn new() -> Registry {
        Registry::default()
    }

    /// One in which not all is measured.
    pub fn limited(limits: Limits) -> Registry {
        Registry(Arc::new(Inner { limits, ..Inner::default() }))
    }

    /// A counter with labels. Asked for again, the same one: labels and help are those of the first time.
    pub fn counter_vec(&self, opts: Opts<'_>, labels: &[&str]) -> CounterVec {
        let make = || Family::Counter(Vector::new(&opts, labels, &self.0, Counter::default));
        match self.family(opts.name, make) {
            Family::Counter(found) => found,
            _ => self.detached(opts, labels, Counter::default),
        }
    }

    pub fn counter(&self, opts: Opts<'_>) -> Counter {
        self.counter_vec(opts, &[]).with(&[])
    }

    pub fn gauge_vec(&self, opts: Opts<'_>, labels: &[&str]) -> GaugeVec {
        let make = || Family::Gauge(Vector::new(&opts, labels, &self.0, Gauge::default));
        match self.family(opts.name, make) {
            Family::Gauge(found) => found,
            _ => self.detached(opts, labels, Gauge::default),
        }
    }

    pub fn gauge(&self, opts: Opts<'_>) -> Gauge {
        self.gauge_vec(opts, &[]).with(&[])
    }

    /// A histogram with labels; `buckets` are the upper bounds, ascending, without +Inf.
    pub fn histogram_vec(&self, opts: Opts<'_>, labels: &[&str], buckets: &[f64]) -> HistogramVec {
        let buckets: Arc<[f64]> = buckets.into();
        let bounds = buckets.clone();
        let make =
            || Family::Histogram(Vector::new(&opts, labels, &self.0, move || Histogram::new(bounds.clone())));
        match self.family(opts.name, make) {
            Family::Histogram(found) => found,
            _ => self.detached(opts, labels, move || Histogram::new(buckets.clone())),
        }
    }

    pub fn histogram(&self, opts: Opts<'_>, buckets: &[f64]) -> Histogram {
        self.histogram_vec(opts, &[], buckets).with(&[])
    }

    /// A histogram of how long ratios were how large; `now` is the clock of those who tell of their changes.
    pub fn ratio_histogram_vec(
        &self,
        opts: Opts<'_>,
        labels: &[&str],
        buckets: &[f64],
        now: impl Fn() -> Duration + Send + Sync + 'static,
    ) -> RatioHistogramVec {
        // Upstream's mark of histograms whose observations are lengths of time.
        let help = format!("{EXPERIMENTAL}{}", opts.help());
        let opts = Opts { help: &help, stability: Stability::Unmarked, ..opts };
        let (buckets, now): (Arc<[f64]>, ratio::Now) = (buckets.into(), Arc::new(now));
        let make = move || RatioHistogram::new(buckets.clone(), now.clone());
        let family = || Family::Ratio(Vector::new(&opts, labels, &self.0, make.clone()));
        match self.family(opts.name, family) {
            Family::Ratio(found) => found,
            _ => self.detached(opts, labels, make),
        }
    }

    /// Values computed when somebody asks.
    pub fn collector(&self, collect: impl Fn(&mut Encoder) + Send + Sync + 'static) {
        self.0.collectors.lock().push(Box::new(collect));
    }

    /// Counts the families that are registered, as upstream's registries do: `registered_metrics_total`.
    pub fn count_families(&self) {
        self.0.counts_families.store(true, Ordering::Relaxed);
    }

    /// A name that is taken by a metric of another kind: it counts, unseen. A bug, which debug builds stop at.
    fn detached<M: Clone>(
        &self,
        opts: Opts<'_>,
        labels: &[&str],
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Vector<M> {
        debug_assert!(false, "{} is registered as another kind of metric", opts.name);
        Vector::new(&opts, labels, &self.0, make)
    }

    fn family(&self, name: &str, make: impl FnOnce() -> Family) -> Family {
        if let Some(found) = self.0.families.read().get(name) {
            return found.clone();
        }
        if self.0.limits.disabled.contains(name) {
            self.0.hidden.lock().insert(name.to_owned());
            return make();
        }
        self.0.families.write().entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// Everything, in the text format, sorted by name.
    pub fn render(&self) -> String {
        let mut encoder = Encoder::default();
        let families = self.0.families.read().clone();
        for (name, family) in &families {
            match family {
                Family::Counter(v) => {
                    let mut out = encoder.family(name, &v.0.help, "counter", &v.0.labels);
                    v.each(|values, counter| out.value(values, counter.get()));
                }
                Family::Gauge(v) => {
                    let mut out = encoder.family(name, &v.0.help, "gauge", &v.0.labels);
                    v.each(|values, gauge| out.value(values, gauge.get()));
                }
                Family::Histogram(v) => {
                    let mut out = encoder.family(name, &v.0.help, "histogram", &v.0.labels);
                    v.each(|values, histogram| out.histogram(values, &histogram.snapshot()));
                }
                Family::Ratio(v) => {
                    let mut out = encoder.family(name, &v.0.help, "histogram", &v.0.labels);
                    v.each(|values, histogram| out.histogram(values, &histogram.snapshot()));
                }
            }
        }
        // The registered families have their limits already.
        let mut encoder = encoder.limited(&self.0.limits, &self.0.unexpected);
        for collect in self.0.collectors.lock().iter() {
            collect(&mut encoder);
        }
        let hidden = encoder.forget(&self.0.limits.disabled);
        if self.0.counts_families.load(Ordering::Relaxed) {
            let mut all = self.0.hidden.lock();
            all.extend(hidden);
            let limits = [
                (
                    "disabled_metrics_total",
                    "The count of disabled metrics.",
                    Stability::Beta,
                    self.0.limits.disabled.len() as f64,
                ),
                ("hidden_metrics_total", "The count of hidden metrics.", Stability::Beta, all.len() as f64),
                (
                    "cardinality_enforcement_unexpected_categorizations_total",
                    "The count of unexpected categorizations during cardinality enforcement.",
                    Stability::Alpha,
                    self.0.unexpected.get(),
                ),
            ];
            for (name, help, stability, value) in limits {
                let help = Opts { name, help, stability }.help();
                encoder.family(name, &help, "counter", &[]).value::<&str>(&[], value);
            }
            count(&families, &mut encoder);
        }
        encoder.finish()
    }
}

/// The families that are registered, and those that collectors write, by what their help says of them. It counts itself.
fn count(families: &BTreeMap<String, Family>, encoder: &mut Encoder) {
    let opts = Opts {
        name: "registered_metrics_total",
        help: "The count of registered metrics broken by stability level and deprecation version.",
        stability: Stability::Beta,
    };
    let collected: Vec<String> = encoder
        .helps()
        .filter(|(name, _)| !families.contains_key(*name))
        .map(|(_, help)| help.to_owned())
        .collect();
    let own = opts.help();
    let registered = families.values().map(Family::help);
    let mut counts: BTreeMap<[&str; 2], u32> = BTreeMap::new();
    for help in registered.chain(collected.iter().map(String::as_str)).chain([own.as_str()]) {
        let help = help.strip_prefix(EXPERIMENTAL).unwrap_or(help);
        let Some((level, rest)) = help.strip_prefix('[').and_then(|help| help.split_once("] ")) else {
            continue;
        };
        let since = rest.strip_prefix("(Deprecated since ").and_then(|rest| rest.split_once(')'));
        *counts.entry([level, since.map_or("", |(version, _)| version)]).or_default() += 1;
    }
    let labels = ["stability_level", "deprecated_version"].map(str::to_owned);
    let mut out = encoder.family(opts.name, &own, "counter", &labels);
    counts.iter().for_each(|(values, count)| out.value(values, f64::from(*count)));
}

/// `count` bounds, `factor` apart.
pub fn exponential_buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |b| Some(b * factor)).take(count).collect()
}

/// `count` bounds, `width` apart.
pub fn linear_buckets(start: f64, width: f64, count: usize) -> Vec<f64> {
    std::iter::successors(Some(start), |b| Some(b + width)).take(count).collect()
}

/// Prometheus' default bounds.
pub const DEFAULT_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn opts<'a>(name: &'a str, help: &'a str, stability: Stability) -> Opts<'a> {
        Opts { name, help, stability }
    }

    #[test]
    fn text_format() {
        let registry = Registry::new();
        let requests = registry.counter_vec(
            opts("apiserver_request_total", "Counter of \\ requests\nand more.", Stability::Stable),
            &["verb", "code"],
        );
        requests.with(&["GET", "200"]).add(1_234_567);
        requests.with(&["LI\"ST\n", "500"]).inc();
        let gauge = registry.gauge(opts("workqueue_depth", "Depth.", Stability::Alpha));
        gauge.add(2.0);
        gauge.add(-0.5);
        let seconds = registry.histogram_vec(
            opts("duration_seconds", "How long.", Stability::Unmarked),
            &["verb"],
            &[0.005, 1.0, 25.0],
        );
        let get = seconds.with(&["GET"]);
        [0.001, 0.005, 0.2, 30.0].into_iter().for_each(|v| get.observe(v));
        registry.collector(|e| e.family("aaa", "Late.", "gauge", &[]).value::<&str>(&[], 1.0));
        let again = registry.counter_vec(opts("apiserver_request_total", "", Stability::Alpha), &[]);
        assert_eq!(again.0.labels, ["verb", "code"]);
        registry.gauge_vec(opts("empty", "No values, not shown.", Stability::Alpha), &["x"]);
        let used = opts("used", "How much.", Stability::Alpha);
        let now = || Duration::from_secs(2);
        let used = registry.ratio_histogram_vec(used, &["phase"], &[0.5], now).with(&["waiting"]);
        used.add(now(), 1.0);
        used.limit(Duration::from_secs(5), 4.0);
        expect![[r#"
            # HELP aaa Late.
            # TYPE aaa gauge
            aaa 1
            # HELP apiserver_request_total [STABLE] Counter of \\ requests\nand more.
            # TYPE apiserver_request_total counter
            apiserver_request_total{code="200",verb="GET"} 1.234567e+06
            apiserver_request_total{code="500",verb="LI\"ST\n"} 1
            # HELP duration_seconds How long.
            # TYPE duration_seconds histogram
            duration_seconds_bucket{verb="GET",le="0.005"} 2
            duration_seconds_bucket{verb="GET",le="1"} 3
            duration_seconds_bucket{verb="GET",le="25"} 3
            duration_seconds_bucket{verb="GET",le="+Inf"} 4
            duration_seconds_sum{verb="GET"} 30.206
            duration_seconds_count{verb="GET"} 4
            # HELP used EXPERIMENTAL: [ALPHA] How much.
            # TYPE used histogram
            used_bucket{phase="waiting",le="0.5"} 0
            used_bucket{phase="waiting",le="+Inf"} 3e+09
            used_sum{phase="waiting"} 3e+09
            used_count{phase="waiting"} 3e+09
            # HELP workqueue_depth [ALPHA] Depth.
            # TYPE workqueue_depth gauge
            workqueue_depth 1.5
        "#]]
        .assert_eq(&registry.render());
        requests.remove(&["GET", "200"]);
        assert!(!registry.render().contains("GET\"} 1.2"));
    }

    #[test]
    fn families_are_counted_by_stability() {
        let registry = Registry::new();
        registry.counter_vec(opts("a", "No values, and yet registered.", Stability::Alpha), &["x"]);
        registry.ratio_histogram_vec(opts("r", "R.", Stability::Alpha), &["x"], &[], Duration::default);
        registry.counter(opts("b", "B.", Stability::Stable));
        registry.counter(opts("c", "(Deprecated since 1.34.0) C.", Stability::Stable));
        registry.counter(opts("d", "Nobody's.", Stability::Unmarked));
        registry.collector(|e| e.family("e", "[ALPHA] Late.", "gauge", &[]).value::<&str>(&[], 1.0));
        registry.count_families();
        let text = registry.render();
        let counted: Vec<&str> = text.lines().filter(|line| line.starts_with("registered_")).collect();
        expect![[r#"
            registered_metrics_total{deprecated_version="",stability_level="ALPHA"} 4
            registered_metrics_total{deprecated_version="",stability_level="BETA"} 3
            registered_metrics_total{deprecated_version="",stability_level="STABLE"} 1
            registered_metrics_total{deprecated_version="1.34.0",stability_level="STABLE"} 1"#]]
        .assert_eq(&counted.join("\n"));
    }

    #[test]
    fn what_is_disabled_is_not_measured_and_labels_have_few_values() {
        let lists = [("a,x", "1,2"), ("a,y", ""), ("h,x", "1"), ("nobody,x", "1")];
        let lists = lists.map(|(key, values)| (key.to_owned(), values.to_owned())).into();
        let disabled = ["off", "late", "unknown"].map(str::to_owned);
        let limits = Limits::default().disable(&disabled).unwrap().allow(&lists).unwrap();
        let registry = Registry::limited(limits);
        registry.count_families();
        let off = registry.counter(opts("off", "Off.", Stability::Stable));
        off.inc();
        assert_eq!(off.get(), 1.0, "who counts need not know");
        registry.counter(opts("off", "Off, asked for again.", Stability::Stable));
        registry.collector(|e| e.family("late", "[ALPHA] Late.", "gauge", &[]).value::<&str>(&[], 1.0));
        registry.collector(|e| {
            let labels = ["x".to_owned()];
            let mut family = e.family("nobody", "Made when asked for.", "gauge", &labels);
            [("1", 1.0), ("2", 2.0), ("3", 3.0)].iter().for_each(|(x, value)| family.value(&[x], *value));
        });
        let a = registry.counter_vec(opts("a", "A.", Stability::Alpha), &["x", "y", "z"]);
        for values in [["1", "", "free"], ["3", "", "free"], ["4", "", "free"], ["1", "y", "free"]] {
            a.with(&values).inc();
        }
        let h = registry.histogram_vec(opts("h", "H.", Stability::Alpha), &["x"], &[1.0]);
        h.with(&["2"]).observe(1.0);
        expect![[r#"
            # HELP a [ALPHA] A.
            # TYPE a counter
            a{x="1",y="",z="free"} 1
            a{x="1",y="unexpected",z="free"} 1
            a{x="unexpected",y="",z="free"} 2
            # HELP cardinality_enforcement_unexpected_categorizations_total [ALPHA] The count of unexpected categorizations during cardinality enforcement.
            # TYPE cardinality_enforcement_unexpected_categorizations_total counter
            cardinality_enforcement_unexpected_categorizations_total 6
            # HELP disabled_metrics_total [BETA] The count of disabled metrics.
            # TYPE disabled_metrics_total counter
            disabled_metrics_total 3
            # HELP h [ALPHA] H.
            # TYPE h histogram
            h_bucket{x="unexpected",le="1"} 1
            h_bucket{x="unexpected",le="+Inf"} 1
            h_sum{x="unexpected"} 1
            h_count{x="unexpected"} 1
            # HELP hidden_metrics_total [BETA] The count of hidden metrics.
            # TYPE hidden_metrics_total counter
            hidden_metrics_total 2
            # HELP nobody Made when asked for.
            # TYPE nobody gauge
            nobody{x="1"} 1
            nobody{x="unexpected"} 5
            # HELP registered_metrics_total [BETA] The count of registered metrics broken by stability level and deprecation version.
            # TYPE registered_metrics_total counter
            registered_metrics_total{deprecated_version="",stability_level="ALPHA"} 3
            registered_metrics_total{deprecated_version="",stability_level="BETA"} 3
        "#]]
        .assert_eq(&registry.render());
    }

    #[test]
    fn names_and_labels_are_checked() {
        let disabled = Limits::default().disable(&["a:b".into(), "1".into()]).unwrap_err();
        expect![[r#"metrics.disabledMetrics: Invalid value: ["a:b", "1"]: must be fully qualified metric names matching "^[a-zA-Z_:][a-zA-Z0-9_:]*$", got "1""#]].assert_eq(&disabled);
        for key in ["m", "-m,l", "m,:l", "m,", "m,l,k"] {
            let lists = [(key.to_owned(), String::new())].into();
            assert!(Limits::default().allow(&lists).is_err(), "{key}");
        }
    }

    #[test]
    fn a_label_from_outside_does_not_fill_the_memory() {
        let registry = Registry::new();
        let vector = registry.counter_vec(opts("c", "C.", Stability::Alpha), &["who"]);
        for i in 0..MAX_CHILDREN + 100 {
            vector.with(&[&i.to_string()]).inc();
        }
        assert_eq!(vector.0.children.read().len(), MAX_CHILDREN);
        assert_eq!(vector.0.overflow.get(), 100.0);
    }
}
