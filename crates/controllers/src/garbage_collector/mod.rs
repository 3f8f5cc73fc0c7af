//! Deletes what has lost its owners, in the background or in the foreground, or lets it go. Upstream: `garbagecollector`.
//!
//! [`monitors`] follow the metadata of every resource, custom ones included, into the [`graph`]; what a change of the
//! graph makes doubtful, workers look at: every decision rests on what the server says then, not on the graph.

mod absent;
mod act;
mod graph;
#[cfg(test)]
mod graph_tests;
mod monitors;
mod names;
mod plan;
mod resources;
mod world;

use crate::Context;
use act::{Act, Error, Looked};
use client::controller::{Outcome, Writes, run as work};
use client::discovery::discover;
use client::{Client, Queue, Recorder};
use component::metrics::{Counter, Opts, Stability};
use monitors::Monitors;
use names::Uid;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use world::World;

const WORKERS: usize = 20;
/// How long work waits for new monitors before it goes on without them.
const SYNC: Duration = Duration::from_secs(30);
/// When discovery is asked again after a definition changed: the server may serve it a little later than it says so.
const AGAIN: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(5)];
/// How long a server that does not answer is left alone.
const RETRY: Duration = Duration::from_secs(5);

struct Loop {
    act: Act,
    world: Arc<World>,
    /// Whether the graph is whole.
    ready: watch::Receiver<bool>,
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let Context { client, metrics, shutdown, .. } = context;
    let recorder = Recorder::new(client.clone(), "garbage-collector-controller", "");
    let world = Arc::new(World {
        graph: Default::default(),
        resources: Default::default(),
        delete: Queue::default(),
        orphan: Queue::default(),
        recorder,
    });
    let failures = metrics.counter_vec(
        Opts {
            name: "garbagecollector_controller_resources_sync_error_total",
            help: "Number of garbage collector resources sync errors",
            stability: Stability::Alpha,
        },
        &[],
    );
    let (ready, gate) = watch::channel(false);
    let monitors = Monitors::new(world.clone(), client::source::of(&client));
    let keep = keep_up(client.clone(), world.clone(), monitors, ready, failures.with(&[]));
    let act = Act { client, world: world.clone() };
    let this = Arc::new(Loop { act, world: world.clone(), ready: gate });
    let delete = {
        let this = this.clone();
        work(
            "garbage_collector_attempt_to_delete",
            world.delete.clone(),
            Writes::default(),
            WORKERS,
            shutdown.clone(),
            move |uid| {
                let this = this.clone();
                async move { this.delete(&uid).await }
            },
        )
    };
    let orphan = work(
        "garbage_collector_attempt_to_orphan",
        world.orphan.clone(),
        Writes::default(),
        WORKERS,
        shutdown,
        move |uid| {
            let this = this.clone();
            async move { this.orphan(&uid).await }
        },
    );
    tokio::select! {
        () = keep => {}
        _ = async { tokio::join!(delete, orphan) } => {}
    }
}

/// Follows the resources that there are.
async fn keep_up(
    client: Client,
    world: Arc<World>,
    mut monitors: Monitors,
    ready: watch::Sender<bool>,
    failures: Counter,
) {
    let definitions = monitors.definitions.clone();
    loop {
        let changed = Instant::now();
        let mut step = 0;
        loop {
            let Some(after) = AGAIN.get(step) else {
                definitions.notified().await;
                break;
            };
            tokio::select! {
                () = tokio::time::sleep_until(changed + *after) => {}
                () = definitions.notified() => break,
            }
            let discovered = match discover(&client).await {
                Ok(discovered) => discovered,
                Err(error) => {
                    failures.inc();
                    tracing::warn!(%error, "could not discover the resources");
                    tokio::time::sleep(RETRY).await;
                    break;
                }
            };
            world.resources.learn(&discovered);
            if monitors.update(&discovered) {
                ready.send_replace(false);
                if tokio::time::timeout(SYNC, monitors.synced()).await.is_err() {
                    failures.inc();
                    tracing::warn!("not every resource could be read; collecting garbage without these");
                }
            }
            ready.send_replace(true);
            step += 1;
        }
    }
}

impl Loop {
    async fn whole(&self) {
        // The sender lives as long as the controller.
        let _ = self.ready.clone().wait_for(|ready| *ready).await;
    }

    async fn delete(&self, uid: &Uid) -> Result<Outcome, Error> {
        self.whole().await;
        let Some(view) = self.world.graph.lock().look(uid) else { return Ok(Outcome::Done) };
        match self.act.look(&view).await {
            Ok(Looked::Absent) => {
                self.world.change(|graph| graph.absent(&view.at));
                Ok(Outcome::Done)
            }
            // It will not get better by trying again.
            Err(Error::NamespacedOwner) => Ok(Outcome::Done),
            Err(error) => Err(error),
            // It is there, but was not seen: without another look its node could stay for ever.
            Ok(Looked::Done) if view.is_virtual => Err(Error::Unseen),
            Ok(Looked::Done) => Ok(Outcome::Done),
        }
    }

    async fn orphan(&self, uid: &Uid) -> Result<Outcome, Error> {
        self.whole().await;
        let Some(view) = self.world.graph.lock().look(uid) else { return Ok(Outcome::Done) };
        self.act.orphan(&view).await?;
        Ok(Outcome::Done)
    }
}
