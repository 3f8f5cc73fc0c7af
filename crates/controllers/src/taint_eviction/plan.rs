//! When a pod has to leave its node for the node's taints. Pure.

use api::core::v1::{Taint, Toleration};
use apimachinery::time::{Duration, Time};
use rules::taints::tolerates;

/// An eviction that was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scheduled {
    pub due: Time,
}

/// What to do about a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// It may stay; an eviction that was decided on is off.
    Stay,
    /// It has to leave at once.
    Leave,
    /// It has to leave later.
    LeaveAt(Time),
}

/// How long the pod bears all of the taints: none if it does not bear one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bears {
    Not,
    Seconds(i64),
    ForEver,
}

fn bears(taints: &[Taint], tolerations: &[Toleration]) -> Bears {
    let mut seconds: Option<i64> = None;
    for taint in taints {
        let Some(toleration) = tolerations.iter().find(|toleration| tolerates(toleration, taint)) else {
            return Bears::Not;
        };
        if let Some(limit) = toleration.toleration_seconds {
            seconds = Some(seconds.map_or(limit, |s| s.min(limit)));
        }
    }
    seconds.map_or(Bears::ForEver, Bears::Seconds)
}

/// `taints` are those of the pod's node that evict.
pub(super) fn decide(
    taints: &[Taint],
    tolerations: &[Toleration],
    scheduled: Option<Scheduled>,
    now: Time,
) -> Step {
    if taints.is_empty() {
        return Step::Stay;
    }
    match (bears(taints, tolerations), scheduled) {
        (Bears::Not, _) => Step::Leave,
        (Bears::ForEver, _) => Step::Stay,
        // Another look gives no more time.
        (Bears::Seconds(_), Some(scheduled)) if scheduled.due <= now => Step::Leave,
        (Bears::Seconds(_), Some(scheduled)) => Step::LeaveAt(scheduled.due),
        (Bears::Seconds(..=0), None) => Step::Leave,
        (Bears::Seconds(seconds), None) => Step::LeaveAt(now.plus(Duration::from_seconds(seconds))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(taints: &[&str], tolerations: &[(&str, Option<i64>)], scheduled: Option<i64>, want: Step) {
        let taints: Vec<Taint> = taints
            .iter()
            .map(|key| Taint { key: key.to_string(), effect: "NoExecute".into(), ..Default::default() })
            .collect();
        let tolerations: Vec<Toleration> = tolerations
            .iter()
            .map(|(key, seconds)| Toleration {
                key: key.to_string(),
                operator: "Exists".into(),
                toleration_seconds: *seconds,
                ..Default::default()
            })
            .collect();
        let scheduled = scheduled.map(|at| Scheduled { due: Time::from_unix(at) });
        assert_eq!(decide(&taints, &tolerations, scheduled, Time::from_unix(100)), want);
    }

    #[test]
    fn tolerations_give_time() {
        let at = |seconds| Step::LeaveAt(Time::from_unix(seconds));
        check(&[], &[], Some(150), Step::Stay);
        check(&["a"], &[], None, Step::Leave);
        check(&["a", "b"], &[("a", None)], None, Step::Leave);
        check(&["a"], &[("a", None)], Some(150), Step::Stay);
        check(&["a"], &[("a", Some(30))], None, at(130));
        check(&["a", "b"], &[("a", Some(30)), ("b", Some(20))], None, at(120));
        check(&["a", "b"], &[("a", Some(30)), ("b", None)], None, at(130));
        check(&["a"], &[("a", Some(0))], None, Step::Leave);
        check(&["a"], &[("a", Some(30))], Some(110), at(110));
        check(&["a"], &[("a", Some(30))], Some(100), Step::Leave);
    }
}
