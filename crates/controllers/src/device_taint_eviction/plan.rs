//! When a pod has to give its devices up for their taints. Pure.

use api::resource::v1::{DeviceTaint, DeviceToleration};
use apimachinery::time::{Duration, Time};
use rules::resource_claim::tolerates;

pub(super) const NO_EXECUTE: &str = "NoExecute";

/// When a taint evicts; never, if it is tolerated for ever. Only tolerations of this very effect give time.
fn until(taint: &DeviceTaint, tolerations: &[DeviceToleration]) -> Option<Time> {
    let added = taint.time_added?;
    let bearing = tolerations.iter().filter(|t| t.effect == NO_EXECUTE && tolerates(t, taint));
    let mut limits = Vec::new();
    for toleration in bearing {
        limits.push(toleration.toleration_seconds?.max(0));
    }
    let seconds = limits.into_iter().min().unwrap_or(0);
    Some(added.plus(Duration::from_seconds(seconds)))
}

/// When the first of the evicting taints of a device has it given up.
pub(super) fn due(taints: &[DeviceTaint], tolerations: &[DeviceToleration]) -> Option<Time> {
    let evicting = taints.iter().filter(|taint| taint.effect == NO_EXECUTE);
    evicting.filter_map(|taint| until(taint, tolerations)).min()
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
        assert_eq!(due(&taints, &tolerations), want.map(Time::from_unix), "{taints:?} {tolerations:?}");
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
