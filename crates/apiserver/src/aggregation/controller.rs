//! Keeps the APIServices: the server's own exist and are available; others' are asked how they are, and what they serve.

use super::measures::Measures;
use super::{Aggregation, Remote, local};
use crate::metrics_api;
use crate::outbound::Target;
use crate::registry::{DeleteOutcome, WriteContext};
use crate::resources::Served;
use crate::server::Server;
use crate::user::{MASTERS, User};
use apimachinery::json;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use apimachinery::value::Value;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use std::sync::Arc;
use std::time::Duration;

/// How often another server is asked how it is (upstream's resync), and how long it may take to answer.
const EVERY: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 16 << 20;
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// The keeper of the APIServices.
pub struct Controller {
    server: Arc<Server>,
    aggregation: Arc<Aggregation>,
    resource: Arc<Served>,
    user: User,
    measures: Measures,
}

/// What was read of another server.
pub(super) struct Fetched {
    pub status: StatusCode,
    pub etag: Option<String>,
    pub bytes: Bytes,
}

/// Whether a server is available: status, reason and message.
type Availability = (&'static str, &'static str, String);

impl Controller {
    /// Makes the server's own APIServices, then keeps all of them until the server's shutdown.
    pub async fn start(server: Arc<Server>, aggregation: Arc<Aggregation>) -> Result<(), Status> {
        let found = server.registry.resources.get("apiregistration.k8s.io", "v1", "apiservices");
        let Some(resource) = found else { return Ok(()) };
        let user = User::new("system:apiserver", &[MASTERS]);
        let measures = Measures::new(&server.metrics);
        let controller = Controller { server, aggregation, resource, user, measures };
        controller.register().await?;
        tokio::spawn(async move {
            let shutdown = controller.server.shutdown.clone();
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = controller.run() => {}
            }
        });
        Ok(())
    }

    fn context<'a>(&'a self, subresource: &'a str) -> WriteContext<'a> {
        WriteContext::own(&self.user, &self.resource, "", subresource)
    }

    async fn run(&self) {
        let mut changes = self.server.documents.changes();
        loop {
            let store = &self.server.registry.store;
            let snapshot = store.snapshot(&self.resource.prefix);
            let Ok(mut watch) = store.watch(&self.resource.prefix, snapshot.revision) else { return };
            if let Err(status) = self.sync().await {
                tracing::warn!(%status, "keeping the APIServices");
            }
            // What is written, what is served, and how others are: whichever comes first.
            tokio::select! {
                events = watch.next_batch() => {
                    if let Err(store::Error::Closed) = events {
                        return;
                    }
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if let Err(status) = self.register().await {
                        tracing::warn!(%status, "registering APIServices");
                    }
                }
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn all(&self) -> Result<Vec<Value>, Status> {
        let snapshot = self.server.registry.store.snapshot(&self.resource.prefix);
        let entries = snapshot.entries.values();
        entries.map(|entry| crate::registry::decode(&self.resource, entry).map(|s| s.value)).collect()
    }

    /// Makes the APIServices of what is served here, and removes those of what was.
    async fn register(&self) -> Result<(), Status> {
        let wanted = local::wanted(&self.server.registry.resources, self.server.rooms.metrics.is_some());
        let existing = self.all()?;
        let registry = &self.server.registry;
        for object in &existing {
            let name = crate::object::name(object);
            // Only what was made for a definition goes with it.
            let ours = object["metadata"]["labels"][local::MANAGED] == "true";
            if ours && !wanted.contains_key(name) {
                match registry.delete(&self.context(""), name, &DeleteOptions::default()).await {
                    Ok(DeleteOutcome::Gone(_) | DeleteOutcome::Pending(_)) => {}
                    Err(status) if status.is_not_found() => {}
                    Err(status) => return Err(status),
                }
            }
        }
        for (name, object) in wanted {
            if existing.iter().any(|o| crate::object::name(o) == name) {
                continue;
            }
            let context = self.context("");
            let object = registry.normalise(context.resource, object)?;
            match registry.create(&context, object).await {
                Ok(_) => {}
                Err(status) if status.code == 409 => {}
                Err(status) => return Err(status),
            }
            self.note(&name, &local_availability()).await?;
        }
        Ok(())
    }

    /// Brings conditions, routes and documents into line with the APIServices.
    async fn sync(&self) -> Result<(), Status> {
        let objects = self.all()?;
        let mut remotes = std::collections::BTreeMap::new();
        let (mut local_metrics, mut found) = (None, Vec::new());
        self.measures.forget(&objects);
        for object in &objects {
            let name = crate::object::name(object);
            let spec = &object["spec"];
            let text = |key: &str| spec[key].as_str().unwrap_or_default().to_owned();
            let gv = (text("group"), text("version"));
            let Some(mut remote) = Remote::of(spec) else {
                self.measures.is_available(name, true);
                self.note_change(object, &local_availability()).await?;
                if gv.0 == metrics_api::GROUP && self.server.rooms.metrics.is_some() {
                    // What is no kept resource is told of like another server's.
                    local_metrics = Some((gv, Remote::local(metrics_api::resources())));
                }
                continue;
            };
            if let Some(known) = self.aggregation.remote(&gv.0, &gv.1).filter(|k| k.is_same(&remote)) {
                remote = known;
            }
            let number = |key: &str| spec[key].as_i64().unwrap_or_default();
            remote.priority = (number("groupPriorityMinimum"), number("versionPriority"));
            let availability = self.ask(&gv.0, &gv.1, &mut remote).await;
            remote.available = availability.0 == "True";
            self.measures.is_available(name, remote.available);
            remotes.insert(gv, remote);
            found.push((object, availability));
        }
        *self.aggregation.remotes.write() = remotes;
        let mut foreign = self.aggregation.remotes();
        foreign.extend(local_metrics);
        self.server.documents.publish_foreign(foreign);
        // Whoever sees a server available finds it told of.
        for (object, availability) in found {
            match self.note_change(object, &availability).await {
                Err(status) if !status.is_not_found() => {
                    let name = crate::object::name(object);
                    tracing::warn!(apiservice = name, %status, "writing an APIService's status");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Asks a server how it is and what it serves.
    async fn ask(&self, group: &str, version: &str, remote: &mut Remote) -> Availability {
        let (name, namespace) = (&remote.service, &remote.namespace);
        let services = self.server.registry.resources.get("", "v1", "services");
        let service = services.and_then(|s| self.server.registry.get(&s, namespace, name).ok());
        let Some(service) = service else {
            let why = format!("service/{name} in {namespace:?} is not present");
            return ("False", "ServiceNotFound", why);
        };
        let spec = &service.value["spec"];
        let ports = spec["ports"].as_array().cloned().unwrap_or_default();
        // Of others nobody here knows where they listen.
        if spec["type"] == "ClusterIP"
            && !ports.iter().any(|p| p["port"].as_u64() == Some(u64::from(remote.port)))
        {
            let why = format!("service/{name} in {namespace:?} is not listening on port {}", remote.port);
            return ("False", "ServicePortError", why);
        }
        let target = match self.aggregation.target(remote) {
            Ok(target) => target,
            Err(_) => {
                let why = format!("cannot find endpoints for service/{name} in {namespace:?}");
                return ("False", "EndpointsNotFound", why);
            }
        };
        let path = format!("/apis/{group}/{version}");
        let list = match self.get(&target, &path, "application/json").await {
            Ok(list) => list,
            Err(why) => {
                let url = format!("{}{path}", target.url.trim_end_matches('/'));
                let why = format!("failing or missing response from {url}: {why}");
                return ("False", "FailedDiscoveryCheck", why);
            }
        };
        let aggregated = self.get(&target, "/apis", AGGREGATED).await.unwrap_or_default();
        remote.resources = resources_of(&aggregated, group, version).unwrap_or_else(|| converted(&list));
        self.publishes(&target, group, version, remote).await;
        ("True", "Passed", "all checks passed".into())
    }

    async fn get(&self, target: &Target, path: &str, accept: &str) -> Result<Value, String> {
        let fetched = self.fetch(target, path, accept, None).await?;
        if !fetched.status.is_success() {
            let url = target.url.trim_end_matches('/');
            return Err(format!("bad status from {url}{path}: {}", fetched.status.as_u16()));
        }
        serde_json::from_slice(&fetched.bytes).map_err(|e| e.to_string())
    }

    /// Reads a document of another server, unless it is the one with this ETag.
    pub(super) async fn fetch(
        &self,
        target: &Target,
        path: &str,
        accept: &str,
        etag: Option<&str>,
    ) -> Result<Fetched, String> {
        let call = async {
            let mut request = Request::get(path)
                .header(header::ACCEPT, accept)
                .header("x-remote-user", "system:kube-aggregator")
                .header("x-remote-group", MASTERS);
            if let Some(etag) = etag {
                request = request.header(header::IF_NONE_MATCH, etag);
            }
            let request = request.body(Default::default()).map_err(|e| e.to_string())?;
            let (parts, body) = self.aggregation.outbound.send(target, request).await?.into_parts();
            let bytes = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| e.to_string())?.to_bytes();
            let etag = parts.headers.get(header::ETAG).and_then(|etag| etag.to_str().ok());
            Ok(Fetched { status: parts.status, etag: etag.map(str::to_owned), bytes })
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(answer) => answer,
            Err(_) => Err("context deadline exceeded".into()),
        }
    }

    async fn note_change(&self, object: &Value, availability: &Availability) -> Result<(), Status> {
        let conditions = object["status"]["conditions"].as_array();
        let known = conditions.into_iter().flatten().find(|c| c["type"] == "Available");
        let (status, reason, message) = availability;
        let same = known
            .is_some_and(|c| c["status"] == *status && c["reason"] == *reason && c["message"] == *message);
        if same {
            return Ok(());
        }
        let name = crate::object::name(object);
        if *status != "True" && known.is_some_and(|c| c["status"] == "True") {
            self.measures.became_unavailable(name, reason);
        }
        self.note(name, availability).await
    }

    async fn note(&self, name: &str, (status, reason, message): &Availability) -> Result<(), Status> {
        let registry = &self.server.registry;
        let now = registry.now().to_string();
        let edit = |object: &mut Value| {
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let before = conditions.iter().find(|c| c["type"] == "Available");
            let since = before.filter(|c| c["status"] == *status).map(|c| c["lastTransitionTime"].clone());
            object["status"]["conditions"] = json!([{
                "type": "Available", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": since.unwrap_or_else(|| now.as_str().into()),
            }]);
            Ok(())
        };
        registry.edit(&self.context("status"), name, &edit).await.map(|_| ())
    }
}

fn local_availability() -> Availability {
    ("True", "Local", "Local APIServices are always available".into())
}

/// The resources of a group version in an aggregated document.
fn resources_of(document: &Value, group: &str, version: &str) -> Option<Value> {
    let groups = document["items"].as_array()?;
    let found = groups.iter().find(|g| g["metadata"]["name"] == *group)?;
    let found = found["versions"].as_array()?.iter().find(|v| v["version"] == *version)?;
    Some(found["resources"].clone())
}

/// The resources of a classic list, as aggregated documents have them.
fn converted(list: &Value) -> Value {
    let all = || list["resources"].as_array().into_iter().flatten();
    let name = |r: &Value| r["name"].as_str().unwrap_or_default().to_owned();
    let text = |r: &Value, key: &str| r[key].as_str().unwrap_or_default().to_owned();
    let kind = |r: &Value| json!({"group": text(r, "group"), "version": text(r, "version"), "kind": text(r, "kind")});
    let resources = all().filter(|r| !name(r).contains('/')).map(|r| {
        let prefix = format!("{}/", name(r));
        let subresources: Vec<Value> = all()
            .filter_map(|s| {
                let subresource = name(s).strip_prefix(&prefix)?.to_owned();
                Some(json!({"subresource": subresource, "responseKind": kind(s), "verbs": s["verbs"]}))
            })
            .collect();
        let mut out = json!({
            "resource": name(r), "responseKind": kind(r), "singularResource": text(r, "singularName"),
            "scope": if r["namespaced"] == true { "Namespaced" } else { "Cluster" },
            "verbs": r["verbs"],
        });
        for key in ["shortNames", "categories"] {
            if r[key].is_array() {
                out[key] = r[key].clone();
            }
        }
        if !subresources.is_empty() {
            out["subresources"] = subresources.into();
        }
        out
    });
    resources.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classic_lists_become_aggregated_ones() {
        let list = json!({"resources": [
            {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
            {"name": "nodes/x", "singularName": "", "namespaced": false, "kind": "X", "verbs": ["get"]},
        ]});
        let expected = json!([{
            "resource": "nodes", "responseKind": {"group": "", "version": "", "kind": "NodeMetrics"},
            "singularResource": "", "scope": "Cluster", "verbs": ["get", "list"],
            "subresources": [{"subresource": "x", "responseKind": {"group": "", "version": "", "kind": "X"}, "verbs": ["get"]}],
        }]);
        assert_eq!(converted(&list), expected);
        assert_eq!(resources_of(&json!({"items": []}), "a", "v1"), None);
    }
}
