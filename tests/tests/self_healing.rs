//! What goes wrong and mends itself: containers that die, pods that go, probes that fail, the server itself killed, and a
//! roll-out under load.
#![allow(clippy::unwrap_used)]

use cluster_tests::http::{self, Load};
use cluster_tests::manifests::{service, shell, web};
use cluster_tests::{Room, Suite, patiently, scenarios};
use serde_json::Value;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    const TOGETHER: &[cluster_tests::Scenario] = scenarios![
        killed_container_is_restarted_with_back_off,
        deleted_pod_is_replaced,
        failing_liveness_restarts,
        failing_startup_restarts,
        failing_readiness_leaves_the_service,
        bad_image_does_not_take_the_service_down,
    ];
    const ALONE: &[cluster_tests::Scenario] = scenarios![
        image_rolls_out_without_a_failed_request,
        killed_server_adopts_what_runs,
        stopped_server_adopts_what_runs
    ];
    const ON_CONTAINERD: &[cluster_tests::Scenario] = scenarios![
        killed_container_is_restarted_with_back_off,
        deleted_pod_is_replaced,
        failing_liveness_restarts,
        failing_startup_restarts,
        failing_readiness_leaves_the_service,
        image_rolls_out_without_a_failed_request,
        killed_server_adopts_what_runs,
    ];
    Suite { alone: ALONE, on_containerd: ON_CONTAINERD, ..Suite::new("healing", TOGETHER) }.run()
}

fn restarts(pod: &Value) -> u64 {
    pod["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or(0)
}

fn address(room: &Room, service: &str) -> SocketAddr {
    format!("{}:8080", room.kubectl.field(&format!("service/{service}"), ".spec.clusterIP")).parse().unwrap()
}

fn running_again(room: &Room, pod: &str, count: u64) {
    room.kubectl.until(&format!("pod/{pod}"), &format!("running after restart {count}"), |pod| {
        let status = &pod["status"]["containerStatuses"][0];
        (restarts(pod) == count && status["ready"] == true).then_some(())
    });
}

fn killed_container_is_restarted_with_back_off(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("victim", ""));
    k.wait("condition=Ready", "pod/victim");
    let uid = k.field("pod/victim", ".metadata.uid");
    let ip = k.pod_ip("victim");
    // The first time at once, then after ten seconds.
    room.cluster.kill_container(k, "victim", "sh");
    running_again(room, "victim", 1);
    let pod = k.json("pod/victim");
    let last = &pod["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&137.into(), &"Error".into()), "{last}");
    let began = Instant::now();
    room.cluster.kill_container(k, "victim", "sh");
    k.until("pod/victim", "backing off", |pod| {
        (pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
            .then_some(())
    });
    let table = k.run("get pod victim");
    assert!(table.contains("CrashLoopBackOff") && table.contains("1 ("), "{table}");
    running_again(room, "victim", 2);
    let pause = began.elapsed();
    let most = Duration::from_secs(10) + patiently(Duration::from_secs(10));
    assert!(pause > Duration::from_secs(8) && pause < most, "restarted after {pause:?}");
    // The same pod in the same place all the time.
    assert_eq!((k.field("pod/victim", ".metadata.uid"), k.pod_ip("victim")), (uid, ip));
    let events = k.run("get events --field-selector involvedObject.name=victim,reason=Started");
    assert!(events.contains("Container started"), "{events}");
}

fn deleted_pod_is_replaced(room: &Room) {
    let k = &room.kubectl;
    k.apply(&web("web", 2));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let old = k.run("get pods -o name");
    let first = old.lines().next().unwrap().to_owned();
    k.run(&format!("delete {first}"));
    k.run("wait --for=jsonpath='{.status.readyReplicas}'=2 deployment/web --timeout=$PATIENCE");
    k.until("deployment/web", "two available", |d| (d["status"]["availableReplicas"] == 2).then_some(()));
    let now = k.run("get pods -o name");
    assert!(!now.contains(&first) && now.lines().count() == 2, "{old}\n{now}");
}

fn failing_liveness_restarts(room: &Room) {
    let k = &room.kubectl;
    let probe = "livenessProbe: {exec: {command: [cat, /tmp/alive]}, periodSeconds: 1, failureThreshold: 2}";
    let pod = shell("ship", "").replace(
        "[sleep, infinity]",
        &format!("[sh, -c, 'touch /tmp/alive; exec sleep infinity']\n    {probe}"),
    );
    k.apply(&pod);
    k.wait("condition=Ready", "pod/ship");
    k.run("exec ship -- rm /tmp/alive");
    running_again(room, "ship", 1);
    let words = "Liveness probe failed: cat: can't open '/tmp/alive': No such file or directory";
    k.event_that_begins("ship", "Unhealthy", words);
    assert_eq!(k.event("ship", "Killing"), "Container sh failed liveness probe, will be restarted");
    let pod = k.json("pod/ship");
    assert_eq!(pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"], 137);
}

fn failing_startup_restarts(room: &Room) {
    let k = &room.kubectl;
    let probe = "startupProbe: {tcpSocket: {port: 9}, periodSeconds: 1, failureThreshold: 2}";
    k.apply(&shell("slow", "").replace("[sleep, infinity]", &format!("[sleep, infinity]\n    {probe}")));
    k.until("pod/slow", "restarted", |pod| (restarts(pod) >= 1).then_some(()));
    assert_eq!(k.event("slow", "Killing"), "Container sh failed startup probe, will be restarted");
    let unhealthy = k.event("slow", "Unhealthy");
    assert!(
        unhealthy.starts_with("Startup probe failed: dial tcp")
            && unhealthy.ends_with("connect: connection refused"),
        "{unhealthy}"
    );
    let pod = k.json("pod/slow");
    assert_eq!(pod["status"]["containerStatuses"][0]["ready"], false);
}

fn failing_readiness_leaves_the_service(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        &(web("web", 2).replace("periodSeconds: 1}", "periodSeconds: 1, failureThreshold: 1}")
            + &service("web", "")),
    );
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let there = address(room, "web");
    let names = k.run("get pods -o 'jsonpath={.items[*].metadata.name}'");
    let (sick, well) = names.split_once(' ').unwrap();
    let mut seen = std::collections::BTreeSet::new();
    http::until(&room.cluster.net, there, |answer| {
        seen.extend(answer.as_ref().ok().cloned());
        seen.len() == 2
    });
    k.run(&format!("exec {sick} -- mv /www/index.html /www/away"));
    // From the moment the API says so to the last packet there is less than a second.
    k.until(&format!("pod/{sick}"), "not ready", |pod| {
        let ready = pod["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Ready")?;
        (ready["status"] == "False").then_some(())
    });
    let unready = Instant::now();
    let mut last_of_sick = unready;
    let mut in_a_row = 0;
    http::until(&room.cluster.net, there, |answer| {
        match answer {
            Ok(body) if body.trim() == well => in_a_row += 1,
            _ => (in_a_row, last_of_sick) = (0, Instant::now()),
        }
        in_a_row == 100
    });
    let lag = last_of_sick - unready;
    assert!(
        lag < patiently(Duration::from_secs(1)),
        "the Service sent requests to a pod that was not ready for {lag:?}"
    );
    // A slow machine may have failed the probe in other ways, too.
    k.event_that_begins(sick, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404");
    assert_eq!(restarts(&k.json(&format!("pod/{sick}"))), 0);
    // And comes back.
    k.run(&format!("exec {sick} -- mv /www/away /www/index.html"));
    let mut both = std::collections::BTreeSet::new();
    http::until(&room.cluster.net, there, |answer| {
        both.extend(answer.as_ref().ok().map(|body| body.trim().to_owned()));
        both.contains(sick)
    });
}

/// A Deployment that ends its requests before it ends, as its users are told to make it: a slow machine needs longer to
/// have its Services forget a pod.
fn graceful(image: &str) -> String {
    let seconds = |usual| patiently(Duration::from_secs(usual)).as_secs();
    web("web", 3)
        .replace("localhost/busybox:debian12", image)
        .replace(
            "terminationGracePeriodSeconds: 0",
            &format!("terminationGracePeriodSeconds: {}", seconds(5)),
        )
        .replace(
            "ports:",
            &format!("lifecycle: {{preStop: {{sleep: {{seconds: {}}}}}}}\n        ports:", seconds(2)),
        )
        .replace(
            "exec httpd -f -p 80 -h /www",
            "trap \"exit 0\" TERM; httpd -p 80 -h /www; while :; do sleep 1 & wait; done",
        )
        .replace(
            "  replicas: 3",
            "  replicas: 3\n  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}",
        )
}

fn image_rolls_out_without_a_failed_request(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(graceful("localhost/busybox:debian12") + &service("web", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let there = address(room, "web");
    http::until(&room.cluster.net, there, |answer| answer.is_ok());
    let load = Load::on(&room.cluster.net, there);
    // Never fewer available than wanted, never more than one too many asked for.
    let mut available =
        k.start("get deployment web --watch -o 'jsonpath={.status.availableReplicas}{\"\\n\"}'");
    available.line("3");
    let mut asked = k
        .start("get replicasets -l app=web --watch -o 'jsonpath={.metadata.name}/{.spec.replicas}{\"\\n\"}'");
    asked.line("/3");
    let rolled = Instant::now();
    k.run("set image deployment/web web=localhost/busybox:next");
    k.run("rollout status deployment/web --timeout=$LONG");
    let took = rolled.elapsed();
    assert_eq!(k.run("get pods --field-selector status.phase=Running -l app=web -o 'jsonpath={.items[*].spec.containers[0].image}'").split(' ').filter(|i| *i == "localhost/busybox:next").count(), 3);
    k.run("rollout undo deployment/web");
    k.run("rollout status deployment/web --timeout=$LONG");
    assert_eq!(
        k.field("deployment/web", ".spec.template.spec.containers[0].image"),
        "localhost/busybox:debian12"
    );
    assert_eq!(k.field("deployment/web", ".metadata.annotations.deployment\\.kubernetes\\.io/revision"), "3");
    let answers = load.finish();
    for line in available.end() {
        assert!(line.parse::<u32>().unwrap() >= 3, "{line} available");
    }
    let mut sets = std::collections::HashMap::new();
    for line in asked.end() {
        let (set, replicas) = line.split_once('/').unwrap();
        sets.insert(set.to_owned(), replicas.parse::<u32>().unwrap());
        assert!(sets.values().sum::<u32>() <= 4, "{sets:?}");
    }
    println!("{} requests during two roll-outs, none failed; the first took {took:?}", answers.len());
}

fn bad_image_does_not_take_the_service_down(room: &Room) {
    let k = &room.kubectl;
    k.apply(&(web("web", 2) + &service("web", "")));
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.run("set image deployment/web web=localhost/absent:v9");
    k.run("patch deployment web -p '{\"spec\":{\"progressDeadlineSeconds\":3}}'");
    let late = k.refused("rollout status deployment/web --timeout=$PATIENCE");
    assert!(late.contains("deployment \"web\" exceeded its progress deadline"), "{late}");
    let deployment = k.json("deployment/web");
    let progressing = deployment["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|c| c["type"] == "Progressing")
        .unwrap();
    assert_eq!(progressing["reason"], "ProgressDeadlineExceeded");
    assert_eq!(deployment["status"]["availableReplicas"], 2);
    http::until(&room.cluster.net, address(room, "web"), |answer| answer.is_ok());
    // With time enough on a busy machine.
    k.run("patch deployment web -p '{\"spec\":{\"progressDeadlineSeconds\":60}}'");
    k.run("rollout undo deployment/web");
    k.run("rollout status deployment/web --timeout=$PATIENCE");
}

/// What must not change while the server is away.
fn picture(room: &Room) -> String {
    let path = "{range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    room.kubectl.run(&format!("get pods --sort-by=.metadata.uid -o 'jsonpath={path}'"))
}

fn survives(room: &Room, leave: impl FnOnce()) {
    let k = &room.kubectl;
    k.apply(
        &(web("web", 3)
            + &service("web", "type: NodePort")
            + &shell("ticker", "").replace(
                "[sleep, infinity]",
                "[sh, -c, 'i=0; while :; do echo $i; i=$((i+1)); usleep 100000; done']",
            )),
    );
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/ticker");
    http::until(&room.cluster.net, address(room, "web"), |answer| answer.is_ok());
    let before = picture(room);
    let load = Load::on(&room.cluster.net, address(room, "web"));
    leave();
    room.cluster.serve();
    k.wait("condition=Ready", "node/helm");
    // The kubelet has looked at every pod again when it can end one and start another.
    k.apply(&shell("later", ""));
    k.wait("condition=Ready", "pod/later");
    k.run("delete pod later");
    assert_eq!(picture(room), before);
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    let count = load.finish().len();
    // Not one line of what was said meanwhile is lost, and exec works as before.
    let log = k.run("logs ticker");
    let lines: Vec<usize> = log.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(lines, (0..lines.len()).collect::<Vec<_>>());
    assert_eq!(k.run("exec ticker -- echo ahoy"), "ahoy");
    // A container that dies now is still seen.
    room.cluster.kill_container(k, "ticker", "sh");
    running_again(room, "ticker", 1);
    println!("{count} requests while the server was away and back, none failed");
}

fn killed_server_adopts_what_runs(room: &Room) {
    survives(room, || room.cluster.kill());
}

fn stopped_server_adopts_what_runs(room: &Room) {
    survives(room, || room.cluster.stop());
}
