//! Certificates and authorities of `tiphys apiserver`, replaced while it runs.
#![allow(clippy::unwrap_used)]

use apimachinery::value::Value;
use bytes::Bytes;
use client::https::Https;
use client::transport::Transport as _;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use pki::tls::{Slot, Trust, client_config};
use pki::{Authority, Identity, PrivateKey, Profile, San, Subject};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(86_400);

/// The server, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file, put in place whole.
fn put(path: &Path, text: impl AsRef<[u8]>) {
    let beside = path.with_extension("new");
    std::fs::write(&beside, text).unwrap();
    std::fs::rename(&beside, path).unwrap();
}

fn authority(name: &str) -> Authority {
    Authority::create(name, DAY, jiff::Timestamp::now()).unwrap()
}

fn serving(authority: &Authority) -> Identity {
    let sans = vec![San::Ip([127, 0, 0, 1].into())];
    authority
        .issue(&Profile::server(Subject::new("apiserver", &[]), sans, DAY), jiff::Timestamp::now())
        .unwrap()
}

fn tester(authority: &Authority) -> Identity {
    let subject = Subject::new("tester", &["system:masters"]);
    authority.issue(&Profile::client(subject, DAY), jiff::Timestamp::now()).unwrap()
}

/// Who the server says one is, over a connection of its own; nothing when it is not trusted or does not answer.
async fn whoami(port: u16, trusted: &Authority, identity: &Identity) -> Option<String> {
    let trust = Trust::pem(trusted.certificate.to_pem().as_bytes()).unwrap();
    let tls = client_config(&trust, Some(Slot::of(identity).unwrap()), pki::tls::ALPN_HTTP1).unwrap();
    let transport = Https::new(&format!("https://127.0.0.1:{port}"), tls, None).unwrap();
    let review = r#"{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}"#;
    let request =
        Request::builder().method(Method::POST).uri("/apis/authentication.k8s.io/v1/selfsubjectreviews");
    let request = request.header("content-type", "application/json").body(Bytes::from(review)).unwrap();
    let body = transport.send(request).await.ok()?.into_body().collect().await.ok()?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    Some(answer["status"]["userInfo"]["username"].as_str().unwrap_or("refused").to_owned())
}

async fn until(port: u16, trusted: &Authority, identity: &Identity, wanted: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let said = whoami(port, trusted, identity).await;
        if said.as_deref() == Some(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{said:?}, not {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_read_anew() {
    pki::tls::install_provider();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (old, new) = (authority("old"), authority("new"));
    let first = serving(&old);
    put(&at("tls.crt"), first.certificate.to_pem());
    put(&at("tls.key"), first.key.to_pem());
    put(&at("clients.crt"), old.certificate.to_pem());
    put(&at("sa.key"), PrivateKey::generate().unwrap().to_pem());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let flag = |name: &str, file: &str| format!("--{name}={}", at(file).display());
    let mut server = Command::new(env!("CARGO_BIN_EXE_tiphys"))
        .args(["apiserver", "--bind-address=127.0.0.1", "--service-account-issuer=https://test"])
        .args([format!("--secure-port={port}"), flag("data-dir", "data")])
        .args([flag("tls-cert-file", "tls.crt"), flag("tls-private-key-file", "tls.key")])
        .args([flag("client-ca-file", "clients.crt"), flag("service-account-signing-key-file", "sa.key")])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(server.stderr.take().unwrap());
    let _server = Running(server);
    let mut lines = log.lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("the API server is ready")));
    std::thread::spawn(move || lines.for_each(drop));
    until(port, &old, &tester(&old), "tester").await;
    assert_eq!(whoami(port, &new, &tester(&old)).await, None);

    // A certificate whose key is yet to come changes nothing.
    let second = serving(&new);
    put(&at("tls.crt"), second.certificate.to_pem());
    until(port, &old, &tester(&old), "tester").await;
    put(&at("tls.key"), second.key.to_pem());
    until(port, &new, &tester(&old), "tester").await;

    put(&at("clients.crt"), new.certificate.to_pem());
    until(port, &new, &tester(&new), "tester").await;
    until(port, &new, &tester(&old), "refused").await;
}
