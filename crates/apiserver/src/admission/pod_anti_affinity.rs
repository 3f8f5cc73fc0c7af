//! LimitPodHardAntiAffinityTopology: pods that must keep apart keep apart by node, not by anything larger.

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::status::Status;
use apimachinery::value::Value;

#[derive(Debug)]
pub(super) struct LimitPodHardAntiAffinityTopology;

const HOSTNAME: &str = "kubernetes.io/hostname";

/// The first topology that is too large.
fn too_large(pod: &Value) -> Option<&str> {
    let terms = &pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let keys = terms.as_array()?.iter().map(|term| term["topologyKey"].as_str().unwrap_or_default());
    keys.into_iter().find(|key| *key != HOSTNAME)
}

impl Immediate for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        a.written("", "pods").and_then(too_large).map_or(Ok(()), |key| {
            Err(a.forbidden(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is allowed"
            )))
        })
    }
}
