//! ClusterTrustBundles as projected volumes take them: the certificates of one bundle, or of all that a signer has under a
//! selector, each once. All bundles are watched from when the first is asked for. Upstream: `LazyInformerManager`.

use crate::pod_worker::Mailbox;
use api::certificates::v1beta1::ClusterTrustBundle;
use api::core::v1::{ClusterTrustBundleProjection, Pod};
use apimachinery::labels::Selector;
use client::source::Query;
use client::{Client, Informer, Informers, Projection, Resource, discovery};
use parking_lot::Mutex;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// How long the first look may take.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// What a selector may take.
const LONGEST_SELECTOR: usize = 100 * 1024;
const UNSUPPORTED: &str = "ClusterTrustBundle projection is not supported in static kubelet mode";

/// By what bundles are chosen.
struct Chosen {
    signer: String,
    labels: BTreeMap<String, String>,
}

impl Projection for Chosen {
    type Kind = ClusterTrustBundle;

    fn project(bundle: &ClusterTrustBundle) -> Self {
        Chosen { signer: bundle.spec.signer_name.clone(), labels: bundle.metadata.labels.clone() }
    }
}

/// Pods that use bundles, by UID.
type Users = Arc<Mutex<HashMap<String, Arc<Mailbox>>>>;

/// The bundles of the cluster.
pub(crate) struct TrustBundles {
    client: Client,
    shutdown: CancellationToken,
    /// The feature ClusterTrustBundleProjection.
    enabled: bool,
    users: Users,
    bundles: OnceCell<Informer<Chosen>>,
    /// In which order certificates are written: another one at each start, so that nobody relies on it.
    order: RandomState,
}

impl TrustBundles {
    pub(crate) fn new(client: Client, shutdown: CancellationToken, enabled: bool) -> Self {
        TrustBundles {
            client,
            shutdown,
            enabled,
            users: Users::default(),
            bundles: OnceCell::new(),
            order: RandomState::new(),
        }
    }

    /// A pod that uses bundles is woken by every change of one.
    pub(crate) fn register(&self, pod: &Pod, mailbox: &Arc<Mailbox>) {
        let sources = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref()).flat_map(|p| &p.sources);
        if sources.into_iter().any(|source| source.cluster_trust_bundle.is_some()) {
            self.users.lock().insert(pod.metadata.uid.clone(), mailbox.clone());
        } else {
            self.release(&pod.metadata.uid);
        }
    }

    pub(crate) fn release(&self, uid: &str) {
        self.users.lock().remove(uid);
    }

    /// What a volume asks for, in PEM.
    pub(crate) async fn anchors(&self, wanted: &ClusterTrustBundleProjection) -> Result<String, String> {
        if wanted.name.is_none() && wanted.signer_name.is_none() {
            return Err("ClusterTrustBundle projection requires either name or signerName to be set".into());
        }
        if !self.enabled {
            return Err(UNSUPPORTED.into());
        }
        let bundles = self.bundles.get_or_try_init(|| self.watch()).await?;
        if tokio::time::timeout(FIRST_LOOK, bundles.synced()).await.is_err() {
            return Err("ClusterTrustBundle informer has not yet synced".into());
        }
        let optional = wanted.optional == Some(true);
        match (&wanted.name, &wanted.signer_name) {
            (Some(name), _) => match bundles.named("", name) {
                Some(bundle) => {
                    let bundle = bundle.decode().map_err(|error| error.to_string())?;
                    Ok(normalized(&[bundle], &self.order))
                }
                None if optional => Ok(String::new()),
                None => Err(format!(
                    "while getting ClusterTrustBundle: clustertrustbundle.certificates.k8s.io {name:?} not found"
                )),
            },
            (None, signer) => {
                let signer = signer.as_deref().unwrap_or_default();
                let selector = Selector::from_label_selector(wanted.label_selector.as_ref())
                    .map_err(|error| format!("while parsing label selector: {error}"))?;
                let length = selector.to_string().len();
                if length > LONGEST_SELECTOR {
                    return Err(format!(
                        "label selector length ({length}) is larger than {LONGEST_SELECTOR}"
                    ));
                }
                let chosen = bundles.list().into_iter();
                let chosen = chosen.filter(|one| one.signer == signer && selector.matches(&one.labels));
                let chosen = chosen.map(|one| one.decode()).collect::<client::Result<Vec<_>>>();
                let chosen = chosen.map_err(|error| error.to_string())?;
                if chosen.is_empty() && !optional {
                    let why = "combination of signerName and labelSelector matched zero ClusterTrustBundles";
                    return Err(why.into());
                }
                Ok(normalized(&chosen, &self.order))
            }
        }
    }

    /// Starts to follow the bundles, if there can be any. Who asks after that looks again.
    async fn watch(&self) -> Result<Informer<Chosen>, String> {
        let resource = Resource::of::<ClusterTrustBundle>();
        let served = discovery::serves(&self.client, &resource).await.map_err(|error| {
            let what = "failed to ensure informer manager for ClusterTrustBundles";
            format!("{what}: failed to determine which informer manager to choose: {error}")
        })?;
        if !served {
            return Err(UNSUPPORTED.into());
        }
        let informers = Informers::new(&self.client, self.shutdown.clone());
        let bundles = informers.query::<Chosen>(Query::of::<ClusterTrustBundle>());
        let users = self.users.clone();
        bundles.subscribe(move |_| users.lock().values().for_each(|mailbox| mailbox.volumes_changed()));
        Ok(bundles)
    }
}

/// Every certificate once, and nothing of what stands around them.
fn normalized(bundles: &[ClusterTrustBundle], order: &RandomState) -> String {
    let anchors: BTreeSet<Vec<u8>> = bundles
        .iter()
        .flat_map(|bundle| pki::pem::sections(bundle.spec.trust_bundle.as_bytes()))
        .map(|(_, der)| der)
        .collect();
    let mut anchors: Vec<_> = anchors.into_iter().map(|der| (order.hash_one(&der), der)).collect();
    anchors.sort();
    anchors.iter().map(|(_, der)| pki::pem::encode("CERTIFICATE", der)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_several_bundles_are_written_once_and_always_in_the_same_order() {
        let pem = |names: &[&str]| {
            let one =
                |name: &&str| format!("{name}:\r\n{}", pki::pem::encode("CERTIFICATE", name.as_bytes()));
            names.iter().map(one).collect::<String>()
        };
        let bundle = |names: &[&str]| {
            let mut bundle = ClusterTrustBundle::default();
            bundle.spec.trust_bundle = pem(names);
            bundle
        };
        let order = RandomState::new();
        let text = normalized(&[bundle(&["one", "two"]), bundle(&["two", "three"])], &order);
        assert_eq!(text, normalized(&[bundle(&["three", "two"]), bundle(&["one", "two"])], &order));
        let mut found: Vec<_> = pki::pem::sections(text.as_bytes()).into_iter().map(|(_, der)| der).collect();
        found.sort();
        assert_eq!(found, [b"one".to_vec(), b"three".to_vec(), b"two".to_vec()]);
        assert_eq!(text.lines().filter(|line| line.contains(':')).count(), 0);
    }
}
