//! A pod that names its node goes there or nowhere.

use crate::facts::PodInfo;
use crate::framework::{Candidate, Filter, Refusal};

pub(super) struct NodeName;

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: Candidate<'_>) -> Result<(), Refusal> {
        let wanted = &pod.pod.spec.node_name;
        if wanted.is_empty() || **wanted == *node.info.name {
            return Ok(());
        }
        Err(Refusal::unresolvable("node(s) didn't match the requested node name"))
    }
}
