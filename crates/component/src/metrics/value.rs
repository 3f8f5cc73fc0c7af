//! The values: shared handles over atomics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Only goes up.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub fn get(&self) -> f64 {
        self.0.load(Relaxed) as f64
    }
}

/// Goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    pub fn add(&self, delta: f64) {
        add(&self.0, delta);
    }

    pub fn inc(&self) {
        self.add(1.0);
    }

    pub fn dec(&self) {
        self.add(-1.0);
    }

    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

fn add(cell: &AtomicU64, delta: f64) {
    // The closure always gives a value, so this cannot fail.
    let _ = cell.fetch_update(Relaxed, Relaxed, |bits| Some((f64::from_bits(bits) + delta).to_bits()));
}

/// Counts observations by size.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Arc<[f64]>,
    /// One more than bounds: the last is above all of them.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    pub(super) fn new(bounds: Arc<[f64]>) -> Histogram {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram(Arc::new(Inner { bounds, counts, sum: AtomicU64::new(0) }))
    }

    pub fn observe(&self, value: f64) {
        let bucket = self.0.bounds.partition_point(|b| *b < value);
        self.0.counts[bucket].fetch_add(1, Relaxed);
        add(&self.0.sum, value);
    }

    /// In seconds, as every upstream duration is.
    pub fn observe_since(&self, start: std::time::Instant) {
        self.observe(start.elapsed().as_secs_f64());
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        Snapshot::new(&self.0.bounds, counts, f64::from_bits(self.0.sum.load(Relaxed)))
    }
}

/// A histogram as it was at a moment: upper bounds and how many observations are below each.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub cumulative: Vec<(f64, u64)>,
    pub sum: f64,
    pub count: u64,
}

impl Snapshot {
    /// Of the counts of each bucket by itself: one for each bound, and one for what is above them.
    pub(super) fn new(bounds: &[f64], counts: impl Iterator<Item = u64>, sum: f64) -> Self {
        let mut count = 0;
        let bounds = bounds.iter().copied().chain([f64::INFINITY]);
        let cumulative = bounds.zip(counts).map(|(bound, more)| {
            count += more;
            (bound, count)
        });
        Snapshot { cumulative: cumulative.collect(), sum, count }
    }
}
