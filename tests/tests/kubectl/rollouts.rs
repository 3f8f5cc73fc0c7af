//! Deployments: scale, rollout, set.

use super::{has, idle};
use cluster_tests::Room;
use cluster_tests::manifests::web;

pub(crate) fn scale(room: &Room) {
    let k = &room.kubectl;
    idle(room, "d");
    assert_eq!(k.run("scale deployment/d --replicas=3"), "deployment.apps/d scaled");
    k.until("deployment/d", "three ready", |d| (d["status"]["readyReplicas"] == 3).then_some(()));
    has(
        &k.refused("scale deployment/d --replicas=5 --current-replicas=1"),
        &["Expected replicas to be 1, was 3"],
    );
    k.run("scale deployment/d --replicas=0 --current-replicas=3");
    k.until("deployment/d", "none left", |d| d["status"]["replicas"].is_null().then_some(()));
    has(&k.run("get deployment d"), &["0/0"]);
    has(
        &k.run("autoscale deployment d --min=1 --max=3 --cpu-percent=50"),
        &["horizontalpodautoscaler.autoscaling/d autoscaled"],
    );
    assert_eq!(k.field("hpa d", ".spec.scaleTargetRef.name"), "d");
}

pub(crate) fn rollout(room: &Room) {
    let k = &room.kubectl;
    k.apply(&web("web", 2));
    k.run("annotate deployment web kubernetes.io/change-cause=first");
    has(
        &k.run("rollout status deployment/web --timeout=$PATIENCE"),
        &["deployment \"web\" successfully rolled out"],
    );
    k.run("set image deployment/web web=localhost/busybox:next");
    k.run("annotate deployment web kubernetes.io/change-cause=second --overwrite");
    has(
        &k.run("rollout status deployment/web --timeout=$PATIENCE"),
        &["deployment \"web\" successfully rolled out"],
    );
    let history = k.run("rollout history deployment/web");
    let lines: Vec<Vec<&str>> =
        history.lines().skip(2).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["1", "first"], ["2", "second"]], "{history}");
    has(
        &k.run("rollout history deployment/web --revision=1"),
        &["Image:\tlocalhost/busybox:debian12"].map(|s| s.split('\t').next_back().unwrap()),
    );
    has(&k.run("rollout undo deployment/web"), &["deployment.apps/web rolled back"]);
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    assert_eq!(
        k.field("deployment/web", ".spec.template.spec.containers[0].image"),
        "localhost/busybox:debian12"
    );
    let revisions: Vec<String> = k
        .run("rollout history deployment/web")
        .lines()
        .skip(2)
        .map(|l| l.split_whitespace().next().unwrap().to_owned())
        .collect();
    assert_eq!(revisions, ["2", "3"]);
    k.run("rollout undo deployment/web --to-revision=2");
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    assert_eq!(
        k.field("deployment/web", ".spec.template.spec.containers[0].image"),
        "localhost/busybox:next"
    );
    has(
        &k.refused("rollout undo deployment/web --to-revision=9"),
        &["unable to find specified revision 9 in history"],
    );
    // A restart gives every pod a new one.
    let pods = || k.run("get pods -l app=web --field-selector status.phase=Running -o name");
    let before = pods();
    assert_eq!(k.run("rollout restart deployment/web"), "deployment.apps/web restarted");
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let after = pods();
    assert!(after.lines().all(|pod| !before.contains(pod)), "{before}\n{after}");
    assert_eq!(k.run("rollout pause deployment/web"), "deployment.apps/web paused");
    k.run("set env deployment/web PAUSED=yes");
    has(&k.refused("rollout restart deployment/web"), &["can't restart paused deployment"]);
    k.until("deployment/web", "observed while paused", |d| {
        (d["status"]["observedGeneration"] == d["metadata"]["generation"]).then_some(())
    });
    assert!(k.json("deployment/web")["status"]["updatedReplicas"].is_null());
    assert_eq!(k.run("rollout resume deployment/web"), "deployment.apps/web resumed");
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    has(&k.run("exec deployment/web -- env"), &["PAUSED=yes"]);
}

pub(crate) fn set(room: &Room) {
    let k = &room.kubectl;
    k.run("create deployment d --image=localhost/busybox:debian12 --replicas=0 -- sleep infinity");
    k.run("create configmap c --from-literal=a=1");
    assert_eq!(
        k.run("set image deployment/d busybox=localhost/busybox:next"),
        "deployment.apps/d image updated"
    );
    assert_eq!(k.run("set env deployment/d COURSE=north"), "deployment.apps/d env updated");
    has(&k.run("set env deployment/d --from=configmap/c"), &["deployment.apps/d env updated"]);
    has(&k.run("set env deployment/d --list"), &["COURSE=north", "A from configmap c, key a"]);
    assert_eq!(k.run("set env deployment/d COURSE-"), "deployment.apps/d env updated");
    assert_eq!(
        k.run("set resources deployment/d --limits=cpu=200m,memory=64Mi --requests=cpu=10m"),
        "deployment.apps/d resource requirements updated"
    );
    k.run("create serviceaccount jason");
    assert_eq!(k.run("set serviceaccount deployment/d jason"), "deployment.apps/d serviceaccount updated");
    let spec = &k.json("deployment d")["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "jason");
    let container = &spec["containers"][0];
    assert_eq!(container["image"], "localhost/busybox:next");
    assert_eq!(
        container["resources"].to_string(),
        r#"{"limits":{"cpu":"200m","memory":"64Mi"},"requests":{"cpu":"10m"}}"#
    );
    assert_eq!(container["env"][0]["name"], "A");
    k.run("create service clusterip s --tcp=80:80");
    assert_eq!(k.run("set selector service s crew=argo"), "service/s selector updated");
    assert_eq!(k.field("service s", ".spec.selector"), "{\"crew\":\"argo\"}");
    has(&k.refused("set image deployment/d absent=x"), &["unable to find container named \"absent\""]);
}
