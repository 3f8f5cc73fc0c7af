//! What of the cluster is whose node's business: which secrets, config maps, claims, volumes and accounts the pods on a
//! node refer to. Kept up to date change by change; a question costs a look or two.

use api::core::v1::{ObjectReference, Pod, Volume};
use component::metrics::{HistogramVec, Opts, Registry, Stability, exponential_buckets};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

/// What a node may be related to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    ResourceClaim,
    Volume,
    Attachment,
    ResourceSlice,
    PodCertificateRequest,
}

/// The nodes that something is related to, and how often; few, ordered by name.
type Nodes = Vec<(Arc<str>, u32)>;

#[derive(Debug)]
struct PodEdges {
    node: Arc<str>,
    to: Box<[(Kind, Box<str>)]>,
}

/// What a persistent volume refers to.
#[derive(Debug)]
struct VolumeEdges {
    claim: String,
    secrets: Vec<String>,
}

/// The graph. Names of namespaced things are `namespace/name`.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<(Kind, Box<str>), Nodes>,
    pods: HashMap<Box<str>, PodEdges>,
    volumes: HashMap<String, VolumeEdges>,
    /// Volumes by the secrets they refer to.
    by_secret: HashMap<String, Vec<String>>,
    /// Attachments, slices and requests for certificates: things that name their node themselves.
    own: HashMap<(Kind, Box<str>), Box<str>>,
    /// How long changes take.
    seconds: Option<HistogramVec>,
}

fn key(namespace: &str, name: &str) -> Box<str> {
    format!("{namespace}/{name}").into()
}

impl Graph {
    /// One whose changes are measured, under upstream's name.
    pub(super) fn measured(metrics: &Registry) -> Self {
        let opts = Opts {
            name: "node_authorizer_graph_actions_duration_seconds",
            help: "Histogram of duration of graph actions in node authorizer.",
            stability: Stability::Alpha,
        };
        let seconds = metrics.histogram_vec(opts, &["operation"], &exponential_buckets(0.0001, 2.0, 12));
        Graph { seconds: Some(seconds), ..Graph::default() }
    }

    /// Notes what a change took that put something, or took it away.
    pub(super) fn changed(&self, kind: Kind, put: bool, start: Instant) {
        let Some(seconds) = &self.seconds else { return };
        let operation = match (kind, put) {
            (Kind::Pod, true) => "AddPod",
            (Kind::Pod, false) => "DeletePod",
            (Kind::Volume, true) => "AddPV",
            (Kind::Volume, false) => "DeletePV",
            (Kind::Attachment, true) => "AddVolumeAttachment",
            (Kind::Attachment, false) => "DeleteVolumeAttachment",
            (Kind::ResourceSlice, true) => "AddResourceSlice",
            (Kind::ResourceSlice, false) => "DeleteResourceSlice",
            (Kind::PodCertificateRequest, true) => "AddPodCertificateRequest",
            (Kind::PodCertificateRequest, false) => "DeletePodCertificateRequest",
            // The rest has no feed: pods and volumes bring it.
            _ => return,
        };
        seconds.with(&[operation]).observe_since(start);
    }

    /// Whether an object has to do with a node.
    pub(super) fn related(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        match kind {
            Kind::PodCertificateRequest => {
                self.own.get(&(kind, key(namespace, name))).is_some_and(|own| **own == *node)
            }
            Kind::Attachment | Kind::ResourceSlice => {
                self.own.get(&(kind, name.into())).is_some_and(|own| **own == *node)
            }
            Kind::Volume => self.volume_related(node, name),
            _ => {
                let key = (kind, key(namespace, name));
                let direct = self.nodes.get(&key).is_some_and(|nodes| find(nodes, node).is_ok());
                direct
                    || kind == Kind::Secret
                        && self
                            .by_secret
                            .get(&*key.1)
                            .is_some_and(|volumes| volumes.iter().any(|v| self.volume_related(node, v)))
            }
        }
    }

    fn volume_related(&self, node: &str, volume: &str) -> bool {
        let claim = self.volumes.get(volume).map(|v| (Kind::Claim, Box::from(v.claim.as_str())));
        claim.and_then(|c| self.nodes.get(&c)).is_some_and(|nodes| find(nodes, node).is_ok())
    }

    pub(super) fn put_pod(&mut self, pod: &Pod) {
        let name = key(&pod.metadata.namespace, &pod.metadata.name);
        self.remove_pod(&name);
        if pod.spec.node_name.is_empty() {
            return;
        }
        let node: Arc<str> = pod.spec.node_name.as_str().into();
        let mut to = references(pod);
        to.push((Kind::Pod, name.clone()));
        to.sort();
        to.dedup();
        for edge in &to {
            let nodes = self.nodes.entry(edge.clone()).or_default();
            match find(nodes, &node) {
                Ok(at) => nodes[at].1 += 1,
                Err(at) => nodes.insert(at, (node.clone(), 1)),
            }
        }
        self.pods.insert(name, PodEdges { node, to: to.into() });
    }

    /// Forgets a pod, by `namespace/name`.
    pub(super) fn remove_pod(&mut self, name: &str) {
        let Some(PodEdges { node, to }) = self.pods.remove(name) else { return };
        for edge in to {
            let Some(nodes) = self.nodes.get_mut(&edge) else { continue };
            if let Ok(at) = find(nodes, &node) {
                nodes[at].1 -= 1;
                if nodes[at].1 == 0 {
                    nodes.remove(at);
                }
            }
            if nodes.is_empty() {
                self.nodes.remove(&edge);
            }
        }
    }

    pub(super) fn put_volume(&mut self, volume: &PersistentVolume) {
        let name = &volume.metadata.name;
        self.remove_volume(name);
        let Some(claim) = &volume.spec.claim_ref else { return };
        let secrets = volume.secrets(&claim.namespace);
        for secret in &secrets {
            self.by_secret.entry(secret.clone()).or_default().push(name.clone());
        }
        let claim = format!("{}/{}", claim.namespace, claim.name);
        self.volumes.insert(name.clone(), VolumeEdges { claim, secrets });
    }

    pub(super) fn remove_volume(&mut self, name: &str) {
        for secret in self.volumes.remove(name).into_iter().flat_map(|v| v.secrets) {
            if let Some(volumes) = self.by_secret.get_mut(&secret) {
                volumes.retain(|v| v != name);
                if volumes.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }

    /// An attachment, a slice or a request, which names its node itself (empty: none).
    pub(super) fn put_own(&mut self, kind: Kind, name: &str, node: &str) {
        if node.is_empty() {
            self.remove_own(kind, name);
        } else {
            self.own.insert((kind, name.into()), node.into());
        }
    }

    pub(super) fn remove_own(&mut self, kind: Kind, name: &str) {
        self.own.remove(&(kind, name.into()));
    }

    /// The names known of a kind that comes from objects of its own, to find those that are gone.
    pub(super) fn known(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Pod => self.pods.keys().map(|k| k.to_string()).collect(),
            Kind::Volume => self.volumes.keys().cloned().collect(),
            _ => self.own.keys().filter(|(k, _)| *k == kind).map(|(_, name)| name.to_string()).collect(),
        }
    }
}

fn find(nodes: &Nodes, node: &str) -> Result<usize, usize> {
    nodes.binary_search_by(|(name, _)| (**name).cmp(node))
}

/// The part of metadata that counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Meta {
    pub(super) name: String,
}

/// What a pod refers to in its namespace. A mirror pod refers to nothing: a node could create it.
fn references(pod: &Pod) -> Vec<(Kind, Box<str>)> {
    if pod.metadata.annotations.contains_key("kubernetes.io/config.mirror") {
        return Vec::new();
    }
    let spec = &pod.spec;
    let mut found: Vec<(Kind, &str)> = vec![(Kind::ServiceAccount, &spec.service_account_name)];
    found.extend(spec.image_pull_secrets.iter().map(|s| (Kind::Secret, s.name.as_str())));
    let ephemeral = spec.ephemeral_containers.iter().map(|c| (&c.env, &c.env_from));
    let containers = spec.init_containers.iter().chain(&spec.containers).map(|c| (&c.env, &c.env_from));
    for (env, env_from) in containers.chain(ephemeral) {
        for source in env.iter().filter_map(|e| e.value_from.as_ref()) {
            found.extend(source.secret_key_ref.as_ref().map(|s| (Kind::Secret, s.name.as_str())));
            found.extend(source.config_map_key_ref.as_ref().map(|c| (Kind::ConfigMap, c.name.as_str())));
        }
        for source in env_from {
            found.extend(source.secret_ref.as_ref().map(|s| (Kind::Secret, s.name.as_str())));
            found.extend(source.config_map_ref.as_ref().map(|c| (Kind::ConfigMap, c.name.as_str())));
        }
    }
    spec.volumes.iter().for_each(|v| volume(v, &mut found));
    let claims = spec.resource_claims.iter().map(|c| &c.resource_claim_name);
    let statuses = pod.status.resource_claim_statuses.iter().map(|c| &c.resource_claim_name);
    let extended = pod.status.extended_resource_claim_status.iter().map(|c| &c.resource_claim_name);
    let claims = claims.chain(statuses).flatten().chain(extended);
    found.extend(claims.map(|name| (Kind::ResourceClaim, name.as_str())));
    let namespace = &pod.metadata.namespace;
    let mut edges: Vec<_> = found
        .into_iter()
        .filter(|(_, name)| !name.is_empty())
        .map(|(kind, name)| (kind, key(namespace, name)))
        .collect();
    // A generic ephemeral volume's claim is called after the pod and the volume.
    let ephemeral = spec.volumes.iter().filter(|v| v.ephemeral.is_some());
    edges.extend(
        ephemeral.map(|v| (Kind::Claim, key(namespace, &format!("{}-{}", pod.metadata.name, v.name)))),
    );
    edges
}

fn volume<'a>(volume: &'a Volume, found: &mut Vec<(Kind, &'a str)>) {
    let secrets = [
        volume.secret.as_ref().map(|s| &s.secret_name),
        volume.azure_file.as_ref().map(|a| &a.secret_name),
        volume.cephfs.as_ref().and_then(|c| c.secret_ref.as_ref()).map(|s| &s.name),
        volume.cinder.as_ref().and_then(|c| c.secret_ref.as_ref()).map(|s| &s.name),
        volume.flex_volume.as_ref().and_then(|f| f.secret_ref.as_ref()).map(|s| &s.name),
        volume.rbd.as_ref().and_then(|r| r.secret_ref.as_ref()).map(|s| &s.name),
        volume.scale_io.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|s| &s.name),
        volume.iscsi.as_ref().and_then(|i| i.secret_ref.as_ref()).map(|s| &s.name),
        volume.storageos.as_ref().and_then(|s| s.secret_ref.as_ref()).map(|s| &s.name),
        volume.csi.as_ref().and_then(|c| c.node_publish_secret_ref.as_ref()).map(|s| &s.name),
    ];
    found.extend(secrets.into_iter().flatten().map(|name| (Kind::Secret, name.as_str())));
    found.extend(volume.config_map.as_ref().map(|c| (Kind::ConfigMap, c.name.as_str())));
    found.extend(volume.persistent_volume_claim.as_ref().map(|c| (Kind::Claim, c.claim_name.as_str())));
    for source in volume.projected.iter().flat_map(|p| &p.sources) {
        found.extend(source.secret.as_ref().map(|s| (Kind::Secret, s.name.as_str())));
        found.extend(source.config_map.as_ref().map(|c| (Kind::ConfigMap, c.name.as_str())));
    }
}

/// The part of a persistent volume that counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PersistentVolume {
    metadata: Meta,
    spec: VolumeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolumeSpec {
    claim_ref: Option<ObjectReference>,
    #[serde(flatten)]
    source: BTreeMap<String, apimachinery::value::Value>,
}

impl PersistentVolume {
    /// The secrets that a kubelet needs to mount the volume, as `namespace/name`.
    fn secrets(&self, claim_namespace: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut add = |reference: &apimachinery::value::Value| {
            let namespace = reference["namespace"].as_str().filter(|n| !n.is_empty());
            if let Some(name) = reference["name"].as_str().filter(|n| !n.is_empty()) {
                found.push(format!("{}/{name}", namespace.unwrap_or(claim_namespace)));
            }
        };
        for source in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            if let Some(source) = self.spec.source.get(source) {
                add(&source["secretRef"]);
            }
        }
        // The controllers' secrets of a CSI volume are none of the kubelet's business.
        if let Some(csi) = self.spec.source.get("csi") {
            ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"]
                .iter()
                .for_each(|k| add(&csi[k]));
        }
        if let Some(azure) = self.spec.source.get("azureFile") {
            add(&apimachinery::json!({"name": azure["secretName"], "namespace": azure["secretNamespace"]}));
        }
        found
    }
}

/// A volume attachment, a resource slice or a request for a certificate: something whose spec names its node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct OnNode {
    pub(super) spec: OnNodeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct OnNodeSpec {
    pub(super) node_name: Option<String>,
}
