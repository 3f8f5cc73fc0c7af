//! The real binary as a control plane of a test's own, and kubectl against it.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A control plane without a node.
pub struct Cluster {
    pub directory: tempfile::TempDir,
    pub port: u16,
    pub server: Child,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// kubectl of a version, installed when it is not there.
fn kubectl(version: &str) -> PathBuf {
    let output = Command::new(root().join("scripts/kubectl")).arg(version).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().into()
}

pub fn start(data: &Path, port: u16) -> Child {
    start_with(data, port, &[])
}

pub fn start_with(data: &Path, port: u16, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_tiphys"))
        .args([
            "server",
            "--no-node",
            "--bind-address",
            "127.0.0.1",
            "--node-ip",
            "127.0.0.1",
            "--node-name",
            "test",
        ])
        .args(["--secure-port", &port.to_string()])
        .arg("--data-dir")
        .arg(data)
        .args(more)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Cluster {
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// One with more flags.
    pub fn with(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Freed at once and taken again by the server a moment later.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = start_with(&directory.path().join("data"), port, flags);
        let mut cluster = Cluster { directory, port, server };
        cluster.ready();
        cluster
    }

    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Waits for `/readyz`, asked by kubectl.
    pub fn ready(&mut self) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.server.try_wait().unwrap() {
                let mut log = String::new();
                self.server.stderr.take().unwrap().read_to_string(&mut log).unwrap();
                panic!("the server ended with {status}: {log}");
            }
            if self.data().join("admin.kubeconfig").exists()
                && self.try_run("1.36.4", &["get", "--raw", "/readyz"]).0
            {
                return;
            }
            assert!(Instant::now() < until, "not ready within 30 s");
        }
    }

    pub fn try_run(&self, version: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(kubectl(version))
            .args(arguments)
            .env("KUBECONFIG", self.data().join("admin.kubeconfig"))
            .env("HOME", self.directory.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
    }

    pub fn run(&self, version: &str, arguments: &[&str]) -> String {
        let (ok, text) = self.try_run(version, arguments);
        assert!(ok, "kubectl {arguments:?}: {text}");
        text
    }

    pub fn refused(&self, arguments: &[&str]) -> String {
        let (ok, text) = self.try_run("1.36.4", arguments);
        assert!(!ok, "kubectl {arguments:?}: {text}");
        text
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
