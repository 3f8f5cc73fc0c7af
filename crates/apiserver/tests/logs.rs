//! Logs come from kubelets that the API server's authorities vouch for; from others, if who asks wants that. The kubelet here
//! answers with what it was asked.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::rooms::{KubeletTls, Rooms};
use bytes::Bytes;
use expect_test::{Expect, expect};
use house::{House, hook};
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use pki::tls::{ALPN_HTTP1, Trust};
use pki::{Authority, San};
use std::convert::Infallible;
use std::sync::Arc;
use tokio::net::TcpListener;

const PODS: &str = "/api/v1/namespaces/default/pods";

/// A kubelet, its port, and who vouches for it.
async fn kubelet() -> (u16, Authority) {
    let (tls, authority) = hook::identity(vec![San::Ip([127, 0, 0, 1].into())]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(tls.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service =
                    hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                        let answer = Response::builder().header("content-type", "text/x-kubelet");
                        let text = format!("asked for {}", request.uri());
                        Ok::<_, Infallible>(answer.body(Full::new(Bytes::from(text))).unwrap())
                    });
                let http = hyper::server::conn::http1::Builder::new();
                let _ = http.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (port, authority)
}

/// A house that believes an authority about kubelets, with a node on a port, and pods: on it, on one whose kubelet does not
/// run, on one that is not there, and on none.
async fn house(authority: &Authority, port: u16) -> House {
    pki::tls::install_provider();
    let client = |trust| Arc::new(pki::tls::client_config(&trust, None, ALPN_HTTP1).unwrap());
    let kubelet_tls = Some(KubeletTls {
        checked: client(Trust::pem(authority.certificate.to_pem().as_bytes()).unwrap()),
        unchecked: client(Trust::Anyone),
    });
    let house = house::house_with_rooms(Rooms { kubelet_tls, ..Rooms::default() }).await;
    let made = |path: &'static str, object: Value| {
        let house = &house;
        async move { assert_eq!(house.json(Method::POST, path, object).await.0, 201) }
    };
    made("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    for (node, port) in [("runs", port), ("rests", 1)] {
        let status = json!({
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        });
        made("/api/v1/nodes", json!({"metadata": {"name": node}, "status": status})).await;
    }
    for (pod, node) in [("a", "runs"), ("b", "rests"), ("c", "missing"), ("d", "")] {
        let spec = json!({"nodeName": node, "containers": [{"name": "main", "image": "i"}]});
        made(PODS, json!({"metadata": {"name": pod}, "spec": spec})).await;
    }
    house
}

/// What comes of asking for a log: the code, and the text or the message.
async fn told(house: &House, query: &str) -> String {
    let answer = house.send(Method::GET, &format!("{PODS}/{query}"), &[], Value::Null).await;
    let text = String::from_utf8(answer.body().to_vec()).unwrap();
    let status: Option<Value> = serde_json::from_str(&text).ok();
    let text = status.and_then(|status| Some(status["message"].as_str()?.to_owned())).unwrap_or(text);
    let media = answer.headers().get("content-type").map(|media| media.to_str().unwrap().to_owned());
    format!("{} {}: {text}", answer.status().as_u16(), media.unwrap_or_default())
}

async fn check(house: &House, port: u16, queries: &[&str], wanted: Expect) {
    let mut text = String::new();
    for query in queries {
        text += &told(house, query).await.replace(&format!(":{port}"), ":PORT");
        text.push('\n');
    }
    wanted.assert_eq(&text);
}

fn counts(house: &House) -> Vec<String> {
    let text = house.server.metrics.render();
    text.lines().filter(|line| line.starts_with("kube_apiserver_pod_logs")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_kubelet_that_nobody_vouches_for() {
    let (port, _) = kubelet().await;
    let (_, stranger) = kubelet().await;
    let house = house(&stranger, port).await;
    assert!(counts(&house).is_empty());
    let queries = [
        "a/log",
        "a/log?insecureSkipTLSVerifyBackend=false",
        "a/log?insecureSkipTLSVerifyBackend=true",
        "a/log?insecureSkipTLSVerifyBackend&tailLines=-1",
        "b/log?insecureSkipTLSVerifyBackend=true",
    ];
    check(
        &house,
        port,
        &queries,
        expect![[r#"
            500 application/json: Get "https://127.0.0.1:PORT/containerLogs/default/a/main": tls: failed to verify certificate: x509: certificate signed by unknown authority
            500 application/json: Get "https://127.0.0.1:PORT/containerLogs/default/a/main": tls: failed to verify certificate: x509: certificate signed by unknown authority
            200 text/plain: asked for /containerLogs/default/a/main
            422 application/json: PodLogOptions "a" is invalid: tailLines: Invalid value: -1: must be greater than or equal to 0
            500 application/json: Get "https://127.0.0.1:1/containerLogs/default/b/main": dial tcp 127.0.0.1:1: connect: connection refused
        "#]],
    )
    .await;
    expect![[r#"
        kube_apiserver_pod_logs_backend_tls_failure_total 2
        kube_apiserver_pod_logs_insecure_backend_total{usage="enforce_tls"} 2
        kube_apiserver_pod_logs_insecure_backend_total{usage="skip_tls_allowed"} 3"#]]
    .assert_eq(&counts(&house).join("\n"));
}

#[tokio::test]
async fn what_is_asked_of_a_log() {
    let (port, authority) = kubelet().await;
    let house = house(&authority, port).await;
    let queries = [
        "a/log",
        "a/log?follow=true&previous=1&timestamps=yes&tailLines=5&limitBytes=9&sinceTime=2020-01-01T00:00:00Z&foo=bar",
        "a/log?container=main&follow=False&tailLines=1&tailLines=2",
        "a/log?container=x",
        "a/log?tailLines=x",
        "a/log?sinceSeconds=",
        "a/log?tailLines=-1&sinceSeconds=0&limitBytes=0",
        "a/log?sinceSeconds=5&sinceTime=2020-01-01T00:00:00Z",
        "a/log?stream=Stdout",
        "c/log",
        "d/log",
        "d/log?container=x",
        "e/log",
    ];
    check(
        &house,
        port,
        &queries,
        expect![[r#"
            200 text/plain: asked for /containerLogs/default/a/main
            200 text/plain: asked for /containerLogs/default/a/main?follow=true&limitBytes=9&previous=true&sinceTime=2020-01-01T00%3A00%3A00Z&tailLines=5&timestamps=true
            200 text/plain: asked for /containerLogs/default/a/main?tailLines=1
            400 application/json: container x is not valid for pod a
            400 application/json: strconv.ParseInt: parsing "x": invalid syntax
            400 application/json: strconv.ParseInt: parsing "": invalid syntax
            422 application/json: PodLogOptions "a" is invalid: [tailLines: Invalid value: -1: must be greater than or equal to 0, limitBytes: Invalid value: 0: must be greater than 0, sinceSeconds: Invalid value: 0: must be greater than 0]
            422 application/json: PodLogOptions "a" is invalid: []: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified
            422 application/json: PodLogOptions "a" is invalid: stream: Forbidden: may not be specified
            404 application/json: pods "missing" not found
            204 : 
            400 application/json: container x is not valid for pod d
            404 application/json: pods "e" not found
        "#]],
    )
    .await;
}
