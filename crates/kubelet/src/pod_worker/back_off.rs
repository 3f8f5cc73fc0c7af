//! Restart back-off: 10 s, doubled at each restart, at most 300 s unless told otherwise, forgotten after ten quiet minutes. Pure: callers say
//! what time it is. Upstream: `flowcontrol.Backoff`.

use std::collections::HashMap;
use std::time::Duration;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
/// After so long without a failure everything is forgiven, whatever the longest delay.
const QUIET: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
struct Entry {
    delay: Duration,
    updated: i64,
}

/// Delays by key; times are nanoseconds since the epoch.
#[derive(Debug, Clone)]
pub(crate) struct BackOff {
    entries: HashMap<String, Entry>,
    initial: Duration,
    most: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        BackOff::within(INITIAL, MAX)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl BackOff {
    /// With these delays at first and at most.
    pub(crate) fn within(initial: Duration, most: Duration) -> Self {
        BackOff { entries: HashMap::new(), initial, most }
    }

    /// The current delay of a key; zero when it has none.
    pub(crate) fn get(&self, key: &str) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |e| e.delay)
    }

    /// When the delay that began at `since` ends, if it has not ended at `now`.
    pub(crate) fn until(&self, key: &str, since: i64, now: i64) -> Option<i64> {
        let entry = self.entries.get(key).filter(|e| !expired(e, since))?;
        let end = since.saturating_add(nanos(entry.delay));
        (now < end).then_some(end)
    }

    /// When the delay that began with the last failure ends, if it has not ended at `now`.
    pub(crate) fn until_since_update(&self, key: &str, now: i64) -> Option<i64> {
        let entry = self.entries.get(key).filter(|e| !expired(e, now))?;
        let end = entry.updated.saturating_add(nanos(entry.delay));
        (now < end).then_some(end)
    }

    /// Counts one more failure at `at`.
    pub(crate) fn next(&mut self, key: &str, at: i64) {
        let delay = match self.entries.get(key).filter(|e| !expired(e, at)) {
            Some(entry) => (entry.delay * 2).min(self.most),
            None => self.initial,
        };
        self.entries.insert(key.to_owned(), Entry { delay, updated: at });
    }

    /// Forgets what has been quiet for long.
    pub(crate) fn forget_expired(&mut self, now: i64) {
        self.entries.retain(|_, e| !expired(e, now));
    }
}

fn expired(entry: &Entry, now: i64) -> bool {
    now.saturating_sub(entry.updated) > nanos(QUIET)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_and_forgets() {
        let s = |seconds: i64| seconds * 1_000_000_000;
        let mut back_off = BackOff::default();
        assert_eq!(back_off.until("a", s(0), s(0)), None);
        let mut seen = Vec::new();
        for i in 0..7 {
            back_off.next("a", s(i));
            seen.push(back_off.get("a").as_secs());
        }
        assert_eq!(seen, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off.until("a", s(100), s(399)), Some(s(400)));
        assert_eq!(back_off.until("a", s(100), s(400)), None);
        // Ran for more than ten minutes since: a clean slate.
        assert_eq!(back_off.until("a", s(700), s(700)), None);
        back_off.next("a", s(700));
        let mut short = BackOff::within(Duration::from_secs(1), Duration::from_secs(3));
        let mut seen = Vec::new();
        for i in 0..4 {
            short.next("a", s(i));
            seen.push(short.get("a").as_secs());
        }
        assert_eq!(seen, [1, 2, 3, 3]);
        assert_eq!(back_off.get("a").as_secs(), 10);
    }
}
