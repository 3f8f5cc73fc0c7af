//! What runs beside the binder, once per subject at a time, and after a failure not before its back-off is over.
//! Upstream: `goroutinemap` with exponential back-off.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(122);

enum State {
    Runs { delay: Duration },
    Failed { delay: Duration, until: Instant },
}

/// Operations by the uid of what they are about. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Operations(Arc<Mutex<HashMap<Arc<str>, State>>>);

/// Whether an operation may begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// It runs, and is looked at when it ends.
    Runs,
    /// It failed a while ago.
    After(Duration),
}

impl Operations {
    /// Begins an operation, which must end by [`Operations::succeeded`] or [`Operations::failed`].
    pub(super) fn begin(&self, about: &Arc<str>) -> Turn {
        let mut all = self.0.lock();
        let delay = match all.get(about) {
            None => Duration::ZERO,
            Some(State::Runs { .. }) => return Turn::Runs,
            Some(State::Failed { delay, until }) => {
                let left = until.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Turn::After(left);
                }
                *delay
            }
        };
        all.insert(about.clone(), State::Runs { delay });
        Turn::Now
    }

    pub(super) fn succeeded(&self, about: &Arc<str>) {
        self.0.lock().remove(about);
    }

    /// Returns when it may be tried again.
    pub(super) fn failed(&self, about: &Arc<str>) -> Duration {
        let mut all = self.0.lock();
        let before = match all.get(about) {
            Some(State::Runs { delay } | State::Failed { delay, .. }) => *delay,
            None => Duration::ZERO,
        };
        let delay = if before.is_zero() { FIRST } else { (before * 2).min(LONGEST) };
        all.insert(about.clone(), State::Failed { delay, until: Instant::now() + delay });
        delay
    }

    /// What it was about is gone.
    pub(super) fn forget(&self, about: &Arc<str>) {
        let mut all = self.0.lock();
        if matches!(all.get(about), Some(State::Failed { .. })) {
            all.remove(about);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_at_a_time_and_ever_later() {
        let (operations, about) = (Operations::default(), Arc::from("u"));
        assert_eq!(operations.begin(&about), Turn::Now);
        assert_eq!(operations.begin(&about), Turn::Runs);
        assert_eq!(operations.failed(&about), FIRST);
        assert_eq!(operations.begin(&about), Turn::After(FIRST));
        tokio::time::advance(FIRST).await;
        assert_eq!(operations.begin(&about), Turn::Now);
        assert_eq!(operations.failed(&about), FIRST * 2);
        tokio::time::advance(FIRST * 2).await;
        assert_eq!(operations.begin(&about), Turn::Now);
        operations.succeeded(&about);
        assert_eq!(operations.begin(&about), Turn::Now);
    }
}
