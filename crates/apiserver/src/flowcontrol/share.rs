//! How the server's seats are shared among priority levels: each has its nominal share; what one does not use, others
//! borrow, within bounds, by what they wanted lately. Pure.

/// What a level may have, and what it would like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Want {
    pub lower: f64,
    pub upper: f64,
    pub target: f64,
}

/// Targets below this count as this: every level that is allowed seats gets some.
const LEAST_TARGET: f64 = 0.001;
const EPSILON: f64 = 1e-7;

/// Shares out `sum` so that every level gets the same fraction of its target, as far as bounds allow; and that fraction.
/// Nothing when bounds and sum do not fit together.
pub(super) fn share(sum: f64, wants: &[Want]) -> Option<(Vec<f64>, f64)> {
    let target = |want: &Want| want.target.max(LEAST_TARGET);
    let total = |of: &dyn Fn(&Want) -> f64| wants.iter().map(of).sum::<f64>();
    let (low, high) = (total(&|w| w.lower), total(&|w| w.upper));
    let sane = |w: &Want| w.lower >= 0.0 && w.upper >= w.lower && w.target >= w.lower;
    if sum < 0.0 || !wants.iter().all(sane) || low - sum > EPSILON || sum - high > EPSILON {
        return None;
    }
    if sum == 0.0 {
        return Some((vec![0.0; wants.len()], 0.0));
    }
    let given = |fraction: f64| -> Vec<f64> {
        wants.iter().map(|w| (fraction * target(w)).clamp(w.lower, w.upper)).collect()
    };
    // What is given grows with the fraction, in straight lines between the fractions at which a bound is met.
    let mut corners: Vec<f64> =
        wants.iter().flat_map(|w| [w.lower / target(w), w.upper / target(w)]).collect();
    corners.sort_by(f64::total_cmp);
    let mut before = corners.first().copied().unwrap_or(0.0);
    for corner in corners {
        let (from, to): (f64, f64) = (given(before).iter().sum(), given(corner).iter().sum());
        if to >= sum - EPSILON {
            let fraction = match to - from > EPSILON {
                true => before + (corner - before) * ((sum - from) / (to - from)).clamp(0.0, 1.0),
                false => corner,
            };
            return Some((given(fraction), fraction));
        }
        before = corner;
    }
    Some((given(before), before))
}

/// A level as sharing sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    pub exempt: bool,
    pub nominal: u32,
    pub minimum: u32,
    pub maximum: u32,
    pub current: u32,
    /// The most seats that were wanted at a time lately.
    pub peak: u32,
    /// The seats wanted, smoothed.
    pub smoothed: f64,
}

/// What sharing came to: limits and targets, in the levels' order, and the fraction of its target that everyone gets.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shared {
    pub limits: Vec<u32>,
    pub targets: Vec<f64>,
    pub fraction: f64,
}

/// The levels' limits from now on. `nominal` is the sum of what they have nominally.
pub(super) fn adjust(nominal: u32, levels: &[Level]) -> Shared {
    // No less than was wanted lately, as far as it is one's own.
    let least = |level: &Level| match level.exempt {
        true => level.minimum.max(level.peak),
        false => level.minimum.max(level.nominal.min(level.peak)),
    };
    let others = || levels.iter().filter(|level| !level.exempt);
    let exempt: i64 = levels.iter().filter(|level| level.exempt).map(|level| i64::from(least(level))).sum();
    let left = i64::from(nominal) - exempt;
    let minimum: i64 = others().map(|level| i64::from(level.minimum)).sum();
    let wanted: i64 = others().map(|level| i64::from(least(level))).sum();
    let target = |level: &Level| f64::from(least(level)).max(level.smoothed);
    let targets = levels.iter().map(target).collect();
    let mut fraction = 0.0;
    let limits: Vec<u32> = if left <= minimum {
        levels.iter().map(|level| if level.exempt { least(level) } else { level.minimum }).collect()
    } else if left <= wanted {
        let part = (left - minimum) as f64 / (wanted - minimum) as f64;
        let between = |level: &Level| {
            let more = f64::from(least(level) - level.minimum) * part;
            level.minimum + more.round() as u32
        };
        levels.iter().map(|level| if level.exempt { least(level) } else { between(level) }).collect()
    } else {
        let wants: Vec<Want> = others()
            .map(|level| Want {
                lower: f64::from(least(level)),
                upper: f64::from(level.maximum.max(least(level))),
                target: target(level),
            })
            .collect();
        let shared = share(f64::from(nominal), &wants);
        let mut given = match shared {
            Some((given, found)) => {
                fraction = found;
                given
            }
            None => others().map(|level| f64::from(level.current)).collect(),
        }
        .into_iter();
        levels
            .iter()
            .map(|level| match level.exempt {
                true => least(level),
                false => given.next().unwrap_or_default().round() as u32,
            })
            .collect()
    };
    Shared { limits, targets, fraction }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(sum: f64, wants: &[(f64, f64, f64)], expected: Expect) {
        let wants: Vec<Want> = wants
            .iter()
            .map(|(lower, target, upper)| Want { lower: *lower, upper: *upper, target: *target })
            .collect();
        let found = share(sum, &wants).map(|(given, fraction)| {
            let given: Vec<_> = given.iter().map(|g| format!("{g:.3}")).collect();
            format!("{} at {fraction:.3}", given.join(" "))
        });
        expected.assert_eq(&found.unwrap_or_else(|| "impossible".into()));
    }

    #[test]
    fn shares() {
        check(10.0, &[(0.0, 2.0, 20.0), (0.0, 3.0, 20.0)], expect!["4.000 6.000 at 2.000"]);
        check(10.0, &[(0.0, 2.0, 3.0), (0.0, 3.0, 20.0)], expect!["3.000 7.000 at 2.333"]);
        check(10.0, &[(5.0, 5.0, 6.0), (0.0, 45.0, 90.0)], expect!["5.000 5.000 at 0.111"]);
        check(10.0, &[(0.0, 0.0, 100.0), (5.0, 5.0, 7.0)], expect!["3.000 7.000 at 3000.000"]);
        check(3.0, &[(1.0, 1.0, 9.0), (2.0, 2.0, 9.0)], expect!["1.000 2.000 at 1.000"]);
        check(18.0, &[(1.0, 1.0, 9.0), (2.0, 2.0, 9.0)], expect!["9.000 9.000 at 9.000"]);
        check(2.0, &[(1.0, 1.0, 9.0), (2.0, 2.0, 9.0)], expect!["impossible"]);
        check(19.0, &[(1.0, 1.0, 9.0), (2.0, 2.0, 9.0)], expect!["impossible"]);
        check(0.0, &[(0.0, 1.0, 9.0)], expect!["0.000 at 0.000"]);
    }

    #[test]
    fn idle_levels_lend() {
        let level = |nominal, lendable, peak, smoothed| Level {
            exempt: false,
            nominal,
            minimum: nominal - lendable,
            maximum: 600,
            current: nominal,
            peak,
            smoothed,
        };
        let idle = [level(50, 25, 0, 0.0), level(250, 225, 0, 0.0)];
        expect!["Shared { limits: [150, 150], targets: [25.0, 25.0], fraction: 6.0 }"]
            .assert_eq(&format!("{:?}", adjust(300, &idle)));
        // One is busy: it gets what the other lends.
        let busy = [level(50, 25, 300, 280.0), level(250, 225, 2, 1.0)];
        expect!["Shared { limits: [275, 25], targets: [280.0, 25.0], fraction: 0.9821428571428572 }"]
            .assert_eq(&format!("{:?}", adjust(300, &busy)));
        // What is exempt takes what it needs, and others have less.
        let exempt = Level { exempt: true, ..level(0, 0, 290, 200.0) };
        expect!["Shared { limits: [290, 25, 25], targets: [290.0, 280.0, 25.0], fraction: 0.0 }"]
            .assert_eq(&format!("{:?}", adjust(300, &[exempt, busy[0], busy[1]])));
    }
}
