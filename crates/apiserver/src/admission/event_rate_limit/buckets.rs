//! Token buckets by key; those least recently asked are forgotten when there are too many, and are full when they come
//! again.

use super::configuration::Limit;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// How much of a limit is left.
struct Bucket {
    tokens: f64,
    /// As of when.
    at: Instant,
    /// When it was asked last, among all.
    turn: u64,
}

/// See the module.
pub(super) struct Buckets {
    limit: Limit,
    buckets: HashMap<String, Bucket>,
    turns: BTreeMap<u64, String>,
    turn: u64,
}

impl Buckets {
    pub(super) fn new(limit: &Limit) -> Self {
        Buckets { limit: *limit, buckets: HashMap::new(), turns: BTreeMap::new(), turn: 0 }
    }

    /// Takes a token from a bucket, if there is one.
    pub(super) fn accept(&mut self, key: &str, now: Instant) -> bool {
        self.turn += 1;
        let (turn, burst) = (self.turn, f64::from(self.limit.burst));
        let bucket = self.buckets.entry(key.to_owned()).or_insert(Bucket { tokens: burst, at: now, turn });
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * f64::from(self.limit.qps);
        bucket.tokens = (bucket.tokens + gained).min(burst);
        bucket.at = now;
        let accepted = bucket.tokens >= 1.0;
        if accepted {
            bucket.tokens -= 1.0;
        }
        self.turns.remove(&std::mem::replace(&mut bucket.turn, turn));
        self.turns.insert(turn, key.to_owned());
        self.forget();
        accepted
    }

    fn forget(&mut self) {
        while self.buckets.len() > self.limit.kept {
            let Some((_, key)) = self.turns.pop_first() else { return };
            self.buckets.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::configuration::Kind;
    use super::*;
    use std::time::Duration;

    #[test]
    fn buckets_fill_as_time_goes_by() {
        let start = Instant::now();
        let mut buckets = Buckets::new(&Limit { kind: Kind::User, qps: 2, burst: 3, kept: 10 });
        let mut accepted = |millis: u64| buckets.accept("a", start + Duration::from_millis(millis));
        assert_eq!([0, 0, 0, 0].map(&mut accepted), [true, true, true, false]);
        assert_eq!([400, 500, 500].map(&mut accepted), [false, true, false]);
        assert_eq!([9000, 9000, 9000, 9000].map(&mut accepted), [true, true, true, false]);
    }

    #[test]
    fn the_least_recent_are_forgotten() {
        let now = Instant::now();
        let mut buckets = Buckets::new(&Limit { kind: Kind::User, qps: 1, burst: 1, kept: 2 });
        let accepted = ["a", "b", "a", "c", "a", "b"].map(|key| buckets.accept(key, now));
        assert_eq!(accepted, [true, true, false, true, false, true]);
    }
}
