//! A control plane as a user meets it: the real binary, driven by real kubectl, killed and started again.
#![allow(clippy::unwrap_used)]

mod server;

use server::{Cluster, start};
use std::time::{Duration, Instant};

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
    // The authorizer learns of it by its own watch.
    let end = Instant::now() + Duration::from_secs(30);
    while !as_reader(&["get", "configmaps", "-n", "default"]).0 {
        assert!(Instant::now() < end, "the grant never counted");
    }
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
