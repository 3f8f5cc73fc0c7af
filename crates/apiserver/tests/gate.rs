//! What is done to requests around the stations: those that take too long, that come too late, and whose clients are to
//! come to another server.
#![allow(clippy::unwrap_used)]

mod house;

use apimachinery::json;
use apimachinery::value::Value;
use apiserver::authn::Connection;
use apiserver::browsers::Browsers;
use apiserver::gate::{Gate, Timing};
use expect_test::{Expect, expect};
use house::House;
use http::{Method, Request, Version};
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::Duration;

async fn house_in(timing: Timing) -> House {
    house::house_behind(Gate { timing, ..Gate::default() }).await
}

/// What an answer says, with the headers that matter here.
async fn ask(house: &House, path: &str, agent: &str, expected: Expect) {
    let request = Request::get(path).header("x-test-user", "tester").header("user-agent", agent);
    let request = request.body(apiserver::body::full("")).unwrap();
    let answer = house.server.clone().serve(request, Arc::default()).await;
    let (parts, body) = answer.into_parts();
    let header = |name: &str| parts.headers.get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let (again, connection) = (header("retry-after"), header("connection"));
    expected
        .assert_eq(&format!("{} retry-after={again} connection={connection} {text}", parts.status.as_u16()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_too_late_is_told_to_come_again() {
    let house = house_in(Timing { send_retry_after: true, ..Timing::default() }).await;
    house.server.shutdown.cancel();
    ask(
        &house,
        "/api/v1/namespaces/nothing",
        "kubectl/1",
        expect![[r#"
        429 retry-after=5 connection=close The apiserver is shutting down, please try again later.
    "#]],
    )
    .await;
    ask(&house, "/livez", "kubectl/1", expect!["200 retry-after= connection= ok"]).await;
    ask(&house, "/api/v1/namespaces/nothing", "kube-apiserver/v1.36", expect![[r#"
        404 retry-after= connection= {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"namespaces \"nothing\" not found","reason":"NotFound","details":{"name":"nothing","kind":"namespaces"},"code":404}
    "#]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_has_its_time() {
    let house = house_in(Timing { request: Duration::from_millis(50), ..Timing::default() }).await;
    // Waits for a revision that will not come.
    ask(
        &house,
        "/api/v1/configmaps?resourceVersion=1000000&resourceVersionMatch=NotOlderThan",
        "x",
        expect![[r#"
            504 retry-after= connection= {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Timeout: request did not complete within the allotted timeout","reason":"Timeout","details":{},"code":504}
        "#]],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_has_its_time() {
    let house = house_in(Timing { request: Duration::from_millis(200), ..Timing::default() }).await;
    let silent = house::hook::serve(|_| None).await;
    let hook = json!({
        "name": "test.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": silent.url, "caBundle": silent.bundle},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
    let made =
        house.json(Method::POST, hooks, json!({"metadata": {"name": "test"}, "webhooks": [hook]})).await;
    assert_eq!(made.0, 201);
    let path = "/api/v1/namespaces/default/configmaps";
    let answer = house.outside("tester", Method::POST, path, json!({"metadata": {"name": "a"}})).await;
    let status: Value = serde_json::from_slice(answer.body()).unwrap();
    let said = format!("{} {} {}", answer.status().as_u16(), status["reason"], status["message"]);
    expect![[r#"504 "Timeout" "Timeout: request did not complete within requested timeout - context deadline exceeded""#]].assert_eq(&said);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_elsewhere() {
    let left = async |chance: f64, version: Version| {
        let house = house_in(Timing { goaway_chance: chance, ..Timing::default() }).await;
        let connection = Arc::new(Connection::default());
        let request = Request::get("/livez").version(version).body(apiserver::body::full("")).unwrap();
        let answer = house.server.clone().serve(request, connection.clone()).await;
        assert_eq!(answer.status(), 200, "the request itself is answered");
        connection.leave.is_cancelled()
    };
    assert!(left(1.0, Version::HTTP_2).await);
    assert!(!left(0.0, Version::HTTP_2).await);
    assert!(!left(1.0, Version::HTTP_11).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_who_may_read() {
    let own = |text: &str| vec![text.to_owned()];
    let browsers = Browsers::new(&own("^https://a\\.com$"), &own("max-age=60")).unwrap();
    let house = house::house_behind(Gate { browsers, ..Gate::default() }).await;
    let ask = async |method: Method, origin: &str| {
        let request = Request::builder().method(method).uri("/livez").header("origin", origin);
        let request = request.header("x-test-user", "tester").body(apiserver::body::full("")).unwrap();
        let answer = house.server.clone().serve(request, Arc::default()).await;
        let names =
            ["access-control-allow-origin", "access-control-allow-credentials", "strict-transport-security"];
        let header = |name| answer.headers().get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
        format!("{} {}", answer.status().as_u16(), names.map(header).join(" "))
    };
    assert_eq!(ask(Method::GET, "https://a.com").await, "200 https://a.com true max-age=60");
    assert_eq!(ask(Method::GET, "https://a.com.b").await, "200 - - max-age=60");
    // What a browser asks before the request itself comes without credentials, and is answered to anybody.
    assert_eq!(ask(Method::OPTIONS, "https://a.com").await, "204 https://a.com true max-age=60");
    assert!(!ask(Method::OPTIONS, "https://b.com").await.starts_with("204"));
}
