//! What is to become of a claim, and what a pod's claim is called. Pure.

use super::facts::{ClaimFacts, Owner, POD_CLAIM};
use crate::pods::controller_reference;
use api::Kind as _;
use api::core::v1::Pod;
use api::resource::v1::{ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate};
use apimachinery::meta::OwnerReference;
use rules::resource_claim::FINALIZER;

/// The longest beginning of a name to which a hyphen and five characters are added.
const MAX_BASE: usize = 57;

/// The beginning of the name of a claim that is made for a pod.
fn generate_name(pod: &str, claim: &str) -> String {
    let name = format!("{pod}-{claim}-");
    if name.len() <= MAX_BASE {
        return name;
    }
    // The share of both that fits; upstream takes the second share of what is already cut.
    let pod = &pod[..pod.len() * MAX_BASE / name.len()];
    let claim = &claim[..claim.len() * MAX_BASE / name.len()];
    format!("{pod}-{claim}")
}

/// The claim that a template makes for a pod, which calls it `called`.
pub(super) fn from_template(pod: &Pod, called: &str, template: ResourceClaimTemplate) -> ResourceClaim {
    let mut claim = ResourceClaim::new();
    let meta = template.spec.metadata;
    claim.metadata.generate_name = generate_name(&pod.metadata.name, called);
    claim.metadata.labels = meta.labels;
    claim.metadata.annotations = meta.annotations;
    claim.metadata.annotations.insert(POD_CLAIM.into(), called.into());
    claim.metadata.owner_references = vec![OwnerReference {
        // The pod need not wait for it to go.
        block_owner_deletion: None,
        ..controller_reference(pod)
    }];
    claim.spec = template.spec.spec;
    claim
}

/// Whether a request of a template's claim has alternatives.
pub(super) fn chooses(template: &ResourceClaimTemplate) -> bool {
    template.spec.spec.devices.requests.iter().any(|request| !request.first_available.is_empty())
}

pub(super) fn consumer(pod: &str, uid: &str) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        resource: "pods".into(),
        name: pod.into(),
        uid: uid.into(),
        ..Default::default()
    }
}

/// Whether a consumer is a pod: others are left alone.
pub(super) fn is_pod(consumer: &ResourceClaimConsumerReference) -> bool {
    consumer.api_group.is_empty() && consumer.resource == "pods"
}

/// What is to become of a claim.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// Its consumers from now on, where some are no more.
    pub consumers: Option<Vec<ResourceClaimConsumerReference>>,
    /// It is given back, and our finalizer with it.
    pub release: bool,
    /// It goes, if its pod has ended.
    pub unused: Option<Owner>,
}

/// `remaining` are those consumers that still run.
pub(super) fn decide(claim: &ClaimFacts, remaining: Vec<ResourceClaimConsumerReference>) -> Plan {
    let fewer = remaining.len() < claim.reserved_for.len();
    let none = remaining.is_empty();
    Plan {
        consumers: fewer.then_some(remaining),
        release: none && claim.held && (fewer || claim.deleting),
        unused: claim.owner.clone().filter(|_| none),
    }
}

/// Takes our finalizer away.
pub(super) fn unhold(claim: &mut ResourceClaim) {
    claim.metadata.finalizers.retain(|finalizer| finalizer != FINALIZER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut_in_proportion() {
        assert_eq!(generate_name("web-0", "gpu"), "web-0-gpu-");
        let (pod, claim) = ("p".repeat(60), "c".repeat(40));
        let name = generate_name(&pod, &claim);
        assert_eq!(name, format!("{}-{}", "p".repeat(33), "c".repeat(22)));
        assert!(name.len() <= MAX_BASE);
    }

    fn check(held: bool, deleting: bool, remaining: &[&str], want: (Option<usize>, bool, bool)) {
        let reserved_for = vec![consumer("a", "1"), consumer("b", "2")];
        let owner = Some(Owner { name: "a".into(), uid: "1".into() });
        let claim = ClaimFacts { owner, reserved_for, held, deleting, allocated: true, ..Default::default() };
        let plan = decide(&claim, remaining.iter().map(|uid| consumer("p", uid)).collect());
        let got = (plan.consumers.map(|consumers| consumers.len()), plan.release, plan.unused.is_some());
        assert_eq!(got, want);
    }

    #[test]
    fn a_claim_is_given_back_by_its_last_consumer() {
        check(true, false, &["1", "2"], (None, false, false));
        check(true, false, &["2"], (Some(1), false, false));
        check(true, false, &[], (Some(0), true, true));
        // Who holds it otherwise gives it back himself.
        check(false, false, &[], (Some(0), false, true));
        check(true, true, &["1", "2"], (None, false, false));
    }

    #[test]
    fn one_that_is_deleted_and_not_used_is_let_go() {
        let claim = |held, deleting| ClaimFacts { held, deleting, ..Default::default() };
        assert!(decide(&claim(true, true), Vec::new()).release);
        assert!(!decide(&claim(true, false), Vec::new()).release);
        assert!(!decide(&claim(false, true), Vec::new()).release);
    }
}
