//! What those who exec, attach and forward ports are told where the kubelet does not run. Upstream's API server has switched
//! protocols with some of them by then.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::rooms::{KubeletTls, Rooms, Translation};
use expect_test::{Expect, expect};
use house::House;
use http::{Method, Request};
use hyper_util::rt::TokioIo;
use pki::tls::{ALPN_HTTP1, Trust};
use std::sync::Arc;
use streaming::client::{RemoteCommand, Via, connect};
use streaming::negotiate::{V4, V5};
use streaming::{Outcome, Streams};

const PODS: &str = "/api/v1/namespaces/default/pods";
const TUNNEL: &str = streaming::negotiate::TUNNELED_PORT_FORWARD;

/// A house with a pod on a node that says what its kubelet can do, and whose kubelet does not run.
async fn house(translation: Translation) -> House {
    pki::tls::install_provider();
    let anyone = Arc::new(pki::tls::client_config(&Trust::Anyone, None, ALPN_HTTP1).unwrap());
    let kubelet_tls = Some(KubeletTls { checked: anyone.clone(), unchecked: anyone });
    let house = house::house_with_rooms(Rooms { kubelet_tls, translation, ..Rooms::default() }).await;
    let made = |path: &'static str, object: Value| {
        let house = &house;
        async move { assert_eq!(house.json(Method::POST, path, object).await.0, 201) }
    };
    made("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for (node, declared) in [("new", json!(["ExtendWebSocketsToKubelet"])), ("old", json!([]))] {
        let status = json!({
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 1}},
            "declaredFeatures": declared,
        });
        made("/api/v1/nodes", json!({"metadata": {"name": node}, "status": status})).await;
        let spec = json!({"nodeName": node, "containers": [{"name": "main", "image": "i"}]});
        made(PODS, json!({"metadata": {"name": node}, "spec": spec})).await;
    }
    house
}

/// A connection to the server, as somebody.
fn line(house: &House) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let server = house.server.clone();
    tokio::spawn(async move {
        let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
            request.headers_mut().insert("x-test-user", http::HeaderValue::from_static("somebody"));
            let request = request.map(|_| apiserver::body::full(""));
            let answer = server.clone().serve(request, Arc::default());
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let _ = http.serve_connection(TokioIo::new(far), service).with_upgrades().await;
    });
    near
}

/// What comes of asking for a connection: the code and the words, or how the command ended, by the stream of errors.
async fn told(house: &House, path: &str, via: Via, protocol: &'static str) -> String {
    let request = Request::get(format!("{PODS}/{path}")).header("host", "here").body(()).unwrap();
    match connect(line(house), request, via, &[protocol]).await {
        Err(streaming::Error::NotUpgraded { status, body }) => {
            let body: Value = serde_json::from_str(&body).unwrap();
            format!("{} {}: {}", status.as_u16(), body["reason"], body["message"].as_str().unwrap())
        }
        Err(error) => panic!("{error}"),
        Ok((io, agreed)) => {
            let streams = Streams { stdout: true, ..Streams::default() };
            let command = RemoteCommand::open(io, agreed, streams).await.unwrap();
            let said = match command.status.wait().await.unwrap() {
                Outcome::Status { json, .. } => String::from_utf8(json).unwrap(),
                other => format!("{other:?}"),
            };
            format!("{agreed:?}: {said}")
        }
    }
}

async fn check(house: &House, calls: &[(&str, Via, &'static str)], expected: Expect) {
    let mut all = String::new();
    for (path, via, protocol) in calls {
        let call = path.split('?').next().unwrap();
        all += &format!("{call} {protocol}\n  {}\n", told(house, path, *via, protocol).await);
    }
    expected.assert_eq(&all);
}

#[tokio::test(flavor = "multi_thread")]
async fn kubelets_that_do_not_run() {
    let house = house(Translation::AsDeclared).await;
    let (socket, spdy) = (Via::WebSocket, Via::Spdy);
    let calls = [
        ("new/exec?command=id&stdout=1", socket, V5),
        ("new/exec?command=id&stdout=1", spdy, V4),
        ("new/portforward", socket, TUNNEL),
        ("old/exec?command=id&command=-u&stdout=1&stderr=1", socket, V5),
        ("old/attach?stdout=1", socket, V5),
        ("old/exec?command=id&stdout=1", socket, V4),
        ("old/attach?stdout=1", spdy, V4),
        ("old/portforward", socket, TUNNEL),
    ];
    check(&house, &calls, expect![[r#"
        new/exec v5.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        new/exec v4.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        new/portforward SPDY/3.1+portforward.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        old/exec v5.channel.k8s.io
          WebSocket("v5.channel.k8s.io"): {"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"https://127.0.0.1:1/exec/default/old/main?command=id&command=-u&error=1&output=1\": dial tcp 127.0.0.1:1: connect: connection refused","reason":"InternalError","details":{"causes":[{"message":"error sending request: Post \"https://127.0.0.1:1/exec/default/old/main?command=id&command=-u&error=1&output=1\": dial tcp 127.0.0.1:1: connect: connection refused"}]},"code":500}
        old/attach v5.channel.k8s.io
          WebSocket("v5.channel.k8s.io"): {"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"https://127.0.0.1:1/attach/default/old/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused","reason":"InternalError","details":{"causes":[{"message":"error sending request: Post \"https://127.0.0.1:1/attach/default/old/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused"}]},"code":500}
        old/exec v4.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        old/attach v4.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        old/portforward SPDY/3.1+portforward.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
    "#]]).await;
    let metrics = house.server.metrics.render();
    let counted: Vec<&str> = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_stream") || line.starts_with("apiserver_websocket"))
        .collect();
    expect![[r#"
        apiserver_stream_translator_requests_total{code="500"} 2
        apiserver_websocket_streaming_requests_total{proxy_type="proxied_to_kubelet",subresource="attach"} 1
        apiserver_websocket_streaming_requests_total{proxy_type="translated_at_apiserver",subresource="attach"} 1
        apiserver_websocket_streaming_requests_total{proxy_type="proxied_to_kubelet",subresource="exec"} 3
        apiserver_websocket_streaming_requests_total{proxy_type="translated_at_apiserver",subresource="exec"} 1
        apiserver_websocket_streaming_requests_total{proxy_type="proxied_to_kubelet",subresource="portforward"} 2"#]].assert_eq(&counted.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_say_who_understands_clients() {
    let calls = [("new/attach?stdout=1", Via::WebSocket, V5), ("old/attach?stdout=1", Via::WebSocket, V5)];
    check(&house(Translation::Ours).await, &calls, expect![[r#"
        new/attach v5.channel.k8s.io
          WebSocket("v5.channel.k8s.io"): {"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"https://127.0.0.1:1/attach/default/new/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused","reason":"InternalError","details":{"causes":[{"message":"error sending request: Post \"https://127.0.0.1:1/attach/default/new/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused"}]},"code":500}
        old/attach v5.channel.k8s.io
          WebSocket("v5.channel.k8s.io"): {"metadata":{},"status":"Failure","message":"Internal error occurred: error sending request: Post \"https://127.0.0.1:1/attach/default/old/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused","reason":"InternalError","details":{"causes":[{"message":"error sending request: Post \"https://127.0.0.1:1/attach/default/old/main?output=1\": dial tcp 127.0.0.1:1: connect: connection refused"}]},"code":500}
    "#]]).await;
    check(
        &house(Translation::Theirs).await,
        &calls,
        expect![[r#"
        new/attach v5.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
        old/attach v5.channel.k8s.io
          500 null: error dialing backend: dial tcp 127.0.0.1:1: connect: connection refused
    "#]],
    )
    .await;
}
