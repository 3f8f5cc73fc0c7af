//! The claim of a generic ephemeral volume: its name, and whose it is. Upstream: component-helpers `storage/ephemeral`.

use crate::volumes::Claim;
use api::core::v1::{PersistentVolumeClaim, Pod};

/// The claim is named after its pod and volume.
pub fn claim_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name)
}

/// A claim of that name may be another's: then it must not be used.
pub fn is_for_pod(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    belongs(pod, &Claim::of(claim))
}

/// The same, of what is kept of a claim.
pub fn belongs(pod: &Pod, claim: &Claim) -> Result<(), String> {
    let pod = &pod.metadata;
    if pod.namespace == claim.namespace && pod.uid == claim.controller {
        return Ok(());
    }
    Err(format!(
        "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
        claim.namespace, claim.name, pod.namespace, pod.name
    ))
}
