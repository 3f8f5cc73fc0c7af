//! Tokens of service accounts that a signer behind a socket signs: the real binary, in both of its shapes.
#![allow(clippy::unwrap_used)]

#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
#[path = "../../apiserver/src/authn/external_jwt/generated.rs"]
mod generated;
#[path = "../../apiserver/tests/house/signer.rs"]
mod signer;

use apimachinery::json;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use expect_test::{Expect, expect};
use http::{HeaderMap, Method};
use signer::Signer;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and an administrator who is known to it by a token.
struct House {
    url: String,
    remote: apiserver::remote::Remote,
    _server: Running,
}

impl House {
    /// Starts `tiphys` with these words; the signer comes when the server waits for it.
    async fn start(words: &[&str], directory: &Path, signer: &mut Signer) -> Self {
        pki::tls::install_provider();
        let (tokens, socket) = (directory.join("tokens"), directory.join("signer"));
        std::fs::write(&tokens, "admin,admin,1,system:masters\n").unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let mut server = Command::new(env!("CARGO_BIN_EXE_tiphys"))
            .args(words)
            .args([format!("--secure-port={port}"), "--bind-address=127.0.0.1".into()])
            .args([flag("data-dir", &directory.join("data")), flag("token-auth-file", &tokens)])
            .arg(flag("service-account-signing-endpoint", &socket))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = BufReader::new(server.stderr.take().unwrap());
        let server = Running(server);
        signer.listen(&socket);
        let ready = tokio::task::spawn_blocking(move || {
            let mut lines = log.lines().map_while(Result::ok);
            let ready = lines.any(|line| line.contains("the API server is ready"));
            std::thread::spawn(move || lines.for_each(drop));
            ready
        });
        assert!(ready.await.unwrap());
        let remote = apiserver::remote::Remote::new(&pki::tls::Trust::Anyone).unwrap();
        House { url: format!("https://127.0.0.1:{port}"), remote, _server: server }
    }

    async fn ask(&self, token: &str, method: Method, path: &str, body: Value) -> (u16, HeaderMap, Value) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/json".parse().unwrap());
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let url = format!("{}{path}", self.url);
        let answer = self.remote.call(method, &url, headers, body, Duration::from_secs(30)).await.unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (answer.status.as_u16(), answer.headers, value)
    }

    /// A token for the default service account, with more in its specification.
    async fn token(&self, spec: Value) -> (HeaderMap, Value) {
        let path = "/api/v1/namespaces/default/serviceaccounts/tester/token";
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let (code, headers, answer) = self.ask("admin", Method::POST, path, request).await;
        assert_eq!(code, 201, "{answer}");
        (headers, answer["status"]["token"].clone())
    }

    /// What a review says of a token.
    async fn review(&self, token: &Value) -> Value {
        let path = "/apis/authentication.k8s.io/v1/tokenreviews";
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        let (_, _, answer) = self.ask("admin", Method::POST, path, review).await;
        match answer["status"]["error"].as_str() {
            Some(error) => error.into(),
            None => answer["status"]["user"]["username"].clone(),
        }
    }
}

fn claims(token: &Value) -> Value {
    let part = token.as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

const TESTER: &str = "system:serviceaccount:default:tester";

async fn story(words: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut signer = Signer::new();
    let house = House::start(words, directory.path(), &mut signer).await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tester"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tester"},
        "spec": {"serviceAccountName": "tester", "containers": [{"name": "a", "image": "a"}]},
    });
    for (path, object) in [("serviceaccounts", account), ("pods", pod)] {
        let path = format!("/api/v1/namespaces/default/{path}");
        let (code, _, answer) = house.ask("admin", Method::POST, &path, object).await;
        assert_eq!(code, 201, "{answer}");
    }

    // A token of the signer's is good for a review, and for a request.
    let (_, first) = house.token(json!({})).await;
    assert_eq!(claims(&first)["sub"], TESTER);
    assert_eq!(house.review(&first).await, TESTER);
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (_, _, who) = house.ask(first.as_str().unwrap(), Method::POST, path, review).await;
    assert_eq!(who["status"]["userInfo"]["username"], TESTER);

    // None lives longer than the signer allows: not those that ask for it, nor those that pods mount.
    let (headers, long) = house.token(json!({"expirationSeconds": 100_000})).await;
    assert_eq!(
        headers["warning"],
        "299 - \"requested expiration of 100000 seconds shortened to 86400 seconds\""
    );
    let life = |token: &Value| {
        let claims = claims(token);
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap()
    };
    assert_eq!(life(&long), 86_400);
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "tester"});
    let (_, mounted) = house.token(json!({"expirationSeconds": 3607, "boundObjectRef": bound})).await;
    assert_eq!(life(&mounted), 86_400);

    // Its keys are published, but for those that it withholds.
    let jwks = async || {
        let (_, headers, keys) = house.ask("admin", Method::GET, "/openid/v1/jwks/", Value::Null).await;
        assert_eq!(headers["content-type"], "application/jwk-set+json");
        let kept = headers["cache-control"].to_str().unwrap().strip_prefix("public, max-age=").unwrap();
        assert!((3000..=3600).contains(&kept.parse::<u64>().unwrap()), "{kept}");
        let keys = keys["keys"].as_array().unwrap();
        keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(jwks().await, "a");

    // Keys rotate: the new one is met in the first token that it signs, and the old one's tokens stay good.
    signer.rotate("b");
    let (_, second) = house.token(json!({})).await;
    assert_eq!((house.review(&first).await, house.review(&second).await), (TESTER.into(), TESTER.into()));
    assert_eq!(jwks().await, "a b");

    // A token of a key under another's name, or under nobody's, is nobody's.
    let check = async |kid: &str, wanted: Expect| {
        let header = json!({"alg": "ES256", "kid": kid, "typ": "JWT"}).to_string();
        signer.set(|state| state.header = Some(header));
        let (_, token) = house.token(json!({})).await;
        wanted.assert_eq(house.review(&token).await.as_str().unwrap());
    };
    check("a", expect!["[invalid bearer token, token: signature does not verify with any known key]"]).await;
    check("c", expect!["[invalid bearer token, invalid signature, no keys found]"]).await;

    // What the signer says wrong is told to whoever asks for a token.
    signer.set(|state| state.header = Some(r#"{"alg":"none","kid":"a","typ":"JWT"}"#.into()));
    let path = "/api/v1/namespaces/default/serviceaccounts/tester/token";
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let (code, _, answer) = house.ask("admin", Method::POST, path, request.clone()).await;
    assert_eq!(code, 500);
    expect![[r#"Internal error occurred: failed to generate token: while validating header: bad signing algorithm "none""#]]
        .assert_eq(answer["message"].as_str().unwrap());
    signer.set(|state| state.header = None);

    // While the signer is away its tokens are good, and who asks for one waits until it is back.
    signer.leave().await;
    assert_eq!(house.review(&second).await, TESTER);
    let late = format!("{path}?timeout=300ms");
    let (code, _, answer) = house.ask("admin", Method::POST, &late, request).await;
    assert_eq!(code, 504, "{answer}");
    signer.listen(&directory.path().join("signer"));
    let (_, third) = house.token(json!({})).await;
    assert_eq!(house.review(&third).await, TESTER);

    let (_, _, metrics) = house.ask("admin", Method::GET, "/metrics", Value::Null).await;
    let counted = metrics.as_str().unwrap().lines().filter(|line| {
        line.starts_with("apiserver_externaljwt_") && line.contains("_total{") && line.contains("sign")
    });
    expect![[r#"
        apiserver_externaljwt_sign_request_total{code="DeadlineExceeded"} 1
        apiserver_externaljwt_sign_request_total{code="OK"} 7
        apiserver_externaljwt_sign_request_total{code="unknown-non-grpc"} 1"#]]
    .assert_eq(&counted.collect::<Vec<_>>().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_signs_for_a_server() {
    story(&["server", "--no-node", "--node-ip=127.0.0.1", "--node-name=test"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signer_signs_for_an_api_server() {
    let certificates = tempfile::tempdir().unwrap();
    let flag = format!("--cert-dir={}", certificates.path().display());
    story(&["apiserver", "--service-account-issuer=https://test", &flag]).await;
}

#[test]
fn a_signer_and_keys_exclude_each_other() {
    let check = |more: &[&str], wanted: Expect| {
        let directory = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tiphys"))
            .args(["apiserver", "--service-account-issuer=https://test", "--bind-address=127.0.0.1"])
            .arg(format!("--cert-dir={}", directory.path().display()))
            .args(more)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        wanted.assert_eq(text.lines().rfind(|line| line.starts_with("error: ")).unwrap_or(&text));
    };
    let endpoint = "--service-account-signing-endpoint=/signer";
    for more in ["--service-account-key-file=/a", "--service-account-signing-key-file=/a"] {
        check(
            &[endpoint, more],
            expect![
                "error: can't set `--service-account-signing-key-file` and/or `--service-account-key-file` with `--service-account-signing-endpoint` (They are mutually exclusive)"
            ],
        );
    }
    check(
        &["--service-account-signing-endpoint=@a/b"],
        expect![
            r#"error: invalid value "@a/b" passed for `--service-account-signing-endpoint`, when prefixed with @ must be a valid abstract socket name"#
        ],
    );
}
