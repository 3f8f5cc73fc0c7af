//! Two pods cannot have the same host port on one node.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, Refusal};

pub(super) struct NodePorts;

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        let taken = |port| node.info.ports.iter().any(|p| p.conflicts(port));
        if pod.facts.ports.iter().any(taken) {
            return Err(Refusal::new("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}
