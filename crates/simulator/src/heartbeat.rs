//! Registers the nodes, then renews leases and statuses: one node after the other, so that the load is even in time.

use crate::{Config, node};
use api::coordination::v1::Lease;
use api::core::v1::Node;
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::json;
use apimachinery::time::{MicroTime, Time};
use client::{Client, Patch, PatchParams};
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Requests in flight at most.
const IN_FLIGHT: usize = 128;
/// Before a node that could not register tries again.
const AGAIN: Duration = Duration::from_secs(1);

/// One node's memory.
#[derive(Default)]
struct Beating {
    lease: Mutex<Option<Lease>>,
}

struct Heartbeat {
    config: Arc<Config>,
    clients: Vec<Client>,
    beating: Vec<Beating>,
    since: Time,
}

fn now() -> Time {
    Time::from(SystemClock::default().now())
}

fn now_micro() -> MicroTime {
    MicroTime::from(SystemClock::default().now())
}

/// Runs until shutdown.
pub(crate) async fn run(config: Arc<Config>, clients: Vec<Client>, shutdown: CancellationToken) {
    let beating = (0..config.nodes).map(|_| Beating::default()).collect();
    let heartbeat = Arc::new(Heartbeat { config, clients, beating, since: now() });
    let live = async {
        heartbeat.register_all().await;
        tracing::info!(nodes = heartbeat.config.nodes, "all nodes are registered");
        let (leases, statuses) = (heartbeat.config.lease_period, heartbeat.config.status_period);
        tokio::join!(
            spread(&heartbeat, leases, |h, n| async move { h.renew(n).await }),
            spread(&heartbeat, statuses, |h, n| async move { h.report(n).await }),
        );
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = live => {}
    }
}

/// Does something for every node once a period, evenly in time, for ever.
async fn spread<F, Fut>(heartbeat: &Arc<Heartbeat>, period: Duration, act: F)
where
    F: Fn(Arc<Heartbeat>, u32) -> Fut,
    Fut: Future<Output = client::Result<()>> + Send + 'static,
{
    let nodes = heartbeat.config.nodes;
    if nodes == 0 {
        return;
    }
    let flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut start = Instant::now();
    loop {
        for number in 0..nodes {
            tokio::time::sleep_until(start + period * number / nodes).await;
            // A slow server is not asked for more than it can do.
            let Ok(permit) = flight.clone().acquire_owned().await else { return };
            let act = act(heartbeat.clone(), number);
            let name = node::name(&heartbeat.config, number);
            tokio::spawn(async move {
                if let Err(error) = act.await {
                    tracing::warn!(node = %name, %error, "a heartbeat failed");
                }
                drop(permit);
            });
        }
        start += period;
    }
}

impl Heartbeat {
    fn client(&self, number: u32) -> &Client {
        &self.clients[number as usize % self.clients.len()]
    }

    async fn register_all(&self) {
        let all = futures::stream::iter(0..self.config.nodes).map(|number| async move {
            while let Err(error) = self.register(number).await {
                tracing::warn!(node = %node::name(&self.config, number), %error, "not registered");
                tokio::time::sleep(AGAIN).await;
            }
        });
        all.buffer_unordered(IN_FLIGHT).collect::<Vec<()>>().await;
    }

    /// Creates the node and its lease; what is left of an earlier run is taken over.
    async fn register(&self, number: u32) -> client::Result<()> {
        let nodes = self.client(number).all::<Node>();
        let wanted = node::node(&self.config, number, now());
        let uid = match nodes.create(&wanted).await {
            Ok(node) => node.metadata.uid,
            Err(error) if error.is_already_exists() => {
                self.report(number).await?;
                nodes.get(&wanted.metadata.name).await?.metadata.uid
            }
            Err(error) => return Err(error),
        };
        let leases = self.client(number).namespaced::<Lease>("kube-node-lease");
        let lease = node::lease(&self.config, number, &uid, now_micro());
        let lease = match leases.create(&lease).await {
            Err(error) if error.is_already_exists() => leases.get(&lease.metadata.name).await?,
            other => other?,
        };
        *self.beating[number as usize].lease.lock() = Some(lease);
        Ok(())
    }

    async fn renew(&self, number: u32) -> client::Result<()> {
        let memory = &self.beating[number as usize].lease;
        let leases = self.client(number).namespaced::<Lease>("kube-node-lease");
        let known = memory.lock().take();
        let mut lease = match known {
            Some(lease) => lease,
            // The last renewal failed, or is still under way.
            None => leases.get(&node::name(&self.config, number)).await?,
        };
        lease.spec.renew_time = Some(now_micro());
        let renewed = leases.update(&lease).await?;
        *memory.lock() = Some(renewed);
        Ok(())
    }

    async fn report(&self, number: u32) -> client::Result<()> {
        let conditions = node::conditions(self.since, now());
        let patch = Patch::Strategic(json!({"status": {"conditions": conditions}}));
        let nodes = self.client(number).all::<Node>();
        nodes.patch_status(&node::name(&self.config, number), &patch, &PatchParams::default()).await.map(drop)
    }
}
