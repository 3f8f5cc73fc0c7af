//! When the machine shuts down, pods end in good order before it does: logind is asked to wait, the node says that it is
//! going, takes nobody in, and ends its pods, the least important first. Upstream: `pkg/kubelet/nodeshutdown`.

mod logind;
pub(crate) mod plan;

use crate::config::ShutdownPeriod;
use crate::context::Context;
use crate::pod_worker::{Forced, Mailbox};
use crate::pods::Pods;
use crate::saved;
use api::core::v1::{Pod, PodCondition};
use apimachinery::time::MicroTime;
use client::recorder::EventType;
use futures::future::join_all;
use logind::{Lock, Logind};
use rules::pod_conditions::{DISRUPTION_TARGET, is_terminal};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What a node that is going says of itself, as the reason for which it is not ready.
pub(crate) const SHUTTING_DOWN: &str = "node is shutting down";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
const STATE: &str = "graceful_node_shutdown_state";
/// How long after a lost connection another is tried, at first and at most.
const RECONNECT: Duration = Duration::from_secs(1);
const RECONNECT_MOST: Duration = Duration::from_secs(60);
/// Logind reads its files some time after it was told to.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 5;

/// When the last graceful shutdown began and ended, which the metrics tell after the next start.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    start_time: Option<MicroTime>,
    end_time: Option<MicroTime>,
}

/// Whether a new pod may come in. Upstream: `managerImpl.Admit`.
pub(crate) fn admit(going: bool) -> Result<(), Forced> {
    if !going {
        return Ok(());
    }
    Err(Forced {
        reason: "NodeShutdown".into(),
        message: "Pod was rejected as the node is shutting down.".into(),
        ..Default::default()
    })
}

/// Watches until shutdown of the kubelet, if it was told to.
pub(crate) async fn run(context: Arc<Context>, pods: Arc<Pods>, shutdown: CancellationToken) {
    if context.config.shutdown_periods.is_empty() {
        return;
    }
    let mut manager = Manager { context, pods, lock: None };
    manager.show_state();
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = manager.watch() => {}
    }
}

struct Manager {
    context: Arc<Context>,
    pods: Arc<Pods>,
    lock: Option<Lock>,
}

impl Manager {
    fn periods(&self) -> &[ShutdownPeriod] {
        &self.context.config.shutdown_periods
    }

    async fn watch(&mut self) {
        let mut began = false;
        let mut pause = RECONNECT;
        loop {
            match self.start().await {
                Ok(mut logind) => {
                    (began, pause) = (true, RECONNECT);
                    let error = loop {
                        match logind.next().await {
                            Ok(going) => self.follow(going, &mut logind).await,
                            Err(error) => break error,
                        }
                    };
                    self.lock = None;
                    tracing::error!(error, "Ended to watching the node for shutdown events");
                }
                // A machine without logind will not get one.
                Err(error) if !began => {
                    tracing::error!(error, "Failed to start node shutdown manager");
                    return;
                }
                Err(error) => tracing::error!(error, "Unable to watch the node for shutdown events"),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RECONNECT_MOST);
        }
    }

    /// Has logind wait, for long enough.
    async fn start(&mut self) -> Result<Logind, String> {
        let mut logind = Logind::connect(self.context.config.system_bus.as_deref()).await?;
        let wanted = plan::total(self.periods());
        if wanted > logind.inhibit_delay().await? {
            let overridden =
                logind.override_inhibit_delay(&self.context.config.logind_config_dir, wanted).await;
            overridden
                .map_err(|error| format!("unable to override inhibit delay by shutdown manager: {error}"))?;
            let mut pause = FIRST_LOOK;
            let mut looks = 1;
            let mut has = logind.inhibit_delay().await?;
            while has < wanted && looks < LOOKS {
                tokio::time::sleep(pause).await;
                (pause, looks) = (pause * 2, looks + 1);
                has = logind.inhibit_delay().await?;
            }
            if has < wanted {
                let shown = |time: Duration| apimachinery::time::Duration::from(time);
                return Err(format!(
                    "node shutdown manager was timed out after {looks} attempts waiting for logind InhibitDelayMaxSec to update to {} (ShutdownGracePeriod), current value is {}",
                    shown(wanted),
                    shown(has)
                ));
            }
        }
        // Who has the lock and does not listen holds the machine up, and ends nothing.
        logind.watch().await?;
        self.lock = Some(logind.inhibit().await?);
        Ok(logind)
    }

    async fn follow(&mut self, going: bool, logind: &mut Logind) {
        let message = match going {
            true => "Shutdown manager detected shutdown event",
            false => "Shutdown manager detected shutdown cancellation",
        };
        tracing::info!("{message}");
        let node = &self.context.config.node_name;
        self.context.events.node(node, EventType::Normal, "NodeShutdown", message);
        // The node's status follows it.
        self.context.shutting_down.send_replace(going);
        if going {
            self.end_pods().await;
            self.lock = None;
            tracing::info!(
                "Shutdown manager completed processing shutdown event, node will shutdown shortly"
            );
        } else {
            match logind.inhibit().await {
                Ok(lock) => self.lock = Some(lock),
                Err(error) => tracing::error!(error, "the shutdown after this one will not wait"),
            }
        }
    }

    async fn end_pods(&self) {
        let metrics = &self.context.metrics;
        let start = now();
        self.remember(&State { start_time: Some(start), end_time: None });
        metrics.graceful_shutdown_start.set(seconds(start));
        metrics.graceful_shutdown_end.set(0.0);
        let active = self.pods.list().into_iter().filter(|mailbox| !is_terminal(&mailbox.status().phase));
        let active: Vec<Arc<Pod>> = active.map(|mailbox| mailbox.letter().pod).collect();
        for (period, pods) in plan::groups(self.periods(), active) {
            let mailboxes: Vec<Arc<Mailbox>> =
                pods.iter().filter_map(|pod| self.pods.get(&pod.metadata.uid)).collect();
            for mailbox in &mailboxes {
                let pod = mailbox.letter().pod;
                let grace = plan::grace(&pod, period);
                let shown = crate::labels::format_pod(&pod);
                tracing::info!(pod = %shown, grace, "Shutdown manager killing pod with gracePeriod");
                mailbox.write(|letter| letter.forced = Some(forced(&pod, grace)));
            }
            if mailboxes.is_empty() {
                continue;
            }
            let time = Duration::from_secs(u64::try_from(period.seconds).unwrap_or(0));
            let ended = join_all(mailboxes.iter().map(|mailbox| mailbox.ended()));
            if tokio::time::timeout(time, ended).await.is_err() {
                let (grace, priority) = (period.seconds, period.priority);
                tracing::info!(grace, priority, "Shutdown manager pod killing time out");
            }
        }
        let end = now();
        self.remember(&State { start_time: Some(start), end_time: Some(end) });
        metrics.graceful_shutdown_end.set(seconds(end));
    }

    fn remember(&self, state: &State) {
        if let Err(error) = saved::replace(&self.context.config.root_dir.join(STATE), state) {
            tracing::error!(%error, "Failed to store graceful shutdown state");
        }
    }

    fn show_state(&self) {
        let bytes = std::fs::read(self.context.config.root_dir.join(STATE)).unwrap_or_default();
        let Ok(state) = serde_json::from_slice::<State>(&bytes) else { return };
        let metrics = &self.context.metrics;
        metrics.graceful_shutdown_start.set(state.start_time.map_or(0.0, seconds));
        metrics.graceful_shutdown_end.set(state.end_time.map_or(0.0, seconds));
    }
}

fn now() -> MicroTime {
    MicroTime::from_unix_micros(crate::clock::now() / 1000)
}

fn seconds(time: MicroTime) -> f64 {
    time.unix_micros() as f64 / 1e6
}

/// What becomes of a pod that ends with its node.
fn forced(pod: &Pod, grace: i64) -> Forced {
    let condition = PodCondition {
        type_: DISRUPTION_TARGET.into(),
        observed_generation: pod.metadata.generation,
        status: "True".into(),
        reason: "TerminationByKubelet".into(),
        message: MESSAGE.into(),
        last_transition_time: Some(crate::clock::time()),
        ..Default::default()
    };
    Forced {
        reason: "Terminated".into(),
        message: MESSAGE.into(),
        grace: Some(grace),
        condition: Some(Box::new(condition)),
        spares_success: true,
    }
}
