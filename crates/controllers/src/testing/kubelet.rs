//! Hollow nodes: they bind pods, start them and end them after set times, as scheduler and kubelet together would.

use super::Api;
use apimachinery::json;
use apimachinery::value::Value;
use client::Resource;
use client::source::{Query, Source as _};
use futures::StreamExt as _;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How long pods take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub start: Duration,
    pub stop: Duration,
    /// Whether pods start at all.
    pub starts: bool,
}

/// Runs until the runtime ends.
pub(crate) async fn run(
    api: Api,
    clock: Arc<dyn apimachinery::clock::Clock>,
    mut pace: watch::Receiver<Pace>,
) {
    let mut feed = api.open(Query::all(Resource::new("", "v1", "pods")));
    let mut seen: HashSet<(String, &'static str)> = HashSet::new();
    loop {
        tokio::select! {
            item = feed.next() => if item.is_none() { return },
            changed = pace.changed() => if changed.is_err() { return },
        }
        let pace = *pace.borrow();
        for pod in api.list("pods") {
            let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
            let (name, uid) = (text("name"), text("uid"));
            let (api, clock) = (api.clone(), clock.clone());
            if !pod["metadata"]["deletionTimestamp"].is_null() {
                if seen.insert((uid.clone(), "stop")) {
                    tokio::spawn(async move {
                        tokio::time::sleep(pace.stop).await;
                        stop(&api, &name, &uid);
                    });
                }
            } else if pace.starts && seen.insert((uid.clone(), "start")) {
                tokio::spawn(async move {
                    tokio::time::sleep(pace.start).await;
                    start(&api, &name, &uid, clock.now().into());
                });
            }
        }
    }
}

fn find(api: &Api, name: &str, uid: &str) -> Option<Value> {
    api.list("pods").into_iter().find(|pod| pod["metadata"]["name"] == name && pod["metadata"]["uid"] == uid)
}

/// The node that a pod must go to, or the one with the fewest pods.
fn node_for(api: &Api, pod: &Value) -> Option<String> {
    let terms =
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0";
    let fixed = pod.pointer(terms).and_then(|term| term["matchFields"][0]["values"][0].as_str());
    if let Some(fixed) = fixed {
        return Some(fixed.to_owned());
    }
    let pods = api.list("pods");
    let names =
        api.list("nodes").into_iter().filter_map(|n| Some(n["metadata"]["name"].as_str()?.to_owned()));
    names.min_by_key(|name| pods.iter().filter(|pod| pod["spec"]["nodeName"] == name.as_str()).count())
}

/// A pod that runs and is ready.
fn start(api: &Api, name: &str, uid: &str, now: apimachinery::time::Time) {
    let Some(pod) = find(api, name, uid).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()) else {
        return;
    };
    let node = node_for(api, &pod).unwrap_or_else(|| "node".into());
    api.edit("pods", name, |pod| {
        pod["spec"]["nodeName"] = json!(node);
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now.to_string()});
        pod["status"] = json!({
            "phase": "Running", "startTime": now.to_string(),
            "conditions": [condition("PodScheduled"), condition("Ready"), condition("ContainersReady")],
        });
    });
}

/// A pod that was asked to end has ended.
fn stop(api: &Api, name: &str, uid: &str) {
    let Some(pod) = find(api, name, uid) else { return };
    if pod["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
        api.remove("pods", name);
        return;
    }
    api.edit("pods", name, |pod| {
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        if pod["status"]["phase"] != "Succeeded" {
            pod["status"]["phase"] = json!("Failed");
        }
    });
}
