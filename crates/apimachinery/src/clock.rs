//! Time as the program sees it: the system's, or a test's that stands still until it is moved.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::time::Timestamp;

/// Ends when its time has come.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where a program gets the time from.
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point; never goes backwards.
    fn monotonic(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// A clock that stands still until [`FakeClock::advance`] moves it and wakes who is due.
#[derive(Debug)]
pub struct FakeClock {
    state: Mutex<FakeState>,
}

#[derive(Debug)]
struct FakeState {
    now: Timestamp,
    elapsed: Duration,
    sleepers: Vec<(Duration, oneshot::Sender<()>)>,
}

impl FakeClock {
    /// Stands at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self { state: Mutex::new(FakeState { now, elapsed: Duration::ZERO, sleepers: Vec::new() }) }
    }

    /// Moves on, and wakes the sleepers whose time has come, earliest first.
    pub fn advance(&self, by: Duration) {
        let due = {
            let mut state = self.lock();
            state.elapsed += by;
            // A test that leaves the calendar stays at its end.
            state.now = state.now.checked_add(by).unwrap_or(Timestamp::MAX);
            let elapsed = state.elapsed;
            let mut due: Vec<_> = state.sleepers.extract_if(.., |(at, _)| *at <= elapsed).collect();
            due.sort_by_key(|(at, _)| *at);
            due
        };
        for (_, sleeper) in due {
            // Who no longer waits need not be woken.
            let _ = sleeper.send(());
        }
    }

    /// How many wait: lets a test advance only when all it expects are asleep.
    pub fn sleepers(&self) -> usize {
        let mut state = self.lock();
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
        state.sleepers.len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, FakeState> {
        // The state is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn monotonic(&self) -> Duration {
        self.lock().elapsed
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if duration.is_zero() {
            return Box::pin(std::future::ready(()));
        }
        let (wake, woken) = oneshot::channel();
        let mut state = self.lock();
        state.sleepers.retain(|(_, sleeper)| !sleeper.is_closed());
        let at = state.elapsed + duration;
        state.sleepers.push((at, wake));
        Box::pin(async move {
            // A clock that is gone wakes everyone.
            let _ = woken.await;
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fake_clock_wakes_who_is_due() {
        let clock = FakeClock::new(Timestamp::UNIX_EPOCH);
        let (short, long) = (clock.sleep(Duration::from_secs(1)), clock.sleep(Duration::from_secs(10)));
        drop(clock.sleep(Duration::from_secs(5)));
        assert_eq!(clock.sleepers(), 2);
        clock.advance(Duration::from_secs(2));
        short.await;
        assert_eq!(clock.sleepers(), 1);
        clock.advance(Duration::from_secs(8));
        long.await;
        assert_eq!(clock.now().as_second(), 10);
        assert_eq!(clock.monotonic(), Duration::from_secs(10));
    }
}
