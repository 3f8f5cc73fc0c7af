//! The claims of pods to devices: where they are, whose they are, and which taints of devices they bear. Upstream:
//! `dynamic-resource-allocation/resourceclaim`.

use api::core::v1::{Pod, PodResourceClaim};
use api::resource::v1::{DeviceTaint, DeviceToleration, ResourceClaim};

/// Holds a claim that has devices, until they are given back.
pub const FINALIZER: &str = "resource.kubernetes.io/delete-protection";
/// On a claim that the scheduler made for the extended resources of a pod: `true`.
pub const EXTENDED: &str = "resource.kubernetes.io/extended-resource-claim";
/// Before the name of a class: the extended resource by which any class can be asked for.
pub const CLASS_PREFIX: &str = "deviceclass.resource.kubernetes.io/";

/// Where a claim that a pod asks for is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The user has one of this name.
    Named(String),
    /// It is made from a template, and was given this name.
    Made(String),
    /// It was decided that the pod needs none.
    Needless,
    /// Nobody has made it yet.
    NotYet,
}

/// A claim that a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// What the pod calls it.
    pub name: String,
    pub place: Place,
    pub template: Option<String>,
}

impl Wanted {
    /// Reads where one of the claims of a pod is from the pod's status.
    pub fn of(pod: &Pod, claim: &PodResourceClaim) -> Self {
        let told = || pod.status.resource_claim_statuses.iter().find(|status| status.name == claim.name);
        let place = match &claim.resource_claim_name {
            Some(name) => Place::Named(name.clone()),
            None => match told().map(|status| status.resource_claim_name.clone()) {
                Some(Some(name)) => Place::Made(name),
                Some(None) => Place::Needless,
                None => Place::NotYet,
            },
        };
        Wanted { name: claim.name.clone(), place, template: claim.resource_claim_template_name.clone() }
    }

    /// All claims of a pod.
    pub fn all(pod: &Pod) -> impl Iterator<Item = Self> + '_ {
        pod.spec.resource_claims.iter().map(|claim| Wanted::of(pod, claim))
    }

    /// The name of the claim itself, once it has one.
    pub fn claim(&self) -> Option<&str> {
        match &self.place {
            Place::Named(name) | Place::Made(name) => Some(name),
            Place::Needless | Place::NotYet => None,
        }
    }

    /// The name of the claim itself; none where none is needed. Fails where there is to be one, and is none.
    pub fn must_be(&self, namespace: &str, pod: &str) -> Result<Option<&str>, String> {
        if self.place != Place::NotYet {
            return Ok(self.claim());
        }
        Err(match self.template {
            Some(_) => format!("pod \"{namespace}/{pod}\": ResourceClaim not created yet"),
            None => format!(
                "pod \"{namespace}/{pod}\", spec.resourceClaim {:?}: none of the supported fields are set",
                self.name
            ),
        })
    }

    /// Whether the claim must be the pod's own.
    pub fn is_owned(&self) -> bool {
        matches!(self.place, Place::Made(_))
    }
}

/// The uid of what a claim was made for.
pub fn controller(claim: &ResourceClaim) -> Option<&str> {
    let mut owners = claim.metadata.owner_references.iter();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

/// What is said of a claim that was not made for the pod that means it; both by namespace and name.
pub fn not_its_own(claim: (&str, &str), pod: (&str, &str)) -> String {
    let ((claim_namespace, claim), (namespace, pod)) = (claim, pod);
    format!(
        "ResourceClaim {claim_namespace}/{claim} was not created for Pod {namespace}/{pod} (Pod is not owner)"
    )
}

/// Whether this toleration bears this taint. An empty key means every taint, an operator that is unknown none. Upstream:
/// `ToleratesTaint`.
pub fn tolerates(toleration: &DeviceToleration, taint: &DeviceTaint) -> bool {
    let means = |wanted: &str, found: &str| wanted.is_empty() || wanted == found;
    means(&toleration.effect, &taint.effect)
        && means(&toleration.key, &taint.key)
        && match toleration.operator.as_str() {
            "" | "Equal" => toleration.value == taint.value,
            "Exists" => true,
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerating() {
        let taint = |value: &str| DeviceTaint {
            key: "sick".into(),
            value: value.into(),
            effect: "NoExecute".into(),
            ..Default::default()
        };
        let toleration = |operator: &str, value: &str| DeviceToleration {
            key: "sick".into(),
            operator: operator.into(),
            value: value.into(),
            ..Default::default()
        };
        assert!(tolerates(&toleration("Equal", "x"), &taint("x")));
        assert!(tolerates(&toleration("", "x"), &taint("x")));
        assert!(!tolerates(&toleration("Equal", "x"), &taint("y")));
        assert!(tolerates(&toleration("Exists", ""), &taint("y")));
        assert!(!tolerates(&toleration("Lt", "x"), &taint("x")));
        let other = DeviceToleration { effect: "NoSchedule".into(), ..toleration("Exists", "") };
        assert!(!tolerates(&other, &taint("x")));
        assert!(tolerates(&DeviceToleration { key: String::new(), ..toleration("Exists", "") }, &taint("x")));
    }
}
