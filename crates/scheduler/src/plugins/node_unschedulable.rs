//! Cordoned nodes take only pods that tolerate it.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, Refusal};
use api::core::v1::Taint;

pub(super) struct NodeUnschedulable;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        if !node.facts.unschedulable {
            return Ok(());
        }
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".into(),
            effect: rules::taints::NO_SCHEDULE.into(),
            ..Default::default()
        };
        if rules::taints::any_tolerates(pod.tolerations(), &taint) {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) were unschedulable"))
    }
}
