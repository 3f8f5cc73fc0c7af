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

#[test]
fn what_is_written_is_followed() {
    let cluster = Cluster::new();
    apply(
        &cluster,
        "
apiVersion: v1
kind: Secret
metadata: {name: token, annotations: {kubernetes.io/service-account.name: default}}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 10.1.2.3}], ports: [{port: 8080}]}]
---
apiVersion: v1
kind: ReplicationController
metadata: {name: rc}
spec:
  replicas: 2
  selector: {app: rc}
  template:
    metadata: {labels: {app: rc}}
    spec: {containers: [{name: c, image: nothing, resources: {requests: {cpu: 250m}}}]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: secret-listers, labels: {rbac.authorization.k8s.io/aggregate-to-view: 'true'}}
rules: [{apiGroups: [''], resources: [secrets], verbs: [list]}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: quota}
spec: {hard: {pods: 5, requests.cpu: 2, count/replicationcontrollers: 3, requests.storage: 9Gi}}
",
    );
    for (words, wanted) in [
        ("get pods -l app=rc -o jsonpath={.items[*].metadata.ownerReferences[0].name}", "rc rc"),
        (
            "get endpointslices -l kubernetes.io/service-name=outside -o jsonpath={.items[*].endpoints[*].addresses[*]}",
            "10.1.2.3",
        ),
        ("get pvc data -o jsonpath={.metadata.finalizers}", "[\"kubernetes.io/pvc-protection\"]"),
        ("auth can-i list secrets --as=alice --as-group=viewers", "no"),
        (
            "get resourcequota quota -o jsonpath={.status.used}",
            "{\"count/replicationcontrollers\":\"1\",\"pods\":\"2\",\"requests.cpu\":\"500m\",\"requests.storage\":\"1Gi\"}",
        ),
    ] {
        until(&cluster, words, |text| text.contains(wanted));
    }
    run(&cluster, "create clusterrolebinding viewers --clusterrole=view --group=viewers");
    until(&cluster, "auth can-i list secrets --as=alice --as-group=viewers", |text| text.ends_with("yes"));
    until(&cluster, "get secret token -o jsonpath={.data.token}", |text| text.len() > 100);
    // The token goes with its account, and so does what is used of the quota.
    run(&cluster, "delete serviceaccount default");
    until(&cluster, "get secret token", |text| text.contains("NotFound"));
    run(&cluster, "delete rc rc");
    run(&cluster, "delete pvc data");
    let used = "get resourcequota quota -o jsonpath={.status.used}";
    let none = "{\"count/replicationcontrollers\":\"0\",\"pods\":\"0\",\"requests.cpu\":\"0\",\"requests.storage\":\"0\"}";
    until(&cluster, used, |text| text == none);
}

#[test]
fn a_node_registers_with_its_status_and_is_tainted_by_it() {
    let cluster = Cluster::new();
    apply(
        &cluster,
        "
apiVersion: v1
kind: Node
metadata: {name: sick, labels: {kubernetes.io/os: linux}}
status:
  capacity: {cpu: 2, pods: 9}
  conditions:
  - {type: Ready, status: 'False', reason: r, message: m, lastHeartbeatTime: '2026-01-01T00:00:00Z'}
  - {type: MemoryPressure, status: 'True', reason: r, message: m}
",
    );
    assert_eq!(
        run(&cluster, "get node sick -o jsonpath={.status.allocatable}"),
        "{\"cpu\":\"2\",\"pods\":\"9\"}"
    );
    let taints = "get node sick -o jsonpath={range.spec.taints[*]}{.key}:{.effect},{end}";
    until(&cluster, taints, |text| {
        text == "node.kubernetes.io/not-ready:NoSchedule,node.kubernetes.io/memory-pressure:NoSchedule,"
    });
    until(&cluster, "get node sick -o jsonpath={.metadata.labels}", |text| {
        text.contains("beta.kubernetes.io/os")
    });
    until(&cluster, "get events -o jsonpath={.items[*].message}", |text| {
        text.contains("Node sick event: Registered Node sick in Controller")
    });
    // A pod of a node that does not exist yet is left alone, one that was deleted without a node goes.
    apply(
        &cluster,
        "
apiVersion: v1
kind: Pod
metadata: {name: unplaced, finalizers: [example.com/held]}
spec: {containers: [{name: c, image: nothing}]}
",
    );
    run(&cluster, "delete pod unplaced --wait=false");
    until(&cluster, "get pod unplaced -o jsonpath={.status.phase}", |text| text == "Failed");
}

#[test]
fn custom_resources_own_and_are_owned() {
    let cluster = Cluster::new();
    apply(
        &cluster,
        "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
",
    );
    run(&cluster, "wait --for=condition=Established crd/things.example.com --timeout=30s");
    run(&cluster, "create namespace shop");
    let thing = |name: &str, owners: &str| {
        format!(
            "
apiVersion: example.com/v1
kind: Thing
metadata: {{name: {name}, namespace: shop, ownerReferences: [{owners}]}}
"
        )
    };
    apply(&cluster, &thing("owner", ""));
    let uid = run(&cluster, "get thing owner -n shop -o jsonpath={.metadata.uid}");
    let owner = format!(
        "{{apiVersion: example.com/v1, kind: Thing, name: owner, uid: {uid}, blockOwnerDeletion: true}}"
    );
    apply(&cluster, &thing("child", &owner));
    apply(
        &cluster,
        &format!(
            "
apiVersion: v1
kind: ConfigMap
metadata: {{name: child, namespace: shop, ownerReferences: [{owner}]}}
"
        ),
    );
    run(&cluster, "delete thing owner -n shop --cascade=foreground --timeout=30s");
    assert!(cluster.refused(&["get", "thing", "child", "-n", "shop"]).contains("NotFound"));
    assert!(cluster.refused(&["get", "configmap", "child", "-n", "shop"]).contains("NotFound"));
    apply(&cluster, &thing("left", ""));
    run(&cluster, "delete namespace shop --timeout=30s");
    assert_eq!(run(&cluster, "get things -A -o name"), "");
}
