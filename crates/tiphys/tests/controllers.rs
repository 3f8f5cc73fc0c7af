//! The controllers as a user meets them: the real binary without a node, driven by real kubectl.
#![allow(clippy::unwrap_used)]

mod server;

use server::Cluster;
use std::io::Write as _;
use std::time::{Duration, Instant};

const KUBECTL: &str = "1.36.4";

fn run(cluster: &Cluster, words: &str) -> String {
    cluster.run(KUBECTL, &words.split_whitespace().collect::<Vec<_>>())
}

/// Applies YAML.
fn apply(cluster: &Cluster, yaml: &str) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    cluster.run(KUBECTL, &["apply", "-f", file.path().to_str().unwrap()]);
}

/// Waits until kubectl prints what is wanted.
fn until(cluster: &Cluster, words: &str, wanted: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let (_, text) = cluster.try_run(KUBECTL, &words.split_whitespace().collect::<Vec<_>>());
        if wanted(&text) {
            return text;
        }
        assert!(Instant::now() < end, "kubectl {words}: {text}");
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nothing}]}
";

/// Objects of a Deployment that are left.
fn left(cluster: &Cluster) -> String {
    run(cluster, "get deployments,replicasets,pods -n shop -o name")
}

#[test]
fn dependents_go_with_their_owner_or_are_let_go() {
    let cluster = Cluster::new();
    run(&cluster, "create namespace shop");
    let deployed = || {
        apply(&cluster, DEPLOYMENT);
        until(&cluster, "get pods -n shop -l app=web -o name", |text| text.lines().count() == 2);
    };
    for cascade in ["background", "foreground"] {
        deployed();
        run(&cluster, &format!("delete deployment web -n shop --cascade={cascade} --timeout=30s"));
        until(&cluster, "get deployments,replicasets,pods -n shop -o name", |text| !text.contains('/'));
    }
    deployed();
    run(&cluster, "delete deployment web -n shop --cascade=orphan --timeout=30s");
    let kept = left(&cluster);
    assert_eq!(kept.lines().filter(|line| line.starts_with("replicaset")).count(), 1, "{kept}");
    assert_eq!(kept.lines().filter(|line| line.starts_with("pod")).count(), 2, "{kept}");
    assert_eq!(run(&cluster, "get replicasets -n shop -o jsonpath={.items[*].metadata.ownerReferences}"), "");
    // A Deployment of the same selector takes what was let go.
    apply(&cluster, DEPLOYMENT);
    until(
        &cluster,
        "get replicasets -n shop -o jsonpath={.items[*].metadata.ownerReferences[0].name}",
        |text| text == "web",
    );
    assert_eq!(run(&cluster, "get pods -n shop -o name").lines().count(), 2);

    // An owner that never was: the dependent goes. One in another namespace: it goes, and the event says why.
    let owned = |name: &str, uid: &str| {
        format!(
            "
apiVersion: v1
kind: ConfigMap
metadata:
  name: {name}
  namespace: shop
  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]
"
        )
    };
    apply(&cluster, &owned("lost", "0b3f1c1e-7a8d-4c55-9d3e-00ff00ff00ff"));
    until(&cluster, "get configmap lost -n shop", |text| text.contains("NotFound"));
    run(&cluster, "create configmap owner -n default");
    let uid = run(&cluster, "get configmap owner -n default -o jsonpath={.metadata.uid}");
    apply(&cluster, &owned("astray", &uid));
    until(&cluster, "get configmap astray -n shop", |text| text.contains("NotFound"));
    let events =
        "get events -n shop --field-selector reason=OwnerRefInvalidNamespace -o jsonpath={.items[*].message}";
    let told = until(&cluster, events, |text| !text.is_empty());
    let wanted = format!(
        "ownerRef [v1/ConfigMap, namespace: shop, name: owner, uid: {uid}] does not exist in namespace \"shop\""
    );
    assert_eq!(told, wanted);
}

#[test]
fn a_namespace_goes_with_all_that_is_in_it() {
    let cluster = Cluster::new();
    run(&cluster, "create namespace empty");
    until(&cluster, "get configmaps,serviceaccounts -n empty -o name", |text| text.lines().count() == 2);
    run(&cluster, "delete namespace empty --timeout=30s");

    run(&cluster, "create namespace shop");
    apply(&cluster, DEPLOYMENT);
    until(&cluster, "get pods -n shop -o name", |text| text.lines().count() == 2);
    apply(
        &cluster,
        "
apiVersion: v1
kind: ConfigMap
metadata: {name: held, namespace: shop, finalizers: [example.com/held]}
",
    );
    run(&cluster, "delete namespace shop --wait=false");
    let remaining = "{.status.conditions[?(@.type==\"NamespaceFinalizersRemaining\")].message}";
    let told =
        until(&cluster, &format!("get namespace shop -o jsonpath={remaining}"), |text| text.contains("held"));
    assert_eq!(
        told,
        "Some content in the namespace has finalizers remaining: example.com/held in 1 resource instances"
    );
    assert_eq!(left(&cluster), "");
    let refused = cluster.refused(&["create", "configmap", "late", "-n", "shop"]);
    assert!(refused.contains("because it is being terminated"), "{refused}");
    // It goes with the last object, long before anybody would look again.
    let start = Instant::now();
    run(&cluster, "patch configmap held -n shop --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    run(&cluster, "wait --for=delete namespace/shop --timeout=30s");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}
