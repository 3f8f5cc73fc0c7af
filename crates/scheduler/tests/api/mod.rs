//! An API server in memory, as far as a scheduler speaks to one: objects are read, watched, updated and patched, and pods
//! bound. An update of what has changed meanwhile is a conflict.

use api::core::v1::Event;
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

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<String, Value>,
    told: Vec<String>,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<(String, Value, bool)>,
    changed: watch::Sender<u64>,
}

fn failure(code: u16, reason: &str, message: String) -> (u16, Value) {
    (
        code,
        json!({ "kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": message }),
    )
}

impl Api {
    pub(crate) fn new() -> Self {
        Api { state: Arc::default(), changes: broadcast::channel(256).0, changed: watch::Sender::new(0) }
    }

    /// Writes an object at its path.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(path.rsplit('/').next());
        }
        state.objects.insert(path.to_owned(), object.clone());
        drop(self.changes.send((path.to_owned(), object.clone(), false)));
        self.changed.send_replace(state.revision);
        object
    }

    /// Merges a change into an object.
    pub(crate) fn edit(&self, path: &str, change: Value) -> Value {
        let mut object = self.get(path).unwrap_or_else(|| panic!("no {path}"));
        schema::patch::merge(&mut object, &change);
        self.put(path, object)
    }

    pub(crate) fn remove(&self, path: &str) {
        let mut state = self.state.lock().unwrap();
        state.revision += 1;
        if let Some(mut object) = state.objects.remove(path) {
            object["metadata"]["resourceVersion"] = json!(state.revision.to_string());
            drop(self.changes.send((path.to_owned(), object, true)));
        }
        self.changed.send_replace(state.revision);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Events so far, each once.
    pub(crate) fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().told)
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut changed = self.changed.subscribe();
        let waiting = async {
            while !holds(self) {
                changed.changed().await.unwrap();
            }
        };
        // Longer than anything takes here; the clock does not wait for it.
        let waited = tokio::time::timeout(std::time::Duration::from_secs(3600), waiting).await;
        assert!(waited.is_ok(), "never: {what}; told {:?}", self.told());
    }

    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (path, subresource) = match path.rsplit_once('/') {
            Some((path, sub @ ("status" | "binding"))) => (path, sub),
            _ => (path, ""),
        };
        if *method == Method::POST && path.ends_with("/events") {
            let event: Event = apimachinery::value::from_value(body.clone()).unwrap();
            let mut state = self.state.lock().unwrap();
            state.told.push(format!("{}: {}", event.reason, event.message));
            self.changed.send_modify(|count| *count += 1);
            return (201, body);
        }
        let Some(old) = self.get(path) else {
            return failure(404, "NotFound", format!("{path} not found"));
        };
        match *method {
            Method::POST if subresource == "binding" => {
                self.edit(path, json!({ "spec": { "nodeName": body["target"]["name"] } }));
                (201, json!({ "kind": "Status", "status": "Success" }))
            }
            Method::PUT if body["metadata"]["resourceVersion"] != old["metadata"]["resourceVersion"] => {
                let name = path.rsplit('/').next().unwrap_or_default();
                let message = format!(
                    "Operation cannot be fulfilled on {name:?}: the object has been modified; please apply your changes to the latest version and try again"
                );
                failure(409, "Conflict", message)
            }
            Method::PUT => (200, self.put(path, body)),
            Method::PATCH => (200, self.edit(path, json!({ "status": body["status"] }))),
            _ => (200, old),
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

fn is_of(query: &Query, path: &str) -> bool {
    path.rsplit('/').nth(1) == Some(&query.resource.resource)
}

impl Source for Api {
    fn open(&self, query: Query) -> BoxStream<'static, client::Result<Vec<Feed>>> {
        let state = self.state.lock().unwrap();
        let changes = self.changes.subscribe();
        let present = state.objects.iter().filter(|(path, _)| is_of(&query, path));
        let objects = present.map(|(_, object)| raw(object)).collect();
        let first = Feed::Snapshot { objects, revision: state.revision.max(1) };
        let rest = futures::stream::unfold((changes, query), |(mut changes, query)| async move {
            loop {
                let (path, object, gone) = changes.recv().await.ok()?;
                if is_of(&query, &path) {
                    let feed = if gone { Feed::Delete(raw(&object)) } else { Feed::Put(raw(&object)) };
                    return Some((Ok(vec![feed]), (changes, query)));
                }
            }
        });
        futures::stream::once(async move { Ok(vec![first]) }).chain(rest).boxed()
    }
}
