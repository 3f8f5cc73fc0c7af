//! What is recorded of requests, from their first stage to their last.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::clock::FakeClock;
use apimachinery::json;
use apimachinery::time::MicroTime;
use apimachinery::value::Value;
use apiserver::audit::backend::Backend;
use apiserver::audit::event::Event;
use apiserver::audit::policy::Policy;
use apiserver::audit::{Audit, Metrics};
use apiserver::gate::Gate;
use component::metrics::Registry;
use expect_test::{Expect, expect};
use futures::future::BoxFuture;
use house::{House, house_behind};
use http::Method;
use parking_lot::Mutex;
use std::sync::Arc;

/// Remembers events, or refuses them.
#[derive(Clone, Default)]
struct Heard {
    events: Arc<Mutex<Vec<Arc<Event>>>>,
    deaf: bool,
}

impl Backend for Heard {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        self.events.lock().extend(events);
        Box::pin(std::future::ready(!self.deaf))
    }
}

async fn audited(policy: &str, deaf: bool) -> (House, Heard, Registry) {
    let heard = Heard { deaf, ..Heard::default() };
    let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{policy}");
    let registry = Registry::new();
    let audit = Audit::new(
        Policy::parse(&policy).unwrap(),
        vec![Arc::new(heard.clone())],
        Metrics::new(&registry),
        Arc::new(FakeClock::new(MicroTime::from_unix_micros(0).to_string().parse().unwrap())),
    );
    let gate = Gate { audit: Some(Arc::new(audit)), ..Gate::default() };
    (house_behind(gate).await, heard, registry)
}

impl Heard {
    /// The events since the last time, without what differs from run to run.
    fn check(&self, expected: Expect) {
        let mut out = String::new();
        for event in std::mem::take(&mut *self.events.lock()) {
            let mut event: Value = serde_json::from_slice(&event.json().unwrap()).unwrap();
            let map = event.as_object_mut().unwrap();
            for name in
                ["kind", "apiVersion", "auditID", "sourceIPs", "requestReceivedTimestamp", "stageTimestamp"]
            {
                map.remove(name).unwrap();
            }
            if let Some(mut object) = map.remove("responseObject") {
                let fields = object["metadata"]["managedFields"].is_array();
                for name in ["uid", "creationTimestamp", "resourceVersion"] {
                    object["metadata"].as_object_mut().map(|m| m.remove(name));
                }
                map.insert("responseObject", object);
                assert!(!fields);
            }
            let details = map.get_mut("responseStatus").and_then(|status| status.get_mut("details"));
            details.and_then(Value::as_object_mut).map(|details| details.remove("uid"));
            if let Some(reference) = map.get_mut("objectRef").and_then(Value::as_object_mut) {
                reference.remove("uid");
            }
            out += &format!("{event}\n");
        }
        expected.assert_eq(&out);
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread")]
async fn stages_and_levels() {
    let policy = "
rules:
- {level: None, resources: [{group: '', resources: [namespaces]}, {group: apiextensions.k8s.io}]}
- {level: RequestResponse, verbs: [create, patch], omitManagedFields: true, omitStages: [RequestReceived]}
- {level: Request, verbs: [delete], omitStages: [RequestReceived]}
- {level: Metadata}
";
    let (house, heard, registry) = audited(policy, false).await;
    heard.events.lock().clear();
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "<v>"}});
    assert_eq!(house.json(Method::POST, MAPS, map.clone()).await.0, 201);
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"RequestResponse","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestObject":{"apiVersion":"v1","data":{"k":"<v>"},"kind":"ConfigMap","metadata":{"name":"a"}},"requestURI":"/api/v1/namespaces/default/configmaps","responseObject":{"apiVersion":"v1","data":{"k":"<v>"},"kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}},"responseStatus":{"code":201,"metadata":{}},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"create"}
    "#]]);
    assert_eq!(house.json(Method::POST, MAPS, map).await.0, 409);
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"RequestResponse","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestObject":{"apiVersion":"v1","data":{"k":"<v>"},"kind":"ConfigMap","metadata":{"name":"a"}},"requestURI":"/api/v1/namespaces/default/configmaps","responseObject":{"apiVersion":"v1","code":409,"details":{"kind":"configmaps","name":"a"},"kind":"Status","message":"configmaps \"a\" already exists","metadata":{},"reason":"AlreadyExists","status":"Failure"},"responseStatus":{"code":409,"details":{"kind":"configmaps","name":"a"},"message":"configmaps \"a\" already exists","metadata":{},"reason":"AlreadyExists","status":"Failure"},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"create"}
    "#]]);
    let patch = json!({"data": {"k": null}});
    let media = "application/merge-patch+json";
    assert_eq!(house.call(Method::PATCH, &format!("{MAPS}/a"), media, patch).await.0, 200);
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"RequestResponse","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestObject":{"data":{"k":null}},"requestURI":"/api/v1/namespaces/default/configmaps/a","responseObject":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"default"}},"responseStatus":{"code":200,"metadata":{}},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"patch"}
    "#]]);
    house.get(&format!("{MAPS}/a")).await;
    heard.check(expect![[r#"
        {"level":"Metadata","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps/a","stage":"RequestReceived","user":{"username":"tester"},"verb":"get"}
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"Metadata","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps/a","responseStatus":{"code":200,"metadata":{}},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"get"}
    "#]]);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    assert_eq!(house.json(Method::DELETE, &format!("{MAPS}/a"), options).await.0, 200);
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"Request","objectRef":{"apiVersion":"v1","name":"a","namespace":"default","resource":"configmaps"},"requestObject":{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"},"requestURI":"/api/v1/namespaces/default/configmaps/a","responseStatus":{"code":200,"details":{"kind":"configmaps","name":"a"},"metadata":{},"status":"Success"},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"delete"}
    "#]]);
    // A watch: received, begun, and complete when its answer is given up.
    let watch = house.client_watch(&format!("{MAPS}?watch=1")).await;
    heard.check(expect![[r#"
        {"level":"Metadata","objectRef":{"apiVersion":"v1","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps?watch=1","stage":"RequestReceived","user":{"username":"tester"},"verb":"watch"}
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"Metadata","objectRef":{"apiVersion":"v1","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps?watch=1","responseStatus":{"code":200,"metadata":{}},"stage":"ResponseStarted","user":{"username":"tester"},"verb":"watch"}
    "#]]);
    drop(watch);
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"Metadata","objectRef":{"apiVersion":"v1","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps?watch=1","responseStatus":{"code":200,"metadata":{}},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"watch"}
    "#]]);
    // Protobuf for the client, JSON for the log.
    let accept = [("accept", "application/vnd.kubernetes.protobuf"), ("content-type", "application/json")];
    let made = house.send(Method::POST, MAPS, &accept, json!({"metadata": {"name": "b"}})).await;
    assert!(made.body().starts_with(b"k8s\0"));
    heard.check(expect![[r#"
        {"annotations":{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":""},"level":"RequestResponse","objectRef":{"apiVersion":"v1","name":"b","namespace":"default","resource":"configmaps"},"requestObject":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b"}},"requestURI":"/api/v1/namespaces/default/configmaps","responseObject":{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"b","namespace":"default"}},"responseStatus":{"code":201,"metadata":{}},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"create"}
    "#]]);
    let text = registry.render();
    assert!(text.contains("apiserver_audit_level_total{level=\"RequestResponse\"} 4"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_refused() {
    let policy = "
rules:
- {level: Metadata, resources: [{group: '', resources: [configmaps]}]}
";
    let (house, _, registry) = audited(policy, true).await;
    let answer = house.send(Method::GET, MAPS, &[("audit-id", "me")], Value::Null).await;
    assert_eq!(answer.status(), 500);
    assert_eq!(answer.headers()["audit-id"], "me");
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    expect![[r#"
        Internal Server Error: "/api/v1/namespaces/default/configmaps": failed to store audit event
    "#]]
    .assert_eq(&text);
    assert!(registry.render().contains("apiserver_audit_requests_rejected_total 1"));
}

/// Whoever is refused before anything is done is recorded like everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_refused_at_once_is_complete() {
    let (house, heard, _) = audited("rules: [{level: Metadata, verbs: [list]}]", false).await;
    heard.events.lock().clear();
    assert_eq!(house.json(Method::GET, &format!("{MAPS}?timeout=bogus"), Value::Null).await.0, 400);
    heard.check(expect![[r#"
        {"level":"Metadata","objectRef":{"apiVersion":"v1","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps?timeout=bogus","stage":"RequestReceived","user":{"username":"tester"},"verb":"list"}
        {"level":"Metadata","objectRef":{"apiVersion":"v1","namespace":"default","resource":"configmaps"},"requestURI":"/api/v1/namespaces/default/configmaps?timeout=bogus","responseStatus":{"code":400,"message":"invalid timeout specified in the request URL - time: invalid duration \"bogus\"","metadata":{},"reason":"BadRequest","status":"Failure"},"stage":"ResponseComplete","user":{"username":"tester"},"verb":"list"}
    "#]]);
}
