//! CertificateApproval, CertificateSigning, ClusterTrustBundleAttest and CertificateSubjectRestriction: who may approve,
//! sign and attest for a signer, and nobody becomes a master by certificate. And who signs the requests of pods, which
//! upstream's plugins know nothing of: its registry asks, whichever of them run.

use super::lookup::authorize;
use super::{Attributes, Operation, Plugin, When};
use crate::authz::escalation::only_collector_fields;
use crate::authz::{self, Authorizer};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;
use base64::Engine as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509CertificationRequest};

/// A name of old, for requests that nobody signs.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Which of the five.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Approval,
    Signing,
    PodSigning,
    Attest,
    Subject,
}

pub(super) struct Certificates {
    pub check: Check,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
}

impl Certificates {
    /// Whether the user may do `verb` for a signer: by its name, or for all signers of its domain.
    async fn may(&self, a: &Attributes<'_>, verb: &str, signer: &str) -> bool {
        let wildcard = format!("{}/*", signer.split('/').next().unwrap_or_default());
        for name in [signer, &wildcard] {
            let about = authz::Attributes::about(a.user, verb, ("certificates.k8s.io", "*", "signers"));
            let attributes = authz::Attributes { name, ..about };
            if authorize(&self.authorizers, &attributes).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Who publishes the authorities of a signer attests them.
    async fn attest(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let Some(bundle) = a.object.as_deref() else { return Ok(()) };
        let signer = bundle["spec"]["signerName"].as_str().unwrap_or_default();
        if signer.is_empty() || a.old.is_some_and(|old| only_collector_fields(bundle, old)) {
            return Ok(());
        }
        if self.may(a, "attest", signer).await {
            return Ok(());
        }
        Err(a.forbidden(format!("user not permitted to attest for signerName {}", quote(signer))))
    }

    /// Who changes the status of a pod's request signs it.
    async fn sign_pod(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let (Some(new), Some(old)) = (a.object.as_deref(), a.old) else { return Ok(()) };
        let changes = a.subresource == "status" && new["status"] != old["status"];
        let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
        if !changes || self.may(a, "sign", signer).await {
            return Ok(());
        }
        let why =
            format!("User {} is not permitted to \"sign\" for signer {}", quote(&a.user.name), quote(signer));
        let error = Error::forbidden(&Path::new("spec").child("signerName"), why);
        Err(Status::invalid(&a.resource.group_kind(), a.name, &ErrorList::from(error)))
    }

    async fn validate_request(&self, a: &Attributes<'_>) -> Result<(), Status> {
        if a.is("certificates.k8s.io", "podcertificaterequests") && self.check == Check::PodSigning {
            return self.sign_pod(a).await;
        }
        if a.is("certificates.k8s.io", "clustertrustbundles") && self.check == Check::Attest {
            return self.attest(a).await;
        }
        if !a.is("certificates.k8s.io", "certificatesigningrequests") {
            return Ok(());
        }
        match (self.check, a.subresource) {
            (Check::Approval, "approval") => {
                let signer = a.old.and_then(|o| o["spec"]["signerName"].as_str()).unwrap_or_default();
                if self.may(a, "approve", signer).await {
                    return Ok(());
                }
                let why = format!("user not permitted to approve requests with signerName {signer:?}");
                Err(a.forbidden(why))
            }
            (Check::Signing, "status") => {
                let (Some(new), Some(old)) = (a.object.as_deref(), a.old) else { return Ok(()) };
                let same = |key: &str| new["status"].get(key) == old["status"].get(key);
                if same("certificate") && same("conditions") {
                    return Ok(());
                }
                let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
                // What is no certificate is refused whoever signs; of old requests it was never asked.
                if !same("certificate") && signer != LEGACY_SIGNER {
                    issued(&new["status"]["certificate"]).map_err(|why| {
                        let path = Path::new("status").child("certificate");
                        let error = Error::invalid(&path, "<certificate data>", why);
                        Status::invalid(&a.resource.group_kind(), a.name, &ErrorList::from(error))
                    })?;
                }
                if self.may(a, "sign", signer).await {
                    return Ok(());
                }
                Err(a.forbidden(format!("user not permitted to sign requests with signerName {signer:?}")))
            }
            (Check::Subject, "") => Self::subject(a),
            _ => Ok(()),
        }
    }

    fn subject(a: &Attributes<'_>) -> Result<(), Status> {
        const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
        let Some(request) = a.object.as_deref().filter(|o| o["spec"]["signerName"] == SIGNER) else {
            return Ok(());
        };
        let organizations = organizations(&request["spec"]["request"])
            .map_err(|why| a.forbidden(format!("failed to parse CSR: {why}")))?;
        if organizations.iter().any(|o| o == crate::user::MASTERS) {
            let why = format!("use of {SIGNER} signer with system:masters group is not allowed");
            return Err(a.forbidden(why));
        }
        Ok(())
    }
}

/// Refuses what is no chain of certificates (base64 of PEM).
fn issued(certificate: &Value) -> Result<(), String> {
    let text = certificate.as_str().unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
    if pem.is_empty() {
        return Ok(());
    }
    let mut blocks = 0;
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem).map_while(Result::ok) {
        if block.label != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {}", quote(&block.label)));
        }
        block.parse_x509().map_err(|e| e.to_string())?;
        blocks += 1;
    }
    if blocks == 0 {
        return Err("must contain at least one CERTIFICATE PEM block".into());
    }
    Ok(())
}

/// The organizations in the subject of a request (base64 of PEM).
fn organizations(request: &Value) -> Result<Vec<String>, String> {
    let text = request.as_str().unwrap_or_default();
    let pem = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
    let not_pem = "PEM block type must be CERTIFICATE REQUEST";
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).map_err(|_| not_pem.to_owned())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(not_pem.into());
    }
    let (_, csr) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    let subject = &csr.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}

impl Plugin for Certificates {
    fn name(&self) -> &'static str {
        match self.check {
            Check::Approval => "CertificateApproval",
            Check::Signing => "CertificateSigning",
            Check::PodSigning => "PodCertificateSigning",
            Check::Attest => "ClusterTrustBundleAttest",
            Check::Subject => "CertificateSubjectRestriction",
        }
    }

    fn when(&self) -> When {
        When::validate(match self.check {
            Check::Approval | Check::Signing | Check::PodSigning => &[Operation::Update],
            Check::Attest => &[Operation::Create, Operation::Update],
            Check::Subject => &[Operation::Create],
        })
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.validate_request(a))
    }
}
