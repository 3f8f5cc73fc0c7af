//! Tokens and certificates that a kubelet asks for: for its pods, and for audiences that they name.

use super::{NodeRestriction, refuse};
use crate::admission::{Attributes, Operation};
use crate::authz::{self, Decision};
use crate::object;
use apimachinery::field::aggregate;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;

impl NodeRestriction {
    pub(super) async fn token(&self, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
        let Some(request) = a.object.as_deref() else { return Ok(()) };
        let bound = &request["spec"]["boundObjectRef"];
        let text = |key: &str| bound[key].as_str().unwrap_or_default();
        if text("apiVersion") != "v1" || text("kind") != "Pod" || text("name").is_empty() {
            return Err(refuse(a, "node requested token not bound to a pod"));
        }
        let uid = text("uid");
        if uid.is_empty() {
            return Err(refuse(a, "node requested token with a pod binding without a uid"));
        }
        let pod = self.get(&self.pods, a.namespace, text("name"))?;
        if uid != object::uid(&pod) {
            return Err(refuse(
                a,
                format!(
                    "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
                ),
            ));
        }
        if pod["spec"]["nodeName"] != node {
            return Err(refuse(a, "node requested token bound to a pod scheduled on a different node"));
        }
        self.audience(a, request, &pod).await.map_err(|why| refuse(a, why))
    }

    /// The audience must be one that the pod's volumes name, or one that the node is granted.
    async fn audience(&self, a: &Attributes<'_>, request: &Value, pod: &Value) -> Result<(), String> {
        let audiences = request["spec"]["audiences"].as_array().map_or(&[][..], Vec::as_slice);
        let audience = match audiences {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return Err("node may only request 0 or 1 audiences".into()),
        };
        let named = self.names_audience(pod, audience);
        if named.map_err(|e| format!("error validating audience {}: {e}", quote(audience)))? {
            return Ok(());
        }
        let about =
            authz::Attributes::about(a.user, "request-serviceaccounts-token-audience", ("", "v1", audience));
        let attributes = authz::Attributes { namespace: a.namespace, name: a.name, ..about };
        let (audience, user) = (quote(audience), &a.user.name);
        match authz::decide(&self.authorizers, &attributes).await {
            Decision::Allow { .. } => Ok(()),
            Decision::Error { error, .. } => Err(format!(
                "audience {audience} not found in pod spec volume, error authorizing {user} to request tokens for this audience: {error}"
            )),
            Decision::Deny { .. } | Decision::NoOpinion { .. } => Err(format!(
                "audience {audience} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
            )),
        }
    }

    /// Whether a volume of the pod brings a token for an audience, or its driver gets one.
    fn names_audience(&self, pod: &Value, audience: &str) -> Result<bool, String> {
        let mut errors = Vec::new();
        let namespace = object::namespace(pod);
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let sources = volume["projected"]["sources"].as_array().into_iter().flatten();
            let tokens = sources.map(|s| &s["serviceAccountToken"]).filter(|t| t.is_object());
            if tokens.into_iter().any(|t| t["audience"].as_str().unwrap_or_default() == audience) {
                return Ok(true);
            }
            let claim = if volume["ephemeral"]["volumeClaimTemplate"].is_object() {
                let name = volume["name"].as_str().unwrap_or_default();
                Some(format!("{}-{name}", object::name(pod)))
            } else {
                volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned)
            };
            let driver = match claim {
                Some(claim) => self.driver_of_claim(namespace, &claim),
                None => Ok(volume["csi"]["driver"].as_str().unwrap_or_default().to_owned()),
            };
            let named = driver.and_then(|driver| match driver.is_empty() {
                true => Ok(false),
                false => self.driver_has(&driver, audience),
            });
            match named {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(status) => errors.push(status.message),
            }
        }
        aggregate(errors).map_or(Ok(false), Err)
    }

    fn driver_of_claim(&self, namespace: &str, claim: &str) -> Result<String, Status> {
        let claim = self.find("", "persistentvolumeclaims", namespace, claim)?;
        let volume = claim["spec"]["volumeName"].as_str().unwrap_or_default();
        let volume = self.find("", "persistentvolumes", "", volume)?;
        Ok(volume["spec"]["csi"]["driver"].as_str().unwrap_or_default().to_owned())
    }

    fn driver_has(&self, driver: &str, audience: &str) -> Result<bool, Status> {
        let driver = self.find("storage.k8s.io", "csidrivers", "", driver)?;
        let requests = driver["spec"]["tokenRequests"].as_array().into_iter().flatten();
        Ok(requests.into_iter().any(|r| r["audience"].as_str().unwrap_or_default() == audience))
    }

    /// A certificate for a pod on the node.
    pub(super) fn pod_certificate(&self, a: &Attributes<'_>, node: &str) -> Result<(), Status> {
        let refused = |why: String| Err(refuse(a, why));
        if a.operation != Operation::Create {
            return refused(format!("unexpected operation {}", a.operation.name()));
        }
        if !a.subresource.is_empty() {
            return refused(format!("unexpected subresource {}", a.subresource));
        }
        let Some(request) = a.object.as_deref() else { return Ok(()) };
        let text = |key: &str| request["spec"][key].as_str().unwrap_or_default();
        if text("nodeName") != node {
            return refused(format!(
                "PodCertificateRequest.Spec.NodeName={}, which is not the requesting node {}",
                quote(text("nodeName")),
                quote(node)
            ));
        }
        // What the kubelet knows may be newer than what is known here: no refusal for good.
        let later = |why: String| Status::internal_error(why);
        let found = self.get(&self.nodes, "", node).map_err(|e| {
            let why = format!(
                "while retrieving node {} named in the PodCertificateRequest: {}",
                quote(node),
                e.message
            );
            later(why)
        })?;
        let pod_name = quote(&format!("{}/{}", a.namespace, text("podName")));
        if object::uid(&found) != text("nodeUID") {
            return Err(later(format!(
                "PodCertificateRequest for pod {pod_name} names node UID {}, inconsistent with the running node ({})",
                quote(text("nodeUID")),
                quote(object::uid(&found))
            )));
        }
        let pod = self.get(&self.pods, a.namespace, text("podName")).map_err(|e| {
            later(format!(
                "while retrieving pod {pod_name} named in the PodCertificateRequest: {}",
                e.message
            ))
        })?;
        if text("podUID") != object::uid(&pod) {
            return Err(later(format!(
                "PodCertificateRequest for pod {pod_name} contains pod UID ({}) which differs from running pod {}",
                quote(text("podUID")),
                quote(object::uid(&pod))
            )));
        }
        if pod["spec"]["nodeName"] != node {
            return refused(format!(
                "pod {pod_name} is not running on node {} named in the PodCertificateRequest",
                quote(node)
            ));
        }
        if pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some() {
            return refused(format!("pod {pod_name} is a mirror pod"));
        }
        let account = text("serviceAccountName");
        let running = pod["spec"]["serviceAccountName"].as_str().unwrap_or_default();
        if account != running {
            return refused(format!(
                "PodCertificateRequest for pod {pod_name} contains serviceAccountName ({}) that differs from running pod ({})",
                quote(account),
                quote(running)
            ));
        }
        let found = self.find("", "serviceaccounts", a.namespace, account).map_err(|e| {
            let name = quote(&format!("{}/{account}", a.namespace));
            later(format!(
                "while retrieving service account {name} named in the PodCertificateRequest: {}",
                e.message
            ))
        })?;
        if text("serviceAccountUID") != object::uid(&found) {
            return Err(later(format!(
                "PodCertificateRequest for pod {pod_name} names service account UID {}, which differs from the running service account ({})",
                quote(text("serviceAccountUID")),
                quote(object::uid(&found))
            )));
        }
        Ok(())
    }
}
