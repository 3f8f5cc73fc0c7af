//! How fast the size may follow what metrics say: what was recommended and done lately, and the rules about it. Pure but
//! for its memory.

use api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};
use apimachinery::time::Timestamp;
use jiff::SignedDuration;

/// For how long the highest recommendation counts when the size goes down, in seconds.
pub(super) const DOWNSCALE_STABILIZATION: i32 = 300;
/// Without rules: at most twice as many at once, four at least.
const FACTOR: f64 = 2.0;
const LEAST: f64 = 4.0;

/// What is remembered of one autoscaler.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    /// When and by how many it grew, and shrank.
    ups: Vec<(Timestamp, i32)>,
    downs: Vec<(Timestamp, i32)>,
}

/// A size, and the conditions that tell of it: reason and message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Normalized {
    pub size: i32,
    pub able: (String, String),
    pub limited: bool,
    pub limit: (String, String),
}

/// What a size must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub current: i32,
    pub min: i32,
    pub max: i32,
}

fn pair(reason: &str, message: &str) -> (String, String) {
    (reason.into(), message.into())
}

fn before(now: Timestamp, seconds: i32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

fn in_range() -> (String, String) {
    pair("DesiredWithinRange", "the desired count is within the acceptable range")
}

fn too_many() -> (String, String) {
    pair("TooManyReplicas", "the desired replica count is more than the maximum replica count")
}

fn too_few() -> (String, String) {
    pair("TooFewReplicas", "the desired replica count is less than the minimum replica count")
}

fn up_limit() -> (String, String) {
    pair("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
}

impl Memory {
    /// The size that there is counts as the first recommendation.
    pub(super) fn begin(&mut self, current: i32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push((now, current));
        }
    }

    fn remember(&mut self, wanted: i32, now: Timestamp, cutoff: Timestamp) {
        self.recommendations.retain(|(at, _)| *at >= cutoff);
        self.recommendations.push((now, wanted));
    }

    /// The size that `wanted` comes to.
    pub(super) fn normalize(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        wanted: i32,
        bounds: Bounds,
        now: Timestamp,
    ) -> Normalized {
        match behavior {
            None => self.by_default(wanted, bounds, now),
            Some(behavior) => self.by_rules(behavior, wanted, bounds, now),
        }
    }

    fn by_default(&mut self, wanted: i32, bounds: Bounds, now: Timestamp) -> Normalized {
        let cutoff = before(now, DOWNSCALE_STABILIZATION);
        let recent = self.recommendations.iter().filter(|(at, _)| *at >= cutoff).map(|(_, size)| *size);
        let stable = recent.chain([wanted]).max().unwrap_or(wanted);
        self.remember(wanted, now, cutoff);
        let able = if stable == wanted {
            pair("ReadyForNewScale", "recommended size matches current size")
        } else {
            pair(
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        let fast = (FACTOR * f64::from(bounds.current)).max(LEAST) as i32;
        let (most, limit) = if bounds.max > fast { (fast, up_limit()) } else { (bounds.max, too_many()) };
        let (size, limit) = if stable < bounds.min {
            (bounds.min, too_few())
        } else if stable > most {
            (most, limit)
        } else {
            (stable, in_range())
        };
        Normalized { size, able, limited: size != stable, limit }
    }

    fn by_rules(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wanted: i32,
        bounds: Bounds,
        now: Timestamp,
    ) -> Normalized {
        let empty = HPAScalingRules::default();
        let up = behavior.scale_up.as_ref().unwrap_or(&empty);
        let down = behavior.scale_down.as_ref().unwrap_or(&empty);
        let up_from = before(now, up.stabilization_window_seconds.unwrap_or(0));
        let down_from = before(now, down.stabilization_window_seconds.unwrap_or(DOWNSCALE_STABILIZATION));
        let since =
            |from: Timestamp| self.recommendations.iter().filter(move |(at, _)| *at > from).map(|(_, s)| *s);
        let lowest = since(up_from).chain([wanted]).min().unwrap_or(wanted);
        let highest = since(down_from).chain([wanted]).max().unwrap_or(wanted);
        let stable = bounds.current.max(lowest).min(highest);
        self.remember(wanted, now, up_from.min(down_from));
        let able = if stable == wanted {
            pair("ReadyForNewScale", "recommended size matches current size")
        } else if wanted >= bounds.current {
            pair(
                "ScaleUpStabilized",
                "recent recommendations were lower than current one, applying the lowest recent recommendation",
            )
        } else {
            pair(
                "ScaleDownStabilized",
                "recent recommendations were higher than current one, applying the highest recent recommendation",
            )
        };
        let (mut size, mut limit) = (stable, in_range());
        if stable > bounds.current {
            let fast = self.limit(up, bounds.current, now, Way::Up).max(bounds.current);
            let (most, why) = if bounds.max > fast { (fast, up_limit()) } else { (bounds.max, too_many()) };
            if stable > most {
                (size, limit) = (most, why);
            }
        } else if stable < bounds.current {
            let fast = self.limit(down, bounds.current, now, Way::Down).min(bounds.current);
            let slow = pair(
                "ScaleDownLimit",
                "the desired replica count is decreasing faster than the maximum scale rate",
            );
            let (least, why) = if bounds.min < fast { (fast, slow) } else { (bounds.min, too_few()) };
            if stable < least {
                (size, limit) = (least, why);
            }
        }
        Normalized { size, able, limited: size != stable, limit }
    }

    /// How far the policies let the size go.
    fn limit(&self, rules: &HPAScalingRules, current: i32, now: Timestamp, way: Way) -> i32 {
        let select = rules.select_policy.as_deref().unwrap_or("Max");
        if select == "Disabled" {
            return current;
        }
        let changed = |events: &[(Timestamp, i32)], seconds| {
            let from = before(now, seconds);
            events.iter().filter(|(at, _)| *at > from).map(|(_, by)| *by).sum::<i32>()
        };
        let proposals = rules.policies.iter().map(|policy| {
            let seconds = policy.period_seconds;
            let start = current - changed(&self.ups, seconds) + changed(&self.downs, seconds);
            let share = f64::from(policy.value) / 100.0;
            match (way, policy.type_.as_str()) {
                (Way::Up, "Percent") => (f64::from(start) * (1.0 + share)).ceil() as i32,
                (Way::Up, _) => start.saturating_add(policy.value),
                (Way::Down, "Percent") => (f64::from(start) * (1.0 - share)) as i32,
                (Way::Down, _) => start.saturating_sub(policy.value),
            }
        });
        // The greatest change is the highest size on the way up, and the lowest on the way down.
        match (way, select) {
            (Way::Up, "Min") => proposals.min().unwrap_or(i32::MAX),
            (Way::Up, _) => proposals.max().unwrap_or(i32::MIN),
            (Way::Down, "Min") => proposals.max().unwrap_or(i32::MIN),
            (Way::Down, _) => proposals.min().unwrap_or(i32::MAX),
        }
    }

    /// Remembers a change of size; without rules nobody asks about it.
    pub(super) fn scaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (events, rules) = match to > from {
            true => (&mut self.ups, &behavior.scale_up),
            false => (&mut self.downs, &behavior.scale_down),
        };
        let longest =
            rules.iter().flat_map(|rules| &rules.policies).map(|policy| policy.period_seconds).max();
        let cutoff = before(now, longest.unwrap_or(0));
        events.retain(|(at, _)| *at >= cutoff);
        events.push((now, (to - from).abs()));
    }
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Up,
    Down,
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn without_rules() {
        let mut memory = Memory::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut look = |seconds, wanted, current| {
            let bounds = Bounds { current, min: 2, max: 20 };
            let n = memory.normalize(None, wanted, bounds, at(seconds));
            format!("{} {} {}", n.size, n.able.0, n.limit.0)
        };
        assert_eq!(look(0, 15, 3), "6 ReadyForNewScale ScaleUpLimit");
        assert_eq!(look(15, 50, 15), "20 ReadyForNewScale TooManyReplicas");
        // The highest of the last five minutes holds.
        assert_eq!(look(30, 4, 20), "20 ScaleDownStabilized TooManyReplicas");
        assert_eq!(look(330, 4, 20), "4 ReadyForNewScale DesiredWithinRange");
        assert_eq!(look(700, 1, 4), "2 ReadyForNewScale TooFewReplicas");
    }

    #[test]
    fn with_rules() {
        let behavior: HorizontalPodAutoscalerBehavior = apimachinery::value::from_value(json!({
            "scaleUp": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
                "policies": [{"type": "Pods", "value": 1, "periodSeconds": 30}, {"type": "Percent", "value": 50, "periodSeconds": 30}]},
        }))
        .unwrap();
        let mut memory = Memory::default();
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut current = 4;
        let mut look = |seconds, wanted| {
            let bounds = Bounds { current, min: 1, max: 100 };
            let n = memory.normalize(Some(&behavior), wanted, bounds, at(seconds));
            if n.size != current {
                memory.scaled(Some(&behavior), current, n.size, at(seconds));
            }
            current = n.size;
            format!("{} {} {}", n.size, n.able.0, n.limit.0)
        };
        assert_eq!(look(0, 20), "6 ReadyForNewScale ScaleUpLimit");
        // The period's growth is spent.
        assert_eq!(look(30, 20), "6 ReadyForNewScale ScaleUpLimit");
        assert_eq!(look(61, 20), "9 ReadyForNewScale ScaleUpLimit");
        // What grew within the period is not there to shrink: three of nine.
        assert_eq!(look(70, 2), "5 ReadyForNewScale ScaleDownLimit");
        assert_eq!(look(125, 2), "4 ReadyForNewScale ScaleDownLimit");
        // One low recommendation holds a growth up for a minute.
        assert_eq!(look(150, 20), "4 ScaleUpStabilized DesiredWithinRange");
    }
}
