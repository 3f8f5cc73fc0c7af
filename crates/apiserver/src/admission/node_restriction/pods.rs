//! What a kubelet may do to pods, and to the status of the claims they use.

use super::node::same;
use super::{NodeRestriction, refuse};
use crate::admission::pod_secrets::{self, is_set, items};
use crate::admission::{Attributes, Operation};
use crate::object;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;

const MIRROR: &str = "kubernetes.io/config.mirror";

fn on(pod: &Value, node: &str) -> bool {
    pod["spec"]["nodeName"] == node
}

/// The spec of a pod that a kubelet creates names nothing else of the API; what it names, if it does.
fn reference(pod: &Value) -> Result<Option<&'static str>, String> {
    let spec = &pod["spec"];
    if !spec["serviceAccountName"].as_str().unwrap_or_default().is_empty() {
        return Ok(Some("serviceaccounts"));
    }
    let volumes = || items(&spec["volumes"]);
    if pod_secrets::any(spec) {
        return Ok(Some("secrets"));
    }
    if pod_secrets::in_environment(spec, "configMapRef", "configMapKeyRef")
        || volumes().any(|v| is_set(v, "configMap"))
        || pod_secrets::is_projected(spec, "configMap")
    {
        return Ok(Some("configmaps"));
    }
    if items(&spec["resourceClaims"]).next().is_some() {
        return Ok(Some("resourceclaims"));
    }
    for volume in volumes() {
        const OWN: [&str; 22] = [
            "awsElasticBlockStore",
            "azureDisk",
            "cephfs",
            "cinder",
            "downwardAPI",
            "emptyDir",
            "fc",
            "flexVolume",
            "flocker",
            "gcePersistentDisk",
            "gitRepo",
            "hostPath",
            "image",
            "iscsi",
            "nfs",
            "photonPersistentDisk",
            "portworxVolume",
            "quobyte",
            "rbd",
            "scaleIO",
            "storageos",
            "vsphereVolume",
        ];
        const API: [(&str, &str); 4] = [
            ("csi", "csidrivers (via CSI volumes)"),
            ("glusterfs", "endpoints (via glusterFS volumes)"),
            ("persistentVolumeClaim", "persistentvolumeclaims"),
            ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ];
        if OWN.iter().any(|source| is_set(volume, source)) {
            continue;
        }
        if let Some((_, what)) = API.iter().find(|(source, _)| is_set(volume, source)) {
            return Ok(Some(what));
        }
        let name = volume["name"].as_str().unwrap_or_default();
        if !is_set(volume, "projected") {
            return Err(format!("unknown volume type for volume  {}", quote(name)));
        }
        for source in items(&volume["projected"]["sources"]) {
            const PROJECTED: [(&str, &str); 3] = [
                ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
                ("clusterTrustBundle", "clustertrustbundles"),
                ("podCertificate", "podcertificates"),
            ];
            if let Some((_, what)) = PROJECTED.iter().find(|(key, _)| is_set(source, key)) {
                return Ok(Some(what));
            }
            if !is_set(source, "downwardAPI") {
                return Err(format!("unknown source for projected volume {}", quote(name)));
            }
        }
    }
    Ok(None)
}

impl NodeRestriction {
    pub(super) fn pod(&self, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
        match (a.operation, a.object.as_deref(), a.old) {
            (Operation::Create, Some(pod), _) => self.mirror_pod(a, pod, node),
            (Operation::Delete, _, Some(old)) if on(old, node) => Ok(()),
            (Operation::Delete, _, Some(_)) => {
                let why =
                    format!("node {} can only delete pods with spec.nodeName set to itself", quote(node));
                Err(refuse(a, why))
            }
            (Operation::Delete, _, None) => {
                let pod = self.get(&self.pods, a.namespace, a.name)?;
                if on(&pod, node) {
                    return Ok(());
                }
                let why =
                    format!("node {} can only delete pods with spec.nodeName set to itself", quote(node));
                Err(refuse(a, why))
            }
            (operation, ..) => Err(refuse(
                a,
                format!(
                    "unexpected operation {}, node {} can only create and delete mirror pods",
                    quote(operation.name()),
                    quote(node)
                ),
            )),
        }
    }

    fn mirror_pod(&self, a: &Attributes<'_>, pod: &Value, node: &str) -> Result<(), Status> {
        let name = quote(node);
        let refused = |why: String| Err(refuse(a, why));
        if pod["metadata"]["annotations"].get(MIRROR).is_none() {
            return refused(format!(
                "pod does not have {} annotation, node {name} can only create mirror pods",
                quote(MIRROR)
            ));
        }
        if !on(pod, node) {
            return refused(format!("node {name} can only create pods with spec.nodeName set to itself"));
        }
        let owners: Vec<&Value> = items(&pod["metadata"]["ownerReferences"]).collect();
        let itself = format!("node {name} can only create pods with an owner reference set to itself");
        let owner = match owners.as_slice() {
            [] => return refused(itself),
            [one] => one,
            _ => {
                return refused(format!(
                    "node {name} can only create pods with a single owner reference set to itself"
                ));
            }
        };
        if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
            return refused(itself);
        }
        if owner["controller"] != true {
            return refused(format!(
                "node {name} can only create pods with a controller owner reference set to itself"
            ));
        }
        if owner["blockOwnerDeletion"] == true {
            return refused(format!("node {name} must not set blockOwnerDeletion on an owner reference"));
        }
        let found = self.get(&self.nodes, "", node)?;
        let (expected, uid) = (owner["uid"].as_str().unwrap_or_default(), object::uid(&found));
        if expected != uid {
            return refused(format!("node {node} UID mismatch: expected {expected} got {uid}"));
        }
        match reference(pod) {
            Ok(None) => Ok(()),
            Ok(Some(what)) => refused(format!("node {name} can not create pods that reference {what}")),
            Err(why) => refused(format!("error checking mirror pod for API references: {why}")),
        }
    }

    /// A kubelet evicts the pods on its node.
    pub(super) fn eviction(&self, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
        if a.operation != Operation::Create {
            return Err(refuse(a, format!("unexpected operation {}", a.operation.name())));
        }
        let name = super::name(a);
        let name = if a.name.is_empty() { name } else { a.name };
        if name.is_empty() {
            return Err(refuse(a, "could not determine pod from request data"));
        }
        let pod = self.get(&self.pods, a.namespace, name)?;
        if on(&pod, node) {
            return Ok(());
        }
        Err(refuse(a, format!("node {node} can only evict pods with spec.nodeName set to itself")))
    }
}

/// The status of a pod on the node, without what would let it read other claims.
pub(super) fn status(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (Operation::Update, Some(new), Some(old)) = (a.operation, a.object.as_deref(), a.old) else {
        return Err(refuse(a, format!("unexpected operation {}", quote(a.operation.name()))));
    };
    let name = quote(node);
    let refused = |why: String| Err(refuse(a, why));
    if !on(old, node) {
        return refused(format!(
            "node {name} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let members = |pod: &Value| pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    if members(old) != members(new) {
        return refused(format!("node {name} cannot update labels through pod status"));
    }
    let (new, old) = (&new["status"], &old["status"]);
    if !same(&new["resourceClaimStatuses"], &old["resourceClaimStatuses"]) {
        return refused(format!("node {name} cannot update resource claim statues"));
    }
    if new["extendedResourceClaimStatus"] != old["extendedResourceClaimStatus"] {
        return refused(format!("node {name} cannot update extended resource claim status"));
    }
    Ok(())
}

/// Of a claim, a kubelet writes how large it has become.
pub(super) fn claim_status(a: &Attributes<'_>, node: &str) -> Result<(), Status> {
    let (Operation::Update, Some(new), Some(old)) = (a.operation, a.object.as_deref(), a.old) else {
        return Err(refuse(a, format!("unexpected operation {}", quote(a.operation.name()))));
    };
    let without = |claim: &Value| {
        let mut claim = claim.clone();
        object::remove_meta(&mut claim, "resourceVersion");
        object::remove_meta(&mut claim, "managedFields");
        if let Some(status) = claim["status"].as_object_mut() {
            for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                status.remove(key);
            }
        }
        claim
    };
    if without(new) == without(old) {
        return Ok(());
    }
    let why = format!(
        "node {} is not allowed to update fields other than status.quantity and status.conditions",
        quote(node)
    );
    Err(refuse(a, why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn what_a_pod_names_of_the_api() {
        let volume = |source: Value| {
            let mut volume = json!({"name": "v"});
            volume.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
            json!({"volumes": [volume]})
        };
        let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
        for (spec, expected) in [
            (json!({"containers": [{"env": [{"name": "a", "value": "b"}]}]}), Ok(None)),
            (json!({"serviceAccountName": "x"}), Ok(Some("serviceaccounts"))),
            (json!({"imagePullSecrets": [{"name": "x"}]}), Ok(Some("secrets"))),
            (json!({"containers": [{"envFrom": [{"secretRef": {"name": "x"}}]}]}), Ok(Some("secrets"))),
            (
                json!({"initContainers": [{"env": [{"valueFrom": {"configMapKeyRef": {"name": "x"}}}]}]}),
                Ok(Some("configmaps")),
            ),
            (json!({"resourceClaims": [{"name": "x"}]}), Ok(Some("resourceclaims"))),
            (volume(json!({"emptyDir": {}})), Ok(None)),
            (volume(json!({"hostPath": {"path": "/"}})), Ok(None)),
            (
                volume(json!({"persistentVolumeClaim": {"claimName": "x"}})),
                Ok(Some("persistentvolumeclaims")),
            ),
            (volume(json!({"csi": {"driver": "x"}})), Ok(Some("csidrivers (via CSI volumes)"))),
            (volume(json!({"new": {}})), Err("unknown volume type for volume  \"v\"".to_owned())),
            (projected(json!({"downwardAPI": {}})), Ok(None)),
            (projected(json!({"configMap": {}})), Ok(Some("configmaps"))),
            (
                projected(json!({"serviceAccountToken": {}})),
                Ok(Some("serviceaccounts (via projected volumes)")),
            ),
        ] {
            assert_eq!(reference(&json!({"spec": spec})), expected, "{spec}");
        }
    }
}
