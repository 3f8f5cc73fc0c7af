//! A control plane as a user meets it: the real binary, driven by real kubectl, killed and started again.
#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Cluster {
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
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

fn start(data: &Path, port: u16) -> Child {
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
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

impl Cluster {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Freed at once and taken again by the server a moment later.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = start(&directory.path().join("data"), port);
        let mut cluster = Cluster { directory, port, server };
        cluster.ready();
        cluster
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Waits for `/readyz`, asked by kubectl.
    fn ready(&mut self) {
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

    fn try_run(&self, version: &str, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(kubectl(version))
            .args(arguments)
            .env("KUBECONFIG", self.data().join("admin.kubeconfig"))
            .env("HOME", self.directory.path())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap().trim().to_owned())
    }

    fn run(&self, version: &str, arguments: &[&str]) -> String {
        let (ok, text) = self.try_run(version, arguments);
        assert!(ok, "kubectl {arguments:?}: {text}");
        text
    }

    fn refused(&self, arguments: &[&str]) -> String {
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

#[test]
fn kubectl_works_and_nothing_is_lost() {
    let mut cluster = Cluster::new();
    for version in ["1.36.4", "1.37.1"] {
        let run = |arguments: &[&str]| cluster.run(version, arguments);
        assert!(run(&["version"]).contains("Server Version: v1.36.2"));
        let namespaces = run(&["get", "namespaces", "-o", "name"]);
        for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            assert!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
        }
        let name = format!("cm-{}", version.replace('.', "-"));
        run(&["create", "configmap", &name, "--from-literal=a=b"]);
        run(&["label", "configmap", &name, "x=y"]);
        assert_eq!(
            run(&["get", "configmap", "-l", "x=y", "-o", "jsonpath={.items[*].data.a}"]).split(' ').next(),
            Some("b")
        );
        run(&["annotate", "configmap", &name, "note=1"]);
        run(&["patch", "configmap", &name, "--type=merge", "-p", r#"{"data":{"c":"d"}}"#]);
        assert_eq!(run(&["get", "configmap", &name, "-o", "jsonpath={.data}"]), r#"{"a":"b","c":"d"}"#);
        assert_eq!(run(&["auth", "can-i", "delete", "pods"]), "yes");
        assert!(run(&["explain", "pod.spec.containers"]).contains("<[]Container>"));
        assert!(run(&["api-resources"]).contains("deployments"));
    }
    // A service account may do what it is granted, and no more.
    cluster.run("1.36.4", &["create", "serviceaccount", "reader"]);
    let token = cluster.run("1.36.4", &["create", "token", "reader"]);
    // Without --kubeconfig's certificate: kubectl prefers it over a token.
    let server = format!("https://127.0.0.1:{}", cluster.port);
    let ca = cluster.data().join("pki/ca.crt");
    let as_reader = |arguments: &[&str]| {
        let mut all = vec![
            "--kubeconfig=/dev/null",
            "--server",
            &server,
            "--certificate-authority",
            ca.to_str().unwrap(),
            "--token",
            &token,
        ];
        all.extend_from_slice(arguments);
        cluster.try_run("1.36.4", &all)
    };
    let (ok, text) = as_reader(&["get", "configmaps", "-n", "default"]);
    assert!(!ok);
    assert_eq!(
        text,
        "Error from server (Forbidden): configmaps is forbidden: User \"system:serviceaccount:default:reader\" cannot list \
         resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    cluster.run(
        "1.36.4",
        &["create", "rolebinding", "view", "--clusterrole=view", "--serviceaccount=default:reader"],
    );
    assert!(as_reader(&["get", "configmaps", "-n", "default"]).0);
    assert!(!as_reader(&["get", "secrets", "-n", "default"]).0);
    let (_, forged) = cluster.try_run(
        "1.36.4",
        &[
            "--kubeconfig=/dev/null",
            "--server",
            &server,
            "--certificate-authority",
            ca.to_str().unwrap(),
            "--token",
            "forged",
            "get",
            "ns",
        ],
    );
    assert!(forged.contains("Unauthorized"), "{forged}");

    assert_eq!(
        cluster.refused(&["get", "configmap", "none"]),
        "Error from server (NotFound): configmaps \"none\" not found"
    );
    assert!(
        cluster
            .refused(&["delete", "namespace", "kube-system"])
            .contains("this namespace may not be deleted")
    );
    assert!(
        cluster
            .refused(&["create", "configmap", "x", "-n", "nowhere"])
            .contains("namespaces \"nowhere\" not found")
    );

    let before = cluster.run("1.36.4", &["get", "configmaps,roles,clusterroles", "-A", "-o", "json"]);
    cluster.server.kill().unwrap();
    cluster.server.wait().unwrap();
    cluster.server = start(&cluster.data(), cluster.port);
    cluster.ready();
    assert_eq!(cluster.run("1.36.4", &["get", "configmaps,roles,clusterroles", "-A", "-o", "json"]), before);
}
