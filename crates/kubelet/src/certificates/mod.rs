//! The kubelet's certificates, asked for by CertificateSigningRequests and renewed before they end. A new one lies in its
//! [`pki::tls::Slot`] from the next handshake on; connections go on as they were.
//! Upstream: `pkg/kubelet/certificate`, `client-go/util/certificate`.

mod join;
mod plan;
mod request;
mod store;

pub use join::{join, kept};

use crate::context::Context;
use crate::metrics::Renewals;
use api::core::v1::Node;
use apimachinery::time::Timestamp;
use client::Client;
use pki::tls::Slot;
use pki::{Identity, Usage};
use plan::Wanted;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Between two looks at the clock: a machine that slept has not counted.
const LOOK: Duration = Duration::from_secs(3600);
/// Between a certificate and the next thing done about it.
const PAUSE: Duration = Duration::from_secs(1);
/// After failures, and for ever after the last of them.
const PAUSES: [u64; 5] = [2, 4, 8, 16, 32];

/// A certificate that is good to begin with, and its key, as PEM.
pub type Pair = (String, String);

/// Where a node takes the certificate from that it calls with.
#[derive(Clone)]
pub struct Calling {
    pub slot: Arc<Slot>,
    /// Called when a new one lies in the slot: what was dialled with the old one may be dialled again.
    pub renewed: Arc<dyn Fn() + Send + Sync>,
}

impl Calling {
    /// Of a node that calls without one.
    pub(crate) fn unused() -> Self {
        Calling { slot: Slot::empty(), renewed: Arc::new(|| {}) }
    }
}

/// One of the two kinds.
#[derive(Clone, Copy)]
struct Kind {
    signer: &'static str,
    file: &'static str,
    usages: [Usage; 2],
    wanted: fn(&str, &Node) -> Option<Wanted>,
}

const SERVER: Kind = Kind {
    signer: "kubernetes.io/kubelet-serving",
    file: "kubelet-server",
    usages: [Usage::DigitalSignature, Usage::ServerAuth],
    wanted: |name, node| plan::serving(name, &node.status.addresses),
};

const CLIENT: Kind = Kind {
    signer: "kubernetes.io/kube-apiserver-client-kubelet",
    file: "kubelet-client",
    usages: [Usage::DigitalSignature, Usage::ClientAuth],
    wanted: |name, _| Some(plan::calling(name)),
};

/// Keeps one certificate.
pub(crate) struct Manager {
    kind: Kind,
    context: Arc<Context>,
    store: Store,
    calling: Calling,
    renewals: Renewals,
    current: Option<Identity>,
    /// What is there, if anything, is to begin with only: a new one is asked for at once.
    forced: bool,
    asked: Option<Wanted>,
}

impl Manager {
    /// Of what the server shows; `slot` may hold what it shows until then.
    pub(crate) fn server(context: Arc<Context>, slot: Arc<Slot>) -> Self {
        let renewals = context.metrics.renewals(crate::metrics::SERVER_RENEWALS);
        Manager::new(SERVER, context, Calling { slot, ..Calling::unused() }, renewals, None)
    }

    /// Of what the node shows to the API server, beginning with a pair that was given.
    pub(crate) fn client(context: Arc<Context>, calling: Calling, bootstrap: Option<&Pair>) -> Self {
        let renewals = context.metrics.renewals(crate::metrics::CLIENT_RENEWALS);
        Manager::new(CLIENT, context, calling, renewals, bootstrap)
    }

    fn new(
        kind: Kind,
        context: Arc<Context>,
        calling: Calling,
        renewals: Renewals,
        bootstrap: Option<&Pair>,
    ) -> Self {
        let store = Store::new(&context.config.certificates_dir(), kind.file);
        let mut this =
            Manager { kind, context, store, calling, renewals, current: None, forced: true, asked: None };
        let now = Timestamp::now();
        let kept = this.store.current().unwrap_or_else(|error| {
            tracing::warn!(signer = kind.signer, %error, "the certificate that was kept cannot be used");
            None
        });
        if let Some(identity) = kept.filter(|identity| now < identity.certificate.not_after) {
            this.forced = false;
            this.show(identity);
        } else if let Some((certificate, key)) = bootstrap {
            match this.store.update(certificate, key) {
                Ok(identity) => this.show(identity),
                Err(error) => {
                    tracing::warn!(signer = kind.signer, %error, "what to begin with cannot be used")
                }
            }
        }
        this
    }

    fn show(&mut self, identity: Identity) {
        match self.calling.slot.set(&identity) {
            Ok(()) => self.current = Some(identity),
            Err(error) => tracing::warn!(signer = self.kind.signer, %error, "a certificate cannot be shown"),
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        (self.kind.wanted)(&self.context.config.node_name, &self.context.node.borrow())
    }

    /// Renews until shutdown.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut node = self.context.node.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = async {
                loop {
                    self.turn(&mut node).await;
                    tokio::time::sleep(PAUSE).await;
                }
            } => {}
        }
    }

    /// Waits until a certificate is due, and gets it.
    async fn turn(&mut self, node: &mut watch::Receiver<Arc<Node>>) {
        self.wait(node).await;
        let mut pauses = PAUSES.into_iter();
        let mut pause = PAUSES[0];
        loop {
            let Some(wanted) = self.wanted() else { return };
            self.asked = Some(wanted.clone());
            let changed = async {
                while self.wanted().is_none_or(|now| now == wanted) && node.changed().await.is_ok() {}
            };
            let result = tokio::select! {
                result = self.ask(&wanted) => result,
                // What was asked for is not what is wanted any more.
                () = changed => return,
            };
            match result {
                Ok(identity) => {
                    if let Some(old) = &self.current {
                        let lived = Timestamp::now().as_second() - old.certificate.not_before.as_second();
                        self.renewals.lived(lived as f64);
                    }
                    tracing::info!(
                        signer = self.kind.signer, until = %identity.certificate.not_after,
                        "a new certificate is in use"
                    );
                    self.show(identity);
                    return (self.calling.renewed)();
                }
                Err(error) => {
                    self.renewals.failed();
                    tracing::warn!(signer = self.kind.signer, %error, "a certificate was not renewed");
                }
            }
            pause = pauses.next().unwrap_or(pause);
            tokio::time::sleep(Duration::from_secs(pause).mul_f64(1.0 + 0.1 * chance())).await;
        }
    }

    /// Until the certificate is due: now, when there is none that says what it must.
    async fn wait(&mut self, node: &mut watch::Receiver<Arc<Node>>) {
        let deadline = match &self.current {
            _ if std::mem::take(&mut self.forced) => return self.named(node).await,
            Some(identity) => plan::deadline(&identity.certificate, chance()),
            None => return self.named(node).await,
        };
        loop {
            let wanted = self.wanted();
            let fits = match (&self.current, &wanted) {
                (Some(identity), Some(wanted)) => wanted.is_met_by(&identity.certificate),
                (Some(_), None) => true,
                (None, _) => false,
            };
            // A signer may leave out names: it is not asked for the same ones again and again.
            let now = Timestamp::now();
            if now >= deadline || (!fits && self.asked != wanted) {
                return self.named(node).await;
            }
            let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                _ = node.changed() => {}
            }
        }
    }

    /// Until there is something to ask for: a node without addresses has no name to serve under.
    async fn named(&self, node: &mut watch::Receiver<Arc<Node>>) {
        while self.wanted().is_none() && node.changed().await.is_ok() {}
    }

    async fn ask(&self, wanted: &Wanted) -> Result<Identity, Error> {
        ask(&self.context.client, self.kind, wanted, &self.store).await
    }
}

/// Asks for a certificate, with a key of its own, and keeps both.
async fn ask(client: &Client, kind: Kind, wanted: &Wanted, store: &Store) -> Result<Identity, Error> {
    let key = pki::PrivateKey::generate()?;
    let csr = pki::Csr::create(&key, &wanted.subject, &wanted.sans)?;
    let certificate = request::certificate(client, kind.signer, &kind.usages, csr).await?;
    store.update(&certificate, &key.to_pem())
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error(transparent)]
    Pki(#[from] pki::Error),
    #[error("certificate signing request {0}, reason: {1}, message: {2}")]
    Refused(&'static str, String, String),
    #[error("timed out waiting for the condition")]
    Unanswered,
    #[error("{path}: {source}")]
    Store { path: String, source: std::io::Error },
}

/// Somewhere from nothing to one.
fn chance() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}
