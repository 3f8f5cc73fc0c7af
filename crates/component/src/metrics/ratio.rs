//! How long a ratio was how large (upstream's timing histogram): a bucket counts the nanoseconds in which the ratio was
//! within its bound, so nobody has to look at it at intervals.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;

use super::value::Snapshot;

/// The time since some fixed point, as those have it who tell of changes.
pub(super) type Now = Arc<dyn Fn() -> Duration + Send + Sync>;

/// See the module. What is counted, and its limit, are told with the time, which who tells of them mostly has at hand.
#[derive(Clone)]
pub struct RatioHistogram(Arc<Inner>);

struct Inner {
    bounds: Arc<[f64]>,
    now: Now,
    state: Mutex<State>,
}

struct State {
    /// Up to when time is accounted for.
    until: Duration,
    numerator: f64,
    denominator: f64,
    /// What these come to, and in which bucket that is.
    ratio: f64,
    bucket: usize,
    /// One more than bounds: the last is above all of them.
    nanoseconds: Box<[u64]>,
    /// The integral over time.
    sum: f64,
}

impl std::fmt::Debug for RatioHistogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RatioHistogram").field("ratio", &self.0.state.lock().ratio).finish_non_exhaustive()
    }
}

impl State {
    fn account(&mut self, now: Duration) {
        // Who comes with an older time was overtaken: its change counts from the newer one on.
        let since = now.saturating_sub(self.until).as_nanos() as u64;
        if since > 0 {
            self.nanoseconds[self.bucket] += since;
            self.sum += self.ratio * since as f64;
            self.until = now;
        }
    }
}

impl RatioHistogram {
    pub(super) fn new(bounds: Arc<[f64]>, now: Now) -> Self {
        let state = State {
            until: now(),
            numerator: 0.0,
            denominator: 1.0,
            ratio: 0.0,
            bucket: bounds.partition_point(|bound| *bound < 0.0),
            nanoseconds: vec![0; bounds.len() + 1].into(),
            sum: 0.0,
        };
        RatioHistogram(Arc::new(Inner { bounds, now, state: Mutex::new(state) }))
    }

    /// There is so much more, or less, of what is counted.
    pub fn add(&self, now: Duration, delta: f64) {
        self.change(now, |state| state.numerator += delta);
    }

    /// What it is a part of.
    pub fn limit(&self, now: Duration, limit: f64) {
        self.change(now, |state| state.denominator = limit);
    }

    fn change(&self, now: Duration, change: impl FnOnce(&mut State)) {
        let mut state = self.0.state.lock();
        state.account(now);
        change(&mut state);
        let ratio = state.numerator / state.denominator;
        state.ratio = ratio;
        state.bucket = self.0.bounds.partition_point(|bound| *bound < ratio);
    }

    /// As it is now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let now = (self.0.now)();
        let mut state = self.0.state.lock();
        state.account(now);
        Snapshot::new(&self.0.bounds, state.nanoseconds.iter().copied(), state.sum)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    fn nanoseconds(n: u64) -> Duration {
        Duration::from_nanos(n)
    }

    #[test]
    fn time_is_what_weighs() {
        let clock = Arc::new(AtomicU64::new(100));
        let now: Now = {
            let clock = clock.clone();
            Arc::new(move || nanoseconds(clock.load(Relaxed)))
        };
        let histogram = RatioHistogram::new([0.0, 0.5, 1.0].into(), now);
        // Nothing for 10, a quarter for 20, a half for 40, three quarters for 80, twice the limit for 160.
        histogram.limit(nanoseconds(105), 4.0);
        histogram.add(nanoseconds(110), 1.0);
        histogram.limit(nanoseconds(130), 2.0);
        histogram.add(nanoseconds(170), 0.5);
        histogram.limit(nanoseconds(250), 0.75);
        clock.store(410, Relaxed);
        let found = histogram.snapshot();
        assert_eq!(found.cumulative, [(0.0, 10), (0.5, 70), (1.0, 150), (f64::INFINITY, 310)]);
        assert_eq!((found.sum, found.count), (20.0 * 0.25 + 40.0 * 0.5 + 80.0 * 0.75 + 160.0 * 2.0, 310));
        // Who looks again at once sees the same, and who is late takes no time away.
        histogram.add(nanoseconds(300), -1.5);
        assert_eq!(histogram.snapshot().count, 310);
        clock.store(500, Relaxed);
        assert_eq!(histogram.snapshot().cumulative[0], (0.0, 100));
    }
}
