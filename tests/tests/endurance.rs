//! What shows only in the long run: that pods leave nothing behind, and that restarts of the server are not felt. The
//! counts are for every day; `NODE_PODS=1000` and `NODE_KILLS=200 NODE_REPLICAS=50` are for nights (`make torture`).
#![allow(clippy::unwrap_used)]

use cluster_tests::manifests::{service, shell, web};
use cluster_tests::{Room, Scenario, Suite, http, scenarios};
use std::process::ExitCode;

fn main() -> ExitCode {
    const ALONE: &[Scenario] = scenarios![pods_leave_nothing_behind, restarts_are_not_felt];
    const ON_CONTAINERD: &[Scenario] = scenarios![pods_leave_nothing_behind];
    Suite { alone: ALONE, on_containerd: ON_CONTAINERD, ..Suite::new("endurance", &[]) }.run()
}

fn count(name: &str, usual: usize) -> usize {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap())
}

/// A pod with something of everything that is to be taken away again.
fn rich(name: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{wave: w}}}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: Never
  initContainers:
  - name: first
    image: localhost/busybox:debian12
    command: [sh, -c, 'echo first > /memory/x']
    volumeMounts: [{{name: memory, mountPath: /memory}}]
  containers:
  - name: main
    image: localhost/busybox:debian12
    command: [sh, -c, 'echo said; cat /memory/x; exec sleep infinity']
    resources: {{requests: {{cpu: 10m}}, limits: {{cpu: 100m, memory: 32Mi}}}}
    livenessProbe: {{exec: {{command: [test, -e, /memory/x]}}, periodSeconds: 1}}
    volumeMounts:
    - {{name: memory, mountPath: /memory}}
    - {{name: chart, mountPath: /chart}}
    - {{name: disk, mountPath: /part, subPath: part}}
  volumes:
  - {{name: memory, emptyDir: {{medium: Memory}}}}
  - {{name: disk, emptyDir: {{}}}}
  - {{name: chart, configMap: {{name: kube-root-ca.crt}}}}
"
    )
}

fn pods_leave_nothing_behind(room: &Room) {
    let k = &room.kubectl;
    const WAVE: usize = 20;
    let waves = count("NODE_PODS", 60).div_ceil(WAVE);
    k.wait("create", "configmap/kube-root-ca.crt");
    let manifests: String = (0..WAVE).map(|number| rich(&format!("pod-{number}"))).collect();
    let wave = || {
        k.apply(&manifests);
        k.run("wait --for=condition=Ready pod -l wave=w --timeout=$LONG");
        assert_eq!(k.run("exec pod-3 -c main -- cat /memory/x"), "first");
        k.run("delete pod -l wave=w --timeout=$LONG");
    };
    // What is made once and stays is made by the first of them.
    wave();
    let before = room.cluster.settled();
    for _ in 0..waves {
        wave();
    }
    let left = room.cluster.until_as(&before);
    assert!(left.is_empty(), "{} pods left {left:#?}", waves * WAVE);
    println!("{} pods came and went, and nothing was left", waves * WAVE);
}

/// What must not change while the server is away.
fn picture(room: &Room) -> String {
    let path = "{range .items[*]}{.metadata.uid} {.status.podIP} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    room.kubectl.run(&format!("get pods --sort-by=.metadata.uid -o 'jsonpath={path}'"))
}

fn restarts_are_not_felt(room: &Room) {
    let k = &room.kubectl;
    let (replicas, kills) = (count("NODE_REPLICAS", 10), count("NODE_KILLS", 6));
    k.apply(&(web("web", replicas) + &service("web", "")));
    k.run("rollout status deployment/web --timeout=$LONG");
    let ip = k.field("service/web", ".spec.clusterIP");
    http::until(&room.cluster.net, format!("{ip}:8080").parse().unwrap(), |answer| answer.is_ok());
    // A new connection each, until it is told to stop: one by address, one by name, which the very server answers that is
    // away; what is asked meanwhile waits for it.
    let ask = |host: &str| {
        format!(
            "trap \"echo asked \\$ok failed \\$failed; exit 0\" TERM; ok=0; failed=0; while :; do if why=$(timeout 20 wget -q -O /dev/null http://{host}:8080/ 2>&1); then ok=$((ok+1)); else failed=$((failed+1)); echo \"$? $why\"; date; fi; done"
        )
    };
    let clients: String = [ip.as_str(), "web"]
        .into_iter()
        .enumerate()
        .map(|(number, host)| {
            let ask = ask(host);
            let client = shell(&format!("client-{number}"), "restartPolicy: Never")
                .replace("[sleep, infinity]", &format!("[sh, -c, '{ask}']"));
            client.replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 60")
        })
        .collect();
    k.apply(&clients);
    k.run("wait --for=condition=Ready pod/client-0 pod/client-1 --timeout=$PATIENCE");
    let before = picture(room);
    for turn in 0..kills {
        if turn % 2 == 0 {
            room.cluster.kill()
        } else {
            room.cluster.stop()
        }
        room.cluster.serve();
        k.wait("condition=Ready", "node/helm");
    }
    // The kubelet has looked at every pod again when it can end one and start another.
    k.apply(&shell("later", ""));
    k.wait("condition=Ready", "pod/later");
    k.run("delete pod later");
    assert_eq!(picture(room), before);
    let (mut asked, mut failed) = (0, 0);
    for number in 0..2 {
        let mut words = k.start(&format!("logs -f client-{number}"));
        k.run(&format!("exec client-{number} -- kill -TERM 1"));
        let line = words.line("asked");
        println!("{}", words.end().join("\n"));
        let numbers: Vec<usize> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        (asked, failed) = (asked + numbers[0], failed + numbers[1]);
    }
    assert!(failed == 0 && asked > 0, "{failed} of {asked} requests failed in {kills} restarts");
    println!("{kills} restarts with {replicas} replicas: {asked} requests, none failed");
}
