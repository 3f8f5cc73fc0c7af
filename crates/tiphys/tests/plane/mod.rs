//! Several servers of the real binary over one etcd, and clients that go to
//! another server when one fails.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use apimachinery::value::Value;
use bytes::Bytes;
use client::https::Https;
use client::transport::Transport as _;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use pki::tls::{Slot, Trust, client_config};
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a client waits for one server before it asks another.
pub const ATTEMPT: Duration = Duration::from_secs(2);

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One server.
pub struct Server {
    pub data: PathBuf,
    pub port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    log: watch::Sender<Vec<String>>,
}

impl Server {
    /// A server without a node on a data directory, not started yet.
    fn prepared(data: &Path, more: &[&str]) -> Self {
        let port = free_port();
        let port_text = port.to_string();
        let words = ["server", "--no-node", "--bind-address", "127.0.0.1", "--node-ip", "127.0.0.1"];
        let named =
            ["--node-name", "test", "--secure-port", &port_text, "--data-dir", data.to_str().unwrap()];
        let arguments = words.iter().chain(&named).chain(more).map(|word| (*word).to_owned()).collect();
        let log = watch::Sender::new(Vec::new());
        Server { data: data.to_owned(), port, arguments, child: None, log }
    }

    fn spawn(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tiphys"));
        let mut child = command.args(&self.arguments).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log = self.log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                log.send_modify(|log| log.push(line));
            }
        });
        self.child = Some(child);
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.child.take().unwrap().wait().unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn log(&self) -> String {
        self.log.borrow().join("\n")
    }

    /// Whether its log has said this.
    pub fn said(&self, what: &str) -> bool {
        self.log.borrow().iter().any(|line| line.contains(what))
    }

    /// Waits until its log has said this.
    pub async fn has_said(&self, what: &str) {
        let mut log = self.log.subscribe();
        let said = log.wait_for(|log| log.iter().any(|line| line.contains(what)));
        let said = tokio::time::timeout(Duration::from_secs(30), said).await.is_ok();
        assert!(said, "{what:?} is not said: {}", self.log());
    }

    /// Waits until its log says this, from now on.
    async fn says(&self, what: &str) {
        let mut log = self.log.subscribe();
        let from = log.borrow_and_update().len();
        let said = log.wait_for(|log| log[from..].iter().any(|line| line.contains(what)));
        let said = tokio::time::timeout(Duration::from_secs(60), said).await.is_ok();
        assert!(said, "{what:?} is not said: {}", self.log());
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// A client of this server alone, as the administrator.
    pub fn door(&self) -> Door {
        Door::new(&self.data, &[self.url()])
    }

    /// Starts it and waits until it is ready.
    pub async fn started(data: &Path, more: &[&str]) -> Self {
        let mut server = Server::prepared(data, more);
        server.restarted().await;
        server
    }

    /// Starts it again and waits until it is ready.
    pub async fn restarted(&mut self) {
        self.kill();
        self.log.send_modify(Vec::clear);
        self.spawn();
        self.says("the API server is ready").await;
        let door = self.door();
        let until = Instant::now() + Duration::from_secs(60);
        // Its first controllers and caches come up: it says so itself.
        while door.raw("/readyz").await.0 != 200 {
            assert!(Instant::now() < until, "not ready: {}", self.log());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client that knows several servers, and goes to the next when one fails.
#[derive(Clone)]
pub struct Door {
    ways: Arc<Vec<Https>>,
    current: Arc<AtomicUsize>,
}

impl Door {
    /// With the certificates of a data directory.
    pub fn new(data: &Path, urls: &[String]) -> Self {
        let read = |name: &str| std::fs::read(data.join("pki").join(name)).unwrap();
        let slot = Slot::of_pem(&read("admin.crt"), &read("admin.key")).unwrap();
        let trust = Trust::pem(&read("ca.crt")).unwrap();
        let way = |url: &String| {
            Https::new(url, client_config(&trust, Some(slot.clone()), &[b"h2"]).unwrap(), None).unwrap()
        };
        Door { ways: Arc::new(urls.iter().map(way).collect()), current: Default::default() }
    }

    /// One request to the server that answered last; nothing when it does not answer, and the next one is asked then.
    pub async fn attempt(&self, method: &Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let at = self.current.load(Ordering::Relaxed);
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let media =
            if *method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let answer = async {
            let response = self.ways[at % self.ways.len()].send(request.body(bytes).unwrap()).await.ok()?;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
            Some((code, serde_json::from_slice(&body).unwrap_or_else(|_| text())))
        };
        let answer = tokio::time::timeout(ATTEMPT, answer).await.ok().flatten();
        let answer = answer.filter(|(code, _)| *code < 500 && *code != 429);
        if answer.is_none() {
            let _ = self.current.compare_exchange(at, at + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        answer
    }

    /// A request until somebody answers it, and for how long nobody did.
    pub async fn insist(&self, method: Method, path: &str, body: &Value) -> (u16, Value, Option<Duration>) {
        let begun = Instant::now();
        let mut failed = None;
        loop {
            let at = Instant::now();
            if let Some((code, value)) = self.attempt(&method, path, body).await {
                return (code, value, failed.map(|since: Instant| since.elapsed()));
            }
            failed.get_or_insert(at);
            assert!(begun.elapsed() < Duration::from_secs(60), "{method} {path}: nobody answers");
            // A client's pause between two attempts.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn get(&self, path: &str) -> Value {
        let (code, value, _) = self.insist(Method::GET, path, &Value::Null).await;
        assert_eq!(code, 200, "{path}: {value}");
        value
    }

    pub async fn create(&self, path: &str, body: Value) -> Value {
        let (code, value, _) = self.insist(Method::POST, path, &body).await;
        assert!(code == 201 || code == 409, "{path}: {code} {value}");
        value
    }

    /// Status and text of one request, whatever it is; 0 when there is no answer in time.
    pub async fn raw(&self, path: &str) -> (u16, String) {
        self.raw_within(Method::GET, path, Value::Null, ATTEMPT).await
    }

    pub async fn raw_within(
        &self,
        method: Method,
        path: &str,
        body: Value,
        patience: Duration,
    ) -> (u16, String) {
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let answer = async {
            let response = self.ways[0].send(request.body(bytes).unwrap()).await.ok()?;
            let code = response.status().as_u16();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((code, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::time::timeout(patience, answer).await.ok().flatten().unwrap_or_default()
    }
}
