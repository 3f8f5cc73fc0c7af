//! Spans that a collector is told of, and contexts that webhooks are: the real binary.
#![allow(clippy::unwrap_used)]

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
#[path = "../../apiserver/src/spans/generated.rs"]
mod generated;
#[path = "../../apiserver/tests/house/provider.rs"]
mod provider;

use apimachinery::json;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use expect_test::{Expect, expect};
use generated::any_value::Value as Attribute;
use generated::trace_service_server::{TraceService, TraceServiceServer};
use generated::{ExportTraceServiceRequest, ExportTraceServiceResponse, Span};
use http::{HeaderMap, Method};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// What it was told, whole.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> (Self, u16) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let collector = Collector::default();
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (collector, port)
    }

    fn spans(&self) -> Vec<(String, Span)> {
        let told = self.0.lock().unwrap();
        let scopes = told.iter().flat_map(|request| &request.resource_spans).flat_map(|r| &r.scope_spans);
        let named = scopes.flat_map(|scope| {
            let name = scope.scope.as_ref().unwrap().name.clone();
            scope.spans.iter().map(move |span| (name.clone(), span.clone()))
        });
        named.collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span's attributes, without what differs from run to run.
fn attributes(span: &Span) -> String {
    let shown = span.attributes.iter().map(|attribute| {
        let value = match attribute.value.as_ref().and_then(|value| value.value.clone()) {
            Some(Attribute::StringValue(text)) => text,
            Some(Attribute::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        let steady = !matches!(
            attribute.key.as_str(),
            "audit-id"
                | "UID"
                | "http.request.body.size"
                | "server.port"
                | "network.peer.port"
                | "http.response.body.size"
                | "url.full"
        );
        format!("{}={}\n", attribute.key, if steady { value } else { "…".into() })
    });
    shown.collect()
}

struct Server {
    child: Child,
    url: String,
    remote: apiserver::remote::Remote,
}

impl Server {
    async fn start(directory: &std::path::Path, configuration: Value) -> Self {
        pki::tls::install_provider();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (tokens, file) = (directory.join("tokens"), directory.join("traces"));
        std::fs::write(&tokens, "admin,admin,1,system:masters\njane,jane,2\n").unwrap();
        std::fs::write(&file, configuration.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tiphys"))
            .args([
                "server",
                "--no-node",
                "--node-ip=127.0.0.1",
                "--node-name=test",
                "--bind-address=127.0.0.1",
            ])
            .arg(format!("--secure-port={port}"))
            .arg(format!("--data-dir={}", directory.join("data").display()))
            .arg(format!("--token-auth-file={}", tokens.display()))
            .arg(format!("--tracing-config-file={}", file.display()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let server = Server {
            child,
            url: format!("https://127.0.0.1:{port}"),
            remote: apiserver::remote::Remote::new(&pki::tls::Trust::Anyone).unwrap(),
        };
        let ready = tokio::task::spawn_blocking(move || {
            let ready = lines.any(|line| line.contains("the API server is ready"));
            std::thread::spawn(move || lines.for_each(drop));
            ready
        });
        assert!(ready.await.unwrap());
        server
    }

    /// A request within a trace.
    async fn ask(&self, token: &str, parent: &str, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("user-agent", "tester"),
            ("accept", "application/json"),
            ("authorization", &format!("Bearer {token}")),
            ("traceparent", parent),
        ] {
            if !value.is_empty() {
                headers.insert(name, value.parse().unwrap());
            }
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let url = format!("{}{path}", self.url);
        let answer = self.remote.call(method, &url, headers, body, Duration::from_secs(30)).await.unwrap();
        (answer.status.as_u16(), serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    /// Ends it, and with it what it has not told yet.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Spans of a trace, each with that which it is a part of.
fn tree(spans: &[(String, Span)], trace: &str) -> String {
    let mut lines: Vec<String> = spans
        .iter()
        .filter(|(_, span)| hex(&span.trace_id) == trace)
        .map(|(_, span)| {
            let parent = spans.iter().find(|(_, parent)| parent.span_id == span.parent_span_id);
            let parent = parent.map_or_else(|| hex(&span.parent_span_id), |(_, parent)| parent.name.clone());
            let events: Vec<&str> = span.events.iter().map(|event| event.name.as_str()).collect();
            format!("{} < {parent} {events:?}\n", span.name)
        })
        .collect();
    lines.sort();
    lines.concat()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_go_on_from_their_clients_to_webhooks() {
    let directory = tempfile::tempdir().unwrap();
    let (collector, port) = Collector::start().await;
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = told.clone();
    let hook = provider::serve(move |request| {
        let parent = request.headers().get("traceparent").map_or("none", |value| value.to_str().unwrap());
        seen.lock().unwrap().push(parent.to_owned());
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let response = json!({"uid": review["request"]["uid"], "allowed": true});
        let answer =
            json!({"apiVersion": review["apiVersion"], "kind": "AdmissionReview", "response": response});
        http::Response::new(answer.to_string().into())
    })
    .await;
    // Nothing is sampled but what its client samples.
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "TracingConfiguration",
        "endpoint": format!("127.0.0.1:{port}"),
    });
    let mut server = Server::start(directory.path(), configuration).await;
    let hooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "hooks"},
        "webhooks": [{
            "name": "hook.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{}/review", hook.url), "caBundle": STANDARD.encode(&hook.ca)},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        }],
    });
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let unsampled = "00-11111111111111111111111111111111-b7ad6b7169203331-00";
    assert_eq!(server.ask("admin", unsampled, Method::POST, path, hooks).await.0, 201);
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    assert_eq!(server.ask("admin", PARENT, Method::POST, CONFIG_MAPS, map("a")).await.0, 201);
    assert_eq!(server.ask("admin", unsampled, Method::POST, CONFIG_MAPS, map("b")).await.0, 201);
    // Nobody's trace but of those who are trusted.
    assert_eq!(server.ask("jane", PARENT, Method::GET, CONFIG_MAPS, Value::Null).await.0, 403);
    server.stop();

    let spans = collector.spans();
    expect![[r#"
        Call mutating webhook < Create ["Request completed"]
        Create < authorization []
        Create etcd3 < Create []
        HTTP POST < Call mutating webhook []
        POST /api/v1/namespaces/{:namespace}/configmaps < b7ad6b7169203331 []
        audit < POST /api/v1/namespaces/{:namespace}/configmaps []
        authorization < priorityandfairness []
        constrainedimpersonation < audit []
        priorityandfairness < constrainedimpersonation []
    "#]]
    .assert_eq(&tree(&spans, TRACE));
    assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) == TRACE), "{spans:?}");
    let check = |name: &str, scope: &str, wanted: Expect| {
        let (by, span) = spans.iter().find(|(_, span)| span.name == name).unwrap();
        assert_eq!(by, scope);
        assert!(span.start_time_unix_nano > 0 && span.start_time_unix_nano <= span.end_time_unix_nano);
        wanted.assert_eq(&attributes(span));
    };
    let http = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
    let component = "k8s.io/component-base/tracing";
    check(
        "POST /api/v1/namespaces/{:namespace}/configmaps",
        http,
        expect![[r#"
            server.address=127.0.0.1
            http.request.method=POST
            url.scheme=https
            server.port=…
            network.peer.address=127.0.0.1
            network.peer.port=…
            user_agent.original=tester
            client.address=127.0.0.1
            url.path=/api/v1/namespaces/default/configmaps
            network.protocol.version=1.1
            http.target=/api/v1/namespaces/default/configmaps
            audit-id=…
            http.request.body.size=…
            http.response.status_code=201
            http.response.body.size=…
        "#]],
    );
    check(
        "Create",
        component,
        expect![[r#"
        accept=application/json
        audit-id=…
        client=127.0.0.1
        api-group=
        api-version=v1
        name=
        subresource=
        namespace=default
        protocol=HTTP/1.1
        resource=configmaps
        scope=resource
        url=/api/v1/namespaces/default/configmaps
        user-agent=tester
        verb=POST
    "#]],
    );
    check(
        "Call mutating webhook",
        component,
        expect![[r#"
        configuration=hooks
        webhook=hook.example.com
        resource=/v1, Resource=configmaps
        subresource=
        operation=CREATE
        UID=…
    "#]],
    );
    check(
        "HTTP POST",
        http,
        expect![[r#"
        http.request.method=POST
        url.full=…
        server.address=127.0.0.1
        server.port=…
        network.protocol.version=1.1
        http.response.status_code=200
    "#]],
    );
    let told = told.lock().unwrap().clone();
    let client = spans.iter().find(|(_, span)| span.name == "HTTP POST").unwrap();
    assert!(told.contains(&format!("00-{TRACE}-{}-01", hex(&client.1.span_id))), "{told:?}");
    let unsampled =
        |told: &&String| told.starts_with("00-11111111111111111111111111111111-") && told.ends_with("-00");
    assert_eq!(told.iter().filter(unsampled).count(), 1, "{told:?}");
    let resource = collector.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    let service = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    let name = Attribute::StringValue("apiserver".into());
    assert_eq!(service.value.as_ref().unwrap().value, Some(name));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_of_anybody_begin_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (collector, port) = Collector::start().await;
    let configuration = json!({
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "TracingConfiguration",
        "endpoint": format!("dns:///localhost:{port}"),
        "samplingRatePerMillion": 1_000_000,
    });
    let mut server = Server::start(directory.path(), configuration).await;
    assert_eq!(server.ask("jane", PARENT, Method::GET, CONFIG_MAPS, Value::Null).await.0, 403);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let path = "/api/v1/namespaces/default/configmaps?fieldManager=tester";
    assert_eq!(server.ask("admin", "", Method::POST, path, map).await.0, 201);
    server.stop();
    let spans = collector.spans();
    assert!(spans.iter().all(|(_, span)| hex(&span.trace_id) != TRACE));
    let linked: Vec<_> = spans.iter().filter(|(_, span)| !span.links.is_empty()).collect();
    let [(_, span)] = linked.as_slice() else { panic!("{linked:?}") };
    assert_eq!(span.name, "GET /api/v1/namespaces/{:namespace}/configmaps");
    assert_eq!(hex(&span.links[0].trace_id), TRACE);
    assert!(span.parent_span_id.is_empty());
    // And so do those of requests that come without one.
    let (_, created) =
        spans.iter().find(|(_, span)| attributes(span).contains("configmaps?fieldManager=tester")).unwrap();
    assert!(created.parent_span_id.is_empty() && created.links.is_empty());
    let tree = tree(&spans, &hex(&created.trace_id));
    assert!(tree.contains("Create etcd3 < Create"), "{tree}");
}

#[test]
fn files_are_checked_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("traces");
    let check = |wanted: Expect| {
        let output = Command::new(env!("CARGO_BIN_EXE_tiphys"))
            .args([
                "server",
                "--no-node",
                "--node-ip=127.0.0.1",
                "--bind-address=127.0.0.1",
                "--secure-port=0",
            ])
            .arg(format!("--data-dir={}", directory.path().join("data").display()))
            .arg(format!("--tracing-config-file={}", file.display()))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let said = text.lines().rfind(|line| line.starts_with("error: ")).unwrap_or(&text);
        wanted.assert_eq(&said.replace(file.to_str().unwrap(), "FILE"));
    };
    check(expect!["error: tracing-config-file FILE does not exist"]);
    let configuration = |rate: i64| json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "TracingConfiguration", "samplingRatePerMillion": rate});
    std::fs::write(&file, configuration(1_000_001).to_string()).unwrap();
    check(expect![
        "error: failed to validate tracing configuration: samplingRatePerMillion: Invalid value: 1000001: sampling rate per million must be less than or equal to one million"
    ]);
}
