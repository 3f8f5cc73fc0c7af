//! Who somebody is and what they may do, told by files, providers and webhooks: the real binary, asked over TLS.
#![allow(clippy::unwrap_used)]

#[path = "../../apiserver/tests/house/provider.rs"]
mod provider;
mod server;

use apimachinery::json;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use expect_test::{Expect, expect};
use http::{HeaderMap, Method};
use provider::{Key, Provider, serve};
use server::Cluster;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long the server may take to follow a file.
const PATIENCE: Duration = Duration::from_secs(20);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A file, put in place whole.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

/// Asks the server as somebody, or as nobody.
struct Asker {
    remote: apiserver::remote::Remote,
    url: String,
}

impl Asker {
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> (u16, Value, String) {
        let mut map = HeaderMap::new();
        map.insert("content-type", "application/json".parse().unwrap());
        for (name, value) in headers {
            map.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let url = format!("{}{path}", self.url);
        let response = self.remote.call(method, &url, map, body, Duration::from_secs(30)).await.unwrap();
        let text = String::from_utf8_lossy(&response.body).into_owned();
        (response.status.as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null), text)
    }

    async fn with(&self, method: Method, path: &str, token: &str, body: Value) -> (u16, Value) {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        let (code, answer, _) = self.send(method, path, headers, body).await;
        (code, answer)
    }

    /// Who the server says one is.
    async fn whoami(&self, token: &str) -> String {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let (code, answer) = self.with(Method::POST, path, token, review).await;
        match code {
            201 => answer["status"]["userInfo"].to_string(),
            _ => format!("{code} {}", answer["message"].as_str().unwrap_or_default()),
        }
    }

    /// Waits until the server says something else of a token.
    async fn until(&self, token: &str, said: &str) {
        let end = Instant::now() + PATIENCE;
        let said = serde_json::from_str(said).map_or(said.to_owned(), |said: Value| said.to_string());
        while self.whoami(token).await != said {
            assert!(Instant::now() < end, "not {said}, but {}", self.whoami(token).await);
        }
    }
}

fn authentication(provider: &Provider, username: &str) -> String {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {
                "url": provider.url(),
                "audiences": ["client", "other"],
                "audienceMatchPolicy": "MatchAny",
                "certificateAuthority": provider.program.ca,
            },
            "claimMappings": {
                "username": {"expression": username},
                "groups": {"claim": "groups", "prefix": "oidc:"},
                "extra": [{"key": "example.com/tenant", "valueExpression": "claims.?tenant.orValue('')"}],
            },
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}],
        }],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}, {"path": "/readyz"}]},
    })
    .to_string()
}

fn authorization(kubeconfig: &Path, condition: &str) -> String {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "doorman", "webhook": {
                "timeout": "3s",
                "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1",
                "failurePolicy": "Deny",
                "authorizedTTL": "1ns",
                "unauthorizedTTL": "1ns",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig},
                "matchConditions": [{"expression": condition}],
            }},
            {"type": "Node", "name": "node"},
            {"type": "RBAC", "name": "rbac"},
        ],
    })
    .to_string()
}

/// Replaces what differs from run to run.
fn steady(text: &str) -> String {
    let mut out = text.to_owned();
    for (begin, end) in [("JTI=", "\""), ("X509SHA256=", "\"")] {
        if let Some(at) = out.find(begin) {
            let from = at + begin.len();
            let to = out[from..].find(end).map_or(out.len(), |n| from + n);
            out.replace_range(from..to, "…");
        }
    }
    out
}

fn check(said: &str, expected: Expect) {
    expected.assert_eq(&steady(said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_providers_and_webhooks_say_who_and_what() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name);
    let key = Key::new("RS256");
    let provider = Provider::start(&[("k", &key)]).await;
    put(&file("authentication"), &authentication(&provider, "'oidc:' + claims.sub"));
    put(&file("tokens"), "static,admin,1,\"system:masters,x\"\nplain,jane,2\n");
    // Knows tokens that begin with its name.
    let reviewer = serve(|request| {
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        assert_eq!(request.headers()["authorization"], "Bearer secret");
        let token = review["spec"]["token"].as_str().unwrap();
        let status = match token.strip_prefix("hook-") {
            Some("bad") => json!({"authenticated": false, "error": "bad hook token"}),
            Some(name) => json!({"authenticated": true, "user": {"username": name, "uid": "u", "groups": ["hooked"], "extra": {"k": ["v"]}}}),
            None => json!({"authenticated": false}),
        };
        let answer = json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status});
        http::Response::new(answer.to_string().into())
    })
    .await;
    reviewer.kubeconfig(&file("reviewer"), "/review");
    // Lets ann see secrets, denies bob what others would allow, fails for carl.
    let doorman = serve(|request| {
        let review: Value = serde_json::from_slice(request.body()).unwrap();
        let user = review["spec"]["user"].as_str().unwrap_or_default();
        let status = match user {
            "ann" => json!({"allowed": true, "reason": "ann is known"}),
            "bob" => json!({"allowed": false, "denied": true, "reason": "not bob"}),
            "carl" => return http::Response::builder().status(400).body("broken".into()).unwrap(),
            _ => json!({"allowed": false, "reason": "no opinion"}),
        };
        http::Response::new(
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
                .to_string()
                .into(),
        )
    })
    .await;
    doorman.kubeconfig(&file("doorman"), "/");
    let guarded = "has(request.resourceAttributes) && request.resourceAttributes.resource == 'secrets'";
    put(&file("authorization"), &authorization(&file("doorman"), guarded));

    let flag = |name: &str, path: &str| format!("--{name}={}", file(path).display());
    let cluster = Cluster::with(&[
        &flag("authentication-config", "authentication"),
        &flag("token-auth-file", "tokens"),
        "--enable-bootstrap-token-auth",
        &flag("authentication-token-webhook-config-file", "reviewer"),
        "--authentication-token-webhook-version=v1",
        &flag("authorization-config", "authorization"),
    ]);
    let ca = std::fs::read(cluster.data().join("pki/ca.crt")).unwrap();
    let asker = Asker {
        remote: apiserver::remote::Remote::new(&pki::tls::Trust::pem(&ca).unwrap()).unwrap(),
        url: format!("https://127.0.0.1:{}", cluster.port),
    };

    // Anonymous where the file says so.
    for (path, code) in [("/livez", 200), ("/readyz", 200), ("/version", 401), ("/api/v1/pods", 401)] {
        let (got, _, text) = asker.send(Method::GET, path, &[], Value::Null).await;
        assert_eq!(got, code, "{path}: {text}");
    }
    // Files.
    check(
        &asker.whoami("static").await,
        expect![[r#"{"groups":["system:masters","x","system:authenticated"],"uid":"1","username":"admin"}"#]],
    );
    check(
        &asker.whoami("plain").await,
        expect![[r#"{"groups":["system:authenticated"],"uid":"2","username":"jane"}"#]],
    );
    check(&asker.whoami("unknown").await, expect!["401 Unauthorized"]);
    // A token among WebSocket protocols, as browsers bring it.
    let protocol = format!(
        "v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.{}",
        URL_SAFE_NO_PAD.encode("plain")
    );
    let headers =
        [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-protocol", protocol.as_str())];
    let (code, answer, _) = asker.send(Method::GET, "/api/v1/pods", &headers, Value::Null).await;
    check(
        &format!("{code} {}", answer["message"]),
        expect![[
            r#"403 "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" at the cluster scope""#
        ]],
    );
    // Webhooks.
    check(
        &asker.whoami("hook-fred").await,
        expect![[
            r#"{"extra":{"k":["v"]},"groups":["hooked","system:authenticated"],"uid":"u","username":"fred"}"#
        ]],
    );
    check(&asker.whoami("hook-bad").await, expect!["401 Unauthorized"]);
    // A provider.
    let token = |more: Value| {
        let mut claims =
            json!({"iss": provider.url(), "aud": ["client"], "exp": now() + 600, "sub": "a", "jti": "id"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key.token("k", &claims)
    };
    let jane = token(json!({"sub": "jane", "groups": ["dev"], "tenant": "acme"}));
    let said = r#"{"username":"oidc:jane","groups":["oidc:dev","system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=id"],"example.com/tenant":["acme"]}}"#;
    asker.until(&jane, said).await;
    check(&asker.whoami(&token(json!({"aud": "stranger"}))).await, expect!["401 Unauthorized"]);
    check(&asker.whoami(&token(json!({"exp": now() - 1}))).await, expect!["401 Unauthorized"]);
    check(
        &asker.whoami(&Key::new("RS256").token("k", &json!({"iss": provider.url()}))).await,
        expect!["401 Unauthorized"],
    );
    // Bootstrap tokens.
    let secret = |id: &str, more: Value| {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token", "stringData": data})
    };
    for body in [
        secret("aaaaaa", json!({"auth-extra-groups": "system:bootstrappers:b,system:bootstrappers:a"})),
        secret("bbbbbb", json!({"usage-bootstrap-authentication": "false"})),
        secret("cccccc", json!({"expiration": "2020-01-01T00:00:00Z"})),
        secret("dddddd", json!({"auth-extra-groups": "system:masters"})),
    ] {
        let (code, made) =
            asker.with(Method::POST, "/api/v1/namespaces/kube-system/secrets", "static", body).await;
        assert_eq!(code, 201, "{made}");
    }
    let mut said = String::new();
    for token in [
        "aaaaaa.0123456789abcdef",
        "aaaaaa.0123456789abcdeX",
        "bbbbbb.0123456789abcdef",
        "cccccc.0123456789abcdef",
        "dddddd.0123456789abcdef",
        "eeeeee.0123456789abcdef",
    ] {
        said.push_str(&format!("{token}: {}\n", asker.whoami(token).await));
    }
    check(
        &said,
        expect![[r#"
        aaaaaa.0123456789abcdef: {"groups":["system:bootstrappers","system:bootstrappers:a","system:bootstrappers:b","system:authenticated"],"username":"system:bootstrap:aaaaaa"}
        aaaaaa.0123456789abcdeX: 401 Unauthorized
        bbbbbb.0123456789abcdef: 401 Unauthorized
        cccccc.0123456789abcdef: 401 Unauthorized
        dddddd.0123456789abcdef: 401 Unauthorized
        eeeeee.0123456789abcdef: 401 Unauthorized
    "#]],
    );
    // Reviews of tokens say why.
    let mut said = String::new();
    for (token, audiences) in [
        ("plain", json!([])),
        ("plain", json!(["https://kubernetes.default.svc.cluster.local", "x"])),
        ("plain", json!(["x"])),
        ("hook-fred", json!(["x"])),
        ("hook-bad", json!([])),
        ("unknown", json!([])),
        (token(json!({"exp": 1})).as_str(), json!([])),
        (token(json!({"sub": "system:admin"})).as_str(), json!([])),
    ] {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token, "audiences": audiences}});
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let (code, answer) = asker.with(Method::POST, path, "static", review).await;
        let token = if token.len() > 20 { "…" } else { token };
        said.push_str(&format!("{token} {audiences}: {code} {}\n", answer["status"]));
    }
    check(
        &said.replace(provider.url(), "ISSUER"),
        expect![[r#"
        plain []: 201 {"audiences":["https://kubernetes.default.svc.cluster.local"],"authenticated":true,"user":{"groups":["system:authenticated"],"uid":"2","username":"jane"}}
        plain ["https://kubernetes.default.svc.cluster.local","x"]: 201 {"audiences":["https://kubernetes.default.svc.cluster.local"],"authenticated":true,"user":{"groups":["system:authenticated"],"uid":"2","username":"jane"}}
        plain ["x"]: 201 {"error":"invalid bearer token","user":{}}
        hook-fred ["x"]: 201 {"error":"invalid bearer token","user":{}}
        hook-bad []: 201 {"error":"[invalid bearer token, bad hook token]","user":{}}
        unknown []: 201 {"error":"invalid bearer token","user":{}}
        … []: 201 {"error":"[invalid bearer token, oidc: verify token: oidc: token is expired (Token Expiry: 1970-01-01 00:00:01 +0000 UTC)]","user":{}}
        … []: 201 {"audiences":["https://kubernetes.default.svc.cluster.local"],"authenticated":true,"user":{"extra":{"authentication.kubernetes.io/credential-id":["JTI=…"]},"groups":["system:authenticated"],"username":"oidc:system:admin"}}
    "#]],
    );

    // Authorizers: the webhook first, where its condition holds.
    let mut said = String::new();
    for (user, resource) in [
        ("ann", "secrets"),
        ("ann", "pods"),
        ("bob", "secrets"),
        ("bob", "pods"),
        ("carl", "secrets"),
        ("dora", "secrets"),
    ] {
        let (code, answer) = asker
            .with(Method::GET, &format!("/api/v1/{resource}"), &format!("hook-{user}"), Value::Null)
            .await;
        said.push_str(&format!("{user} {resource}: {code} {}\n", answer["message"]));
    }
    check(
        &said.replace(&doorman.url, "DOORMAN"),
        expect![[r#"
        ann secrets: 200 null
        ann pods: 403 "pods is forbidden: User \"ann\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        bob secrets: 403 "secrets is forbidden: User \"bob\" cannot list resource \"secrets\" in API group \"\" at the cluster scope: not bob"
        bob pods: 403 "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" at the cluster scope"
        carl secrets: 500 null
        dora secrets: 403 "secrets is forbidden: User \"dora\" cannot list resource \"secrets\" in API group \"\" at the cluster scope: no opinion"
    "#]],
    );
    let mut said = String::new();
    for user in ["ann", "bob", "carl", "dora"] {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {"verb": "list", "resource": "secrets"}},
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let (_, answer) = asker.with(Method::POST, path, "static", review).await;
        said.push_str(&format!("{user}: {}\n", answer["status"]));
    }
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "default"}});
    let (_, answer) = asker
        .with(Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "plain", review)
        .await;
    said.push_str(&format!(
        "rules: {} {}\n",
        answer["status"]["incomplete"], answer["status"]["evaluationError"]
    ));
    check(
        &said.replace(&doorman.url, "DOORMAN"),
        expect![[r#"
        ann: {"allowed":true,"reason":"ann is known"}
        bob: {"allowed":false,"denied":true,"reason":"not bob"}
        carl: {"allowed":false,"denied":true,"evaluationError":"the server rejected our request for an unknown reason"}
        dora: {"allowed":false,"reason":"no opinion"}
        rules: true "webhook authorizer does not support user rule resolution"
    "#]],
    );

    // Both files are followed.
    put(&file("authentication"), &authentication(&provider, "'new:' + claims.sub"));
    let again = token(json!({"sub": "jane"}));
    asker.until(&again, r#"{"username":"new:jane","groups":["system:authenticated"],"extra":{"authentication.kubernetes.io/credential-id":["JTI=id"]}}"#).await;
    put(&file("authentication"), "nonsense");
    put(&file("authorization"), &authorization(&file("doorman"), "request.user == 'ann'"));
    let end = Instant::now() + PATIENCE;
    while asker.with(Method::GET, "/api/v1/pods", "hook-ann", Value::Null).await.0 != 200 {
        assert!(Instant::now() < end, "the new authorization configuration is not in use");
    }
    let (_, _, text) =
        asker.send(Method::GET, "/metrics", &[("authorization", "Bearer static")], Value::Null).await;
    let metrics: Vec<&str> = text
        .lines()
        .filter(|line| {
            [
                "automatic_reloads_total",
                "authorization_webhook_evaluations_total",
                "authorization_match_condition_exclusions",
                "authentication_attempts",
                "authorization_decisions_total",
            ]
            .iter()
            .any(|name| line.contains(name) && !line.starts_with('#'))
        })
        .map(|line| line.rsplit_once(' ').unwrap().0)
        .collect();
    let hash =
        text.find("apiserver_id_hash=\"").map(|at| text[at..].split('"').nth(1).unwrap().to_owned()).unwrap();
    check(
        &metrics.join("\n").replace(&hash, "HASH"),
        expect![[r#"
        apiserver_authentication_config_controller_automatic_reloads_total{apiserver_id_hash="HASH",status="failure"}
        apiserver_authentication_config_controller_automatic_reloads_total{apiserver_id_hash="HASH",status="success"}
        apiserver_authorization_config_controller_automatic_reloads_total{apiserver_id_hash="HASH",status="success"}
        apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"}
        apiserver_authorization_decisions_total{decision="allowed",name="doorman",type="Webhook"}
        apiserver_authorization_decisions_total{decision="denied",name="doorman",type="Webhook"}
        apiserver_authorization_match_condition_exclusions_total{name="doorman",type="Webhook"}
        apiserver_authorization_webhook_evaluations_total{name="doorman",result="error"}
        apiserver_authorization_webhook_evaluations_total{name="doorman",result="success"}
        authentication_attempts{result="error"}
        authentication_attempts{result="failure"}
        authentication_attempts{result="success"}"#]],
    );
}
