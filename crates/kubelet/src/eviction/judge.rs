//! From observations over time: which pressures the node has, and which threshold asks for something back. Pure; time
//! comes in. Upstream: the first half of `managerImpl.synchronize`.

use super::thresholds::{Amount, Pressure, Signal, Threshold};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What a signal reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    pub available: i64,
    pub capacity: i64,
}

/// All signals that could be read.
pub(crate) type Observations = BTreeMap<Signal, Reading>;

/// Remembers since when.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    /// Thresholds that were acted upon and are not over yet.
    met: Vec<Threshold>,
    first_seen: Vec<(Threshold, Instant)>,
    last_seen: BTreeMap<Pressure, Instant>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub pressures: Vec<Pressure>,
    /// Thresholds whose time is up, the most urgent first.
    pub due: Vec<Threshold>,
}

/// Whether a reading is below the threshold, or not above it by what is to be reclaimed.
fn crossed(threshold: &Threshold, observations: &Observations, with_reclaim: bool) -> bool {
    let Some(reading) = observations.get(&threshold.signal) else { return false };
    let mut least = threshold.least.of(reading.capacity);
    if let (true, Some(more)) = (with_reclaim, threshold.reclaim) {
        least += Amount::of(more, reading.capacity);
    }
    least > reading.available
}

impl Judge {
    /// Judges the newest observations. A pressure holds on for the transition period after it was last seen.
    pub(crate) fn judge(
        &mut self,
        thresholds: &[Threshold],
        observations: &Observations,
        transition: Duration,
        now: Instant,
    ) -> Verdict {
        let mut crossed_now: Vec<Threshold> =
            thresholds.iter().filter(|t| crossed(t, observations, false)).copied().collect();
        for held in self.met.iter().filter(|t| crossed(t, observations, true)) {
            if !crossed_now.contains(held) {
                crossed_now.push(*held);
            }
        }
        let before = std::mem::take(&mut self.first_seen);
        let since = |t: &Threshold| before.iter().find(|(known, _)| known == t).map_or(now, |(_, at)| *at);
        self.first_seen = crossed_now.iter().map(|t| (*t, since(t))).collect();
        for threshold in &crossed_now {
            self.last_seen.insert(threshold.signal.pressure(), now);
        }
        self.last_seen.retain(|pressure, at| {
            now.duration_since(*at) < transition
                || crossed_now.iter().any(|t| t.signal.pressure() == *pressure)
        });
        let waited =
            |(t, at): &&(Threshold, Instant)| t.grace.is_none_or(|grace| now.duration_since(*at) >= grace);
        let mut due: Vec<Threshold> = self.first_seen.iter().filter(waited).map(|(t, _)| *t).collect();
        self.met.clone_from(&due);
        // Memory is what runs out fastest.
        due.sort_by_key(|t| (t.signal != Signal::MemoryAvailable, t.signal));
        Verdict { pressures: self.last_seen.keys().copied().collect(), due }
    }
}

#[cfg(test)]
mod tests {
    use super::super::thresholds::{default_hard, parse};
    use super::*;

    fn pair(a: &str, b: &str) -> (String, String) {
        (a.into(), b.into())
    }

    /// Minute by minute: what is available of 1000 units of memory, and what follows.
    #[test]
    fn memory_over_time() {
        let hard = [pair("memory.available", "10%")];
        let soft = [pair("memory.available", "200")];
        let grace = [("memory.available".to_owned(), Duration::from_secs(90))];
        let thresholds = parse(&hard, &soft, &grace, &[pair("memory.available", "5%")]).unwrap();
        let mut judge = Judge::default();
        let start = Instant::now();
        let mut told = Vec::new();
        for (minute, available) in
            [300, 150, 150, 150, 230, 260, 90, 300, 300, 300, 300, 300, 300].iter().enumerate()
        {
            let reading = Reading { available: *available, capacity: 1000 };
            let observations = Observations::from([(Signal::MemoryAvailable, reading)]);
            let now = start + Duration::from_secs(60 * minute as u64);
            let verdict = judge.judge(&thresholds, &observations, Duration::from_secs(300), now);
            let due: Vec<&str> =
                verdict.due.iter().map(|t| if t.grace.is_some() { "soft" } else { "hard" }).collect();
            let pressure = if verdict.pressures.is_empty() { "" } else { "pressure " };
            told.push(format!("{available}: {pressure}{}", due.join(" ")));
        }
        expect_test::expect![[r#"
            300: 
            150: pressure 
            150: pressure 
            150: pressure soft
            230: pressure soft
            260: pressure 
            90: pressure hard
            300: pressure 
            300: pressure 
            300: pressure 
            300: pressure 
            300: 
            300: "#]]
        .assert_eq(&told.join("\n"));
    }

    #[test]
    fn flags() {
        let defaults = parse(&default_hard(), &[], &[], &[]).unwrap();
        assert_eq!(defaults.len(), 5);
        let of = |hard: &str, text: &str| parse(&[pair(hard, text)], &[], &[], &[]);
        assert!(of("memory.available", "0%").unwrap().is_empty());
        for (signal, text) in [("memory.free", "1"), ("memory.available", "101%"), ("memory.available", "x")]
        {
            assert!(of(signal, text).is_err(), "{signal}<{text}");
        }
        assert!(parse(&[], &[pair("pid.available", "5")], &[], &[]).is_err());
    }
}
