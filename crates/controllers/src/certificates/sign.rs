//! Signs what is approved, for the four signers of the cluster's own authority.

use super::approve::{KUBELET_CLIENT, kubelet_client, kubelet_serving};
use super::{Error, Loop, condition};
use crate::support::now;
use api::ByteString;
use api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use client::Client;
use pki::{Csr, Usage};
use std::time::Duration;

const SHORTEST: Duration = Duration::from_secs(600);

/// Whether the signer would sign such a request; none if it is no signer of ours.
fn verdict(request: &CertificateSigningRequest, csr: &Csr) -> Option<Result<(), String>> {
    let usages = &request.spec.usages;
    match request.spec.signer_name.as_str() {
        "kubernetes.io/kubelet-serving" => Some(kubelet_serving(csr, usages)),
        KUBELET_CLIENT => Some(kubelet_client(csr, usages)),
        "kubernetes.io/kube-apiserver-client" => Some(client_usages(usages)),
        // It signs whatever it is given: the old API promised that.
        "kubernetes.io/legacy-unknown" => Some(Ok(())),
        _ => None,
    }
}

fn client_usages(usages: &[String]) -> Result<(), String> {
    let mut client = false;
    for usage in usages {
        match usage.as_str() {
            "digital signature" | "key encipherment" => {}
            "client auth" => client = true,
            other => return Err(format!("invalid usage for client certificate: {other}")),
        }
    }
    match client {
        true => Ok(()),
        false => Err("missing required usage for client certificate: client auth".into()),
    }
}

/// How long the certificate holds, of at most `most`.
fn duration(asked: Option<i32>, most: Duration) -> Duration {
    match asked.map(|seconds| Duration::from_secs(seconds.max(0).unsigned_abs().into())) {
        Some(asked) if asked <= most => asked.max(SHORTEST),
        _ => most,
    }
}

async fn write(client: &Client, request: &CertificateSigningRequest) -> Result<(), Error> {
    match client.all::<CertificateSigningRequest>().update_status(request).await {
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

impl Loop {
    pub(super) async fn sign(&self, request: &CertificateSigningRequest) -> Result<(), Error> {
        let Some(signing) = &self.signing else { return Ok(()) };
        let approved = condition(request, "Approved") && !condition(request, "Denied");
        if !approved || condition(request, "Failed") || !request.status.certificate.is_empty() {
            return Ok(());
        }
        let csr = Csr::from_pem(&request.spec.request.0)
            .map_err(|error| Error::Parse(request.metadata.name.clone(), error))?;
        let mut request = request.clone();
        match verdict(&request, &csr) {
            None => return Ok(()),
            Some(Err(message)) => {
                request.status.conditions.push(CertificateSigningRequestCondition {
                    type_: "Failed".into(),
                    status: "True".into(),
                    reason: "SignerValidationFailure".into(),
                    message,
                    last_update_time: Some(now()),
                    ..Default::default()
                });
                return write(&self.client, &request).await;
            }
            Some(Ok(())) => {}
        }
        let mut usages = Vec::new();
        let mut unknown = Vec::new();
        for usage in &request.spec.usages {
            match Usage::parse(usage) {
                Some(usage) => usages.push(usage),
                None => unknown.push(usage.clone()),
            }
        }
        if !unknown.is_empty() {
            return Err(Error::Usages(unknown));
        }
        let ttl = duration(request.spec.expiration_seconds, signing.duration);
        let certificate =
            signing.authority.sign_csr(&csr, &usages, ttl, jiff::Timestamp::now()).map_err(Error::Sign)?;
        request.status.certificate = ByteString(certificate.to_pem().into_bytes());
        write(&self.client, &request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_bounds() {
        for (asked, most, want) in [
            (None, 31_536_000, 31_536_000),
            (Some(60), 31_536_000, 600),
            (Some(3600), 31_536_000, 3600),
            (Some(i32::MAX), 31_536_000, 31_536_000),
            (None, 60, 60),
            (Some(3600), 60, 60),
        ] {
            assert_eq!(duration(asked, Duration::from_secs(most)).as_secs(), want);
        }
    }

    #[test]
    fn client_certificates_are_for_clients() {
        let check = |usages: &[&str], want: &str| {
            let usages: Vec<String> = usages.iter().map(|usage| usage.to_string()).collect();
            assert_eq!(client_usages(&usages).err().unwrap_or_default(), want);
        };
        check(&["client auth", "digital signature"], "");
        check(&["digital signature"], "missing required usage for client certificate: client auth");
        check(&["client auth", "server auth"], "invalid usage for client certificate: server auth");
    }
}
