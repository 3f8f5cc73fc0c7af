//! How fast the nodes of a zone may be emptied: slower the more of them are silent, for then it is the network that
//! failed, or we. Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// `--node-eviction-rate`, and the slower one of large clusters in trouble, per second.
const RATE: f64 = 0.1;
const SECONDARY_RATE: f64 = 0.01;
/// `--large-cluster-size-threshold` and `--unhealthy-zone-threshold`.
const LARGE: usize = 50;
const UNHEALTHY: f64 = 0.55;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZoneState {
    Normal,
    PartialDisruption,
    FullDisruption,
}

/// The state of a zone with so many nodes that are ready, and that are not.
fn state(ready: usize, not_ready: usize) -> ZoneState {
    match (ready, not_ready) {
        (0, 1..) => ZoneState::FullDisruption,
        (_, 3..) if not_ready as f64 / (ready + not_ready) as f64 >= UNHEALTHY => {
            ZoneState::PartialDisruption
        }
        _ => ZoneState::Normal,
    }
}

fn rate(state: ZoneState, nodes: usize) -> f64 {
    match state {
        ZoneState::Normal | ZoneState::FullDisruption => RATE,
        ZoneState::PartialDisruption if nodes > LARGE => SECONDARY_RATE,
        ZoneState::PartialDisruption => 0.0,
    }
}

#[derive(Debug)]
struct Zone {
    state: ZoneState,
    rate: f64,
    tokens: f64,
    at: Instant,
}

/// What one count of the nodes changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Nothing,
    /// Other rates: whoever waits should look again.
    Rates,
    /// No node is ready any more: whatever happened, it is not the nodes. None is evicted, and what was begun stops.
    AllDisrupted,
    /// Some are ready again: the others get their time anew.
    Recovered,
}

/// Nodes that are ready and that are not, per zone.
pub(super) type Counts = BTreeMap<String, (usize, usize)>;

#[derive(Debug, Default)]
pub(super) struct Zones {
    zones: HashMap<String, Zone>,
    all_disrupted: bool,
}

impl Zones {
    /// Judges the zones anew.
    pub(super) fn count(&mut self, counts: &Counts, now: Instant) -> Turn {
        let states: BTreeMap<&String, ZoneState> =
            counts.iter().map(|(zone, (ready, not))| (zone, state(*ready, *not))).collect();
        self.zones.retain(|zone, _| counts.contains_key(zone));
        let all = !states.is_empty() && states.values().all(|state| *state == ZoneState::FullDisruption);
        let was = std::mem::replace(&mut self.all_disrupted, all);
        let mut changed = false;
        for (zone, state) in states {
            let (ready, not) = counts[zone];
            let rate = if all { 0.0 } else { rate(state, ready + not) };
            let zone =
                self.zones.entry(zone.clone()).or_insert(Zone { state, rate: RATE, tokens: 1.0, at: now });
            changed |= zone.state != state || zone.rate != rate;
            zone.state = state;
            if zone.rate != rate {
                zone.refill(now);
                zone.rate = rate;
            }
        }
        match (was, all) {
            (false, true) => Turn::AllDisrupted,
            (true, false) => Turn::Recovered,
            _ if changed => Turn::Rates,
            _ => Turn::Nothing,
        }
    }

    /// Whether one more node of the zone may be emptied now, or in which time to ask again; never, as long as nothing
    /// changes, is none.
    pub(super) fn take(&mut self, zone: &str, now: Instant) -> Result<(), Option<Duration>> {
        let Some(zone) = self.zones.get_mut(zone) else { return Err(None) };
        zone.refill(now);
        if zone.rate <= 0.0 {
            return Err(None);
        }
        if zone.tokens >= 1.0 {
            zone.tokens -= 1.0;
            return Ok(());
        }
        Err(Some(Duration::from_secs_f64((1.0 - zone.tokens) / zone.rate)))
    }
}

impl Zone {
    fn refill(&mut self, now: Instant) {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(1.0);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_zones() {
        for (ready, not_ready, want) in [
            (5, 0, ZoneState::Normal),
            (0, 0, ZoneState::Normal),
            (0, 1, ZoneState::FullDisruption),
            (1, 2, ZoneState::Normal),
            (2, 3, ZoneState::PartialDisruption),
            (3, 3, ZoneState::Normal),
        ] {
            assert_eq!(state(ready, not_ready), want, "{ready} {not_ready}");
        }
    }

    #[test]
    fn nodes_are_emptied_one_after_the_other() {
        let (start, mut zones) = (Instant::now(), Zones::default());
        let counts = |a, b| Counts::from([("a".into(), a), ("b".into(), b)]);
        assert_eq!(zones.count(&counts((9, 1), (5, 0)), start), Turn::Nothing);
        assert_eq!(zones.take("a", start), Ok(()));
        assert_eq!(zones.take("a", start), Err(Some(Duration::from_secs(10))));
        assert_eq!(zones.take("b", start), Ok(()));
        let later = start + Duration::from_secs(10);
        assert_eq!(zones.take("a", later), Ok(()));
        // More than half of a small zone: none.
        assert_eq!(zones.count(&counts((4, 6), (5, 0)), later), Turn::Rates);
        assert_eq!(zones.take("a", later + Duration::from_secs(60)), Err(None));
        // All of one zone: as fast as ever. All of all: none.
        assert_eq!(zones.count(&counts((0, 10), (5, 0)), later), Turn::Rates);
        assert_eq!(zones.take("a", later + Duration::from_secs(60)), Ok(()));
        assert_eq!(zones.count(&counts((0, 10), (0, 5)), later), Turn::AllDisrupted);
        assert_eq!(zones.take("b", later + Duration::from_secs(60)), Err(None));
        assert_eq!(zones.count(&counts((1, 9), (0, 5)), later), Turn::Recovered);
    }
}
