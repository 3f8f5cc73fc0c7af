//! One line per figure: what, how many a second, how long one took, what it cost the server, and what went wrong.

use crate::latency::{Latencies, human};
use crate::process::Used;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// How often what went wrong.
pub(crate) type Errors = BTreeMap<String, u64>;

/// What a run of many operations came to.
#[derive(Debug, Default)]
pub(crate) struct Figure {
    pub name: String,
    /// What was done, in words.
    pub work: String,
    pub done: u64,
    pub elapsed: Duration,
    pub latencies: Latencies,
    pub used: Used,
    pub errors: Errors,
}

impl Figure {
    pub(crate) fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// The line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = format!("{:<10} {:>9.0}/s", self.name, self.rate());
        if self.latencies.len() > 0 {
            let (p50, p99) = (self.latencies.percentile(50.0), self.latencies.percentile(99.0));
            let _ = write!(line, "   p50 {:>8}  p99 {:>8}", human(p50), human(p99));
        }
        let per = |time: Duration| time.as_secs_f64() * 1e6 / self.done.max(1) as f64;
        let share = |time: Duration| 100.0 * time.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9);
        match self.used.server {
            Some(time) => {
                let _ = write!(line, "   server {:>7.1} µs CPU/op ({:>3.0} %)", per(time), share(time));
            }
            None => line.push_str("   server's CPU unknown (--server-pid)"),
        }
        let own = self.used.own;
        let _ = write!(line, "   generator {:>6.1} µs ({:>3.0} %)", per(own), share(own));
        let _ = write!(line, "   {}", self.work);
        line + &errors(&self.errors)
    }
}

/// What went wrong, most frequent first.
pub(crate) fn errors(errors: &Errors) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let mut all: Vec<_> = errors.iter().collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    let total: u64 = errors.values().sum();
    let shown: Vec<String> = all.iter().take(3).map(|(what, n)| format!("{n} × {what}")).collect();
    format!("\n           ERRORS: {total}: {}", shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(mut figure: Figure, expected: Expect) {
        expected.assert_eq(&figure.line());
    }

    #[test]
    fn lines() {
        let mut latencies = Latencies::default();
        for ms in 1..=100 {
            latencies.push(Duration::from_millis(ms));
        }
        let used = Used { server: Some(Duration::from_millis(900)), own: Duration::from_millis(100) };
        check(
            Figure {
                name: "create".into(),
                work: "32 clients".into(),
                done: 10_000,
                elapsed: Duration::from_secs(1),
                latencies,
                used,
                errors: Errors::from([("409 it exists".into(), 3), ("timed out".into(), 8)]),
            },
            expect![[r#"
                create         10000/s   p50  50.0 ms  p99  99.0 ms   server    90.0 µs CPU/op ( 90 %)   generator   10.0 µs ( 10 %)   32 clients
                           ERRORS: 11: 8 × timed out; 3 × 409 it exists"#]],
        );
        check(
            Figure { name: "get".into(), ..Default::default() },
            expect![
                "get                0/s   server's CPU unknown (--server-pid)   generator    0.0 µs (  0 %)   "
            ],
        );
    }
}
