//! An API server in memory: enough of the real one for controllers to be told apart from their mistakes.
//!
//! Objects get the table's defaults and the kind's hooks; names, uids and revisions are counted, so that a story reads
//! the same each time. Informers are fed from the commit.

use apimachinery::clock::Clock;
use apimachinery::gvk::GroupResource;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::time::{Duration, Time};
use apimachinery::value::Value;
use bytes::Bytes;
use client::source::{Feed, Query, Raw, Source};
use client::transport::{ResponseBody, Transport};
use client::{Error, ObjectKey, Resource};
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hooks::{Context, strategy};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Group, version, plural; namespace; name.
type Key = (Resource, String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, (Value, u64)>,
    revision: u64,
    made: u64,
    named: u64,
    feeds: Vec<(Query, UnboundedSender<Vec<Feed>>)>,
    events: Vec<String>,
    /// Method and resource that are refused, and the words.
    refused: Vec<(String, String, String)>,
    /// What other servers answer: path and document.
    answers: BTreeMap<String, Value>,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    clock: Arc<dyn Clock>,
}

#[derive(Clone)]
struct Address {
    resource: Resource,
    namespace: String,
    name: String,
    subresource: String,
}

fn address(path: &str) -> Option<Address> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (group, version) = match parts.next()? {
        "api" => (String::new(), parts.next()?.to_owned()),
        _ => (parts.next()?.to_owned(), parts.next()?.to_owned()),
    };
    let rest: Vec<&str> = parts.collect();
    let (namespace, rest) = match rest.as_slice() {
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => ((*namespace).to_owned(), rest),
        rest => (String::new(), rest),
    };
    let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
    Some(Address {
        resource: Resource { group, version, resource: part(0) },
        namespace,
        name: part(1),
        subresource: part(2),
    })
}

fn group(at: &Address) -> GroupResource {
    GroupResource::new(at.resource.group.clone(), at.resource.resource.clone())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value["metadata"][key].as_str().unwrap_or_default()
}

fn kind_of(resource: &Resource) -> String {
    let row = api::table().resource(&resource.group, &resource.version, &resource.resource);
    row.map(|row| row.kind.to_string()).unwrap_or_else(|| panic!("{resource} is not in the table"))
}

impl Api {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Api { state: Arc::default(), clock }
    }

    fn now(&self) -> Time {
        self.clock.now().into()
    }

    /// Refuses requests of a method on a resource with 403 until [`Api::allow`].
    pub(crate) fn refuse(&self, method: &str, resource: &str, words: &str) {
        self.state.lock().refused.push((method.into(), resource.into(), words.into()));
    }

    pub(crate) fn allow(&self) {
        self.state.lock().refused.clear();
    }

    /// All objects of a resource, by name.
    pub(crate) fn list(&self, resource: &str) -> Vec<Value> {
        let state = self.state.lock();
        let all = state.objects.iter().filter(|((r, ..), _)| r.resource == resource);
        all.map(|(_, (value, _))| value.clone()).collect()
    }

    /// Events told so far; they are told once.
    pub(crate) fn events(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().events)
    }

    /// Lets a path be answered with a document, as an aggregated API would.
    pub(crate) fn answer(&self, path: &str, document: Value) {
        self.state.lock().answers.insert(path.into(), document);
    }

    /// Changes an object past all rules, as other components would.
    pub(crate) fn edit(&self, resource: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let found = state.objects.iter().find(|((r, _, n), _)| r.resource == resource && n == name);
        let (key, mut value) = found
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .unwrap_or_else(|| panic!("no {resource} {name}"));
        edit(&mut value);
        state.commit(key, value);
    }

    /// Removes an object for good, whatever holds it.
    pub(crate) fn remove(&self, resource: &str, name: &str) {
        let mut state = self.state.lock();
        let key = state.objects.keys().find(|(r, _, n)| r.resource == resource && n == name).cloned();
        state.remove(&key.unwrap_or_else(|| panic!("no {resource} {name}")));
    }

    pub(crate) fn call(&self, method: &Method, path: &str, kind: &str, body: &[u8]) -> Result<Value, Status> {
        if let Some(document) = self.state.lock().answers.get(path) {
            return Ok(document.clone());
        }
        let at = address(path).ok_or_else(|| Status::bad_request(path))?;
        if at.resource.resource.is_empty() {
            return Ok(discovery(&at.resource));
        }
        if at.subresource == "scale" {
            return self.scale(&at, body);
        }
        let refused = self.state.lock().refused.clone();
        if let Some((.., words)) =
            refused.iter().find(|(m, r, _)| m == method.as_str() && *r == at.resource.resource)
        {
            let group = self::group(&at);
            return Err(Status::forbidden(&group, &at.name, words));
        }
        let body: Value =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(body).expect("JSON") };
        if at.resource.resource == "events" {
            let (ty, reason) = (&body["type"], &body["reason"]);
            let about = &body["involvedObject"];
            if *method == Method::POST {
                let line = format!("{ty} {reason} {}/{}: {}", about["kind"], about["name"], body["message"]);
                let mut state = self.state.lock();
                state.events.push(line.replace('"', ""));
                let name = format!("event-{}", state.events.len());
                let revision = state.revision;
                let key = (at.resource.clone(), at.namespace.clone(), name);
                // Nobody keeps them, but whoever watches is told.
                let item = Feed::Put(raw(&key, &body, revision));
                let of = format!("involvedObject.name={}", about["name"].as_str().unwrap_or_default());
                let watching = state
                    .feeds
                    .iter()
                    .filter(|(query, _)| query.resource == key.0 && query.field_selector == of);
                watching.for_each(|(_, to)| drop(to.send(vec![item.clone()])));
            }
            return Ok(body);
        }
        match *method {
            Method::GET if at.name.is_empty() => {
                let state = self.state.lock();
                let all = state.objects.iter().filter(|((r, n, _), _)| {
                    *r == at.resource && (at.namespace.is_empty() || *n == at.namespace)
                });
                let items: Vec<Value> = all.map(|(_, (value, revision))| shown(value, *revision)).collect();
                Ok(json!({"items": items, "metadata": {"resourceVersion": state.revision.to_string()}}))
            }
            Method::GET => self.find(&at).map(|(_, value, revision)| shown(&value, revision)),
            Method::POST => self.create(&at, body),
            Method::PUT => self.update(&at, |_| Ok(body.clone()), true),
            Method::PATCH => self.update(&at, |old| patched(&at, kind, old, &body), false),
            Method::DELETE => self.delete(&at, &body),
            _ => Err(Status::bad_request("method")),
        }
    }

    /// The size of an object, read or written.
    fn scale(&self, at: &Address, body: &[u8]) -> Result<Value, Status> {
        let wanted: Option<Value> = serde_json::from_slice(body).ok();
        if let Some(wanted) = wanted {
            let size = &wanted["spec"]["replicas"];
            self.update(
                &Address { subresource: String::new(), ..at.clone() },
                |old| {
                    let mut new = old.clone();
                    new["spec"]["replicas"] = size.clone();
                    Ok(new)
                },
                true,
            )?;
        }
        let (_, value, revision) = self.find(at)?;
        let selector: Option<apimachinery::meta::LabelSelector> =
            apimachinery::value::from_value(value["spec"]["selector"].clone()).ok();
        let meta = &value["metadata"];
        Ok(json!({
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
                "resourceVersion": revision.to_string()},
            "spec": {"replicas": value["spec"]["replicas"]},
            "status": {"replicas": value["status"]["replicas"].as_i64().unwrap_or(0),
                "selector": apimachinery::labels::format_label_selector(selector.as_ref())},
        }))
    }

    fn find(&self, at: &Address) -> Result<(Key, Value, u64), Status> {
        let key = (at.resource.clone(), at.namespace.clone(), at.name.clone());
        match self.state.lock().objects.get(&key) {
            Some((value, revision)) => Ok((key, value.clone(), *revision)),
            None => {
                let group = self::group(at);
                Err(Status::not_found(&group, &at.name))
            }
        }
    }

    fn create(&self, at: &Address, mut value: Value) -> Result<Value, Status> {
        let kind = kind_of(&at.resource);
        let now = self.now();
        let mut state = self.state.lock();
        state.made += 1;
        let made = state.made;
        let meta = &mut value["metadata"];
        if at.namespace.is_empty() {
            meta.as_object_mut().expect("metadata").remove("namespace");
        } else {
            meta["namespace"] = json!(at.namespace);
        }
        if meta["name"].as_str().unwrap_or_default().is_empty() {
            state.named += 1;
            let named = state.named;
            meta["name"] = json!(format!("{}{named}", meta["generateName"].as_str().expect("a name")));
        }
        meta["uid"] = json!(format!("uid-{made:04}"));
        meta["creationTimestamp"] = json!(now.to_string());
        meta["generation"] = json!(1);
        let id = api::table().kind(&at.resource.group, &at.resource.version, &kind).expect("a kind");
        let hooks = strategy(&at.resource.group, &kind);
        schema::defaults::apply(api::table(), id, &mut value);
        hooks.default(&mut value);
        value.as_object_mut().expect("an object").remove("status");
        hooks.prepare_for_create(&mut value, &context(now));
        let key = (at.resource.clone(), at.namespace.clone(), text(&value, "name").to_owned());
        if state.objects.contains_key(&key) {
            let group = self::group(at);
            return Err(Status::already_exists(&group, &key.2));
        }
        let revision = state.commit(key, value.clone());
        Ok(shown(&value, revision))
    }

    fn update(
        &self,
        at: &Address,
        change: impl FnOnce(&Value) -> Result<Value, Status>,
        replace: bool,
    ) -> Result<Value, Status> {
        let (key, old, revision) = self.find(at)?;
        let kind = kind_of(&at.resource);
        let mut value = change(&shown(&old, revision))?;
        let group = self::group(at);
        let asked = text(&value, "resourceVersion").to_owned();
        if (replace || !asked.is_empty()) && asked != revision.to_string() {
            return Err(Status::conflict(&group, &at.name, "the object has been modified"));
        }
        if text(&value, "uid") != text(&old, "uid") {
            return Err(Status::conflict(&group, &at.name, "Precondition failed: UID"));
        }
        for field in ["kind", "apiVersion"] {
            value.as_object_mut().expect("an object").remove(field);
        }
        if at.subresource == "status" {
            let (status, annotations) = (value["status"].take(), value["metadata"]["annotations"].take());
            value = old.clone();
            value["status"] = status;
            if !annotations.is_null() {
                value["metadata"]["annotations"] = annotations;
            }
        } else {
            for field in
                ["deletionTimestamp", "deletionGracePeriodSeconds", "generation", "creationTimestamp"]
            {
                value["metadata"][field] = old["metadata"][field].clone();
            }
            value["status"] = old["status"].clone();
            let id = api::table().kind(&at.resource.group, &at.resource.version, &kind).expect("a kind");
            let hooks = strategy(&at.resource.group, &kind);
            schema::defaults::apply(api::table(), id, &mut value);
            hooks.default(&mut value);
            hooks.prepare_for_update(&mut value, &old, &context(self.now()));
            if value["spec"] != old["spec"] {
                value["metadata"]["generation"] =
                    json!(old["metadata"]["generation"].as_i64().unwrap_or(0) + 1);
            }
        }
        clean(&mut value);
        let mut state = self.state.lock();
        if let Some(grace) = value["metadata"]["deletionGracePeriodSeconds"].as_i64()
            && grace == 0
            && held(&value).is_empty()
        {
            state.remove(&key);
            return Ok(shown(&value, state.revision));
        }
        if value == old {
            return Ok(shown(&value, revision));
        }
        let revision = state.commit(key, value.clone());
        Ok(shown(&value, revision))
    }

    fn delete(&self, at: &Address, options: &Value) -> Result<Value, Status> {
        let (key, mut value, revision) = self.find(at)?;
        if let Some(uid) = options["preconditions"]["uid"].as_str()
            && uid != text(&value, "uid")
        {
            let group = self::group(at);
            return Err(Status::conflict(&group, &at.name, "Precondition failed: UID"));
        }
        let hooks = strategy(&at.resource.group, &kind_of(&at.resource));
        let asked = options["gracePeriodSeconds"].as_i64();
        let grace = hooks.deletion_grace_period(&value, asked).unwrap_or(0);
        let mut state = self.state.lock();
        if grace == 0 && held(&value).is_empty() {
            state.remove(&key);
            return Ok(json!({"kind": "Status"}));
        }
        if value["metadata"]["deletionTimestamp"].is_null() {
            let until = self.now().plus(Duration::from_seconds(grace));
            value["metadata"]["deletionTimestamp"] = json!(until.to_string());
            value["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            let revision = state.commit(key, value.clone());
            return Ok(shown(&value, revision));
        }
        Ok(shown(&value, revision))
    }
}

/// The resources of a group and version.
fn discovery(of: &Resource) -> Value {
    let rows =
        api::table().resources().iter().filter(|row| row.group == of.group && row.version == of.version);
    let resources: Vec<Value> = rows.map(|row| json!({"name": row.resource, "kind": row.kind})).collect();
    json!({"resources": resources})
}

fn held(value: &Value) -> Vec<Value> {
    value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default()
}

fn clean(value: &mut Value) {
    let map = value.as_object_mut().expect("an object");
    map.retain(|_, member| !member.is_null());
    let meta = map["metadata"].as_object_mut().expect("metadata");
    meta.remove("resourceVersion");
    meta.retain(|_, member| !member.is_null() && *member != json!([]) && *member != json!({}));
}

fn shown(value: &Value, revision: u64) -> Value {
    let mut value = value.clone();
    value["metadata"]["resourceVersion"] = json!(revision.to_string());
    value
}

fn patched(at: &Address, kind: &str, old: &Value, patch: &Value) -> Result<Value, Status> {
    let mut new = old.clone();
    match kind {
        "application/strategic-merge-patch+json" => {
            let id = api::table().kind(&at.resource.group, &at.resource.version, &kind_of(&at.resource));
            new = schema::patch::strategic(api::table(), id.expect("a kind"), new, patch.clone())
                .map_err(|error| Status::bad_request(error.to_string()))?;
        }
        "application/json-patch+json" => {
            let text = serde_json::to_vec(patch).expect("JSON");
            let patch = schema::patch::JsonPatch::parse(&text, schema::decode::FieldValidation::Ignore);
            new = patch.and_then(|patch| patch.apply(new)).map_err(|e| Status::bad_request(e.to_string()))?;
        }
        _ => schema::patch::merge(&mut new, patch),
    }
    Ok(new)
}

impl State {
    fn commit(&mut self, key: Key, mut value: Value) -> u64 {
        clean(&mut value);
        self.revision += 1;
        let revision = self.revision;
        self.objects.insert(key.clone(), (value.clone(), revision));
        self.tell(&key, Feed::Put(raw(&key, &value, revision)));
        revision
    }

    fn remove(&mut self, key: &Key) {
        self.revision += 1;
        let (value, _) = self.objects.remove(key).expect("an object");
        let revision = self.revision;
        self.tell(key, Feed::Delete(raw(key, &value, revision)));
    }

    fn tell(&mut self, key: &Key, feed: Feed) {
        let revision = self.revision;
        for (query, to) in &self.feeds {
            let item = if query.resource == key.0 { feed.clone() } else { Feed::Progress(revision) };
            // Who is gone needs no news.
            let _ = to.send(vec![item]);
        }
    }
}

fn raw(key: &Key, value: &Value, revision: u64) -> Raw {
    let bytes = serde_json::to_vec(value).expect("JSON");
    Raw { key: ObjectKey::new(&key.1, &key.2), revision, bytes: bytes.into() }
}

impl Transport for Api {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>, Error>> {
        let asked = request.uri().query().unwrap_or_default();
        if let Some(at) = address(request.uri().path()).filter(|_| asked.contains("watch=true")) {
            let body = self.watch(&at, asked).boxed_unsync();
            return Box::pin(std::future::ready(Ok(Response::new(body))));
        }
        let kind = request.headers().get(http::header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let answer =
            self.call(request.method(), request.uri().path(), kind.unwrap_or_default(), request.body());
        let (code, body) = match answer {
            Ok(value) => (200, value),
            Err(status) => (status.code.max(400), apimachinery::value::to_value(&status).expect("JSON")),
        };
        let body = Full::new(Bytes::from(serde_json::to_vec(&body).expect("JSON")));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let response = Response::builder().status(u16::try_from(code).expect("a code")).body(body);
        Box::pin(async move { Ok(response.expect("a response")) })
    }
}

impl Api {
    /// What happens from now on, as a stream of lines.
    fn watch(
        &self,
        at: &Address,
        asked: &str,
    ) -> impl http_body::Body<Data = Bytes, Error = client::transport::BoxError> + Send + 'static {
        let of = asked.split('&').find_map(|pair| pair.strip_prefix("fieldSelector=")).unwrap_or_default();
        let query = Query::all(at.resource.clone()).fields(of.replace("%3D", "="));
        let lines = self.open(query).skip(1).map(|feeds| {
            let put = feeds.into_iter().flatten().filter_map(|feed| match feed {
                Feed::Put(raw) => Some(raw),
                _ => None,
            });
            let lines = put.map(|raw| {
                let mut object: Value = serde_json::from_slice(&raw.bytes).expect("JSON");
                object["metadata"]["name"] = json!(raw.key.name);
                object["metadata"]["resourceVersion"] = json!(raw.revision.to_string());
                format!("{}\n", json!({"type": "ADDED", "object": object}))
            });
            Ok(http_body::Frame::data(Bytes::from(lines.collect::<String>())))
        });
        http_body_util::StreamBody::new(lines)
    }
}

impl Source for Api {
    fn open(&self, query: Query) -> BoxStream<'static, client::Result<Vec<Feed>>> {
        let (to, from) = unbounded_channel();
        let mut state = self.state.lock();
        let objects = state.objects.iter().filter(|((resource, ..), _)| *resource == query.resource);
        let objects = objects.map(|(key, (value, revision))| raw(key, value, *revision)).collect();
        let first = vec![Feed::Snapshot { objects, revision: state.revision.max(1) }];
        state.feeds.push((query, to));
        let rest = futures::stream::unfold(from, |mut from| async move { Some((from.recv().await?, from)) });
        futures::stream::iter([first]).chain(rest).map(Ok).boxed()
    }
}

/// Hooks see one user, who belongs to no group.
fn context(now: Time) -> Context<'static> {
    static NO_EXTRA: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
    Context {
        user: "test",
        uid: "",
        groups: &[],
        extra: &NO_EXTRA,
        now,
        namespace: hooks::NamespaceLabels(&|_| None),
        gates: hooks::Gates(&|_| false),
        api_version: "",
        subresource: None,
        judged: None,
    }
}
