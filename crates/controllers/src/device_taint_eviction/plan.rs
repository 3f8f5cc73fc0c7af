//! When a pod has to give its devices up for their taints. Pure.

use api::resource::v1::{DeviceTaint, DeviceToleration};
use apimachinery::time::{Duration, Time};
use rules::resource_claim::tolerates;
use std::collections::BTreeSet;
use std::sync::Arc;

pub(super) const NO_EXECUTE: &str = "NoExecute";

/// A rule, by name and uid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RuleId {
    pub name: Arc<str>,
    pub uid: Arc<str>,
}

/// What taints do to whoever has devices.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Eviction {
    /// When they have to be given up; never, if no taint says since when it is there.
    pub when: Option<Time>,
    /// The rules that are among the reasons.
    pub rules: BTreeSet<RuleId>,
}

impl Eviction {
    /// Both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.when = self.when.into_iter().chain(other.when).min();
        self.rules.extend(other.rules);
        self
    }
}

/// For how many seconds a taint is borne; none if for ever. Only tolerations of this very effect give time.
fn grace(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<i64> {
    let bearing = tolerations.iter().filter(|t| t.effect == NO_EXECUTE && tolerates(t, taint));
    let mut limits = Vec::new();
    for toleration in bearing {
        limits.push(toleration.toleration_seconds?.max(0));
    }
    Some(limits.into_iter().min().unwrap_or(0))
}

/// What the evicting ones among the taints of a device come to, each with the rule that it is by, if it is by one.
pub(super) fn eviction<'a>(
    taints: impl Iterator<Item = (Option<&'a RuleId>, &'a DeviceTaint)>,
    tolerations: &[DeviceToleration],
) -> Eviction {
    let evicting = taints.filter(|(_, taint)| taint.effect == NO_EXECUTE);
    let each = evicting.filter_map(|(rule, taint)| {
        let seconds = grace(taint, tolerations)?;
        let when = taint.time_added.map(|added| added.plus(Duration::from_seconds(seconds)));
        Some(Eviction { when, rules: rule.cloned().into_iter().collect() })
    });
    each.fold(Eviction::default(), Eviction::and)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taints as `key effect added`, tolerations as `key effect seconds`; `-` is no time.
    fn check(taints: &[&str], tolerations: &[&str], want: Option<i64>) {
        let words = |line: &&str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let taints: Vec<DeviceTaint> = taints
            .iter()
            .map(words)
            .map(|w| DeviceTaint {
                key: w[0].clone(),
                effect: w[1].clone(),
                time_added: w[2].parse().ok().map(Time::from_unix),
                ..Default::default()
            })
            .collect();
        let tolerations: Vec<DeviceToleration> = tolerations
            .iter()
            .map(words)
            .map(|w| DeviceToleration {
                key: w[0].clone(),
                operator: "Exists".into(),
                effect: w[1].clone(),
                toleration_seconds: w[2].parse().ok(),
                ..Default::default()
            })
            .collect();
        let due = eviction(taints.iter().map(|taint| (None, taint)), &tolerations).when;
        assert_eq!(due, want.map(Time::from_unix), "{taints:?} {tolerations:?}");
    }

    #[test]
    fn the_first_taint_that_is_not_borne_counts() {
        check(&[], &[], None);
        check(&["a NoSchedule 100"], &[], None);
        check(&["a NoExecute 100"], &[], Some(100));
        check(&["a NoExecute -"], &[], None);
        check(&["a NoExecute 100"], &["a NoExecute -"], None);
        check(&["a NoExecute 100"], &["b NoExecute -"], Some(100));
        // One that means every effect bears none of those that evict.
        check(&["a NoExecute 100"], &["a  -"], Some(100));
        check(&["a NoExecute 100"], &["a NoExecute 30"], Some(130));
        check(&["a NoExecute 100"], &["a NoExecute -5"], Some(100));
        check(&["a NoExecute 100"], &["a NoExecute 30", " NoExecute 20"], Some(120));
        check(&["a NoExecute 100"], &["a NoExecute 30", " NoExecute -"], None);
        check(&["a NoExecute 100", "b NoExecute 110"], &["a NoExecute 30"], Some(110));
        check(&["a NoExecute 100", "b NoExecute 110"], &["a NoExecute -"], Some(110));
    }
}
