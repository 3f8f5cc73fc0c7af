//! The writes: conditions, taints, the readiness of pods; and what is told and counted.

use super::NodeFacts;
use super::zones::Counts;
use crate::WallClock;
use api::core::v1::{Node, ObjectReference, Pod, Taint};
use apimachinery::json;
use apimachinery::value::Value;
use client::controller::Writes;
use client::recorder::EventType;
use client::{Client, Informer, ObjectKey, Patch, PatchParams, Recorder, Result};
use component::metrics::{CounterVec, GaugeVec, Histogram, Opts, Registry, Stability};
use rules::pod_conditions;

pub(super) struct Metrics {
    pub evictions: CounterVec,
    pub update_node: Histogram,
    zone_health: GaugeVec,
    zone_size: GaugeVec,
    unhealthy: GaugeVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        let evictions = Opts {
            name: "node_collector_evictions_total",
            help: "Number of Node evictions that happened since current instance of NodeController started.",
            stability: Stability::Stable,
        };
        let update = alpha(
            "node_collector_update_node_health_duration_seconds",
            "Duration in seconds for NodeController to update the health of a single node.",
        );
        let gauge = |name, help| registry.gauge_vec(alpha(name, help), &["zone"]);
        let buckets: Vec<f64> = (0..8).map(|i| 0.001 * 4_f64.powi(i)).collect();
        Metrics {
            evictions: registry.counter_vec(evictions, &["zone"]),
            update_node: registry.histogram_vec(update, &[], &buckets).with(&[]),
            zone_health: gauge(
                "node_collector_zone_health",
                "Gauge measuring percentage of healthy nodes per zone.",
            ),
            zone_size: gauge(
                "node_collector_zone_size",
                "Gauge measuring number of registered Nodes per zones.",
            ),
            unhealthy: gauge(
                "node_collector_unhealthy_nodes_in_zone",
                "Gauge measuring number of not Ready Nodes per zones.",
            ),
        }
    }

    pub(super) fn show(&self, counts: &Counts) {
        for (zone, (ready, not_ready)) in counts {
            let (ready, not_ready) = (*ready as f64, *not_ready as f64);
            self.evictions.with(&[zone]);
            self.zone_size.with(&[zone]).set(ready + not_ready);
            self.zone_health.with(&[zone]).set(100.0 * ready / (ready + not_ready));
            self.unhealthy.with(&[zone]).set(not_ready);
        }
    }
}

pub(super) struct Act {
    pub client: Client,
    pub clock: WallClock,
    pub recorder: Recorder,
    pub writes: Writes<ObjectKey>,
    pub nodes: Informer<NodeFacts>,
    pub metrics: Metrics,
}

fn about(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        kind: "Node".into(),
        api_version: "v1".into(),
        name: name.into(),
        uid: uid.into(),
        ..Default::default()
    }
}

impl Act {
    /// `text` has `{}` for the node's name.
    pub(super) fn tell(&self, name: &str, uid: &str, reason: &str, text: &str) {
        let text = format!("Node {name} event: {}", text.replace("{}", name));
        self.recorder.event(&about(name, uid), EventType::Normal, reason, text);
    }

    pub(super) fn status_changed(&self, node: &Node) {
        let meta = &node.metadata;
        let text = format!("Node {} status is now: NodeNotReady", meta.name);
        self.recorder.event(&about(&meta.name, &meta.uid), EventType::Normal, "NodeNotReady", text);
    }

    pub(super) async fn write_status(&self, key: &ObjectKey, node: &Node) -> Result<Node> {
        let written = self.client.all::<Node>().update_status(node).await?;
        self.writes.note(key, &self.nodes, &written.metadata.resource_version);
        Ok(written)
    }

    /// Writes taints and labels, if the node is still as it was looked at.
    pub(super) async fn patch(
        &self,
        key: &ObjectKey,
        node: &Node,
        taints: Option<Vec<Taint>>,
        labels: Option<Value>,
    ) -> Result<()> {
        if taints.is_none() && labels.is_none() {
            return Ok(());
        }
        let mut patch = json!({"metadata": {"resourceVersion": node.metadata.resource_version}});
        if let Some(taints) = taints {
            patch["spec"] = json!({"taints": taints});
        }
        if let Some(labels) = labels {
            patch["metadata"]["labels"] = labels;
        }
        let api = self.client.all::<Node>();
        match api.patch(&key.name, &Patch::Merge(patch), &PatchParams::default()).await {
            Ok(written) => self.writes.note(key, &self.nodes, &written.metadata.resource_version),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Says of pods whose node fell silent that they are not ready.
    pub(super) async fn mark_pods_not_ready(
        &self,
        pods: impl Iterator<Item = &ObjectKey>,
        node: &str,
    ) -> Result<()> {
        for key in pods {
            let api = self.client.namespaced::<Pod>(&key.namespace);
            let Some(mut pod) = api.get_opt(&key.name).await? else { continue };
            let ready = pod_conditions::find(&pod.status.conditions, pod_conditions::READY);
            let Some(ready) = ready.filter(|ready| ready.status == "True") else { continue };
            if pod.spec.node_name != node {
                continue;
            }
            let not_ready = api::core::v1::PodCondition { status: "False".into(), ..ready.clone() };
            pod_conditions::set(&mut pod.status.conditions, not_ready, self.clock.now());
            match api.update_status(&pod).await {
                Err(error) if error.is_not_found() => continue,
                done => drop(done?),
            }
            self.recorder.warning(&pod, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}
