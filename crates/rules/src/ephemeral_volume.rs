//! The claim of a generic ephemeral volume: its name, and whose it is. Upstream: component-helpers `storage/ephemeral`.

use api::core::v1::{PersistentVolumeClaim, Pod};

/// The claim is named after its pod and volume.
pub fn claim_name(pod: &Pod, volume: &str) -> String {
    format!("{}-{volume}", pod.metadata.name)
}

/// A claim of that name may be another's: then it must not be used.
pub fn is_for_pod(pod: &Pod, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let (pod, claim) = (&pod.metadata, &claim.metadata);
    let mut owners = claim.owner_references.iter();
    let owned = owners.any(|owner| owner.controller == Some(true) && owner.uid == pod.uid);
    if pod.namespace == claim.namespace && owned {
        return Ok(());
    }
    Err(format!(
        "PVC {}/{} was not created for pod {}/{} (pod is not owner)",
        claim.namespace, claim.name, pod.namespace, pod.name
    ))
}
