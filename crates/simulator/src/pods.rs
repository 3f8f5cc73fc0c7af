//! The pods of all hollow nodes: one informer, a queue, and workers that do what a kubelet would.

use crate::pod::{Step, plan};
use crate::{Config, node};
use api::core::v1::Pod;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::time::Time;
use client::controller::{self, Outcome, Writes};
use client::source::Query;
use client::{Client, Informer, Informers, ObjectKey, Patch, PatchParams, Projection, Queue};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio_util::sync::CancellationToken;

const WORKERS: usize = 64;
/// Pods have addresses of 10.128.0.0/9.
const ADDRESSES: u32 = Ipv4Addr::new(10, 128, 0, 0).to_bits();

/// What decides whether there is something to do.
#[derive(Debug, PartialEq)]
struct Facts {
    node: String,
    phase: String,
    deleting: bool,
}

impl Projection for Facts {
    type Kind = Pod;

    fn project(pod: &Pod) -> Self {
        Facts {
            node: pod.spec.node_name.clone(),
            phase: pod.status.phase.clone(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
        }
    }
}

struct Pods {
    config: Arc<Config>,
    clients: Vec<Client>,
    informer: Informer<Facts>,
    writes: Writes<ObjectKey>,
    addresses: AtomicU32,
}

/// Runs until shutdown.
pub(crate) async fn run(config: Arc<Config>, clients: Vec<Client>, shutdown: CancellationToken) {
    let informers = Informers::new(&clients[0], shutdown.clone());
    let informer = informers.query::<Facts>(Query::of::<Pod>().fields("spec.nodeName!="));
    let queue = Queue::default();
    let (ours, keys) = (config.clone(), queue.clone());
    informer.subscribe(move |change| {
        let facts = &change.object().projection;
        let same = change.old().is_some_and(|old| old.projection == *facts);
        if !same && node::number(&ours, &facts.node).is_some() {
            keys.add(change.object().key().clone());
        }
    });
    let writes = Writes::default();
    let pods =
        Arc::new(Pods { config, clients, informer, writes: writes.clone(), addresses: AtomicU32::new(0) });
    let reconcile = move |key: ObjectKey| {
        let pods = pods.clone();
        async move { pods.step(&key).await.map(|()| Outcome::Done) }
    };
    controller::run("hollow-pods", queue, writes, WORKERS, shutdown, reconcile).await;
}

impl Pods {
    async fn step(&self, key: &ObjectKey) -> client::Result<()> {
        let Some(cached) = self.informer.get(key) else { return Ok(()) };
        let Some(number) = node::number(&self.config, &cached.node) else { return Ok(()) };
        let pod = cached.decode()?;
        let api = self.clients[number as usize % self.clients.len()].namespaced::<Pod>(&key.namespace);
        let ip =
            Ipv4Addr::from_bits(ADDRESSES + (self.addresses.fetch_add(1, Ordering::Relaxed) & 0x7f_ffff));
        let now = Time::from(SystemClock::default().now());
        let done = match plan(&pod, node::address(number), ip, now) {
            Step::Rest => Ok(()),
            Step::Status(status) => {
                let patch =
                    Patch::Strategic(json!({"metadata": {"uid": pod.metadata.uid}, "status": status}));
                let written = api.patch_status(&key.name, &patch, &PatchParams::default()).await;
                written.map(|pod| self.writes.note(key, &self.informer, &pod.metadata.resource_version))
            }
            Step::Delete => {
                let options = DeleteOptions {
                    grace_period_seconds: Some(0),
                    preconditions: Some(Preconditions { uid: Some(pod.metadata.uid), ..Default::default() }),
                    ..Default::default()
                };
                api.delete(&key.name, &options).await.map(drop)
            }
        };
        match done {
            // Gone, or another pod of its name: the watch tells of it.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }
}
