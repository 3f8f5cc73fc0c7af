//! Claims of a StatefulSet's pods: their names and shapes, and who owns them under a retention policy. Pure.

use super::{ordinal_of, owns_ordinal};
use crate::pods::controller_reference;
use api::Kind;
use api::apps::v1::StatefulSet;
use api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume};
use apimachinery::meta::OwnerReference;

/// A pod as its claims see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub name: &'a str,
    pub uid: &'a str,
}

pub(super) fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}-{ordinal}", template.metadata.name, set.metadata.name)
}

/// The claims that a pod must have, by the volume they stand behind.
pub(super) fn claims(set: &StatefulSet, ordinal: i32) -> Vec<(String, PersistentVolumeClaim)> {
    let labels = set.spec.selector.iter().flat_map(|selector| &selector.match_labels);
    let templates = set.spec.volume_claim_templates.iter();
    templates
        .map(|template| {
            let mut claim = template.clone();
            claim.metadata.name = name(set, template, ordinal);
            claim.metadata.namespace = set.metadata.namespace.clone();
            claim.metadata.labels.extend(labels.clone().map(|(key, value)| (key.clone(), value.clone())));
            (template.metadata.name.clone(), claim)
        })
        .collect()
}

/// Puts the claims behind the pod's volumes of their names.
pub(super) fn mount(set: &StatefulSet, ordinal: i32, pod: &mut Pod) {
    let claims = claims(set, ordinal);
    let mut volumes: Vec<Volume> = claims
        .iter()
        .map(|(volume, claim)| Volume {
            name: volume.clone(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.metadata.name.clone(),
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect();
    let others =
        pod.spec.volumes.drain(..).filter(|volume| claims.iter().all(|(name, _)| *name != volume.name));
    volumes.extend(others.collect::<Vec<_>>());
    pod.spec.volumes = volumes;
}

/// Whether a pod's volumes are its claims.
pub(super) fn mounted(set: &StatefulSet, ordinal: i32, pod: &Pod) -> bool {
    claims(set, ordinal).iter().all(|(volume, claim)| {
        let volume = pod.spec.volumes.iter().find(|v| v.name == *volume);
        let source = volume.and_then(|volume| volume.persistent_volume_claim.as_ref());
        source.is_some_and(|source| source.claim_name == claim.metadata.name)
    })
}

/// What becomes of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Policy {
    delete_with_set: bool,
    delete_with_pod: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let policy = set.spec.persistent_volume_claim_retention_policy.as_ref();
    let delete = |text: Option<&String>| text.is_some_and(|text| text == "Delete");
    Policy {
        delete_with_set: delete(policy.map(|p| &p.when_deleted)),
        delete_with_pod: delete(policy.map(|p| &p.when_scaled)),
    }
}

/// Whether claims go with pods that are scaled away.
pub(super) fn go_with_pods(set: &StatefulSet) -> bool {
    policy(set).delete_with_pod
}

fn is_set(reference: &OwnerReference, set: &StatefulSet) -> bool {
    reference.api_version == StatefulSet::api_version()
        && reference.kind == StatefulSet::KIND
        && reference.name == set.metadata.name
}

fn is_pod(reference: &OwnerReference, pod: Owner) -> bool {
    reference.api_version == "v1" && reference.kind == "Pod" && reference.name == pod.name
}

/// Whether a claim belongs to a pod of this name that is gone: it will go, too.
pub(super) fn is_stale(references: &[OwnerReference], pod: Owner) -> bool {
    references.iter().find(|r| is_pod(r, pod)).is_some_and(|r| r.uid != pod.uid)
}

/// Whether somebody else controls a claim that the policy wants to own.
pub(super) fn is_foreign(references: &[OwnerReference], set: &StatefulSet, pod: Owner) -> bool {
    if policy(set) == (Policy { delete_with_set: false, delete_with_pod: false }) {
        return false;
    }
    references.iter().any(|reference| {
        if is_set(reference, set) {
            reference.uid != set.metadata.uid
        } else if is_pod(reference, pod) {
            reference.uid != pod.uid
        } else {
            reference.controller == Some(true)
        }
    })
}

/// Whether set and pod should own the claim.
fn owners(set: &StatefulSet, pod: Owner) -> (bool, bool) {
    let condemned = !ordinal_of(pod.name).is_some_and(|ordinal| owns_ordinal(set, ordinal));
    match policy(set) {
        Policy { delete_with_set, delete_with_pod: false } => (delete_with_set, false),
        Policy { delete_with_set: false, delete_with_pod: true } => (false, condemned),
        Policy { delete_with_set: true, delete_with_pod: true } => (!condemned, condemned),
    }
}

/// Whether a claim's owners are those that the policy asks for.
pub(super) fn owned_as_wanted(references: &[OwnerReference], set: &StatefulSet, pod: Owner) -> bool {
    let set_is_stale = references.iter().find(|r| is_set(r, set)).is_some_and(|r| r.uid != set.metadata.uid);
    // References to what is gone are the garbage collector's.
    if set_is_stale || is_stale(references, pod) {
        return true;
    }
    let owned_by = |uid: &str| references.iter().any(|r| r.uid == uid);
    let (by_set, by_pod) = (owned_by(&set.metadata.uid), owned_by(pod.uid));
    if is_foreign(references, set, pod) {
        return !by_set && !by_pod;
    }
    let ours = |r: &&OwnerReference| r.uid == set.metadata.uid || r.uid == pod.uid;
    if references.iter().filter(ours).any(|r| r.controller != Some(true)) {
        return false;
    }
    owners(set, pod) == (by_set, by_pod)
}

/// The claim's owners as the policy asks.
pub(super) fn wanted_owners(
    references: &[OwnerReference],
    set: &StatefulSet,
    pod: Owner,
) -> Vec<OwnerReference> {
    let foreign = is_foreign(references, set, pod);
    let others = references.iter().filter(|r| !is_set(r, set) && !is_pod(r, pod));
    let mut wanted: Vec<OwnerReference> = others.cloned().collect();
    if foreign {
        return wanted;
    }
    let (by_set, by_pod) = owners(set, pod);
    if by_set {
        wanted.push(controller_reference(set));
    }
    if by_pod {
        let mut it = Pod::new();
        it.metadata.name = pod.name.to_owned();
        it.metadata.uid = pod.uid.to_owned();
        wanted.push(controller_reference(&it));
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    /// Owners before, and after, under a policy; `pod-1` is beyond the set of one.
    fn check(deleted: &str, scaled: &str, pod: &str, before: &[(&str, &str)], expected: Expect) {
        let set: StatefulSet = apimachinery::value::from_value(json!({
            "metadata": {"name": "db", "uid": "set"},
            "spec": {
                "replicas": 1, "selector": {}, "template": {}, "serviceName": "",
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted, "whenScaled": scaled},
            },
        }))
        .unwrap();
        let reference = |(kind, uid): &(&str, &str)| OwnerReference {
            api_version: if *kind == "Pod" { "v1".into() } else { "apps/v1".into() },
            kind: (*kind).into(),
            name: if *kind == "Pod" { pod.into() } else { "db".into() },
            uid: (*uid).into(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        let before: Vec<OwnerReference> = before.iter().map(reference).collect();
        let owner = Owner { name: pod, uid: "pod" };
        let shown = if owned_as_wanted(&before, &set, owner) {
            "as wanted".to_owned()
        } else {
            let after = wanted_owners(&before, &set, owner);
            assert!(owned_as_wanted(&after, &set, owner), "{after:?}");
            format!("{:?}", after.iter().map(|r| format!("{} {}", r.kind, r.uid)).collect::<Vec<_>>())
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn owners_follow_the_policy() {
        check("Retain", "Retain", "db-0", &[], expect!["as wanted"]);
        check("Retain", "Retain", "db-0", &[("StatefulSet", "set")], expect!["[]"]);
        check("Delete", "Retain", "db-0", &[], expect![[r#"["StatefulSet set"]"#]]);
        check("Delete", "Retain", "db-1", &[("Pod", "pod")], expect![[r#"["StatefulSet set"]"#]]);
        check("Retain", "Delete", "db-0", &[], expect!["as wanted"]);
        check("Retain", "Delete", "db-1", &[], expect![[r#"["Pod pod"]"#]]);
        check("Delete", "Delete", "db-0", &[("Pod", "pod")], expect![[r#"["StatefulSet set"]"#]]);
        check("Delete", "Delete", "db-1", &[("StatefulSet", "set")], expect![[r#"["Pod pod"]"#]]);
        // A reference to an earlier pod of the name is left to the garbage collector.
        check("Retain", "Delete", "db-0", &[("Pod", "earlier")], expect!["as wanted"]);
        // Somebody else's.
        check("Delete", "Delete", "db-0", &[("Other", "x")], expect!["as wanted"]);
        check(
            "Delete",
            "Delete",
            "db-0",
            &[("Other", "x"), ("StatefulSet", "set")],
            expect![[r#"["Other x"]"#]],
        );
    }
}
