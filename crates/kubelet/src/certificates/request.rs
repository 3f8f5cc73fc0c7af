//! A CertificateSigningRequest from its making to the certificate. Upstream: `client-go/util/certificate/csr`.

use super::Error;
use api::ByteString;
use api::certificates::v1::CertificateSigningRequest;
use client::Client;
use client::source::{self, Feed, Query, Raw};
use futures::StreamExt as _;
use pki::Usage;
use std::time::Duration;

/// For how long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What a request has come to.
fn outcome(request: &CertificateSigningRequest) -> Option<Result<String, Error>> {
    let status = &request.status;
    let is = |kind: &str| status.conditions.iter().find(|condition| condition.type_ == kind);
    for (kind, what) in [("Denied", "is denied"), ("Failed", "failed")] {
        if let Some(refused) = is(kind) {
            return Some(Err(Error::Refused(what, refused.reason.clone(), refused.message.clone())));
        }
    }
    is("Approved")?;
    let certificate = String::from_utf8_lossy(&status.certificate.0).into_owned();
    Some(certificate).filter(|certificate| !certificate.is_empty()).map(Ok)
}

/// Asks a signer, and waits for what it signs. `csr` is PEM, and so is what comes back.
pub(super) async fn certificate(
    client: &Client,
    signer: &str,
    usages: &[Usage],
    csr: String,
) -> Result<String, Error> {
    let mut request = CertificateSigningRequest::default();
    request.metadata.generate_name = "csr-".into();
    request.spec.request = ByteString(csr.into_bytes());
    request.spec.signer_name = signer.into();
    request.spec.usages = usages.iter().map(|usage| usage.name().to_owned()).collect();
    let made = client.all::<CertificateSigningRequest>().create(&request).await?;
    let (name, uid) = (&made.metadata.name, &made.metadata.uid);
    tracing::info!(csr = %name, signer, "asked for a certificate");
    let query = Query::of::<CertificateSigningRequest>().fields(format!("metadata.name={name}"));
    let mut feed = source::of(client).open(query);
    let answer = async {
        while let Some(items) = feed.next().await {
            for item in items? {
                let seen: Vec<Raw> = match item {
                    Feed::Snapshot { objects, .. } => objects,
                    Feed::Put(object) => vec![object],
                    Feed::Delete(_) | Feed::Progress(_) => continue,
                };
                for object in seen {
                    let request: CertificateSigningRequest = object.decode()?;
                    if request.metadata.uid != *uid {
                        continue;
                    }
                    if let Some(outcome) = outcome(&request) {
                        return outcome;
                    }
                }
            }
        }
        Err(Error::Unanswered)
    };
    tokio::time::timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Unanswered))
}
