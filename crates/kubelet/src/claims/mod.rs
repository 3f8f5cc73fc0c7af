//! Dynamic resource allocation on the node: before a pod's first container starts, the drivers of its claims prepare their
//! devices, which the runtime is told of by their CDI names; when the last pod of a claim has ended they are told again.
//! Errors are upstream's. Upstream: `cm/dra`.

mod drivers;
mod health;
mod state;

use crate::config::{Config, ExtendedClaims};
use crate::metrics::Dra;
use crate::plugins::dra::{
    Claim as Asked, NodePrepareResourcesRequest, NodePrepareResourcesResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};
use crate::pods::Pods;
use api::core::v1::{Container, Pod, PodResourceClaim};
use api::resource::v1::ResourceClaim;
use client::Client;
pub(crate) use drivers::Registered;
use drivers::{Driver, Drivers};
use health::Health;
use parking_lot::Mutex;
use rules::resource_claim::{Wanted, controller, not_its_own};
pub(crate) use state::{Claim, Claims as State};
use state::{Device, Disk};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All claims and drivers of the node.
pub(crate) struct Claims {
    client: Client,
    /// The node's name.
    node: String,
    extended: ExtendedClaims,
    features: Features,
    disk: Disk,
    state: Mutex<State>,
    drivers: Drivers,
    health: Health,
    /// Goes up when devices may be otherwise than before.
    changed: watch::Sender<u64>,
    /// Preparing and unpreparing take turns: both may be about one claim.
    turn: tokio::sync::Mutex<()>,
    metrics: Dra,
    shutdown: CancellationToken,
}

/// What is told of devices.
#[derive(Debug, Clone, Copy)]
struct Features {
    /// How they are: `ResourceHealthStatus`.
    health: bool,
    /// And why: `ResourceHealthStatusMessage`.
    messages: bool,
}

/// The claim that a pod means; none where the control plane has made none on purpose. And whether it must be the pod's
/// own.
fn name_of(pod: &Pod, claim: &PodResourceClaim) -> Result<(Option<String>, bool), String> {
    let wanted = Wanted::of(pod, claim);
    let name = wanted.must_be(&pod.metadata.namespace, &pod.metadata.name)?;
    Ok((name.map(str::to_owned), wanted.is_owned()))
}

/// The names of a pod's claims; those that cannot be told are left out.
fn names(pod: &Pod, extended: ExtendedClaims) -> Vec<String> {
    let told = pod.spec.resource_claims.iter().filter_map(|claim| name_of(pod, claim).ok()?.0);
    let extended = extended.of(pod).into_iter();
    told.chain(extended.map(|status| status.resource_claim_name.clone())).collect()
}

fn may_use(pod: &Pod, claim: &ResourceClaim, must_own: bool) -> Result<(), String> {
    let (meta, of) = (&pod.metadata, &claim.metadata);
    if must_own && controller(claim) != Some(&meta.uid) {
        return Err(not_its_own((&of.namespace, &of.name), (&meta.namespace, &meta.name)));
    }
    if !claim.status.reserved_for.iter().any(|consumer| consumer.uid == meta.uid) {
        return Err(format!(
            "pod {} ({}) is not allowed to use ResourceClaim {} ({})",
            meta.name, meta.uid, of.name, of.uid
        ));
    }
    Ok(())
}

impl Claims {
    pub(crate) fn load(
        client: Client,
        config: &Config,
        metrics: Dra,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let disk = Disk::of(&config.root_dir);
        let state = Mutex::new(disk.read());
        Arc::new(Claims {
            client,
            node: config.node_name.clone(),
            extended: config.extended_claims(),
            features: Features {
                health: config.feature("ResourceHealthStatus"),
                messages: config.feature("ResourceHealthStatusMessage"),
            },
            state,
            disk,
            drivers: Drivers::default(),
            health: Health::load(&config.root_dir),
            changed: watch::Sender::new(0),
            turn: tokio::sync::Mutex::default(),
            metrics,
            shutdown,
        })
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    async fn driver(&self, name: &str) -> Result<Driver, String> {
        self.drivers.get(name).await
    }

    fn write(&self) -> Result<(), String> {
        let state = self.state.lock().clone();
        self.disk.write(&state).map_err(|error| format!("checkpoint ResourceClaim state: {error}"))
    }

    /// Has drivers prepare the claims of a pod. Nothing is noted before all of them are known to be good.
    pub(crate) async fn prepare(&self, pod: &Pod) -> Result<(), String> {
        if pod.spec.resource_claims.is_empty() && self.extended.of(pod).is_none() {
            return Ok(());
        }
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        let prepared = self.try_prepare(pod).await;
        self.metrics.done("PrepareResources", began, &prepared);
        prepared.map_err(|error| format!("prepare dynamic resources: {error}"))
    }

    async fn try_prepare(&self, pod: &Pod) -> Result<(), String> {
        let mut wanted: Vec<(String, bool)> = Vec::new();
        for claim in &pod.spec.resource_claims {
            if let (Some(name), must_own) = name_of(pod, claim)? {
                wanted.push((name, must_own));
            }
        }
        let extended = self.extended.of(pod).into_iter();
        wanted.extend(extended.map(|status| (status.resource_claim_name.clone(), false)));
        let namespace = &pod.metadata.namespace;
        let mut found = Vec::new();
        for (name, must_own) in wanted {
            let claims = self.client.namespaced::<ResourceClaim>(namespace);
            let claim =
                claims.get(&name).await.map_err(|error| format!("fetch ResourceClaim {name}: {error}"))?;
            may_use(pod, &claim, must_own)?;
            let allocation = claim
                .status
                .allocation
                .as_ref()
                .ok_or_else(|| format!("ResourceClaim {name}: not allocated"))?;
            let drivers: BTreeSet<String> =
                allocation.devices.results.iter().map(|result| result.driver.clone()).collect();
            for driver in &drivers {
                self.driver(driver).await?;
            }
            found.push((name, claim.metadata.uid.clone(), drivers));
        }
        let mut batches: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        {
            let mut state = self.state.lock();
            for (name, uid, drivers) in &found {
                let key = (namespace.clone(), name.clone());
                let known = state.entry(key).or_insert_with(|| Claim {
                    uid: uid.clone(),
                    name: name.clone(),
                    namespace: namespace.clone(),
                    drivers: drivers.iter().map(|driver| (driver.clone(), Vec::new())).collect(),
                    ..Default::default()
                });
                if known.uid != *uid {
                    return Err(format!(
                        "old ResourceClaim with same name {name} and different UID {} still exists (previous pod force-deleted?!)",
                        known.uid
                    ));
                }
                known.pods.insert(pod.metadata.uid.clone());
                if !known.prepared {
                    for driver in known.drivers.keys() {
                        let asked =
                            Asked { namespace: namespace.clone(), uid: uid.clone(), name: name.clone() };
                        batches.entry(driver.clone()).or_default().push(asked);
                    }
                }
            }
        }
        // On disk before a driver is asked: whatever happens then, it will be told when the pod is done.
        self.write()?;
        for (driver, claims) in batches {
            let request = NodePrepareResourcesRequest { claims: claims.clone() };
            let answer = self.driver(&driver).await?.call(self, "NodePrepareResources", request).await;
            let answers: NodePrepareResourcesResponse =
                answer.map_err(|status| format!("NodePrepareResources: {}", told(&status)))?;
            self.take(&driver, &claims, answers.claims)?;
        }
        for (name, _, _) in found {
            if let Some(claim) = self.state.lock().get_mut(&(namespace.clone(), name)) {
                claim.prepared = true;
            }
        }
        self.write()
    }

    fn take(
        &self,
        driver: &str,
        asked: &[Asked],
        answers: std::collections::HashMap<String, crate::plugins::dra::NodePrepareResourceResponse>,
    ) -> Result<(), String> {
        let unfinished = asked.len().saturating_sub(answers.len());
        for (uid, answer) in answers {
            let of = asked.iter().find(|claim| claim.uid == uid);
            let of = of
                .ok_or_else(|| format!("NodePrepareResources returned result for unknown claim UID {uid}"))?;
            if !answer.error.is_empty() {
                return Err(format!(
                    "NodePrepareResources failed for ResourceClaim {}: {}",
                    of.name, answer.error
                ));
            }
            let devices = answer.devices.into_iter().map(|device| Device {
                pool_name: device.pool_name,
                device_name: device.device_name,
                share_id: device.share_id,
                request_names: device.request_names,
                cdi_device_ids: device.cdi_device_ids,
            });
            if let Some(claim) = self.state.lock().get_mut(&(of.namespace.clone(), of.name.clone())) {
                claim.drivers.insert(driver.to_owned(), devices.collect());
            }
        }
        if unfinished > 0 {
            return Err(format!("NodePrepareResources skipped {unfinished} ResourceClaims"));
        }
        Ok(())
    }

    /// The CDI names of a container's devices.
    pub(crate) fn cdi_devices(&self, pod: &Pod, container: &Container) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        let mut add = |name: &str, request: &str| {
            let namespace = &pod.metadata.namespace;
            let state = self.state.lock();
            let claim = state.get(&(namespace.clone(), name.to_owned())).ok_or_else(|| {
                format!("internal error: unable to get claim info for ResourceClaim {name} in namespace {namespace}")
            })?;
            out.extend(claim.cdi_devices(request));
            Ok::<_, String>(())
        };
        for wanted in &container.resources.claims {
            let of_pod = pod.spec.resource_claims.iter().find(|claim| claim.name == wanted.name);
            if let Some((Some(name), _)) = of_pod.map(|claim| name_of(pod, claim)).transpose()? {
                add(&name, &wanted.request)?;
            }
        }
        if let Some(extended) = self.extended.of(pod) {
            for mapping in extended.request_mappings.iter().filter(|m| m.container_name == container.name) {
                add(&extended.resource_claim_name, &mapping.request_name)?;
            }
        }
        Ok(out)
    }

    /// The prepared claims of a pod, for the pod-resources API.
    pub(crate) fn of_pod(&self, uid: &str) -> Vec<Claim> {
        self.state.lock().values().filter(|claim| claim.pods.contains(uid)).cloned().collect()
    }

    /// How many claims are in use, by driver and in all.
    pub(crate) fn in_use(&self) -> BTreeMap<String, usize> {
        let state = self.state.lock();
        let used: Vec<&Claim> = state.values().filter(|claim| !claim.pods.is_empty()).collect();
        let mut out = BTreeMap::from([("<any>".to_owned(), used.len())]);
        for driver in used.iter().flat_map(|claim| claim.drivers.keys()) {
            *out.entry(driver.clone()).or_default() += 1;
        }
        out
    }

    /// A pod has ended: drivers undo what no other pod uses. Called again until it succeeds.
    pub(crate) async fn unprepare(&self, pod: &Pod) -> Result<(), String> {
        if self.of_pod(&pod.metadata.uid).is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let _turn = self.turn.lock().await;
        let unprepared = self.try_unprepare(pod).await;
        self.metrics.done("UnprepareResources", began, &unprepared);
        unprepared
    }

    async fn try_unprepare(&self, pod: &Pod) -> Result<(), String> {
        let uid = &pod.metadata.uid;
        let named: BTreeSet<String> = names(pod, self.extended).into_iter().collect();
        let mut batches: BTreeMap<String, Vec<Asked>> = BTreeMap::new();
        let mut last = Vec::new();
        for (key, claim) in self.state.lock().iter_mut() {
            // A pod that is known by its labels only cannot say what it used: the state can.
            let of_pod = claim.pods.contains(uid) && (named.is_empty() || named.contains(&claim.name));
            if !of_pod {
                continue;
            }
            if claim.pods.len() > 1 {
                claim.pods.remove(uid);
                continue;
            }
            last.push(key.clone());
            for driver in claim.drivers.keys() {
                let (namespace, uid, name) = (claim.namespace.clone(), claim.uid.clone(), claim.name.clone());
                batches.entry(driver.clone()).or_default().push(Asked { namespace, uid, name });
            }
        }
        for (driver, claims) in batches {
            let request = NodeUnprepareResourcesRequest { claims: claims.clone() };
            let answer = self.driver(&driver).await?.call(self, "NodeUnprepareResources", request).await;
            let answers: NodeUnprepareResourcesResponse =
                answer.map_err(|status| format!("NodeUnprepareResources: {}", told(&status)))?;
            for (uid, answer) in &answers.claims {
                let of = claims.iter().find(|claim| claim.uid == *uid);
                let of = of.ok_or_else(|| {
                    format!("NodeUnprepareResources returned result for unknown claim UID {uid}")
                })?;
                if !answer.error.is_empty() {
                    return Err(format!(
                        "NodeUnprepareResources failed for ResourceClaim {}: {}",
                        of.name, answer.error
                    ));
                }
            }
            let unfinished = claims.len().saturating_sub(answers.claims.len());
            if unfinished > 0 {
                return Err(format!("NodeUnprepareResources skipped {unfinished} ResourceClaims"));
            }
        }
        self.state.lock().retain(|key, _| !last.contains(key));
        self.write()
    }
}

fn told(status: &tonic::Status) -> String {
    crate::devices::go_error(status)
}

/// Has pods tell how their devices are when that may have changed. What drivers offered before is taken away at first:
/// none of them is known to come back, and a pod that came for it would wait.
pub(crate) async fn follow(claims: Arc<Claims>, pods: Arc<Pods>) {
    let telling = async {
        let mut changes = claims.changed.subscribe();
        while changes.changed().await.is_ok() {
            let uids: BTreeSet<String> =
                claims.state.lock().values().flat_map(|claim| claim.pods.iter().cloned()).collect();
            uids.iter().for_each(|uid| pods.wake(uid));
        }
    };
    let wiping = async {
        let known = |node: &Arc<api::core::v1::Node>| !node.metadata.name.is_empty();
        if pods.context.node.subscribe().wait_for(known).await.is_ok() {
            drivers::wipe(&claims.client, &claims.node, None).await;
        }
    };
    tokio::select! {
        () = claims.shutdown.cancelled() => {}
        _ = async { tokio::join!(telling, wiping) } => {}
    }
}
