//! What a rule's status says of the pods that go for it. Pure.

use super::facts::{IN_PROGRESS, Saying};
use apimachinery::meta::Condition;

/// What there is of what a rule is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Devices that drivers publish.
    pub published: usize,
    /// Devices that claims have.
    pub allocated: usize,
    /// Pods that have to go, or would have to.
    pub pods: usize,
    /// Where they are.
    pub namespaces: usize,
    /// Pods that have gone since the controller runs.
    pub evicted: u64,
}

fn counted(count: u64, one: &str, several: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {several}"),
    }
}

/// How far a rule is, but for since when. Upstream: `maybeUpdateRuleStatus`.
pub(super) fn condition(saying: &Saying, generation: i64, counts: Counts) -> Condition {
    let Counts { published, allocated, pods, namespaces, evicted } = counts;
    let places = counted(namespaces as u64, "namespace", "different namespaces");
    let (reason, mut message) = match saying.taint.effect.as_str() {
        "NoExecute" if pods > 0 => {
            let go = counted(pods as u64, "pod needs", "pods need");
            ("PodsPendingEviction", format!("{go} to be evicted in {places}."))
        }
        "NoExecute" if evicted > 0 => ("Completed", String::new()),
        "NoExecute" => ("NotStarted", String::new()),
        "None" => {
            let published = counted(published as u64, "published device", "published devices");
            let allocated = counted(allocated as u64, "allocated device", "allocated devices");
            let go = counted(pods as u64, "pod", "pods");
            let told = format!(
                "{published} selected. {allocated} selected. {go} would be evicted in {places} if the effect was NoExecute. This information will not be updated again. Recreate the DeviceTaintRule to trigger an update."
            );
            ("NoEffect", told)
        }
        _ => ("OtherEffect", "Eviction only happens for the NoExecute effect.".to_owned()),
    };
    if evicted > 0 {
        if !message.is_empty() {
            message.push(' ');
        }
        message += &format!("{} evicted since starting the controller.", counted(evicted, "pod", "pods"));
    }
    Condition {
        type_: IN_PROGRESS.into(),
        status: if reason == "PodsPendingEviction" { "True" } else { "False" }.into(),
        observed_generation: generation,
        reason: reason.into(),
        message,
        ..Default::default()
    }
}
