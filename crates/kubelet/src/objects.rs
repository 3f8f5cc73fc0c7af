//! ConfigMaps and Secrets that this node's pods refer to, each watched by name while someone refers to it, as the node
//! authorizer allows. A change wakes the pods that use it. Upstream: the watching `manager` of configmap and secret. Trust
//! bundles have a place of their own ([`TrustBundles`]), as all of them are watched if any is, and so have the certificates
//! that pods ask for ([`PodCertificates`]).

use crate::config::Config;
use crate::events::Events;
use crate::pod_certificates::PodCertificates;
use crate::pod_worker::Mailbox;
use crate::trust_bundles::TrustBundles;
use api::core::v1::{ConfigMap, Pod, Secret};
use api::{Kind, core::v1 as core};
use client::source::Query;
use client::{Client, Informer, Informers, Projection};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Keeps nothing beside the bytes: objects are decoded when they are read.
struct Bare<K>(std::marker::PhantomData<fn() -> K>);

impl<K: Kind> Projection for Bare<K> {
    type Kind = K;

    fn project(_: &K) -> Self {
        Bare(std::marker::PhantomData)
    }
}

struct Entry<K: Kind> {
    informer: Informer<Bare<K>>,
    users: Arc<Mutex<HashMap<String, Arc<Mailbox>>>>,
    stop: CancellationToken,
}

/// Objects of one kind, by namespace and name.
struct Cache<K: Kind>(Mutex<HashMap<(String, String), Entry<K>>>);

/// How long a first look may take.
const FIRST_LOOK: Duration = Duration::from_secs(10);

impl<K: Kind> Cache<K> {
    fn new() -> Self {
        Cache(Mutex::default())
    }

    fn acquire(
        &self,
        client: &Client,
        shutdown: &CancellationToken,
        namespace: &str,
        name: &str,
        uid: &str,
        mailbox: &Arc<Mailbox>,
    ) {
        let mut entries = self.0.lock();
        let entry = entries.entry((namespace.to_owned(), name.to_owned())).or_insert_with(|| {
            let stop = shutdown.child_token();
            let query = Query::of::<K>().in_namespace(namespace).fields(format!("metadata.name={name}"));
            let informer = Informers::new(client, stop.clone()).query::<Bare<K>>(query);
            let users: Arc<Mutex<HashMap<String, Arc<Mailbox>>>> = Arc::default();
            let told = users.clone();
            informer.subscribe(move |_| told.lock().values().for_each(|mailbox| mailbox.volumes_changed()));
            Entry { informer, users, stop }
        });
        entry.users.lock().insert(uid.to_owned(), mailbox.clone());
    }

    fn release(&self, uid: &str, keep: &BTreeSet<(String, String)>) {
        self.0.lock().retain(|key, entry| {
            if keep.contains(key) {
                return true;
            }
            let mut users = entry.users.lock();
            users.remove(uid);
            let keep = !users.is_empty();
            if !keep {
                entry.stop.cancel();
            }
            keep
        });
    }

    async fn get(&self, client: &Client, namespace: &str, name: &str) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        let informer = self.0.lock().get(&key).map(|entry| entry.informer.clone());
        let Some(informer) = informer else {
            // Nobody announced the reference, e.g. a pull secret: ask.
            let object = client.namespaced::<K>(namespace).get_opt(name).await.map_err(|e| e.to_string())?;
            return Ok(object.map(Arc::new));
        };
        if tokio::time::timeout(FIRST_LOOK, informer.synced()).await.is_err() {
            let kind = K::KIND.to_lowercase();
            return Err(format!("failed to sync {kind} cache: timed out waiting for the condition"));
        }
        match informer.named(namespace, name) {
            Some(cached) => cached.decode().map(|object| Some(Arc::new(object))).map_err(|e| e.to_string()),
            None => Ok(None),
        }
    }
}

/// All that is in use.
pub(crate) struct Objects {
    client: Client,
    shutdown: CancellationToken,
    config_maps: Cache<ConfigMap>,
    secrets: Cache<Secret>,
    pub(crate) trust_bundles: TrustBundles,
    pub(crate) pod_certificates: PodCertificates,
}

impl Objects {
    pub(crate) fn new(config: &Config, client: Client, events: Events, shutdown: CancellationToken) -> Self {
        let projects = config.feature("ClusterTrustBundleProjection");
        let trust_bundles = TrustBundles::new(client.clone(), shutdown.clone(), projects);
        let pod_certificates = PodCertificates::new(config, client.clone(), events, shutdown.clone());
        let (config_maps, secrets) = (Cache::new(), Cache::new());
        Objects { client, shutdown, config_maps, secrets, trust_bundles, pod_certificates }
    }

    /// Watches what the pod refers to, and no longer what it referred to before.
    pub(crate) fn register(&self, pod: &Pod, mailbox: &Arc<Mailbox>) {
        let references = References::of(pod);
        let (namespace, uid) = (&pod.metadata.namespace, &pod.metadata.uid);
        let keys = |names: &BTreeSet<String>| {
            names.iter().map(|n| (namespace.clone(), n.clone())).collect::<BTreeSet<_>>()
        };
        for name in &references.config_maps {
            self.config_maps.acquire(&self.client, &self.shutdown, namespace, name, uid, mailbox);
        }
        for name in &references.secrets {
            self.secrets.acquire(&self.client, &self.shutdown, namespace, name, uid, mailbox);
        }
        self.trust_bundles.register(pod, mailbox);
        self.pod_certificates.register(pod, mailbox);
        self.config_maps.release(uid, &keys(&references.config_maps));
        self.secrets.release(uid, &keys(&references.secrets));
    }

    /// Stops watching for a pod that is gone.
    pub(crate) fn release(&self, uid: &str) {
        self.trust_bundles.release(uid);
        self.pod_certificates.release(uid);
        self.config_maps.release(uid, &BTreeSet::new());
        self.secrets.release(uid, &BTreeSet::new());
    }

    pub(crate) async fn config_map(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, String> {
        self.config_maps.get(&self.client, namespace, name).await
    }

    pub(crate) async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Arc<Secret>>, String> {
        self.secrets.get(&self.client, namespace, name).await
    }
}

/// Names a pod refers to.
#[derive(Debug, Default)]
pub(crate) struct References {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

impl References {
    pub(crate) fn of(pod: &Pod) -> Self {
        let mut out = References::default();
        let spec = &pod.spec;
        out.secrets.extend(spec.image_pull_secrets.iter().map(|s| s.name.clone()).filter(|n| !n.is_empty()));
        for volume in &spec.volumes {
            out.config_maps.extend(volume.config_map.iter().map(|c| c.name.clone()));
            out.secrets.extend(volume.secret.iter().map(|s| s.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|p| &p.sources) {
                out.config_maps.extend(source.config_map.iter().map(|c| c.name.clone()));
                out.secrets.extend(source.secret.iter().map(|s| s.name.clone()));
            }
        }
        for container in spec.init_containers.iter().chain(&spec.containers) {
            out.environment(&container.env, &container.env_from);
        }
        for container in &spec.ephemeral_containers {
            out.environment(&container.env, &container.env_from);
        }
        out
    }

    fn environment(&mut self, env: &[core::EnvVar], from: &[core::EnvFromSource]) {
        for value in env.iter().filter_map(|e| e.value_from.as_ref()) {
            self.config_maps.extend(value.config_map_key_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(value.secret_key_ref.iter().map(|r| r.name.clone()));
        }
        for source in from {
            self.config_maps.extend(source.config_map_ref.iter().map(|r| r.name.clone()));
            self.secrets.extend(source.secret_ref.iter().map(|r| r.name.clone()));
        }
    }
}
