//! Approves the certificates that kubelets ask for, when who asks may do so: to call with, and, for the names and addresses
//! that their nodes have, to serve with. Upstream leaves the latter to others.

use super::{Error, Loop, condition};
use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use api::core::v1::Node;
use apimachinery::json;
use apimachinery::value::Value;
use client::Resource;
use pki::{Csr, San};

pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The right to a serving certificate of one's own.
const SELF_NODE_SERVER: &str = "selfnodeserver";

/// Whether these are the usages wanted, key encipherment being left to the asker.
fn usages_are(usages: &[String], auth: &str) -> bool {
    let mut usages: Vec<&str> = usages.iter().map(String::as_str).collect();
    usages.sort_unstable();
    usages.dedup();
    usages.retain(|usage| *usage != "key encipherment");
    let mut wanted = vec!["digital signature", auth];
    wanted.sort_unstable();
    usages == wanted
}

fn names(csr: &Csr) -> Result<(), String> {
    let organizations: &[String] = &csr.subject.organizations;
    if organizations != ["system:nodes"] {
        return Err("subject organization is not system:nodes".into());
    }
    Ok(())
}

fn common_name(csr: &Csr) -> Result<(), String> {
    match csr.subject.common_name.starts_with("system:node:") {
        true => Ok(()),
        false => Err("subject common name does not begin with system:node:".into()),
    }
}

/// Whether a request is one for a kubelet's client certificate, in upstream's words if not.
pub(super) fn kubelet_client(csr: &Csr, usages: &[String]) -> Result<(), String> {
    names(csr)?;
    let has = |test: fn(&San) -> bool| csr.sans.iter().any(test);
    for (found, kind) in [
        (has(|san| matches!(san, San::Dns(_))), "DNS"),
        (has(|san| matches!(san, San::Email(_))), "Email"),
        (has(|san| matches!(san, San::Ip(_))), "IP"),
        (has(|san| matches!(san, San::Uri(_))), "URI"),
    ] {
        if found {
            return Err(format!("{kind} subjectAltNames are not allowed"));
        }
    }
    common_name(csr)?;
    if !usages_are(usages, "client auth") {
        return Err("usages did not match [client auth digital signature key encipherment]".into());
    }
    Ok(())
}

/// Whether a request is one for a kubelet's serving certificate, in upstream's words if not.
pub(super) fn kubelet_serving(csr: &Csr, usages: &[String]) -> Result<(), String> {
    names(csr)?;
    let has = |test: fn(&San) -> bool| csr.sans.iter().any(test);
    if !has(|san| matches!(san, San::Dns(_) | San::Ip(_))) {
        return Err("DNS or IP subjectAltName is required".into());
    }
    if has(|san| matches!(san, San::Email(_))) {
        return Err("Email subjectAltNames are not allowed".into());
    }
    if has(|san| matches!(san, San::Uri(_))) {
        return Err("URI subjectAltNames are not allowed".into());
    }
    if !usages_are(usages, "server auth") {
        return Err("usages did not match [digital signature key encipherment server auth]".into());
    }
    common_name(csr)
}

/// Whether a node tells all these names and addresses of itself.
fn are_of(sans: &[San], node: &Node) -> bool {
    sans.iter().all(|san| {
        let text = match san {
            San::Dns(name) => name.clone(),
            San::Ip(ip) => ip.to_string(),
            San::Email(_) | San::Uri(_) => return false,
        };
        node.status.addresses.iter().any(|address| address.address == text)
    })
}

/// The rights of which one is needed, and what is said when it is there.
fn rights(request: &CertificateSigningRequest, csr: &Csr) -> Vec<(&'static str, &'static str)> {
    let mut rights = Vec::new();
    let client =
        request.spec.signer_name == KUBELET_CLIENT && kubelet_client(csr, &request.spec.usages).is_ok();
    if client && request.spec.username == csr.subject.common_name {
        rights.push((
            "selfnodeclient",
            "Auto approving self kubelet client certificate after SubjectAccessReview.",
        ));
    }
    let serving = request.spec.signer_name == KUBELET_SERVING
        && kubelet_serving(csr, &request.spec.usages).is_ok()
        && request.spec.username == csr.subject.common_name;
    if serving {
        rights.push((
            SELF_NODE_SERVER,
            "Auto approving self kubelet server certificate after SubjectAccessReview.",
        ));
    }
    if client {
        rights.push(("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview."));
    }
    rights
}

impl Loop {
    pub(super) async fn approve(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let decided = condition(request, "Approved") || condition(request, "Denied");
        if decided || !request.status.certificate.is_empty() {
            return Ok(());
        }
        let csr = Csr::from_pem(&request.spec.request.0)
            .map_err(|error| Error::Parse(request.metadata.name.clone(), error))?;
        let mut tried = Vec::new();
        for (right, message) in rights(request, &csr) {
            if right == SELF_NODE_SERVER {
                // Whoever may not have it this way may yet be given it by somebody.
                if !self.is_where(&csr).await? {
                    continue;
                }
            } else {
                tried.push(right);
            }
            if !self.may(request, right).await? {
                continue;
            }
            let mut approved = request.clone();
            approved.status.conditions.push(CertificateSigningRequestCondition {
                type_: "Approved".into(),
                status: "True".into(),
                reason: "AutoApproved".into(),
                message: message.into(),
                ..Default::default()
            });
            let requests = self.client.all::<CertificateSigningRequest>();
            let name = &request.metadata.name;
            let written: client::Result<CertificateSigningRequest> =
                requests.dynamic().update(name, Some("approval"), &approved).await;
            return Ok(written.map(drop)?);
        }
        match tried.is_empty() {
            true => Ok(()),
            false => Err(Error::NotApproved(request.metadata.name.clone(), tried)),
        }
    }

    /// Whether all names and addresses asked for are those of the node that asks.
    async fn is_where(&self, csr: &Csr) -> Result<bool, Error> {
        let Some(name) = csr.subject.common_name.strip_prefix("system:node:") else { return Ok(false) };
        let node = match self.client.all::<Node>().get(name).await {
            Err(error) if error.is_not_found() => return Ok(false),
            node => node?,
        };
        Ok(are_of(&csr.sans, &node))
    }

    /// Whether who asks may have such certificates.
    async fn may(&self, request: &CertificateSigningRequest, right: &str) -> Result<bool, Error> {
        let spec = &request.spec;
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": spec.username,
                "uid": spec.uid,
                "groups": spec.groups,
                "extra": spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "version": "*",
                    "resource": "certificatesigningrequests",
                    "subresource": right,
                    "verb": "create",
                },
            },
        });
        let reviews = Resource::new("authorization.k8s.io", "v1", "subjectaccessreviews");
        let answer: Value = self.client.resource(reviews, None).create(None, None, &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::core::v1::NodeAddress;
    use pki::{PrivateKey, Subject};

    fn csr(name: &str, organization: &str, sans: &[San]) -> Csr {
        let key = PrivateKey::generate().unwrap();
        let pem = Csr::create(&key, &Subject::new(name, &[organization]), sans).unwrap();
        Csr::from_pem(pem.as_bytes()).unwrap()
    }

    fn usages(text: &str) -> Vec<String> {
        text.split(',').map(Into::into).collect()
    }

    #[test]
    fn nodes_serve_where_they_are() {
        let mut node = Node::default();
        for address in ["192.0.2.1", "a"] {
            node.status.addresses.push(NodeAddress { address: address.into(), ..Default::default() });
        }
        let (name, ip) = (San::Dns("a".into()), San::Ip([192, 0, 2, 1].into()));
        assert!(are_of(&[name.clone(), ip.clone()], &node));
        assert!(!are_of(&[name.clone(), San::Ip([192, 0, 2, 2].into())], &node));
        assert!(!are_of(&[San::Dns("kubernetes".into())], &node));
        let mut request = CertificateSigningRequest::default();
        request.spec.signer_name = KUBELET_SERVING.into();
        request.spec.username = "system:node:a".into();
        request.spec.usages = usages("digital signature,server auth");
        let own = rights(&request, &csr("system:node:a", "system:nodes", std::slice::from_ref(&ip)));
        assert_eq!(own.iter().map(|(right, _)| *right).collect::<Vec<_>>(), ["selfnodeserver"]);
        assert!(rights(&request, &csr("system:node:b", "system:nodes", &[ip])).is_empty());
    }

    #[test]
    fn kubelets_ask_for_no_more_than_their_own() {
        let all = "digital signature,key encipherment,client auth";
        let check = |name: &str, organization: &str, sans: &[San], asked: &str, want: &str| {
            let verdict = kubelet_client(&csr(name, organization, sans), &usages(asked));
            assert_eq!(verdict.err().unwrap_or_default(), want);
        };
        check("system:node:a", "system:nodes", &[], all, "");
        check("system:node:a", "system:nodes", &[], "client auth,digital signature", "");
        check("system:node:a", "system:masters", &[], all, "subject organization is not system:nodes");
        check("a", "system:nodes", &[], all, "subject common name does not begin with system:node:");
        let dns = [San::Dns("x".into())];
        check("system:node:a", "system:nodes", &dns, all, "DNS subjectAltNames are not allowed");
        let other = "usages did not match [client auth digital signature key encipherment]";
        check("system:node:a", "system:nodes", &[], "client auth,server auth", other);
        let serving = "digital signature,server auth";
        let check = |sans: &[San], want: &str| {
            let verdict = kubelet_serving(&csr("system:node:a", "system:nodes", sans), &usages(serving));
            assert_eq!(verdict.err().unwrap_or_default(), want);
        };
        check(&dns, "");
        check(&[], "DNS or IP subjectAltName is required");
        check(&[San::Dns("x".into()), San::Uri("a:b".into())], "URI subjectAltNames are not allowed");
    }
}
