//! The Metrics API (`metrics.k8s.io`), answered in this process: what `kubectl top` and autoscalers ask for, without a
//! deployment. It asks the kubelets when it is asked itself; a rate takes two readings, of which the first may be that of
//! the question before. An APIService that names a Service (metrics-server) takes its place. Upstream: metrics-server.

mod sample;

use crate::body::{self, Answer};
use crate::request::RequestInfo;
use crate::rooms::kubelet_get;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupResource;
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::status::Status;
use apimachinery::time::Timestamp;
use apimachinery::value::Value;
use futures::future::join_all;
use http::StatusCode;
use sample::{Pair, Sample};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

pub(crate) const GROUP: &str = "metrics.k8s.io";
pub(crate) const VERSION: &str = "v1beta1";
/// A pair of readings this young answers again.
const FRESH: Duration = Duration::from_secs(10);
/// A reading older than this is no longer the first of a pair.
const STALE: Duration = Duration::from_secs(120);
/// How far two readings must lie apart.
const APART: Duration = Duration::from_secs(1);
/// A kubelet that takes longer is left out.
const PATIENCE: Duration = Duration::from_secs(5);
const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";

/// The newest readings of every node.
#[derive(Debug, Default)]
pub struct MetricsApi {
    /// Held while kubelets are asked: who asks meanwhile gets the same readings.
    nodes: tokio::sync::Mutex<HashMap<String, Known>>,
}

/// What is known of a node: one reading, or two.
#[derive(Debug, Clone)]
struct Known {
    before: Option<Sample>,
    after: Sample,
}

/// The resources, as aggregated discovery tells of them.
pub(crate) fn resources() -> Value {
    let one = |resource: &str, kind: &str, scope: &str| {
        json!({
            "resource": resource, "scope": scope, "singularResource": "", "verbs": ["get", "list"],
            "responseKind": { "group": GROUP, "version": VERSION, "kind": kind },
        })
    };
    json!([one("nodes", "NodeMetrics", "Cluster"), one("pods", "PodMetrics", "Namespaced")])
}

fn is_list_of_resources(info: &RequestInfo) -> bool {
    info.path.trim_end_matches('/') == format!("/apis/{GROUP}/{VERSION}")
}

/// The resources, as unaggregated discovery tells of them.
fn resource_list() -> Value {
    let one = |name: &str, kind: &str, namespaced: bool| json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"] });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [one("nodes", "NodeMetrics", false), one("pods", "PodMetrics", true)],
    })
}

impl MetricsApi {
    /// Whether a request is for this API.
    pub(crate) fn concerns(&self, call: &Call) -> bool {
        let info = &call.info;
        info.is_resource && info.group == GROUP && info.version == VERSION || is_list_of_resources(info)
    }

    pub(crate) async fn serve(&self, server: &Server, call: &Call) -> Result<Answer, Status> {
        let info = &call.info;
        if is_list_of_resources(info) {
            return Ok(body::document(StatusCode::OK, &resource_list()));
        }
        let group_resource = GroupResource::new(info.group.clone(), info.full_resource());
        if !matches!(info.verb.as_str(), "get" | "list") {
            return Err(Status::method_not_supported(&group_resource, &info.verb));
        }
        let selector = info.query.get("labelSelector").unwrap_or_default();
        let selector = Selector::parse(selector)
            .map_err(|error| Status::bad_request(format!("unable to parse requirement: {error}")))?;
        let (kind, items) = match (info.resource.as_str(), info.subresource.as_str()) {
            ("nodes", "") => ("NodeMetrics", self.nodes(server, &info.name, &selector).await?),
            ("pods", "") => ("PodMetrics", self.pods(server, call, &selector).await?),
            _ => return Err(Status::path_not_found()),
        };
        let api_version = format!("{GROUP}/{VERSION}");
        if info.name.is_empty() {
            let list = json!({ "kind": format!("{kind}List"), "apiVersion": api_version, "metadata": {}, "items": items });
            return Ok(body::document(StatusCode::OK, &list));
        }
        let Some(mut item) = items.into_iter().next() else {
            return Err(Status::not_found(&group_resource, &info.name));
        };
        item["kind"] = kind.into();
        item["apiVersion"] = api_version.into();
        Ok(body::document(StatusCode::OK, &item))
    }

    async fn nodes(&self, server: &Server, name: &str, selector: &Selector) -> Result<Vec<Value>, Status> {
        let mut wanted = server.objects("", "v1", "nodes")?;
        wanted.retain(|node| name.is_empty() || crate::object::name(node) == name);
        let pairs = self.pairs(server, wanted.iter().map(|node| crate::object::name(node).to_owned())).await;
        let items = wanted.iter().filter_map(|node| {
            let pair = pairs.get(crate::object::name(node))?;
            metrics(node, selector, pair, "usage", pair.node()?)
        });
        Ok(items.collect())
    }

    async fn pods(&self, server: &Server, call: &Call, selector: &Selector) -> Result<Vec<Value>, Status> {
        let (namespace, name) = (&call.info.namespace, &call.info.name);
        let pods = server.registry.resources.get("", "v1", "pods").ok_or_else(Status::path_not_found)?;
        // One pod is on one node.
        let nodes: Vec<String> = match name.is_empty() {
            true => {
                server.objects("", "v1", "nodes")?.iter().map(|n| crate::object::name(n).to_owned()).collect()
            }
            false => {
                let pod = server.registry.get(&pods, namespace, name).map(|stored| stored.value);
                pod.ok()
                    .and_then(|pod| pod["spec"]["nodeName"].as_str().map(str::to_owned))
                    .into_iter()
                    .collect()
            }
        };
        let pairs = self.pairs(server, nodes.into_iter()).await;
        let mut items = BTreeMap::new();
        for pair in pairs.values() {
            for (key, containers) in pair.pods() {
                let fits =
                    (namespace.is_empty() || *namespace == key.0) && (name.is_empty() || *name == key.1);
                let pod = fits.then(|| server.registry.get(&pods, &key.0, &key.1).ok()).flatten();
                let item =
                    pod.and_then(|pod| metrics(&pod.value, selector, pair, "containers", containers.into()));
                items.extend(item.map(|item| (key, item)));
            }
        }
        Ok(items.into_values().collect())
    }

    /// Two readings of each node that answers.
    async fn pairs(&self, server: &Server, names: impl Iterator<Item = String>) -> HashMap<String, Pair> {
        let names: Vec<String> = names.collect();
        let mut known = self.nodes.lock().await;
        known.retain(|_, known| known.after.at.elapsed() < STALE);
        let young = |known: &Known| known.before.is_some() && known.after.at.elapsed() < FRESH;
        let due: Vec<&String> = names.iter().filter(|name| !known.get(*name).is_some_and(young)).collect();
        let first: Vec<&String> = due.iter().copied().filter(|name| !known.contains_key(*name)).collect();
        read(server, &mut known, &first).await;
        if !first.is_empty() {
            tokio::time::sleep(APART).await;
        }
        read(server, &mut known, &due).await;
        let pair = |name: String| {
            let known = known.get(&name)?;
            let pair = Pair { before: known.before.clone()?, after: known.after.clone() };
            Some((name, pair))
        };
        names.into_iter().filter_map(pair).collect()
    }
}

async fn read(server: &Server, known: &mut HashMap<String, Known>, names: &[&String]) {
    let readings = names.iter().map(|name| async move {
        let reading = tokio::time::timeout(PATIENCE, kubelet_get(server, name, SUMMARY)).await;
        let at = (Instant::now(), Timestamp::now());
        match reading {
            Ok(Ok(summary)) => Some(((*name).clone(), Sample::of(&summary, at.0, at.1))),
            Ok(Err(status)) => {
                tracing::debug!(node = name.as_str(), %status, "a node did not tell what it uses");
                None
            }
            Err(_) => None,
        }
    });
    for (name, after) in join_all(readings).await.into_iter().flatten() {
        let before = known.remove(&name).map(|known| known.after);
        known.insert(name, Known { before, after });
    }
}

/// The metrics of an object, if its labels are asked for.
fn metrics(object: &Value, selector: &Selector, pair: &Pair, what: &str, usage: Value) -> Option<Value> {
    let metadata = &object["metadata"];
    let labels: BTreeMap<String, String> =
        apimachinery::value::from_value(metadata["labels"].clone()).unwrap_or_default();
    if !selector.matches(&labels) {
        return None;
    }
    let (timestamp, window) = pair.when();
    let mut out = json!({
        "metadata": { "name": metadata["name"], "creationTimestamp": timestamp },
        "timestamp": timestamp,
        "window": window,
    });
    for key in ["namespace", "labels"] {
        if !metadata[key].is_null() {
            out["metadata"][key] = metadata[key].clone();
        }
    }
    out[what] = usage;
    Some(out)
}
