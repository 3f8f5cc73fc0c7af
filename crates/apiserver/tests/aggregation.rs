//! A server behind this one: its documents are found here, as they are and merged.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::{Key, Value};
use apiserver::serve::Protocol;
use expect_test::expect;
use house::{House, hook, house, house_with_neighbours};
use http::{Method, StatusCode, header};
use pki::San;
use std::time::Duration;
use tokio::net::TcpListener;

const GROUP: &str = "wardle.example.com";
const KEY: &str = "apis/wardle.example.com/v1";

/// A definition, its objects having a text of this name.
fn flunders(field: &str) -> Value {
    json!({
        "metadata": {"name": format!("flunders.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "names": {"plural": "flunders", "kind": "Flunder"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {"spec": {"type": "object", "properties": {(field): {"type": "string"}}}},
            }}}],
        },
    })
}

/// Another server, behind TLS; its port.
async fn listening(house: &House) -> u16 {
    let (tls, _) = hook::identity(vec![San::Ip([127, 0, 0, 1].into())]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(apiserver::serve::serve(
        house.server.clone(),
        listener,
        tls,
        Protocol::Http2 { streams: 100 },
    ));
    port
}

/// Follows the APIService until it is available.
async fn available(house: &House) {
    let services =
        house.server.registry.resources.get("apiregistration.k8s.io", "v1", "apiservices").unwrap();
    let store = &house.server.registry.store;
    let mut watch = store.watch(&services.prefix, store.snapshot(&services.prefix).revision).unwrap();
    loop {
        let found = house.server.registry.get(&services, "", &format!("v1.{GROUP}")).unwrap().value;
        if house::condition(&found, "Available") == "True" {
            return;
        }
        tokio::time::timeout(Duration::from_secs(10), watch.next_batch()).await.unwrap().unwrap();
    }
}

async fn url(house: &House) -> String {
    house.get("/openapi/v3").await["paths"][KEY]["serverRelativeURL"].as_str().unwrap_or_default().to_owned()
}

/// Has the group served by whoever listens on a port of this machine.
async fn register(front: &House, port: u16) {
    let service = json!({
        "metadata": {"name": "wardle", "namespace": "default"},
        "spec": {"type": "ExternalName", "externalName": "127.0.0.1"},
    });
    assert_eq!(front.json(Method::POST, "/api/v1/namespaces/default/services", service).await.0, 201);
    let registration = json!({
        "metadata": {"name": format!("v1.{GROUP}")},
        "spec": {
            "group": GROUP, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 15,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "wardle", "port": port},
        },
    });
    let services = "/apis/apiregistration.k8s.io/v1/apiservices";
    assert_eq!(front.json(Method::POST, services, registration).await.0, 201);
    available(front).await;
}

/// Another server, which has the group and sends everybody elsewhere; its port.
async fn redirecting() -> u16 {
    let (tls, _) = hook::identity(vec![San::Ip([127, 0, 0, 1].into())]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = |request: http::Request<hyper::body::Incoming>| {
        let found = request.uri().path() == format!("/{KEY}");
        let list =
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/v1")});
        let text = if found { list.to_string() } else { String::new() };
        let mut answer = http::Response::new(http_body_util::Full::new(bytes::Bytes::from(text)));
        if !found {
            *answer.status_mut() = StatusCode::FOUND;
            answer.headers_mut().insert(header::LOCATION, "https://elsewhere/".parse().unwrap());
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    };
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(
                        hyper_util::rt::TokioIo::new(stream),
                        hyper::service::service_fn(answer),
                    )
                    .await;
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_sent_elsewhere_by_others() {
    let front = house_with_neighbours().await;
    register(&front, redirecting().await).await;
    let path = format!("/{KEY}/namespaces/default/flunders");
    let answer = front.send(Method::GET, &path, &[], Value::Null).await;
    assert_eq!((answer.status(), answer.headers().get(header::LOCATION)), (StatusCode::BAD_GATEWAY, None));
    let why = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!(String::from_utf8_lossy(answer.body()).trim_end(), why);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_others_are_told_of() {
    let (front, behind) = (house_with_neighbours().await, house().await);
    behind.define(flunders("first")).await;
    let port = listening(&behind).await;
    assert_eq!(url(&front).await, "");
    register(&front, port).await;

    // The document is the other server's own, by its own address, with its own ETag.
    let there = url(&behind).await;
    assert_eq!(url(&front).await, there);
    let theirs = behind.send(Method::GET, &there, &[], Value::Null).await;
    let ours = front.send(Method::GET, &there, &[], Value::Null).await;
    assert_eq!(ours.status(), StatusCode::OK);
    assert_eq!(ours.body(), theirs.body());
    let etag = theirs.headers()[header::ETAG].to_str().unwrap();
    assert_eq!(ours.headers()[header::ETAG], etag);
    let same = front.send(Method::GET, &there, &[("if-none-match", etag)], Value::Null).await;
    assert_eq!((same.status(), same.body().len()), (StatusCode::NOT_MODIFIED, 0));

    // In v2 it stands among the others.
    let merged = front.get("/openapi/v2").await;
    let definitions = merged["definitions"].as_object().unwrap();
    let theirs: Vec<&Key> = definitions.keys().filter(|name| name.starts_with("com.example")).collect();
    expect![[r#"["com.example.wardle.v1.Flunder", "com.example.wardle.v1.FlunderList"]"#]]
        .assert_eq(&format!("{theirs:?}"));
    assert!(definitions.contains_key("io.k8s.api.core.v1.Pod"));
    // Both have what these refer to, and it is the same.
    assert!(!definitions.keys().any(|name| name.ends_with("_v2")));
    let paths = merged["paths"].as_object().unwrap();
    assert!(paths.contains_key(&format!("/{KEY}/namespaces/{{namespace}}/flunders")));
    assert!(!paths.contains_key(&format!("/{KEY}/nonesuch")) && paths.contains_key("/api/v1/pods"));
    let accept = [("accept", schema::openapi::V2_PROTOBUF)];
    let protobuf = front.send(Method::GET, "/openapi/v2", &accept, Value::Null).await;
    let name = b"com.example.wardle.v1.FlunderList";
    assert!(protobuf.body().windows(name.len()).any(|window| window == name));
}
