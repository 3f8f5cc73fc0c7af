//! How much work a request is: seats, and for how long they are taken. Work is measured in seat-seconds.

use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::time::Duration;

/// Work, and the progress meter that fair queuing compares it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct SeatSeconds(i128);

/// In a seat-second.
const SCALE: i128 = 100_000_000;

impl SeatSeconds {
    pub(super) fn of(seats: f64, time: Duration) -> Self {
        SeatSeconds((seats * time.as_secs_f64() * SCALE as f64).round() as i128)
    }

    pub(super) fn to_f64(self) -> f64 {
        self.0 as f64 / SCALE as f64
    }

    /// How long so many seats take for it.
    pub(super) fn per_seat(self, seats: f64) -> Duration {
        Duration::from_secs_f64((self.to_f64() / seats).max(0.0))
    }

    pub(super) fn negative(self) -> Self {
        SeatSeconds(-self.0)
    }
}

impl Add for SeatSeconds {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        SeatSeconds(self.0 + other.0)
    }
}

impl Sub for SeatSeconds {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        SeatSeconds(self.0 - other.0)
    }
}

impl AddAssign for SeatSeconds {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for SeatSeconds {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

impl fmt::Display for SeatSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:08}ss", self.0 / SCALE, (self.0 % SCALE).abs())
    }
}

/// What a request is estimated to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// While it is served.
    pub initial: u32,
    /// After that, for as long as `extra`: what follows from it, events to watchers.
    pub last: u32,
    pub extra: Duration,
}

/// How long a request is thought to be served before anybody knows.
pub(super) const SERVICE: Duration = Duration::from_millis(3);

impl Work {
    pub(super) const ONE: Work = Work { initial: 1, last: 0, extra: Duration::ZERO };

    pub(super) fn seats(seats: u32) -> Self {
        Work { initial: seats, ..Work::ONE }
    }

    /// The most seats that it takes at any time, which are taken all the time.
    pub(super) fn max_seats(&self) -> u32 {
        self.initial.max(self.last)
    }

    pub(super) fn total(&self) -> SeatSeconds {
        SeatSeconds::of(f64::from(self.initial), SERVICE) + SeatSeconds::of(f64::from(self.last), self.extra)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work() {
        let work = Work { initial: 2, last: 4, extra: Duration::from_millis(10) };
        assert_eq!(work.max_seats(), 4);
        assert_eq!(work.total().to_string(), "0.04600000ss");
        assert_eq!(SeatSeconds::of(4.0, Duration::from_secs(3)).per_seat(6.0), Duration::from_secs(2));
    }
}
