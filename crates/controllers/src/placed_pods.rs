//! Pods by where they are: what the controllers of nodes, of claims and of what is left over share of them.

use api::core::v1::Pod;
use apimachinery::time::Time;
use client::Projection;
use client::informer::Index;
use rules::ephemeral_volume::claim_name;

pub(crate) const BY_NODE: &str = "node";
/// Pods that ended.
pub(crate) const ENDED: &str = "ended";
/// Pods by the claims they use, `namespace/name`.
pub(crate) const BY_CLAIM: &str = "claim";

/// What is kept of a pod.
#[derive(Debug, PartialEq)]
pub(crate) struct PlacedPod {
    /// Empty until it has one.
    pub node: String,
    pub deleting: bool,
    /// Neither to be started nor running.
    pub ended: bool,
    pub evicted: bool,
    pub created: Time,
    /// Names of the claims it uses. A pod without a node uses none: its kubelet would not start it with a claim that is
    /// going.
    pub claims: Vec<String>,
}

fn ended(phase: &str) -> bool {
    !matches!(phase, "" | "Pending" | "Running" | "Unknown")
}

/// The claims that a pod uses.
pub(crate) fn claims_of(pod: &Pod) -> Vec<String> {
    if pod.spec.node_name.is_empty() {
        return Vec::new();
    }
    let of_volume = |volume: &api::core::v1::Volume| {
        let named = volume.persistent_volume_claim.as_ref().map(|claim| claim.claim_name.clone());
        named.or_else(|| volume.ephemeral.as_ref().map(|_| claim_name(pod, &volume.name)))
    };
    pod.spec.volumes.iter().filter_map(of_volume).collect()
}

impl Projection for PlacedPod {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        PlacedPod {
            node: pod.spec.node_name.clone(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            ended: ended(&pod.status.phase),
            evicted: pod.status.phase == "Failed" && pod.status.reason == "Evicted",
            created: pod.metadata.creation_timestamp,
            claims: claims_of(pod),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[
            (BY_NODE, |pod| vec![pod.node.clone()]),
            (ENDED, |pod| if pod.ended { vec![String::new()] } else { Vec::new() }),
            (BY_CLAIM, |pod| pod.claims.iter().map(|claim| format!("{}/{claim}", pod.namespace())).collect()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    fn check(pod: Value, claims: &[&str]) -> PlacedPod {
        let pod: Pod = apimachinery::value::from_value(pod).unwrap();
        let placed = PlacedPod::project(&pod);
        assert_eq!(placed.claims, claims);
        placed
    }

    #[test]
    fn a_pod_uses_claims_when_it_has_a_node() {
        let volumes = json!([
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            {"name": "c", "emptyDir": {}}]);
        let meta = json!({"name": "p"});
        check(json!({"metadata": meta, "spec": {"nodeName": "n", "volumes": volumes}}), &["data", "p-b"]);
        check(json!({"metadata": meta, "spec": {"volumes": volumes}}), &[]);
        assert!(
            check(json!({"metadata": meta, "status": {"phase": "Failed", "reason": "Evicted"}}), &[]).evicted
        );
    }
}
