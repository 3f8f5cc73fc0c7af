//! How pods begin, begin again and end.

use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;
use cluster_tests::{Room, http};
use std::time::{Duration, Instant};

pub(crate) fn runs_static_pods(room: &Room) {
    let k = &room.kubectl;
    let manifests = room.cluster.data().join("manifests");
    let write = |command: &str| {
        let pod =
            shell("watch", "").replace("{name: watch", &format!("{{namespace: {}, name: watch", k.namespace));
        let pod = pod.replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 3");
        let whole = pod.replace("[sleep, infinity]", command);
        // Whole or not at all.
        std::fs::write(room.cluster.data().join("watch.new"), whole).unwrap();
        std::fs::rename(room.cluster.data().join("watch.new"), manifests.join("watch.yaml")).unwrap();
    };
    std::fs::create_dir_all(&manifests).unwrap();
    write("[sleep, infinity]");
    let mirror = format!("watch-{NODE}");
    let pod = format!("pod/{mirror}");
    k.wait("create", &pod);
    k.wait("condition=Ready", &pod);
    assert_eq!(k.field(&pod, ".metadata.annotations.kubernetes\\.io/config\\.source"), "file");
    assert_eq!(k.field(&pod, ".metadata.ownerReferences[0].kind"), "Node");
    let (uid, container) = (k.field(&pod, ".metadata.uid"), ".status.containerStatuses[0].containerID");
    let running = k.field(&pod, container);
    // Who deletes the picture does not touch the pod.
    k.run(&format!("delete {pod} --now"));
    k.until("pods", "the picture is there again", |seen| {
        (seen["metadata"]["name"] == *mirror && seen["metadata"]["uid"] != *uid).then_some(())
    });
    k.wait("condition=Ready", &pod);
    assert_eq!(k.field(&pod, container), running);
    // What is written anew is another pod. It takes its time to end, and is not shown again meanwhile.
    write("[sh, -c, 'trap : TERM; echo ahoy; while :; do sleep 0.1; done']");
    k.until("pods", "the new one runs", |seen| {
        let status = &seen["status"]["containerStatuses"][0];
        (status["ready"] == true && status["containerID"] != *running).then_some(())
    });
    assert_eq!(k.run(&format!("logs {mirror}")), "ahoy");
    std::fs::remove_file(manifests.join("watch.yaml")).unwrap();
    k.wait("delete", &pod);
    // When this one runs, the kubelet has seen that the picture is gone.
    k.apply(&shell("later", ""));
    k.wait("condition=Ready", "pod/later");
    assert!(k.refused(&format!("get {pod}")).contains("NotFound"));
}

/// On the machine anybody may ask, and those who may hear more by way of the API server.
pub(crate) fn says_that_it_lives(room: &Room) {
    let near = "127.0.0.1:10248".parse().unwrap();
    let ask = |path: &str| room.cluster.net.inside(|| http::get_at(near, path)).unwrap();
    assert_eq!(ask("/healthz"), "ok");
    assert_eq!(ask("/healthz?verbose"), "[+]ping ok\nhealthz check passed\n");
    let k = &room.kubectl;
    let raw = |path: &str| k.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy{path}"));
    assert_eq!(raw("/healthz?verbose"), "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed");
    assert_eq!(raw("/healthz/syncloop"), "ok");
    let counted = "kubernetes_healthcheck{name=\"syncloop\",type=\"healthz\"} 1";
    assert!(raw("/metrics/slis").lines().any(|line| line == counted));
}

pub(crate) fn restarts_by_rules(room: &Room) {
    let k = &room.kubectl;
    // The first run ends with 42, which is to be tried again, the second with 1, which is not.
    let script = "n=$(ls /v | wc -l); touch /v/$n; test $n = 0 && exit 42; exit 1";
    let rules = format!(
        "[sh, -c, '{script}']\n    restartPolicy: Never\n    restartPolicyRules: [{{action: Restart, exitCodes: {{operator: In, values: [42]}}}}]\n    volumeMounts: [{{name: v, mountPath: /v}}]"
    );
    let pod = shell("tries", "restartPolicy: Never\n  volumes: [{name: v, emptyDir: {}}]");
    k.apply(&pod.replace("[sleep, infinity]", &rules));
    k.until("pod/tries", "given up", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    let status = k.field("pod/tries", ".status.containerStatuses[0]");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["restartCount"], 1);
    assert_eq!(status["lastState"]["terminated"]["exitCode"], 42);
    assert_eq!(status["state"]["terminated"]["exitCode"], 1);
    // A container's own policy goes before the pod's.
    let own = "[sh, -c, 'exit 3']\n    restartPolicy: Never";
    k.apply(&shell("ends", "restartPolicy: Always").replace("[sleep, infinity]", own));
    k.until("pod/ends", "ended for good", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    assert_eq!(k.field("pod/ends", ".status.containerStatuses[0].restartCount"), "0");
}

pub(crate) fn sleeps_and_calls_before_it_ends(room: &Room) {
    let k = &room.kubectl;
    let long =
        |pod: &str| pod.replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 20");
    let dozes = "[sleep, infinity]\n    lifecycle: {preStop: {sleep: {seconds: 2}}}";
    // One that does not hear TERM would take all of its time.
    let listens = "[sh, -c, 'trap \"exit 0\" TERM; mkdir -p /www/cgi-bin; echo \"#!/bin/sh\" >/www/cgi-bin/end; echo \"touch /v/called; echo; echo\" >>/www/cgi-bin/end; chmod +x /www/cgi-bin/end; httpd -p 80 -h /www; while :; do sleep 0.1; done']\n    readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}\n    lifecycle: {preStop: {httpGet: {path: /cgi-bin/end, port: 80}}}\n    volumeMounts: [{name: v, mountPath: /v}]";
    let place = k.home().join(format!("{}-called", k.namespace));
    std::fs::create_dir(&place).unwrap();
    let volume = format!("volumes: [{{name: v, hostPath: {{path: {}}}}}]", place.display());
    let dozing = shell("dozes", "").replace(
        "[sleep, infinity]",
        &dozes.replace("[sleep, infinity]", "[sh, -c, 'trap \"exit 0\" TERM; while :; do sleep 0.1; done']"),
    );
    k.apply(&(long(&dozing) + &long(&shell("calls", &volume).replace("[sleep, infinity]", listens))));
    k.wait("condition=Ready", "pod/dozes");
    k.wait("condition=Ready", "pod/calls");
    let began = Instant::now();
    k.run("delete pod dozes");
    assert!(began.elapsed() >= Duration::from_secs(2), "it did not sleep");
    k.run("delete pod calls");
    assert!(place.join("called").exists(), "nobody was called");
}

pub(crate) fn refuses_what_it_cannot_run(room: &Room) {
    let k = &room.kubectl;
    // Nobody chose the node for them: it judges itself.
    let here = format!("nodeName: {NODE}");
    let large = shell("large", &here)
        .replace("[sleep, infinity]", "[sleep, infinity]\n    resources: {requests: {cpu: 1k}}");
    let port = "[sleep, infinity]\n    ports: [{containerPort: 80, hostPort: 30999}]";
    k.apply(&shell("first", &here).replace("[sleep, infinity]", port));
    k.wait("condition=Ready", "pod/first");
    let windows = shell("windows", &format!("{here}\n  os: {{name: windows}}"));
    let all = large
        + &shell("elsewhere", &format!("{here}\n  nodeSelector: {{sea: aegean}}"))
        + &windows
        + &shell("second", &here).replace("[sleep, infinity]", port);
    k.apply(&all);
    for (pod, reason, message) in [
        (
            "large",
            "OutOfcpu",
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 1000000, used: ",
        ),
        (
            "elsewhere",
            "NodeAffinity",
            "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ),
        (
            "windows",
            "PodOSNotSupported",
            "Pod was rejected: Failed to admit pod as the OS field doesn't match node OS",
        ),
        (
            "second",
            "NodePorts",
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ),
    ] {
        k.until(&format!("pod/{pod}"), "refused", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
        assert_eq!(k.field(&format!("pod/{pod}"), ".status.reason"), reason);
        let said = k.field(&format!("pod/{pod}"), ".status.message");
        assert!(said.starts_with(message), "{pod}: {said}");
    }
}
