//! An API server over a store, and objects of a kind that have something to be selected by: upstream's example pods.

use crate::house::{self, House};
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use apiserver::admission::{Attributes, Operation, Plugin};
use client::transport::{ResponseBody, Transport as _};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{Expect, Key, Revision, Store, Write};

/// A kind, with a member of its objects that fields select by.
pub struct Kind {
    root: &'static str,
    pub plural: &'static str,
    /// What the member is called in selectors.
    pub field: &'static str,
    /// What an object of a namespace needs.
    base: fn(&str) -> Value,
    /// The object, as far as it is its member.
    member: fn(&str) -> Value,
}

pub const NAMESPACED: &[Kind] = &[
    Kind {
        root: "/api/v1",
        plural: "events",
        field: "reason",
        base: |namespace| json!({"involvedObject": {"namespace": namespace}}),
        member: |value| json!({"reason": value}),
    },
    Kind {
        root: "/apis/contract.example.com/v1",
        plural: "examples",
        field: "spec.node",
        base: |_| json!({"apiVersion": "contract.example.com/v1", "kind": "Example"}),
        member: |value| json!({"spec": {"node": value}}),
    },
];

/// Their member is `true` or not set.
pub const CLUSTER: &[Kind] = &[
    Kind {
        root: "/api/v1",
        plural: "nodes",
        field: "spec.unschedulable",
        base: |_| json!({}),
        member: |value| json!({"spec": {"unschedulable": value == "true"}}),
    },
    Kind {
        root: "/apis/contract.example.com/v1",
        plural: "clusterexamples",
        field: "spec.node",
        base: |_| json!({"apiVersion": "contract.example.com/v1", "kind": "ClusterExample"}),
        member: |value| json!({"spec": {"node": value}}),
    },
];

fn definition(scope: &str, plural: &str, kind: &str) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.contract.example.com")},
        "spec": {
            "group": "contract.example.com", "scope": scope,
            "names": {"plural": plural, "kind": kind, "listKind": format!("{kind}List")},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "selectableFields": [{"jsonPath": ".spec.node"}],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"node": {"type": "string"}}}},
                }},
            }],
        },
    })
}

type Act = Arc<dyn Fn(Operation, Value) -> BoxFuture<'static, Result<(), Status>> + Send + Sync>;

/// An admission plugin that does something while a write is judged.
#[derive(Default)]
pub struct Interloper {
    act: parking_lot::Mutex<Option<Act>>,
    calls: AtomicUsize,
}

impl Plugin for Interloper {
    fn name(&self) -> &'static str {
        "Interloper"
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        let act = self.act.lock().clone();
        let Some(act) = act else { return Box::pin(std::future::ready(Ok(()))) };
        self.calls.fetch_add(1, Ordering::SeqCst);
        act(attributes.operation, attributes.old.cloned().unwrap_or_default())
    }
}

impl Interloper {
    /// From now on it acts.
    pub fn acts(
        &self,
        act: impl Fn(Operation, Value) -> BoxFuture<'static, Result<(), Status>> + Send + Sync + 'static,
    ) {
        self.calls.store(0, Ordering::SeqCst);
        *self.act.lock() = Some(Arc::new(act));
    }

    /// It acts no more; how often it did.
    pub fn rests(&self) -> usize {
        *self.act.lock() = None;
        self.calls.load(Ordering::SeqCst)
    }
}

pub struct Subject {
    pub house: House,
    pub kind: &'static Kind,
    pub interloper: Arc<Interloper>,
    /// Where the store's etcd is, if it has one.
    pub etcd: Option<String>,
}

impl Subject {
    pub async fn over(store: Arc<dyn Store>) -> Self {
        Self::living(store, Duration::from_secs(3600)).await
    }

    /// Whose events live for a second.
    pub async fn brief(store: Arc<dyn Store>) -> Self {
        Self::living(store, Duration::from_secs(1)).await
    }

    async fn living(store: Arc<dyn Store>, event_ttl: Duration) -> Self {
        let interloper = Arc::new(Interloper::default());
        let house = house::extended(store, vec![interloper.clone()], event_ttl).await;
        house.define(definition("Namespaced", "examples", "Example")).await;
        house.define(definition("Cluster", "clusterexamples", "ClusterExample")).await;
        Self { house, kind: &NAMESPACED[0], interloper, etcd: None }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.house.server.registry.store
    }

    /// The path of the objects of a namespace; of all for none.
    pub fn path(&self, namespace: &str) -> String {
        let Kind { root, plural, .. } = self.kind;
        match namespace {
            "" => format!("{root}/{plural}"),
            _ => format!("{root}/namespaces/{namespace}/{plural}"),
        }
    }

    /// The store's prefix of the kind.
    pub fn prefix(&self) -> Arc<str> {
        let (group, version) = match self.kind.root.strip_prefix("/apis/") {
            Some(rest) => rest.split_once('/').unwrap(),
            None => ("", "v1"),
        };
        let served = self.house.server.registry.resources.get(group, version, self.kind.plural);
        served.unwrap().prefix.clone()
    }

    /// `default/a` as an object.
    pub fn object(&self, key: &str) -> Value {
        let (namespace, name) = split(key);
        let mut object = (self.kind.base)(namespace);
        object["metadata"] = json!({"name": name});
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        object
    }

    /// The change that sets the member.
    pub fn assigned(&self, value: &str) -> Value {
        (self.kind.member)(value)
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        self.house.call(method, path, media, body).await
    }

    /// Makes the namespaces that are not there yet.
    pub async fn namespaces(&self, names: &[&str]) {
        for name in names {
            let made =
                self.house.json(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": name}}));
            let (code, made) = made.await;
            assert!(code == 201 || code == 409, "{made}");
        }
    }

    pub async fn create(&self, key: &str) -> Value {
        let (namespace, _) = split(key);
        let (code, made) = self.call(Method::POST, &self.path(namespace), self.object(key)).await;
        assert_eq!(code, 201, "{key}: {made}");
        made
    }

    pub async fn create_owned(&self, key: String) {
        self.create(&key).await;
    }

    /// Changes an object, whatever its revision.
    pub async fn patch(&self, key: &str, change: Value) -> Value {
        let (code, changed) = self.call(Method::PATCH, &self.at(key), change).await;
        assert_eq!(code, 200, "{key}: {changed}");
        changed
    }

    /// Creates an object or changes it: what comes out has the change.
    pub async fn ensure(&self, key: &str, change: &Value) -> Value {
        let (namespace, _) = split(key);
        let (code, _) = self.call(Method::GET, &self.at(key), Value::Null).await;
        if code == 200 {
            return self.patch(key, change.clone()).await;
        }
        let mut object = self.object(key);
        merge(&mut object, change);
        let (code, made) = self.call(Method::POST, &self.path(namespace), object).await;
        assert_eq!(code, 201, "{key}: {made}");
        made
    }

    pub async fn delete(&self, key: &str) {
        let (code, gone) = self.call(Method::DELETE, &self.at(key), Value::Null).await;
        assert_eq!(code, 200, "{key}: {gone}");
    }

    pub async fn get(&self, key: &str) -> (u16, Value) {
        self.call(Method::GET, &self.at(key), Value::Null).await
    }

    /// The path of an object.
    pub fn at(&self, key: &str) -> String {
        let (namespace, name) = split(key);
        format!("{}/{name}", self.path(namespace))
    }

    pub async fn list(&self, namespace: &str, query: &str) -> (u16, Value) {
        self.call(Method::GET, &format!("{}?{query}", self.path(namespace)), Value::Null).await
    }

    /// A list that has to succeed.
    pub async fn listed(&self, namespace: &str, query: &str) -> Value {
        let (code, list) = self.list(namespace, query).await;
        assert_eq!(code, 200, "{query}: {list}");
        list
    }

    pub async fn watch(&self, namespace: &str, query: &str) -> Watching {
        let (code, watching) = self.try_watch(namespace, query).await;
        assert_eq!(code, 200, "{query}: {watching:?}");
        watching
    }

    pub async fn try_watch(&self, namespace: &str, query: &str) -> (u16, Watching) {
        let path = format!("{}?watch=true&{query}", self.path(namespace));
        let request = Request::builder().uri(path).body(Default::default()).unwrap();
        let response = self.house.client.send(request).await.unwrap();
        (response.status().as_u16(), Watching { body: response.into_body(), rest: Vec::new() })
    }

    /// Something happens to a resource that nobody looks at.
    pub async fn advance(&self) -> u64 {
        let key = Key::new("/registry/configmaps/", "default/advance");
        let value = schema::encode::Body::encode_free(&json!({"metadata": {"name": "advance"}, "data": {"n":
            self.store().revision().0.to_string()}}));
        let write = Write::put(key, value.stored().clone(), Expect::Any);
        self.store().commit(write).await.unwrap().revision.0
    }

    pub async fn compact(&self, revision: u64) {
        self.store().compact(Revision(revision)).await.unwrap();
    }

    /// Removes all objects of the kind.
    pub async fn clear(&self) {
        let prefix = self.prefix();
        for entry in self.store().snapshot(&prefix).range("", "") {
            let write = Write::delete(Key { prefix: prefix.clone(), name: entry.name.clone() }, Expect::Any);
            self.store().commit(write).await.unwrap();
        }
    }
}

/// Namespace and name.
pub fn split(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or(("", key))
}

fn merge(object: &mut Value, change: &Value) {
    match (object.as_object_mut(), change.as_object()) {
        (Some(map), Some(changes)) => {
            for (member, change) in changes {
                merge(map.entry(member.clone()).or_insert(Value::Null), change);
            }
        }
        _ => *object = change.clone(),
    }
}

/// The revision of an object or list.
pub fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        panic!("it has no revision: {object}");
    })
}

/// `namespace/name` of an object.
pub fn key(object: &Value) -> String {
    let part = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    match part("namespace") {
        "" => part("name").to_owned(),
        namespace => format!("{namespace}/{}", part("name")),
    }
}

/// The keys of a list's items.
pub fn keys(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap_or_else(|| panic!("it is no list: {list}")).iter().map(key).collect()
}

pub fn token(list: &Value) -> &str {
    list["metadata"]["continue"].as_str().unwrap_or_default()
}

/// A watch that is read event by event.
pub struct Watching {
    body: ResponseBody,
    rest: Vec<u8>,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.rest))
    }
}

impl Watching {
    /// The next event; nothing when the watch has ended.
    pub async fn event(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            let frame = tokio::time::timeout(Duration::from_secs(30), self.body.frame());
            let frame = frame.await.expect("an event comes in time")?;
            self.rest.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
    }

    /// The event that is there already.
    pub fn ready(&mut self) -> Option<Value> {
        self.event().now_or_never().flatten()
    }

    /// The next event is of this type; its object.
    pub async fn expect(&mut self, kind: &str) -> Value {
        let event = self.event().await.unwrap_or_else(|| panic!("{kind} was expected, the watch has ended"));
        assert_eq!(event["type"], kind, "{event}");
        event["object"].clone()
    }

    /// The next event is of this type and carries this object.
    pub async fn expect_object(&mut self, kind: &str, object: &Value) {
        assert_eq!(self.expect(kind).await, *object);
    }
}
