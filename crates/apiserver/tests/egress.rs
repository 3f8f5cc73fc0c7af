//! The webhooks of authentication, authorization and audit go the way of the control plane: through a proxy, where the
//! egress selector names one. One of konnectivity's carries whatever goes through it, and tells how it ends.
#![allow(clippy::unwrap_used)]

use apimachinery::clock::SystemClock;
use apimachinery::json;
use apimachinery::value::Value;
use apiserver::audit::Metrics;
use apiserver::audit::backend::Backend as _;
use apiserver::audit::backend::webhook::Webhook;
use apiserver::authn::tokens::TokenAuthenticator as _;
use apiserver::authn::webhook::TokenWebhook;
use apiserver::authz::chain::{AuthorizerChain, Parts};
use apiserver::authz::validation::load;
use apiserver::authz::{Attributes, Authorizer, Decision, always};
use apiserver::egress::{Configuration, Egress, Purpose};
use apiserver::review_hook::Backoff;
use apiserver::user::User;
use bytes::Bytes;
use component::metrics::Registry;
use expect_test::expect;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

#[path = "../src/egress/konnectivity/generated.rs"]
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
mod generated;
#[path = "house/konnectivity.rs"]
mod konnectivity;

/// What was asked of the proxy, and of those it stands for.
type Asked = Arc<Mutex<Vec<String>>>;

fn answer(review: &Value) -> Value {
    match review["kind"].as_str() {
        Some("TokenReview") => json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1",
            "status": {"authenticated": true, "user": {"username": "jane"}}}),
        Some("SubjectAccessReview") => json!({"kind": "SubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1", "status": {"allowed": true, "reason": "so it is"}}),
        _ => json!({}),
    }
}

/// A proxy that itself is every host it is asked for; nobody else could answer under their names.
async fn proxy() -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let seen = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let first = String::from_utf8(head).unwrap().lines().next().unwrap().to_owned();
                seen.lock().push(first);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                answering(stream, seen).await;
            });
        }
    });
    (url, asked)
}

/// Answers reviews.
async fn answering(stream: TcpStream, seen: Asked) {
    let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| {
        let seen = seen.clone();
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            seen.lock().push(format!("{path} {}", review["kind"].as_str().unwrap()));
            let answer = answer(&review).to_string();
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
        }
    });
    let server = hyper::server::conn::http1::Builder::new();
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn kubeconfig(directory: &Path, name: &str) -> PathBuf {
    kubeconfig_of(directory, name, &format!("http://{name}.invalid:8080/{name}"))
}

fn kubeconfig_of(directory: &Path, name: &str, server: &str) -> PathBuf {
    let file = directory.join(name);
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]});
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_go_the_way_of_the_control_plane() {
    pki::tls::install_provider();
    let (url, asked) = proxy().await;
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
         - {{name: controlplane, connection: {{proxyProtocol: HTTPConnect, transport: {{tcp: {{url: '{url}'}}}}}}}}\n"
    );
    let metrics = Registry::new();
    let egress = Arc::new(Egress::new(&Configuration::parse(&text).unwrap(), &metrics).unwrap());
    let way = egress.way(Purpose::ControlPlane);
    let home = tempfile::tempdir().unwrap();
    let backoff = Backoff { first: Duration::from_millis(1), factor: 1.0, jitter: 0.0, steps: 1 };

    let file = kubeconfig(home.path(), "authentication");
    let tokens = TokenWebhook::new(&file, "v1", Arc::new([]), backoff, way.clone()).unwrap();
    let known = tokens.authenticate("secret", &[]).await.unwrap().unwrap();
    assert_eq!(known.user.name, "jane");

    let file = kubeconfig(home.path(), "authorization");
    let configuration = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers:\n- type: Webhook\n  name: hook\n  webhook:\n    authorizedTTL: 5m\n    unauthorizedTTL: 30s\n    timeout: 3s\n    subjectAccessReviewVersion: v1\n    matchConditionSubjectAccessReviewVersion: v1\n    failurePolicy: NoOpinion\n    connectionInfo: {{type: KubeConfigFile, kubeConfigFile: {}}}\n",
        file.display()
    );
    let rbac: Arc<dyn Authorizer> = Arc::new(always::AlwaysDeny);
    let clock = Arc::new(SystemClock::default());
    let parts = Parts { rbac, node: None, abac: None, clock, backoff, way: way.clone() };
    let configuration = load(&configuration, &BTreeSet::new()).unwrap();
    let chain = AuthorizerChain::new(configuration, None, parts, &metrics).unwrap();
    let user = User::new("jane", &[]);
    let attributes = Attributes {
        user: &user,
        verb: "get",
        is_resource: false,
        group: "",
        version: "",
        resource: "",
        subresource: "",
        namespace: "",
        name: "",
        path: "/somewhere",
        label_selector: "",
        field_selector: "",
    };
    let decision = chain.authorize(&attributes).await;
    assert!(matches!(decision, Decision::Allow { .. }), "{decision:?}");

    let file = kubeconfig(home.path(), "audit");
    let webhook = Webhook::load(&file, Duration::from_millis(1), Metrics::new(&metrics), way).unwrap();
    assert!(webhook.process(Vec::new()).await);

    expect![[r#"
        CONNECT authentication.invalid:8080 HTTP/1.1
        /authentication TokenReview
        CONNECT authorization.invalid:8080 HTTP/1.1
        /authorization SubjectAccessReview
        CONNECT audit.invalid:8080 HTTP/1.1
        /audit EventList"#]]
    .assert_eq(&asked.lock().join("\n"));
}

/// Somebody who listens, and what becomes of those who connect.
async fn host<F: Future<Output = ()> + Send + 'static>(
    each: impl Fn(TcpStream) -> F + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    port
}

/// The way through a proxy of konnectivity's.
fn through_konnectivity(home: &Path, metrics: &Registry) -> (Arc<Egress>, konnectivity::Proxy) {
    let socket = home.join("proxy");
    let proxy = konnectivity::Proxy::default();
    proxy.listen(&socket);
    let text = format!(
        "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n\
         - {{name: controlplane, connection: {{proxyProtocol: GRPC, transport: {{uds: {{udsName: {}}}}}}}}}\n",
        socket.display()
    );
    (Arc::new(Egress::new(&Configuration::parse(&text).unwrap(), metrics).unwrap()), proxy)
}

#[tokio::test(flavor = "multi_thread")]
async fn konnectivity_leads_to_webhooks() {
    let (home, metrics, asked) = (tempfile::tempdir().unwrap(), Registry::new(), Asked::default());
    let (egress, proxy) = through_konnectivity(home.path(), &metrics);
    let seen = asked.clone();
    let port = host(move |stream| answering(stream, seen.clone())).await;
    let backoff = Backoff { first: Duration::from_millis(1), factor: 1.0, jitter: 0.0, steps: 1 };
    let hook = |port: u16| {
        let file = kubeconfig_of(home.path(), "hook", &format!("http://127.0.0.1:{port}/hook"));
        let way = egress.way(Purpose::ControlPlane);
        TokenWebhook::new(&file, "v1", Arc::new([]), backoff, way).unwrap()
    };
    let known = hook(port).authenticate("secret", &[]).await.unwrap().unwrap();
    assert_eq!(known.user.name, "jane");
    assert_eq!(*asked.lock(), ["/hook TokenReview"]);
    proxy.told(&format!("DIAL_REQ tcp 127.0.0.1:{port}")).await;
    let refused = hook(1).authenticate("secret", &[]).await.err().unwrap();
    expect!["Post \"http://127.0.0.1:1/hook\": dial tcp 127.0.0.1:1: connect: connection refused"]
        .assert_eq(&refused.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn konnectivity_carries_what_there_is_both_ways() {
    let (home, metrics) = (tempfile::tempdir().unwrap(), Registry::new());
    let (egress, proxy) = through_konnectivity(home.path(), &metrics);
    // A host that says everything again, and hears when nobody is there any more.
    let (gone, mut left) = tokio::sync::mpsc::channel(1);
    let port = host(move |mut stream| {
        let gone = gone.clone();
        async move {
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = gone.send(()).await;
        }
    })
    .await;
    let connection = egress.dial(Purpose::ControlPlane, "127.0.0.1", port).await.unwrap();
    let (mut read, mut write) = tokio::io::split(connection);
    let said: Vec<u8> = (0..3_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    let heard = async {
        let mut heard = Vec::new();
        let mut buffer = [0; 1_234];
        while heard.len() < said.len() {
            let count = read.read(&mut buffer).await.unwrap();
            heard.extend_from_slice(&buffer[..count]);
        }
        heard
    };
    let (written, heard) = tokio::join!(write.write_all(&said), heard);
    written.unwrap();
    assert!(heard == said, "what is said is heard");
    drop((read, write));
    left.recv().await.unwrap();
    proxy.told("CLOSE_REQ").await;
    proxy.told("END").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn konnectivity_tells_how_connections_end() {
    let (home, metrics) = (tempfile::tempdir().unwrap(), Registry::new());
    let (egress, proxy) = through_konnectivity(home.path(), &metrics);
    let says = |what: &'static [u8]| {
        host(move |mut stream: TcpStream| async move {
            // It waits for the first word.
            let _ = stream.read_u8().await;
            let _ = stream.write_all(what).await;
        })
    };
    let dial = |port: u16| {
        let egress = egress.clone();
        async move { egress.dial(Purpose::ControlPlane, "127.0.0.1", port).await }
    };
    // A host that has said what there is to say.
    let mut heard = Vec::new();
    let mut connection = dial(says(b"good-bye").await).await.unwrap();
    connection.write_u8(b'?').await.unwrap();
    connection.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"good-bye");
    // A proxy that is lost in the midst.
    let mut connection = dial(says(b"die").await).await.unwrap();
    connection.write_u8(b'?').await.unwrap();
    let lost = connection.read_to_end(&mut heard).await.unwrap_err();
    assert_eq!((lost.kind(), lost.to_string()), (std::io::ErrorKind::UnexpectedEof, "tunnel closed".into()));
    assert!(connection.write_all(&[0; 1_000_000]).await.is_err());
    drop(connection);
    // Hosts that cannot be reached, and somebody who does not wait for it.
    let failed = |dialled: std::io::Result<_>| dialled.err().unwrap().to_string();
    assert_eq!(failed(dial(1).await), "dial tcp 127.0.0.1:1: connect: connection refused");
    assert_eq!(failed(dial(konnectivity::GIVES_UP).await), "dial closed");
    let dialled = format!("DIAL_REQ tcp 127.0.0.1:{}", konnectivity::SAYS_NOTHING);
    tokio::select! {
        _ = dial(konnectivity::SAYS_NOTHING) => panic!("nobody answers"),
        () = proxy.told(&dialled) => {}
    }
    proxy.told("DIAL_CLS").await;
    let counted = |line: &&str| {
        ["egress_dialer_dial_start", "dial_failure", "packets_total"].iter().any(|part| line.contains(part))
            && !line.starts_with('#')
            && !line.contains("DATA")
            && !line.ends_with(" 0")
    };
    expect![[r#"
        apiserver_egress_dialer_dial_failure_count{protocol="grpc",stage="proxy",transport="uds"} 2
        apiserver_egress_dialer_dial_start_total{protocol="grpc",transport="uds"} 5
        konnectivity_network_proxy_client_dial_failure_total{reason="context"} 1
        konnectivity_network_proxy_client_dial_failure_total{reason="dialclosed"} 1
        konnectivity_network_proxy_client_dial_failure_total{reason="endpoint"} 1
        konnectivity_network_proxy_client_stream_packets_total{packet_type="DIAL_CLS",segment="from_client"} 1
        konnectivity_network_proxy_client_stream_packets_total{packet_type="DIAL_REQ",segment="from_client"} 5
        konnectivity_network_proxy_client_stream_packets_total{packet_type="CLOSE_RSP",segment="to_client"} 1
        konnectivity_network_proxy_client_stream_packets_total{packet_type="DIAL_CLS",segment="to_client"} 1
        konnectivity_network_proxy_client_stream_packets_total{packet_type="DIAL_RSP",segment="to_client"} 3
    "#]]
    .assert_eq(&metrics.render().lines().filter(counted).map(|line| format!("{line}\n")).collect::<String>());
}
