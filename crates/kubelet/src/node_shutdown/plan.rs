//! Who ends when, when the node shuts down: pure. Upstream: `podManager`.

use crate::config::ShutdownPeriod;
use api::core::v1::Pod;
use std::sync::Arc;
use std::time::Duration;

/// Upstream: `SystemCriticalPriority`.
const CRITICAL: i32 = 2_000_000_000;

/// `shutdownGracePeriod` and `shutdownGracePeriodCriticalPods` as periods by priority.
pub(crate) fn by_criticality(all: Duration, critical: Duration) -> Vec<ShutdownPeriod> {
    let Some(usual) = all.checked_sub(critical).filter(|_| !all.is_zero()) else { return Vec::new() };
    let period = |priority, time: Duration| ShutdownPeriod {
        priority,
        seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
    };
    vec![period(0, usual), period(CRITICAL, critical)]
}

/// All of them together.
pub(super) fn total(periods: &[ShutdownPeriod]) -> Duration {
    Duration::from_secs(periods.iter().map(|period| u64::try_from(period.seconds).unwrap_or(0)).sum())
}

/// The pods of each period, the lowest priority first; a pod whose priority is between two belongs to the lower.
pub(super) fn groups(
    periods: &[ShutdownPeriod],
    pods: Vec<Arc<Pod>>,
) -> Vec<(ShutdownPeriod, Vec<Arc<Pod>>)> {
    let mut sorted = periods.to_vec();
    sorted.sort_by_key(|period| period.priority);
    let mut groups: Vec<(ShutdownPeriod, Vec<Arc<Pod>>)> =
        sorted.into_iter().map(|period| (period, Vec::new())).collect();
    for pod in pods {
        let priority = pod.spec.priority.unwrap_or(0);
        let below = groups.iter().rposition(|(period, _)| period.priority <= priority).unwrap_or(0);
        if let Some((_, members)) = groups.get_mut(below) {
            members.push(pod);
        }
    }
    groups
}

/// Seconds that a pod gets.
pub(super) fn grace(pod: &Pod, period: ShutdownPeriod) -> i64 {
    pod.spec.termination_grace_period_seconds.map_or(period.seconds, |own| own.min(period.seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: Option<i32>) -> Arc<Pod> {
        let pod = apimachinery::json!({ "metadata": { "name": name }, "spec": { "priority": priority } });
        Arc::new(apimachinery::value::from_value(pod).unwrap())
    }

    fn shown(periods: &[ShutdownPeriod]) -> String {
        let pods = [
            ("none", None),
            ("low", Some(-5)),
            ("web", Some(100)),
            ("db", Some(100_000)),
            ("dns", Some(CRITICAL)),
            ("node", Some(CRITICAL + 1000)),
        ];
        let groups = groups(periods, pods.map(|(name, priority)| pod(name, priority)).into());
        let shown = groups.into_iter().map(|(period, pods)| {
            let names: Vec<&str> = pods.iter().map(|pod| pod.metadata.name.as_str()).collect();
            format!("{}s: {}", period.seconds, names.join(" "))
        });
        shown.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn who_ends_when() {
        let seconds = Duration::from_secs;
        assert_eq!(shown(&by_criticality(seconds(30), seconds(10))), "20s: none low web db, 10s: dns node");
        assert_eq!(shown(&by_criticality(seconds(30), seconds(0))), "30s: none low web db, 0s: dns node");
        assert_eq!(shown(&by_criticality(seconds(0), seconds(0))), "");
        let period = |(priority, seconds)| ShutdownPeriod { priority, seconds };
        let periods = [(100_000, 10), (10_000, 180), (1000, 120), (0, 60)].map(period);
        assert_eq!(shown(&periods), "60s: none low web, 120s: , 180s: , 10s: db dns node");
        assert_eq!(total(&periods), seconds(370));
        let mut own = Pod::clone(&pod("a", None));
        own.spec.termination_grace_period_seconds = Some(70);
        assert_eq!([grace(&own, periods[0]), grace(&own, periods[1])], [10, 70]);
    }
}
