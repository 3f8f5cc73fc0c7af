//! Certificate signing requests: approves those of kubelets for themselves, signs what is approved, and removes old ones.
//! Upstream: `certificatesigningrequest-approving`, `-signing` and `-cleaner` controllers.

mod approve;
mod clean;
mod sign;

use crate::support::{now, queue};
use crate::{Context, Signing};
use api::certificates::v1::CertificateSigningRequest;
use client::controller::{Outcome, Writes, run as work};
use client::{Change, Client, Informer, ObjectKey, Projection};
use std::sync::Arc;
use std::time::Duration;

const WORKERS: usize = 5;

/// Nothing is kept of a request: each is looked at whole.
struct Request;

impl Projection for Request {
    type Kind = CertificateSigningRequest;

    fn project(_: &CertificateSigningRequest) -> Self {
        Request
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("unable to parse csr {0:?}: {1}")]
    Parse(String, pki::Error),
    #[error("error auto signing csr: {0}")]
    Sign(pki::Error),
    #[error("unrecognized usage values: {0:?}")]
    Usages(Vec<String>),
    #[error("recognized csr {0:?} as {1:?} but subject access review was not approved")]
    NotApproved(String, Vec<&'static str>),
}

struct Loop {
    client: Client,
    requests: Informer<Request>,
    signing: Option<Signing>,
}

fn condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    request.status.conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Runs until shutdown. Keys are requests.
pub(crate) async fn run(context: Context) {
    let requests: Informer<Request> = context.informers.get();
    requests.synced().await;
    let queue = queue();
    let changed = queue.clone();
    requests.subscribe(move |change| {
        if !matches!(change, Change::Deleted(_)) {
            changed.add(change.object().key().clone());
        }
    });
    let this = Arc::new(Loop { client: context.client, requests, signing: context.cluster.signing.clone() });
    work("certificate", queue, Writes::default(), WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

impl Loop {
    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let Some(cached) = self.requests.get(key) else { return Ok(Outcome::Done) };
        let request = cached.decode()?;
        let now = now();
        if clean::is_due(&request, now) {
            let api = self.client.all::<CertificateSigningRequest>();
            return match api.delete(&key.name, &Default::default()).await {
                Err(error) if !error.is_not_found() => Err(error.into()),
                _ => Ok(Outcome::Done),
            };
        }
        self.approve(&request).await?;
        self.sign(&request).await?;
        Ok(match clean::due_in(&request, now) {
            Some(seconds) => Outcome::After(Duration::from_secs(seconds.max(1).unsigned_abs())),
            None => Outcome::Done,
        })
    }
}
