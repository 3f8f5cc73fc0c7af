//! An API server in memory: enough of create, get, update, strategic patch, delete and feeds for a kubelet.

use api::core::v1::{Event, Pod};
use apimachinery::json;
use apimachinery::value::Value;
use bytes::Bytes;
use client::source::{Feed, Query, Raw, Source};
use client::transport::{ResponseBody, Transport};
use client::{Error, ObjectKey};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{broadcast, watch};

struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    /// Path, object, and whether it is gone.
    pub(crate) changes: broadcast::Sender<(String, Value, bool)>,
    pub(crate) changed: watch::Sender<u64>,
}

impl Api {
    pub(crate) fn new() -> Self {
        let state = State { revision: 1, objects: BTreeMap::new() };
        Api {
            state: Arc::new(Mutex::new(state)),
            changes: broadcast::channel(1024).0,
            changed: watch::Sender::new(0),
        }
    }

    /// Writes an object at its path.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.put_into(&mut self.state.lock().unwrap(), path, object)
    }

    /// Changes an object in one step: kubelet and test do so at the same time.
    pub(crate) fn edit(&self, path: &str, change: impl FnOnce(Value) -> Value) -> Option<Value> {
        let mut state = self.state.lock().unwrap();
        let old = state.objects.get(path)?.clone();
        Some(self.put_into(&mut state, path, change(old)))
    }

    fn put_into(&self, state: &mut State, path: &str, mut object: Value) -> Value {
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", state.revision));
        }
        state.objects.insert(path.to_owned(), object.clone());
        let _ = self.changes.send((path.to_owned(), object.clone(), false));
        self.changed.send_replace(state.revision);
        object
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        if let Some(mut object) = state.objects.remove(path) {
            object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            let _ = self.changes.send((path.to_owned(), object, true));
        }
        self.changed.send_replace(state.revision);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        apimachinery::value::from_value(self.get(&format!("/api/v1/namespaces/default/pods/{name}"))?).ok()
    }

    /// Events so far as `reason: message`.
    pub(crate) fn events(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let events = state.objects.iter().filter(|(path, _)| path.contains("/events/"));
        let mut all: Vec<Event> =
            events.filter_map(|(_, v)| apimachinery::value::from_value(v.clone()).ok()).collect();
        all.sort_by(|a, b| a.metadata.name.rsplit('.').next().cmp(&b.metadata.name.rsplit('.').next()));
        all.into_iter().map(|e| format!("{}: {}", e.reason, e.message)).collect()
    }

    /// Removes all objects of a collection.
    fn remove_all(&self, path: &str) {
        let beneath = format!("{path}/");
        let state = self.state.lock().unwrap();
        let all: Vec<String> =
            state.objects.keys().filter(|path| path.starts_with(&beneath)).cloned().collect();
        drop(state);
        all.iter().for_each(|path| self.remove(path));
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let missing = || {
            (
                404,
                json!({ "kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "message": format!("{path} not found") }),
            )
        };
        let parsed = || serde_json::from_slice::<Value>(body).unwrap_or(Value::Null);
        let (path, status) = path.strip_suffix("/status").map_or((path, false), |p| (p, true));
        match *method {
            Method::GET => self.get(path).map_or_else(missing, |o| (200, o)),
            Method::POST if path.ends_with("/subjectaccessreviews") => {
                let mut review = parsed();
                let allowed = match review["spec"]["user"].as_str() {
                    Some("admin") => true,
                    Some("reader") => review["spec"]["resourceAttributes"]["verb"] == "get",
                    _ => false,
                };
                review["status"] = json!({ "allowed": allowed });
                (201, review)
            }
            Method::POST => {
                let object = parsed();
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let at = format!("{path}/{name}");
                if self.get(&at).is_some() {
                    return (
                        409,
                        json!({ "kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409, "message": "already exists" }),
                    );
                }
                (201, self.put(&at, object.clone()))
            }
            Method::PUT => (200, self.put(path, parsed())),
            Method::PATCH => {
                let kind = if path.contains("/pods/") {
                    "Pod"
                } else if path.contains("/nodes/") {
                    "Node"
                } else {
                    "Event"
                };
                let table = api::table();
                let id = table.kind("", "v1", kind).unwrap();
                let mut patch = parsed();
                if status {
                    patch = json!({ "status": patch["status"] });
                }
                let patched = |old| schema::patch::strategic(table, id, old, patch).unwrap();
                self.edit(path, patched).map_or_else(missing, |new| (200, new))
            }
            Method::DELETE if path.ends_with("/resourceslices") => {
                self.remove_all(path);
                (200, json!({ "kind": "Status", "status": "Success" }))
            }
            Method::DELETE => {
                if self.get(path).is_none() {
                    return missing();
                }
                self.remove(path);
                (200, json!({ "kind": "Status", "status": "Success" }))
            }
            _ => (405, Value::Null),
        }
    }
}

impl Transport for Api {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>, Error>> {
        let (code, value) = self.answer(request.method(), request.uri().path(), request.body());
        let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {}).boxed_unsync();
        async move { Ok(Response::builder().status(code).body(body).unwrap()) }.boxed()
    }

    fn source(&self) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.clone()))
    }
}

fn raw(object: &Value) -> Raw {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    Raw {
        key: ObjectKey::new(&text("namespace"), &text("name")),
        revision: text("resourceVersion").parse().unwrap(),
        bytes: Bytes::from(object.to_string()),
    }
}

fn matches(query: &Query, path: &str, object: &Value) -> bool {
    let collection = query.resource.path(query.namespace.as_deref(), None, None);
    let of_kind = path.starts_with(&format!("{collection}/"))
        || query.namespace.is_none() && path.contains(&format!("/{}/", query.resource.resource));
    of_kind
        && match query.field_selector.split_once('=') {
            Some(("metadata.name", name)) => object["metadata"]["name"] == name,
            Some(("spec.nodeName", node)) => object["spec"]["nodeName"] == node,
            _ => true,
        }
}

impl Source for Api {
    fn open(&self, query: Query) -> BoxStream<'static, client::Result<Vec<Feed>>> {
        let state = self.state.lock().unwrap();
        let changes = self.changes.subscribe();
        let present = state.objects.iter().filter(|(path, object)| matches(&query, path, object));
        let objects = present.map(|(_, object)| raw(object)).collect();
        let first = Feed::Snapshot { objects, revision: state.revision };
        let rest = futures::stream::unfold((changes, query), |(mut changes, query)| async move {
            loop {
                let (path, object, gone) = changes.recv().await.ok()?;
                if matches(&query, &path, &object) {
                    let feed = if gone { Feed::Delete(raw(&object)) } else { Feed::Put(raw(&object)) };
                    return Some((Ok(vec![feed]), (changes, query)));
                }
            }
        });
        futures::stream::once(async move { Ok(vec![first]) }).chain(rest).boxed()
    }
}
