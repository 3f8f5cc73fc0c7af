//! The webhooks of authentication, authorization and audit go the way of the control plane: through a proxy, where the
//! egress selector names one.
#![allow(clippy::unwrap_used)]

use apimachinery::clock::SystemClock;
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
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

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
            });
        }
    });
    (url, asked)
}

fn kubeconfig(directory: &Path, name: &str) -> PathBuf {
    let file = directory.join(name);
    let server = format!("http://{name}.invalid:8080/{name}");
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
