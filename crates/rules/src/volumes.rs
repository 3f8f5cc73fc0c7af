//! PersistentVolumes and their claims as binding reads them: which volume is whose, and which would do for a claim.
//! The binder and the scheduler ask the same questions. Upstream: component-helpers `storage/volume`.

use crate::node_affinity::{Labels, matches_selector};
use api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim};
use apimachinery::labels::Selector;
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;

/// On a claim: it was bound once, whatever became of it since.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or a volume: not its author said what it is bound to.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node for which its volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim or a volume of a plugin that is no more: the CSI driver in its place.
pub const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";
/// The provisioner of classes whose volumes nobody makes.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// Where claims and volumes named their class before there was a field.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

const MODES: [&str; 4] = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];

/// A set of access modes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessModes(u8);

impl AccessModes {
    pub fn of<S: AsRef<str>>(modes: &[S]) -> Self {
        let bit = |mode: &S| MODES.iter().position(|known| *known == mode.as_ref());
        AccessModes(modes.iter().filter_map(bit).fold(0, |all, at| all | 1 << at))
    }

    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    fn len(self) -> u32 {
        self.0.count_ones()
    }
}

/// The claim that a volume is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub namespace: String,
    pub name: String,
    /// Empty as long as the claim of that name is only waited for.
    pub uid: String,
}

/// What is kept of a PersistentVolume.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Volume {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub class: String,
    pub capacity: Quantity,
    pub modes: AccessModes,
    pub block: bool,
    pub attributes_class: String,
    pub claim: Option<Reference>,
    pub phase: String,
    pub deleting: bool,
    /// The nodes that reach it; all of them without a selector.
    pub nodes: Option<NodeSelector>,
}

impl Volume {
    pub fn of(volume: &PersistentVolume) -> Self {
        let (meta, spec) = (&volume.metadata, &volume.spec);
        let claim = spec.claim_ref.as_ref().map(|claim| Reference {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        });
        Volume {
            name: meta.name.clone(),
            labels: meta.labels.clone(),
            class: meta.annotations.get(BETA_CLASS).unwrap_or(&spec.storage_class_name).clone(),
            capacity: spec.capacity.get("storage").cloned().unwrap_or_default(),
            modes: AccessModes::of(&spec.access_modes),
            block: is_block(spec.volume_mode.as_deref()),
            attributes_class: spec.volume_attributes_class_name.clone().unwrap_or_default(),
            claim,
            phase: volume.status.phase.clone(),
            deleting: meta.deletion_timestamp.is_some(),
            nodes: spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone()),
        }
    }

    /// Whether it is this claim's, or is kept for it.
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|reference| {
            reference.name == claim.name
                && reference.namespace == claim.namespace
                && (reference.uid.is_empty() || reference.uid == claim.uid)
        })
    }

    /// Whether a node with these labels reaches it.
    pub fn reachable_from(&self, labels: &impl Labels) -> bool {
        self.nodes.as_ref().is_none_or(|nodes| matches_selector(nodes, "", labels))
    }
}

/// What is kept of a PersistentVolumeClaim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Claim {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub request: Quantity,
    /// Absent when it was left to the cluster's default.
    pub class: Option<String>,
    pub selector: Option<Selector>,
    pub modes: AccessModes,
    pub block: bool,
    pub attributes_class: String,
    /// The volume it has, or wants; empty for any.
    pub volume: String,
    pub phase: String,
    pub bind_completed: bool,
    pub bound_by_controller: bool,
    pub selected_node: Option<String>,
    pub deleting: bool,
    /// The uid of its controller, which for the claim of an ephemeral volume is a pod.
    pub controller: String,
}

impl Claim {
    pub fn of(claim: &PersistentVolumeClaim) -> Self {
        let (meta, spec) = (&claim.metadata, &claim.spec);
        let annotation = |name: &str| meta.annotations.get(name);
        let selector = spec.selector.as_ref().map(|selector| {
            // What validation let in parses; what does not, means no volume.
            Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing())
        });
        let controller = meta.owner_references.iter().find(|owner| owner.controller == Some(true));
        Claim {
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            request: spec.resources.requests.get("storage").cloned().unwrap_or_default(),
            class: annotation(BETA_CLASS).or(spec.storage_class_name.as_ref()).cloned(),
            selector,
            modes: AccessModes::of(&spec.access_modes),
            block: is_block(spec.volume_mode.as_deref()),
            attributes_class: spec.volume_attributes_class_name.clone().unwrap_or_default(),
            volume: spec.volume_name.clone(),
            phase: claim.status.phase.clone(),
            bind_completed: annotation(BIND_COMPLETED).is_some(),
            bound_by_controller: annotation(BOUND_BY_CONTROLLER).is_some(),
            selected_node: annotation(SELECTED_NODE).cloned(),
            deleting: meta.deletion_timestamp.is_some(),
            controller: controller.map(|owner| owner.uid.clone()).unwrap_or_default(),
        }
    }

    /// Its class; empty for none.
    pub fn class(&self) -> &str {
        self.class.as_deref().unwrap_or_default()
    }

    /// Bound, and both sides know. Upstream: `isPVCFullyBound`.
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.bind_completed
    }

    /// Bound, and its status says so, which is what kubelets go by: it is written a moment later.
    pub fn is_usable(&self) -> bool {
        self.is_bound() && self.phase == "Bound"
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Why a volume that it names cannot be its. Upstream: `checkVolumeSatisfyClaim`.
    pub fn refuses(&self, volume: &Volume) -> Option<String> {
        if volume.deleting {
            return Some(format!("the volume is marked for deletion {:?}", volume.name));
        }
        let why = if volume.capacity.value() < self.request.value() {
            "requested PV is too small"
        } else if volume.class != self.class() {
            "storageClassName does not match"
        } else if volume.attributes_class != self.attributes_class {
            "volumeAttributesClassName does not match"
        } else if volume.block != self.block {
            "incompatible volumeMode"
        } else if !volume.modes.contains(self.modes) {
            "incompatible accessMode"
        } else {
            return None;
        };
        Some(why.into())
    }

    /// Whether a volume that may be anybody's, or is kept for this claim, is large enough and of the right sort.
    fn could_use(&self, volume: &Volume) -> bool {
        (volume.claim.is_none() || volume.is_for(self))
            && volume.capacity >= self.request
            && volume.block == self.block
            && volume.attributes_class == self.attributes_class
            && !volume.deleting
    }

    /// Whether a volume that is nobody's would do. Upstream: what `FindMatchingVolume` asks of volumes without a claim.
    pub fn could_take(&self, volume: &Volume) -> bool {
        volume.claim.is_none()
            && self.could_use(volume)
            && volume.phase == "Available"
            && self.selector.as_ref().is_none_or(|selector| selector.matches(&volume.labels))
            && volume.class == self.class()
            && volume.modes.contains(self.modes)
    }
}

/// Filesystem when it is not said.
fn is_block(mode: Option<&str>) -> bool {
    mode == Some("Block")
}

fn smallest<'a>(volumes: impl Iterator<Item = &'a Volume>) -> Option<&'a Volume> {
    // Of equals the first.
    volumes.reduce(|best, next| if next.capacity < best.capacity { next } else { best })
}

/// The volume that is best for a claim wherever it is: with the fewest access modes beyond those asked for, one that is
/// kept for the claim, or else the smallest. With `delayed` only one that is kept for it: the scheduler chooses.
/// Upstream: the binder's ordered index.
pub fn best<'a>(claim: &Claim, volumes: &[&'a Volume], delayed: bool) -> Option<&'a Volume> {
    let fit = volumes.iter().copied().filter(|v| v.modes.contains(claim.modes) && claim.could_use(v));
    let mut groups: BTreeMap<(u32, AccessModes), Vec<&Volume>> = BTreeMap::new();
    for volume in fit {
        groups.entry((volume.modes.len(), volume.modes)).or_default().push(volume);
    }
    groups.into_values().find_map(|group| {
        let kept = group.iter().find(|v| v.is_for(claim)).copied();
        let free = || smallest(group.iter().copied().filter(|v| !delayed && claim.could_take(v)));
        kept.or_else(free)
    })
}

/// The volume that is best for a claim on a node with these labels, of those that `taken` does not have. A volume that
/// is kept for the claim leaves no choice. Upstream: `FindMatchingVolume` with a node.
pub fn best_on<'a>(
    claim: &Claim,
    volumes: impl Iterator<Item = &'a Volume> + Clone,
    labels: &impl Labels,
    taken: impl Fn(&Volume) -> bool,
) -> Option<&'a Volume> {
    let fit = volumes.filter(|v| claim.could_use(v) && !taken(v));
    if let Some(kept) = fit.clone().find(|v| v.is_for(claim)) {
        return kept.reachable_from(labels).then_some(kept);
    }
    smallest(fit.filter(|v| claim.could_take(v) && v.reachable_from(labels)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use expect_test::{Expect, expect};

    fn volume(name: &str, size: &str, modes: &[&str], more: Value) -> Volume {
        let mut spec = json!({"capacity": {"storage": size}, "accessModes": modes});
        schema::patch::merge(&mut spec, &more);
        let labels = spec["labels"].take();
        let value = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"phase": "Available"}});
        Volume::of(&apimachinery::value::from_value(value).unwrap())
    }

    fn claim(size: &str, more: Value) -> Claim {
        let mut spec =
            json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
        schema::patch::merge(&mut spec, &more);
        let value = json!({"metadata": {"name": "data", "namespace": "ns", "uid": "u"}, "spec": spec});
        Claim::of(&apimachinery::value::from_value(value).unwrap())
    }

    fn check(claim: &Claim, volumes: &[Volume], expected: Expect) {
        let all: Vec<&Volume> = volumes.iter().collect();
        let name = |found: Option<&Volume>| found.map_or("nothing".to_owned(), |v| v.name.clone());
        let near: BTreeMap<String, String> = [("host".to_owned(), "near".to_owned())].into();
        expected.assert_eq(&format!(
            "{}, delayed {}, near {}",
            name(best(claim, &all, false)),
            name(best(claim, &all, true)),
            name(best_on(claim, all.iter().copied(), &near, |_| false)),
        ));
    }

    #[test]
    fn the_smallest_that_does() {
        const RWO: &[&str] = &["ReadWriteOnce"];
        const BOTH: &[&str] = &["ReadWriteOnce", "ReadOnlyMany"];
        let plain = |name, size| volume(name, size, RWO, json!({}));
        let some = [plain("small", "1Gi"), plain("large", "10Gi"), plain("right", "5Gi")];
        check(&claim("2Gi", json!({})), &some, expect!["right, delayed nothing, near right"]);
        check(&claim("20Gi", json!({})), &some, expect!["nothing, delayed nothing, near nothing"]);
        check(
            &claim("1Gi", json!({"storageClassName": "fast"})),
            &some,
            expect!["nothing, delayed nothing, near nothing"],
        );
        check(
            &claim("1Gi", json!({"volumeMode": "Block"})),
            &some,
            expect!["nothing, delayed nothing, near nothing"],
        );
        // Fewer modes come before a better size, as long as the node does not matter.
        let more = [volume("more", "1Gi", BOTH, json!({})), plain("large", "10Gi")];
        check(&claim("1Gi", json!({})), &more, expect!["large, delayed nothing, near more"]);
        let labelled = [plain("plain", "1Gi"), volume("ssd", "9Gi", RWO, json!({"labels": {"disk": "ssd"}}))];
        check(
            &claim("1Gi", json!({"selector": {"matchLabels": {"disk": "ssd"}}})),
            &labelled,
            expect!["ssd, delayed nothing, near ssd"],
        );
        check(
            &claim("1Gi", json!({"volumeAttributesClassName": "gold"})),
            &[
                plain("plain", "1Gi"),
                volume("gold", "9Gi", RWO, json!({"volumeAttributesClassName": "gold"})),
            ],
            expect!["gold, delayed nothing, near gold"],
        );
    }

    #[test]
    fn what_is_kept_for_somebody_is_his() {
        let kept = |name: &str, uid: &str, host: &str| {
            let terms = json!([{"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]}]);
            let reference = json!({"namespace": "ns", "name": "data", "uid": uid});
            let more =
                json!({"claimRef": reference, "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}});
            volume(name, "9Gi", &["ReadWriteOnce"], more)
        };
        let free = volume("free", "1Gi", &["ReadWriteOnce"], json!({}));
        let data = claim("1Gi", json!({}));
        check(&data, &[free.clone(), kept("mine", "", "near")], expect!["mine, delayed mine, near mine"]);
        check(&data, &[free.clone(), kept("mine", "u", "far")], expect!["mine, delayed mine, near nothing"]);
        check(&data, &[free, kept("others", "v", "near")], expect!["free, delayed nothing, near free"]);
    }

    #[test]
    fn why_a_volume_is_refused() {
        let rwo = |size, more| volume("v", size, &["ReadWriteOnce"], more);
        let many = claim("1Gi", json!({"accessModes": ["ReadWriteMany"]}));
        for (claim, volume, why) in [
            (claim("2Gi", json!({})), rwo("1Gi", json!({})), "requested PV is too small"),
            (
                claim("1Gi", json!({})),
                rwo("1Gi", json!({"storageClassName": "x"})),
                "storageClassName does not match",
            ),
            (claim("1Gi", json!({})), rwo("1Gi", json!({"volumeMode": "Block"})), "incompatible volumeMode"),
            (many, rwo("1Gi", json!({})), "incompatible accessMode"),
        ] {
            assert_eq!(claim.refuses(&volume).as_deref(), Some(why));
        }
        assert_eq!(claim("1Gi", json!({})).refuses(&rwo("1Gi", json!({}))), None);
    }
}
