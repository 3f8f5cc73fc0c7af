//! Deleting, with and without what hangs on it; and a node that is emptied.

use super::{has, idle};
use cluster_tests::manifests::{shell, web};
use cluster_tests::{Room, patiently};
use std::time::{Duration, Instant};

pub(crate) fn delete(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    // Grace: the container has its time, and what it says in it is not lost.
    let polite = shell("polite", "")
        .replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 30")
        .replace(
            "[sleep, infinity]",
            "[sh, -c, 'trap \"echo farewell; exit 0\" TERM; echo here; while :; do sleep 1 & wait; done']",
        );
    let stubborn = shell("stubborn", "")
        .replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 30");
    k.apply(&(polite + &stubborn + &shell("a", "") + &shell("b", "") + &shell("c", "")));
    k.run("wait --for=condition=Ready pods --all --timeout=$PATIENCE");
    let mut log = k.start("logs -f polite");
    log.line("here");
    let began = Instant::now();
    has(&k.run("delete pod polite"), &["pod \"polite\" deleted"]);
    assert!(
        began.elapsed() < patiently(Duration::from_secs(10)),
        "a container that ends when asked was waited for"
    );
    log.line("farewell");
    let began = Instant::now();
    k.run("delete pod stubborn --grace-period=1");
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(1) && took < patiently(Duration::from_secs(10)), "{took:?}");
    has(
        &k.run("delete pod a --force --grace-period=0"),
        &["Immediate deletion does not wait for confirmation", "pod \"a\" force deleted"],
    );
    has(&k.run("delete pod -l app=b"), &["pod \"b\" deleted"]);
    assert_eq!(k.refused("delete pod a"), "Error from server (NotFound): pods \"a\" not found");
    assert_eq!(k.run("delete pod a --ignore-not-found"), "");
    has(&k.run("delete pod --field-selector metadata.name=c"), &["pod \"c\" deleted"]);
    has(&k.run("delete pods --all"), &["No resources found"]);
    // What hangs on it goes, stays, or goes first.
    for (mode, pods) in [("background", 0), ("orphan", 1), ("foreground", 0)] {
        let name = format!("d-{mode}");
        k.apply(&web(&name, 1));
        k.run(&format!("rollout status deployment/{name} --timeout=$PATIENCE"));
        has(
            &k.run(&format!("delete deployment {name} --cascade={mode}")),
            &[&format!("deployment.apps \"{name}\" deleted")],
        );
        let selector = format!("-l app={name}");
        if pods == 0 {
            k.run(&format!("wait --for=delete replicasets {selector} --timeout=$PATIENCE"));
            k.run(&format!("wait --for=delete pods {selector} --timeout=$PATIENCE"));
        }
        assert_eq!(
            k.run(&format!("get rs {selector} -o name")).lines().filter(|l| l.contains("replicaset")).count(),
            pods
        );
        assert_eq!(
            k.run(&format!("get pods {selector} -o name")).lines().filter(|l| l.contains("pod/")).count(),
            pods
        );
    }
    let owner = k.field("rs -l app=d-orphan", ".items[0].metadata.ownerReferences");
    assert_eq!(owner, "", "an orphan has no owner");
    // By file; and a namespace with all that is in it.
    let file = k.file(&format!("{ns}-delete.yaml"), &web("web", 1));
    k.run(&format!("apply -f {}", file.display()));
    has(&k.run(&format!("delete -f {}", file.display())), &["deployment.apps \"web\" deleted"]);
    k.run(&format!("create namespace {ns}-gone"));
    k.run(&format!("-n {ns}-gone create configmap c"));
    has(
        &k.run(&format!("delete namespace {ns}-gone --timeout=$PATIENCE")),
        &[&format!("namespace \"{ns}-gone\" deleted")],
    );
    has(&k.refused(&format!("get namespace {ns}-gone")), &["NotFound"]);
    // A finalizer holds it until it is taken away.
    k.run("create configmap held");
    k.run("patch configmap held --type=merge -p '{\"metadata\":{\"finalizers\":[\"example.org/hold\"]}}'");
    k.run("delete configmap held --wait=false");
    assert_ne!(k.field("configmap held", ".metadata.deletionTimestamp"), "");
    k.run("patch configmap held --type=merge -p '{\"metadata\":{\"finalizers\":null}}'");
    has(&k.refused("get configmap held"), &["NotFound"]);
}

pub(crate) fn cordon_and_drain(room: &Room) {
    let k = &room.kubectl;
    idle(room, "d");
    k.apply(&shell("lone", ""));
    k.wait("condition=Ready", "pod/lone");
    assert_eq!(k.run("cordon helm"), "node/helm cordoned");
    assert_eq!(k.run("cordon helm"), "node/helm already cordoned");
    has(&k.run("get node helm"), &["Ready,SchedulingDisabled"]);
    has(
        &k.run("describe node helm"),
        &["Unschedulable:      true", "node.kubernetes.io/unschedulable:NoSchedule"],
    );
    let here = "--pod-selector='app in (d,lone)' --timeout=$PATIENCE";
    has(
        &k.refused(&format!("drain helm {here}")),
        &["cannot delete Pods that declare no controller", &format!("{}/lone", k.namespace)],
    );
    let drained = k.run(&format!("drain helm --force {here}"));
    has(
        &drained,
        &["Warning: deleting Pods that declare no controller: ", "pod/lone evicted", "node/helm drained"],
    );
    has(&k.refused("get pod lone"), &["NotFound"]);
    k.until("pods -l app=d", "waiting for a node", |pod| {
        let scheduled =
            pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "PodScheduled")?;
        (scheduled["reason"] == "Unschedulable"
            && scheduled["message"].as_str()?.contains("1 node(s) were unschedulable"))
        .then_some(())
    });
    assert_eq!(k.run("uncordon helm"), "node/helm uncordoned");
    k.run("rollout status deployment/d --timeout=$PATIENCE");
    assert_eq!(k.run("taint node helm dock=closed:NoSchedule"), "node/helm tainted");
    has(&k.run("describe node helm"), &["dock=closed:NoSchedule"]);
    assert_eq!(k.run("taint node helm dock-"), "node/helm untainted");
}
