//! A directory of manifests: the real binary, driven by real kubectl.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod server;

use server::{Cluster, start_with};
use std::path::Path;
use std::time::{Duration, Instant};

/// Needs a kind and a namespace that only later files declare.
const SHIP: &str = "\
apiVersion: harbour.example.com/v1
kind: Ship
metadata: {name: argo, namespace: sea}
spec: {oars: 50}
";
const KIND: &str = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.harbour.example.com}
spec:
  group: harbour.example.com
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship, listKind: ShipList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {oars: {type: integer}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: sea}
";

fn crew(names: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: crew, labels: {{of: argo}}}}\ndata: {{names: {names}}}\n"
    )
}

/// As careful programs write: no reader sees half of it.
fn write(directory: &Path, file: &str, text: &str) {
    let aside = directory.join(format!(".{file}"));
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, directory.join(file)).unwrap();
}

fn until(cluster: &Cluster, arguments: &[&str], wanted: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let (ok, text) = cluster.try_run("1.36.4", arguments);
        if ok && text == wanted {
            return;
        }
        assert!(Instant::now() < end, "kubectl {arguments:?}: {text}, not {wanted}");
    }
}

#[test]
fn a_directory_is_kept_applied() {
    let own = tempfile::tempdir().unwrap();
    let directory = own.path();
    write(directory, "a-ship.yaml", SHIP);
    write(directory, "b-kind.yml", KIND);
    write(directory, "c-crew.yaml", &crew("jason"));
    write(directory, "notes.txt", "no manifest");
    let flag = format!("--manifests={}", directory.display());
    let mut cluster = Cluster::with(&[&flag]);
    let crew_is = |cluster: &Cluster, wanted: &str| {
        until(
            cluster,
            &["get", "configmap", "crew", "-o", "jsonpath={.data.names} {.metadata.labels.of}"],
            wanted,
        );
    };
    let oars_are = |cluster: &Cluster, wanted: &str| {
        until(cluster, &["get", "ship", "argo", "-n", "sea", "-o", "jsonpath={.spec.oars}"], wanted);
    };
    oars_are(&cluster, "50");
    crew_is(&cluster, "jason argo");
    let managers = [
        "get",
        "configmap",
        "crew",
        "--show-managed-fields",
        "-o",
        "jsonpath={.metadata.managedFields[*].manager}",
    ];
    assert_eq!(cluster.run("1.36.4", &managers), "tiphys-manifests");

    // A file changes; somebody changes and deletes what they declare.
    write(directory, "c-crew.yaml", &crew("orpheus"));
    crew_is(&cluster, "orpheus argo");
    cluster.run(
        "1.36.4",
        &["patch", "configmap", "crew", "--type=merge", "-p", r#"{"data":{"names":"medea"}}"#],
    );
    crew_is(&cluster, "orpheus argo");
    cluster.run("1.36.4", &["label", "configmap", "crew", "of-"]);
    crew_is(&cluster, "orpheus argo");
    cluster.run(
        "1.36.4",
        &["patch", "ship", "argo", "-n", "sea", "--type=merge", "-p", r#"{"spec":{"oars":49}}"#],
    );
    oars_are(&cluster, "50");
    cluster.run("1.36.4", &["delete", "ship", "argo", "-n", "sea"]);
    oars_are(&cluster, "50");
    // What somebody adds is his.
    cluster.run("1.36.4", &["annotate", "configmap", "crew", "note=his"]);
    write(directory, "c-crew.yaml", &crew("hylas"));
    crew_is(&cluster, "hylas argo");
    let note = ["get", "configmap", "crew", "-o", "jsonpath={.metadata.annotations.note}"];
    assert_eq!(cluster.run("1.36.4", &note), "his");

    // What cannot be read declares what it did, and hinders nobody.
    write(directory, "c-crew.yaml", "kind: [");
    write(
        directory,
        "d-more.json",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"more"},"data":{"a":"b"}}"#,
    );
    until(&cluster, &["get", "configmap", "more", "-o", "jsonpath={.data.a}"], "b");
    cluster.run("1.36.4", &["delete", "configmap", "crew"]);
    crew_is(&cluster, "hylas argo");

    // What is declared no more stays as it is, over a restart as well; what changed meanwhile is set right.
    std::fs::remove_file(directory.join("d-more.json")).unwrap();
    write(directory, "c-crew.yaml", &crew("castor"));
    crew_is(&cluster, "castor argo");
    cluster.server.kill().unwrap();
    cluster.server.wait().unwrap();
    write(directory, "c-crew.yaml", &crew("pollux"));
    cluster.server = start_with(&cluster.data(), cluster.port, &[&flag]);
    cluster.ready();
    crew_is(&cluster, "pollux argo");
    assert_eq!(cluster.run("1.36.4", &["get", "configmap", "more", "-o", "jsonpath={.data.a}"]), "b");
    assert_eq!(
        cluster.run("1.36.4", &["get", "ship", "argo", "-n", "sea", "-o", "jsonpath={.spec.oars}"]),
        "50"
    );
}

#[test]
fn a_directory_that_is_not_there_is_told() {
    let own = tempfile::tempdir().unwrap();
    let none = own.path().join("none");
    let server = start_with(&own.path().join("data"), 0, &["--manifests", none.to_str().unwrap()]);
    let output = server.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains(&format!("--manifests {}", none.display())) && said.contains("No such file"),
        "{said}"
    );
}
