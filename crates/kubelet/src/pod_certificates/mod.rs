//! Certificates of pods: for each `podCertificate` source of a pod on this node, a key that never leaves it, a request to the
//! signer, and what the signer makes of it, refreshed when it says so. [`plan`] decides what comes next. Nothing of it
//! outlives the kubelet: after a restart all is asked for anew. Upstream: `IssuingManager`.

mod plan;

use crate::clock;
use crate::config::Config;
use crate::events::Events;
use crate::pod_worker::Mailbox;
use api::certificates::v1beta1::{PodCertificateRequest, PodCertificateRequestSpec};
use api::core::v1::{Node, Pod, PodCertificateProjection, ServiceAccount};
use apimachinery::meta::{ObjectMeta, OwnerReference};
use apimachinery::quote::quote;
use apimachinery::time::Time;
use client::controller::{Outcome, Writes, run as work};
use client::queue::Backoff;
use client::source::Query;
use client::{Client, Informer, Informers, Projection, Queue};
use parking_lot::Mutex;
use pki::key::Algorithm;
use pki::{Csr, PrivateKey, Subject};
use plan::{Asked, State};
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const WORKERS: usize = 4;
/// How many seconds late a refresh may be, so that not all ask at once.
const JITTER: u64 = 5 * 60;

/// One source of a volume of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: String,
    volume: String,
    source: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.uid, self.volume, self.source)
    }
}

/// Whose request it is.
struct Facts {
    pod_uid: String,
}

impl Projection for Facts {
    type Kind = PodCertificateRequest;

    fn project(request: &PodCertificateRequest) -> Self {
        Facts { pod_uid: request.spec.pod_uid.clone() }
    }
}

/// What failed, of what asking takes.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("while fetching service account: {0}")]
    Account(client::Error),
    #[error("while getting node object: {0}")]
    Node(client::Error),
    #[error("while generating keypair: {0}")]
    Key(String),
    #[error("while creating on API: {0}")]
    Create(client::Error),
    #[error("while reading PodCertificateRequest: {0}")]
    Read(client::Error),
}

/// The certificates of the pods of this node; nobody asks for them without the feature PodCertificateRequest.
pub(crate) struct PodCertificates(Option<Arc<Manager>>);

struct Manager {
    client: Client,
    events: Events,
    node: String,
    shutdown: CancellationToken,
    queue: Queue<Key>,
    pods: Mutex<HashMap<String, (Arc<Pod>, Arc<Mailbox>)>>,
    states: Mutex<HashMap<Key, State>>,
    /// The requests of this node, from when the first pod asks.
    requests: OnceLock<Informer<Facts>>,
}

/// The sources of a pod that are certificates.
fn sources(pod: &Pod) -> impl Iterator<Item = (Key, &PodCertificateProjection)> {
    let volumes = pod.spec.volumes.iter().filter_map(|volume| Some((volume, volume.projected.as_ref()?)));
    volumes.flat_map(|(volume, projected)| {
        projected.sources.iter().enumerate().filter_map(|(source, of)| {
            let key = Key { uid: pod.metadata.uid.clone(), volume: volume.name.clone(), source };
            Some((key, of.pod_certificate.as_ref()?))
        })
    })
}

impl PodCertificates {
    pub(crate) fn new(config: &Config, client: Client, events: Events, shutdown: CancellationToken) -> Self {
        let manager = || Manager {
            client,
            events,
            node: config.node_name.clone(),
            shutdown,
            queue: Queue::new(Backoff::default()),
            pods: Mutex::default(),
            states: Mutex::default(),
            requests: OnceLock::new(),
        };
        PodCertificates(config.feature("PodCertificateRequest").then(|| Arc::new(manager())))
    }

    /// Asks for what the pod wants, and wakes it when there is something to be had.
    pub(crate) fn register(&self, pod: &Pod, mailbox: &Arc<Mailbox>) {
        let Some(manager) = &self.0 else { return };
        let keys: Vec<Key> = sources(pod).map(|(key, _)| key).collect();
        if keys.is_empty() {
            return;
        }
        let uid = pod.metadata.uid.clone();
        manager.pods.lock().insert(uid, (Arc::new(pod.clone()), mailbox.clone()));
        manager.start();
        keys.into_iter().for_each(|key| manager.queue.add(key));
    }

    pub(crate) fn release(&self, uid: &str) {
        let Some(manager) = &self.0 else { return };
        manager.pods.lock().remove(uid);
        manager.states.lock().retain(|key, _| key.uid != uid);
    }

    /// How many sources there are, by signer and state.
    pub(crate) fn counts(&self) -> BTreeMap<(String, &'static str), usize> {
        let mut counts = BTreeMap::new();
        let Some(manager) = &self.0 else { return counts };
        let (pods, states, now) = (manager.pods.lock(), manager.states.lock(), clock::time());
        for (key, source) in pods.values().flat_map(|(pod, _)| sources(pod)) {
            if let Some(state) = states.get(&key) {
                *counts.entry((source.signer_name.clone(), state.called(now))).or_default() += 1;
            }
        }
        counts
    }

    /// The key and the certificates of a source, in PEM.
    pub(crate) fn bundle(&self, pod: &Pod, volume: &str, source: usize) -> Result<(String, String), String> {
        let Some(manager) = &self.0 else { return Err("unimplemented".into()) };
        let meta = &pod.metadata;
        let key = Key { uid: meta.uid.clone(), volume: volume.to_owned(), source };
        match manager.states.lock().get(&key) {
            Some(state) => state.held().map(|held| (held.key.clone(), held.chain.clone())),
            None => Err(format!(
                "no credentials yet for key={{{} {} {} {volume} {source}}}",
                meta.namespace, meta.name, meta.uid
            )),
        }
    }
}

impl Manager {
    /// Begins to follow the requests of this node, once.
    fn start(self: &Arc<Self>) {
        self.requests.get_or_init(|| {
            let informers = Informers::new(&self.client, self.shutdown.clone());
            let query = Query::of::<PodCertificateRequest>().fields(format!("spec.nodeName={}", self.node));
            let requests = informers.query::<Facts>(query);
            let manager = Arc::downgrade(self);
            requests.subscribe(move |change| {
                let Some(manager) = manager.upgrade() else { return };
                let pod = manager.pods.lock().get(&change.object().pod_uid).map(|(pod, _)| pod.clone());
                pod.iter().flat_map(|pod| sources(pod)).for_each(|(key, _)| manager.queue.add(key));
            });
            tokio::spawn(self.clone().run(requests.clone()));
            requests
        });
    }

    async fn run(self: Arc<Self>, requests: Informer<Facts>) {
        if self.shutdown.run_until_cancelled(requests.synced()).await.is_none() {
            return;
        }
        let (queue, shutdown) = (self.queue.clone(), self.shutdown.clone());
        work("pod_certificates", queue, Writes::default(), WORKERS, shutdown, move |key| {
            let (manager, requests) = (self.clone(), requests.clone());
            async move {
                let done = manager.reconcile(&key, &requests).await;
                if let Err(error) = &done {
                    tracing::warn!(%key, %error, "while handling podCertificate projected volume source");
                }
                done
            }
        })
        .await;
    }

    async fn reconcile(&self, key: &Key, requests: &Informer<Facts>) -> Result<Outcome, Error> {
        let known = self.pods.lock().get(&key.uid).cloned();
        let Some((pod, mailbox)) = known else { return Ok(Outcome::Done) };
        let Some((_, source)) = sources(&pod).find(|(own, _)| own == key) else { return Ok(Outcome::Done) };
        let before = self.states.lock().get(key).cloned().unwrap_or_default();
        let request = before.request().and_then(|name| requests.named(&pod.metadata.namespace, name));
        let request = request.map(|request| request.decode()).transpose().map_err(Error::Read)?;
        let jitter = i64::try_from(RandomState::new().hash_one(key) % JITTER).unwrap_or_default();
        let step = plan::next(before.clone(), request.as_ref(), clock::time(), jitter);
        for (reason, message) in step.events {
            self.events.warning(&pod, reason, message);
        }
        self.keep(key, step.state.clone());
        if step.ask {
            let asked = self.ask(&pod, source, jitter).await?;
            self.keep(key, step.state.asked(asked));
            // The request may have been answered before it was known here.
            return Ok(Outcome::After(Duration::ZERO));
        }
        if step.state.held() != before.held() {
            mailbox.volumes_changed();
        }
        let left = |then: Time| u64::try_from(then.unix() - clock::time().unix()).unwrap_or(0).max(1);
        Ok(step.again.map_or(Outcome::Done, |then| Outcome::After(Duration::from_secs(left(then)))))
    }

    /// Keeps the state, unless the pod went meanwhile.
    fn keep(&self, key: &Key, state: State) {
        let pods = self.pods.lock();
        if pods.contains_key(&key.uid) {
            self.states.lock().insert(key.clone(), state);
        }
    }

    /// Makes a key, and a request for a certificate for it.
    async fn ask(&self, pod: &Pod, source: &PodCertificateProjection, jitter: i64) -> Result<Asked, Error> {
        let meta = &pod.metadata;
        let account_name = pod.spec.service_account_name.as_str();
        let accounts = self.client.namespaced::<ServiceAccount>(&meta.namespace);
        let account = accounts.get(account_name).await.map_err(Error::Account)?;
        let node = self.client.all::<Node>().get(&self.node).await.map_err(Error::Node)?;
        let algorithm = algorithm(&source.key_type)
            .ok_or_else(|| Error::Key(format!("unknown key type {}", quote(&source.key_type))))?;
        // Numbers that are prime are not found at once.
        let made = tokio::task::spawn_blocking(move || -> pki::Result<_> {
            let key = PrivateKey::generate_as(algorithm)?;
            // It says nothing of the pod: that is in the request around it, where the API server checks it.
            Ok((key.to_pem(), Csr::create_der(&key, &Subject::default(), &[])?))
        });
        let made = made.await.map_err(|error| Error::Key(error.to_string()))?;
        let (key, stub) = made.map_err(|error| Error::Key(error.to_string()))?;
        let request = PodCertificateRequest {
            metadata: ObjectMeta {
                namespace: meta.namespace.clone(),
                generate_name: "req-".into(),
                owner_references: vec![OwnerReference {
                    api_version: "v1".into(),
                    kind: "Pod".into(),
                    name: meta.name.clone(),
                    uid: meta.uid.clone(),
                    ..Default::default()
                }],
                ..Default::default()
            },
            spec: PodCertificateRequestSpec {
                signer_name: source.signer_name.clone(),
                pod_name: meta.name.clone(),
                pod_uid: meta.uid.clone(),
                service_account_name: account_name.to_owned(),
                service_account_uid: account.metadata.uid,
                node_name: self.node.clone(),
                node_uid: node.metadata.uid,
                max_expiration_seconds: source.max_expiration_seconds,
                stub_pkcs10_request: stub.into(),
                unverified_user_annotations: source.user_annotations.clone(),
                ..Default::default()
            },
            ..Default::default()
        };
        let api = self.client.namespaced::<PodCertificateRequest>(&meta.namespace);
        let made = api.create(&request).await.map_err(Error::Create)?.metadata;
        let abandon_at = Time::from_unix(made.creation_timestamp.unix() + plan::ABANDONED + jitter);
        Ok(Asked { name: made.name, key, abandon_at })
    }
}

fn algorithm(key_type: &str) -> Option<Algorithm> {
    Some(match key_type {
        "RSA3072" => Algorithm::Rsa3072,
        "RSA4096" => Algorithm::Rsa4096,
        "ECDSAP256" => Algorithm::P256,
        "ECDSAP384" => Algorithm::P384,
        "ECDSAP521" => Algorithm::P521,
        "ED25519" => Algorithm::Ed25519,
        _ => return None,
    })
}
