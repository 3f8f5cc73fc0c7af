//! Latencies of many operations: kept whole, since a run has at most some millions.

use std::time::Duration;

/// Microseconds of every operation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Latencies(Vec<u32>);

impl Latencies {
    pub(crate) fn push(&mut self, took: Duration) {
        self.0.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn append(&mut self, other: &mut Latencies) {
        self.0.append(&mut other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The smallest latency that at least `percent` of all do not exceed.
    pub(crate) fn percentile(&mut self, percent: f64) -> Duration {
        if self.0.is_empty() {
            return Duration::ZERO;
        }
        self.0.sort_unstable();
        let rank = (percent / 100.0 * self.0.len() as f64).ceil() as usize;
        Duration::from_micros(self.0[rank.clamp(1, self.0.len()) - 1].into())
    }
}

/// A duration as people read it.
pub(crate) fn human(took: Duration) -> String {
    let micros = took.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..100_000 => format!("{:.1} ms", micros as f64 / 1e3),
        100_000..1_000_000 => format!("{} ms", micros / 1000),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(micros: impl IntoIterator<Item = u64>, expected: Expect) {
        let mut latencies = Latencies::default();
        for micros in micros {
            latencies.push(Duration::from_micros(micros));
        }
        let shown: Vec<String> =
            [50.0, 99.0, 100.0].iter().map(|p| human(latencies.percentile(*p))).collect();
        expected.assert_eq(&shown.join(" | "));
    }

    #[test]
    fn percentiles() {
        check([], expect!["0 µs | 0 µs | 0 µs"]);
        check([7], expect!["7 µs | 7 µs | 7 µs"]);
        check(1..=100, expect!["50 µs | 99 µs | 100 µs"]);
        check([3_000_000, 1_500, 250_000], expect!["250 ms | 3.00 s | 3.00 s"]);
        check((1..=200).rev(), expect!["100 µs | 198 µs | 200 µs"]);
    }
}
