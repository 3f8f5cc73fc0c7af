//! How many seats a level's requests wanted lately: the most at a time, the mean, and how far it strayed from that.
//! Requests tell when they begin and when they end; nothing is locked.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How much of the past is kept at each adjustment (upstream's, a half-life of five minutes).
const SMOOTHING: f64 = 0.977;

#[derive(Debug, Default)]
pub(super) struct Demand {
    peak: AtomicU32,
    /// Seats by time, and seats by seats by time, in microseconds.
    sum: AtomicU64,
    squares: AtomicU64,
    smoothed: Mutex<(Duration, f64)>,
}

/// What there was between two adjustments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lately {
    pub peak: u32,
    pub mean: f64,
    pub deviation: f64,
    pub smoothed: f64,
}

impl Demand {
    /// So many seats are wanted now.
    pub(super) fn reached(&self, seats: u32) {
        if self.peak.load(Relaxed) < seats {
            self.peak.fetch_max(seats, Relaxed);
        }
    }

    /// A request wanted seats for a time, in which all requests together wanted `among` on the mean.
    pub(super) fn wanted(&self, seats: u32, time: Duration, among: f64) {
        let by_time = u64::from(seats) * time.as_micros() as u64;
        self.sum.fetch_add(by_time, Relaxed);
        self.squares.fetch_add((by_time as f64 * among) as u64, Relaxed);
    }

    /// Closes the account at `now`, where `seats` are wanted.
    pub(super) fn close(&self, now: Duration, seats: u32) -> Lately {
        let peak = self.peak.swap(seats, Relaxed).max(seats);
        let (sum, squares) = (self.sum.swap(0, Relaxed) as f64, self.squares.swap(0, Relaxed) as f64);
        let mut smoothed = self.smoothed.lock();
        let span = now.saturating_sub(smoothed.0).as_micros() as f64;
        if span <= 0.0 {
            return Lately { peak, mean: 0.0, deviation: 0.0, smoothed: smoothed.1 };
        }
        let mean = sum / span;
        let deviation = (squares / span - mean * mean).max(0.0).sqrt();
        let envelope = mean + deviation;
        *smoothed = (now, envelope.max(SMOOTHING * smoothed.1 + (1.0 - SMOOTHING) * envelope));
        Lately { peak, mean, deviation, smoothed: smoothed.1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lately() {
        let demand = Demand::default();
        let seconds = Duration::from_secs;
        // Four seats for half of the time.
        demand.reached(4);
        demand.wanted(4, seconds(5), 4.0);
        let found = demand.close(seconds(10), 0);
        assert_eq!(found, Lately { peak: 4, mean: 2.0, deviation: 2.0, smoothed: 4.0 });
        // Then nothing: what is smoothed goes down slowly.
        let found = demand.close(seconds(20), 1);
        assert_eq!((found.peak, found.mean), (1, 0.0));
        assert!((found.smoothed - 3.908).abs() < 1e-6);
    }
}
