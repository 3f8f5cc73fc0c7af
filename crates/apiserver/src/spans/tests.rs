//! Spans as they are made, without a collector.

use super::*;
use crate::context::Context;
use crate::request::RequestInfo;
use crate::user::User;
use ::http::{Method, Request, StatusCode};
use expect_test::{Expect, expect};

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracer(rate: u64) -> (Arc<Tracer>, mpsc::Receiver<otlp::Made>) {
    let (made, queue) = mpsc::channel(100);
    (Arc::new(Tracer { bound: bound(rate), made }), queue)
}

/// Names of spans with those of their parents, in the order in which they ended.
fn shown(queue: &mut mpsc::Receiver<otlp::Made>) -> String {
    let spans: Vec<Data> = std::iter::from_fn(|| queue.try_recv().ok()).map(|(_, data)| data).collect();
    let line = |span: &Data| {
        let parent = spans.iter().find(|parent| parent.span_id == span.parent_span_id);
        let parent = parent.map_or_else(
            || span.parent_span_id.iter().map(|byte| format!("{byte:02x}")).collect(),
            |parent| parent.name.clone(),
        );
        let links = if span.links.is_empty() { "" } else { " linked" };
        let error = if span.status.is_some() { " failed" } else { "" };
        format!("{} < {parent}{links}{error}\n", span.name)
    };
    spans.iter().map(line).collect()
}

async fn serve(rate: u64, groups: &[&str], uri: &str, code: StatusCode, wanted: Expect) {
    let (tracer, mut queue) = tracer(rate);
    let request = Request::get(uri).header("traceparent", GIVEN).header("host", "a:6443").body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let info = RequestInfo::parse(&Method::GET, &parts.uri);
    let user = User::new("jane", groups);
    let (mut served, current) = began(Some(&tracer), (&parts, &info, &user), None, "id").unwrap();
    let work = current.around(async {
        let _station = station("authorization");
        let _verb = verb(&parts, &info);
        let beside = [Span::part("first", Vec::new), Span::part("second", Vec::new)];
        let asked = beside.iter().map(|span| {
            span.around(async {
                tokio::task::yield_now().await;
                stored("Create etcd3", Instant::now(), ["", "pods"]);
            })
        });
        futures::future::join_all(asked).await;
    });
    Context::new(None).around(work).await;
    served.answered(code, None);
    drop(served);
    wanted.assert_eq(&shown(&mut queue));
}

#[tokio::test]
async fn spans_are_parts_of_each_other() {
    let pods = "/api/v1/namespaces/a/pods/b";
    serve(
        0,
        &["system:masters"],
        pods,
        StatusCode::OK,
        expect![[r#"
        Create etcd3 < first
        Create etcd3 < second
        first < Get
        second < Get
        Get < authorization
        authorization < GET /api/v1/namespaces/{:namespace}/pods/{:name}
        GET /api/v1/namespaces/{:namespace}/pods/{:name} < b7ad6b7169203331
    "#]],
    )
    .await;
    serve(
        0,
        &["system:monitoring"],
        "/version",
        StatusCode::BAD_GATEWAY,
        expect![[r#"
        Create etcd3 < first
        Create etcd3 < second
        first < Get
        second < Get
        Get < authorization
        authorization < GET
        GET < b7ad6b7169203331 failed
    "#]],
    )
    .await;
    serve(0, &["dev"], pods, StatusCode::OK, expect![""]).await;
    serve(
        1_000_000,
        &["dev"],
        pods,
        StatusCode::NOT_FOUND,
        expect![[r#"
        Create etcd3 < first
        Create etcd3 < second
        first < Get
        second < Get
        Get < authorization
        authorization < GET /api/v1/namespaces/{:namespace}/pods/{:name}
        GET /api/v1/namespaces/{:namespace}/pods/{:name} <  linked
    "#]],
    )
    .await;
}

#[test]
fn so_many_of_a_million_are_sampled() {
    for (rate, most, sampled) in [
        (0, 0_u64, false),
        (1_000_000, u64::MAX, true),
        (500_000, u64::MAX / 2, true),
        (500_000, u64::MAX / 2 + 2, false),
    ] {
        let (tracer, _queue) = tracer(rate);
        let mut trace = [0xff; 16];
        trace[8..].copy_from_slice(&most.to_be_bytes());
        assert_eq!(tracer.samples(&trace), sampled, "{rate} {most}");
    }
}

#[tokio::test]
async fn others_are_told_where_they_are_asked() {
    let check = async |rate: Option<u64>, wanted: Expect| {
        let (tracer, _queue) = tracer(rate.unwrap_or(0));
        let tracer = rate.map(|_| tracer);
        let request = Request::get("/version").header("traceparent", GIVEN).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        let info = RequestInfo::parse(&Method::GET, &parts.uri);
        let user = User::new("jane", &["system:masters"]);
        let (_served, current) = began(tracer.as_ref(), (&parts, &info, &user), None, "id").unwrap();
        let told = Context::new(None).around(current.around(async {
            let mut headers = ::http::HeaderMap::new();
            Asking::begin(&Method::POST, || "https://hook:1/a?b".into(), &mut headers)
                .answered(&Ok(::http::Response::new(())));
            headers["traceparent"].to_str().unwrap().to_owned()
        }));
        let (told, _) = told.await;
        // The span is another one each time, where there is one.
        let same = if told.contains("b7ad6b7169203331") { "the given span" } else { "a new span" };
        wanted.assert_eq(&format!("{} {same} {}", &told[..35], &told[53..]));
    };
    check(None, expect!["00-0af7651916cd43dd8448eb211c80319c the given span 01"]).await;
    check(Some(0), expect!["00-0af7651916cd43dd8448eb211c80319c a new span 01"]).await;
}
