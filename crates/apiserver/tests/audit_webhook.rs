//! Audit events posted to another server: many at a time, again when it fails, and cut to size.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::clock::SystemClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::audit::backend::batch::{Batch, Options};
use apiserver::audit::backend::truncate::Truncate;
use apiserver::audit::backend::webhook::Webhook;
use apiserver::audit::policy::Policy;
use apiserver::audit::{Audit, Metrics};
use apiserver::egress::Way;
use apiserver::gate::Gate;
use bytes::Bytes;
use component::metrics::Registry;
use house::{House, house_behind};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server that takes event lists after it has failed so often: where it is, and what it took.
async fn listener(failures: usize) -> (String, mpsc::UnboundedReceiver<Value>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    let (taken, receiver) = mpsc::unbounded_channel();
    let failures = Arc::new(AtomicUsize::new(failures));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let (taken, failures) = (taken.clone(), failures.clone());
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                    let (taken, failures) = (taken.clone(), failures.clone());
                    async move {
                        let list = request.into_body().collect().await.unwrap().to_bytes();
                        let mut answer = Response::new(Full::new(Bytes::new()));
                        let fails = |left: usize| left.checked_sub(1);
                        if failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
                            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                        } else {
                            taken.send(serde_json::from_slice(&list).unwrap()).unwrap();
                        }
                        Ok::<_, Infallible>(answer)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(tcp), service)
                    .await;
            });
        }
    });
    (url, receiver)
}

/// A house whose events go to a webhook, so many at a time, and none larger than so many bytes.
async fn audited(url: &str, at_a_time: usize, largest: usize) -> House {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("webhook.kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&file, config.to_string()).unwrap();
    let metrics = Metrics::new(&Registry::new());
    let webhook = Webhook::load(&file, Duration::from_millis(1), metrics.clone(), Way::default()).unwrap();
    let options = Options {
        buffer_size: 100,
        max_size: at_a_time,
        max_wait: Duration::from_secs(3600),
        throttle: None,
        together: true,
    };
    let batch = Batch::new(Arc::new(webhook), options, metrics.clone());
    let truncate =
        Truncate { inner: Arc::new(batch), max_event: largest, max_batch: 1 << 20, metrics: metrics.clone() };
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n- level: RequestResponse\n  resources: [{resources: [configmaps]}]\n- level: None\n";
    let audit = Audit::new(
        Policy::parse(policy).unwrap(),
        vec![Arc::new(truncate)],
        metrics,
        Arc::new(SystemClock::default()),
    );
    house_behind(Gate { audit: Some(Arc::new(audit)), ..Gate::default() }).await
}

async fn taken(receiver: &mut mpsc::UnboundedReceiver<Value>) -> Value {
    tokio::time::timeout(Duration::from_secs(20), receiver.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_go_together_and_again() {
    // It fails twice: what was posted is posted again.
    let (url, mut receiver) = listener(2).await;
    let house = audited(&url, 2, 1 << 20).await;
    for name in ["a", "b"] {
        let made = house.json(Method::POST, MAPS, json!({"metadata": {"name": name}})).await;
        assert_eq!(made.0, 201);
    }
    let list = taken(&mut receiver).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
    let names: Vec<&Value> =
        list["items"].as_array().unwrap().iter().map(|e| &e["objectRef"]["name"]).collect();
    assert_eq!(names, [&json!("a"), &json!("b")]);
    assert_eq!(list["items"][0]["responseObject"]["kind"], "ConfigMap");
    assert!(receiver.try_recv().is_err(), "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_events_lose_their_objects() {
    let (url, mut receiver) = listener(0).await;
    let house = audited(&url, 1, 2_000).await;
    let map = json!({"metadata": {"name": "a"}, "data": {"k": "v".repeat(4_000)}});
    assert_eq!(house.json(Method::POST, MAPS, map).await.0, 201);
    let list = taken(&mut receiver).await;
    let event = &list["items"][0];
    assert_eq!(event["annotations"]["audit.k8s.io/truncated"], "true");
    assert_eq!((event.get("requestObject"), event.get("responseObject")), (None, None));
    assert_eq!(event["objectRef"]["name"], "a");
}
