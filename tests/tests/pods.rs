//! What the containers of a pod are to each other: their order, their company, their hooks, what they share; on the
//! embedded runtime and on containerd.
#![allow(clippy::unwrap_used)]

use cluster_tests::manifests::shell;
use cluster_tests::{Engine, Room, Scenario, Suite, scenarios};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![
        init_containers_come_one_after_another,
        sidecars_come_first_and_go_last,
        sidecars_restart_beside_a_job,
        hooks,
        probes_of_every_kind,
        processes_are_shared_when_asked,
        names_and_addresses,
        mounts_propagate_when_asked,
        ends_gracefully,
        classes_of_runtimes_take_their_share,
    ];
    Suite { on_containerd: TOGETHER, ..Suite::new("pods", TOGETHER) }.run()
}

/// A container that runs a script; `more` are further lines of it.
fn container(name: &str, script: &str, more: &str) -> String {
    format!(
        "
  - name: {name}
    image: localhost/busybox:debian12
    command: [sh, -c, '{script}']
    {more}"
    )
}

/// A pod of these containers.
fn pod(name: &str, init: &[String], containers: &[String], more: &str) -> String {
    let init = if init.is_empty() { String::new() } else { format!("\n  initContainers:{}", init.concat()) };
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  {more}{init}
  containers:{}
",
        containers.concat()
    )
}

const SHARED: &str = "volumeMounts: [{name: shared, mountPath: /shared}]";
const VOLUME: &str = "volumes: [{name: shared, emptyDir: {}}]";

fn init_containers_come_one_after_another(room: &Room) {
    let k = &room.kubectl;
    let write = |name: &str| container(name, &format!("echo {name} >> /shared/order"), SHARED);
    let main = container("main", "cat /shared/order; exec sleep infinity", SHARED);
    let more = format!("terminationGracePeriodSeconds: 0\n  {VOLUME}");
    k.apply(&pod("ordered", &[write("first"), write("second"), write("third")], &[main], &more));
    k.wait("condition=Ready", "pod/ordered");
    assert_eq!(k.run("logs ordered -c main"), "first\nsecond\nthird");
    let states = k.field("pod/ordered", ".status.initContainerStatuses[*].state.terminated.reason");
    assert_eq!(states, "Completed Completed Completed");
    assert_eq!(k.field("pod/ordered", ".status.conditions[?(@.type==\"Initialized\")].status"), "True");
}

fn sidecars_come_first_and_go_last(room: &Room) {
    let k = &room.kubectl;
    let host = k.home().join(format!("{}-order", k.namespace));
    std::fs::create_dir_all(&host).unwrap();
    let says = |name: &str, more: &str| {
        let script = format!(
            "trap \"echo {name} ends >> /out/order; exit 0\" TERM; echo {name} starts >> /out/order; touch /tmp/up; while :; do sleep 0.1; done"
        );
        container(name, &script, &format!("volumeMounts: [{{name: out, mountPath: /out}}]\n    {more}"))
    };
    let probe = "startupProbe: {exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}";
    let sidecar = |name: &str| says(name, &format!("restartPolicy: Always\n    {probe}"));
    let volume = format!("volumes: [{{name: out, hostPath: {{path: {}}}}}]", host.display());
    k.apply(&pod("company", &[sidecar("one"), sidecar("two")], &[says("main", "")], &volume));
    k.wait("condition=Ready", "pod/company");
    k.run("delete pod company");
    let order = std::fs::read_to_string(host.join("order")).unwrap();
    let expected = "one starts\ntwo starts\nmain starts\nmain ends\ntwo ends\none ends\n";
    assert_eq!(order, expected);
}

fn sidecars_restart_beside_a_job(room: &Room) {
    let k = &room.kubectl;
    // Ends as often as it is started, until the pod's work is done.
    let sidecar = container("log", "echo up; sleep 2; exit 3", "restartPolicy: Always");
    let work = container("work", "sleep 6", "");
    k.apply(&pod("job", &[sidecar], &[work], "restartPolicy: Never\n  terminationGracePeriodSeconds: 1"));
    k.until("pod/job", "the sidecar was restarted", |pod| {
        (pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64()? >= 1).then_some(())
    });
    k.until("pod/job", "done", |pod| (pod["status"]["phase"] == "Succeeded").then_some(()));
}

fn hooks(room: &Room) {
    let k = &room.kubectl;
    let host = k.home().join(format!("{}-hooks", k.namespace));
    std::fs::create_dir_all(&host).unwrap();
    let lifecycle = "lifecycle:
      postStart: {exec: {command: [sh, -c, 'echo started >> /out/order']}}
      preStop: {exec: {command: [sh, -c, 'echo stopping >> /out/order']}}
    volumeMounts: [{name: out, mountPath: /out}]";
    let main = container(
        "main",
        "trap \"echo stopped >> /out/order; exit 0\" TERM; while :; do sleep 0.1; done",
        lifecycle,
    );
    let volume = format!("volumes: [{{name: out, hostPath: {{path: {}}}}}]", host.display());
    k.apply(&pod("hooked", &[], &[main], &volume));
    k.wait("condition=Ready", "pod/hooked");
    k.run("delete pod hooked");
    assert_eq!(std::fs::read_to_string(host.join("order")).unwrap(), "started\nstopping\nstopped\n");
}

fn probes_of_every_kind(room: &Room) {
    let k = &room.kubectl;
    let serve = "mkdir /www; echo land > /www/index.html; exec httpd -f -p 80 -h /www";
    for (name, probe) in [
        ("http", "httpGet: {path: /, port: 80}"),
        ("tcp", "tcpSocket: {port: 80}"),
        ("exec", "exec: {command: [wget, -q, -O, /dev/null, 'http://127.0.0.1/']}"),
    ] {
        let probes = format!(
            "startupProbe: {{{probe}, periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 60}}\n    readinessProbe: {{{probe}, periodSeconds: 1, timeoutSeconds: 20}}"
        );
        let more = "terminationGracePeriodSeconds: 0";
        k.apply(&pod(name, &[], &[container("main", serve, &probes)], more));
    }
    for name in ["http", "tcp", "exec"] {
        k.wait("condition=Ready", &format!("pod/{name}"));
        assert_eq!(k.field(&format!("pod/{name}"), ".status.containerStatuses[0].started"), "true");
    }
}

fn processes_are_shared_when_asked(room: &Room) {
    let k = &room.kubectl;
    let one = || container("one", "exec sleep 1001", "");
    let two = || container("two", "exec sleep 1002", "");
    k.apply(&pod("apart", &[], &[one(), two()], "terminationGracePeriodSeconds: 0"));
    let shared = "terminationGracePeriodSeconds: 0\n  shareProcessNamespace: true";
    k.apply(&pod("together", &[], &[one(), two()], shared));
    k.wait("condition=Ready", "pod/apart");
    k.wait("condition=Ready", "pod/together");
    let apart = k.run("exec apart -c one -- ps -o args");
    assert!(apart.contains("sleep 1001") && !apart.contains("sleep 1002"), "{apart}");
    let together = k.run("exec together -c one -- ps -o args");
    assert!(together.contains("sleep 1001") && together.contains("sleep 1002"), "{together}");
    // Nobody stays a zombie: the pod's first process takes in what others leave.
    k.run("exec together -c one -- sh -c '(sleep 0.2 & exec true)'");
    let zombies = "exec together -c one -- sh -c 'while grep -l \"^State:.Z\" /proc/[0-9]*/status 2>/dev/null; do sleep 0.1; done; echo none'";
    assert!(k.run(zombies).ends_with("none"));
}

fn names_and_addresses(room: &Room) {
    let k = &room.kubectl;
    let more = "hostname: argo
  subdomain: crew
  hostAliases: [{ip: 192.0.2.7, hostnames: [colchis]}]
  dnsPolicy: None
  dnsConfig: {nameservers: [192.0.2.53], searches: [sea.example], options: [{name: ndots, value: \"2\"}]}
  terminationGracePeriodSeconds: 0";
    k.apply(&pod("named", &[], &[container("main", "exec sleep infinity", "")], more));
    k.wait("condition=Ready", "pod/named");
    let ip = k.pod_ip("named");
    let namespace = &k.namespace;
    assert_eq!(k.run("exec named -- hostname"), "argo");
    let hosts = k.run("exec named -- cat /etc/hosts");
    let own = format!("{ip}\targo.crew.{namespace}.svc.cluster.local\targo");
    assert!(hosts.contains("192.0.2.7\tcolchis") && hosts.contains(&own), "{hosts}");
    assert_eq!(
        k.run("exec named -- cat /etc/resolv.conf"),
        "search sea.example\nnameserver 192.0.2.53\noptions ndots:2"
    );
    let host = k.run("run onnode --image=localhost/busybox:debian12 --overrides='{\"spec\":{\"hostNetwork\":true,\"terminationGracePeriodSeconds\":0}}' -- sleep infinity");
    assert!(host.contains("created"), "{host}");
    k.wait("condition=Ready", "pod/onnode");
    assert_eq!(k.pod_ip("onnode"), cluster_tests::net::NODE_IP);
    assert!(k.run("exec onnode -- ip -o addr show dev uplink").contains(cluster_tests::net::NODE_IP));
}

fn mounts_propagate_when_asked(room: &Room) {
    let k = &room.kubectl;
    let host = k.home().join(format!("{}-mounts", k.namespace));
    std::fs::create_dir_all(host.join("there")).unwrap();
    let target = host.to_str().unwrap();
    // A place of its own whose mounts others may see.
    let mount = |arguments: &[&str]| {
        let output = std::process::Command::new("mount").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    mount(&["--bind", target, target]);
    mount(&["--make-shared", target]);
    let volume =
        format!("terminationGracePeriodSeconds: 0\n  volumes: [{{name: v, hostPath: {{path: {target}}}}}]");
    for (name, propagation) in [("none", "None"), ("slave", "HostToContainer"), ("shared", "Bidirectional")] {
        let more = format!(
            "securityContext: {{privileged: true}}\n    volumeMounts: [{{name: v, mountPath: /v, mountPropagation: {propagation}}}]"
        );
        k.apply(&pod(name, &[], &[container("main", "exec sleep infinity", &more)], &volume));
    }
    for name in ["none", "slave", "shared"] {
        k.wait("condition=Ready", &format!("pod/{name}"));
    }
    mount(&["-t", "tmpfs", "node", &format!("{target}/there")]);
    std::fs::write(host.join("there/seen"), "").unwrap();
    for (name, expected) in [("none", ""), ("slave", "seen"), ("shared", "seen")] {
        assert_eq!(k.run(&format!("exec {name} -- ls /v/there")), expected, "{name}");
    }
    // And the other way round, from the one that may.
    std::fs::create_dir(host.join("back")).unwrap();
    k.run("exec shared -- mount -t tmpfs pod /v/back");
    k.run("exec shared -- touch /v/back/told");
    assert!(host.join("back/told").exists());
    assert_eq!(k.run("exec slave -- ls /v/back"), "told");
    assert_eq!(k.run("exec none -- ls /v/back"), "");
    k.run("delete pod none slave shared");
    let umount = std::process::Command::new("umount").args(["-R", target]).output().unwrap();
    assert!(umount.status.success(), "{}", String::from_utf8_lossy(&umount.stderr));
}

fn ends_gracefully(room: &Room) {
    let k = &room.kubectl;
    // Deaf to TERM: it gets its second and no more.
    let deaf =
        shell("deaf", "").replace("terminationGracePeriodSeconds: 0", "terminationGracePeriodSeconds: 1");
    k.apply(&deaf.replace("[sleep, infinity]", "[sh, -c, 'trap : TERM; while :; do sleep 0.1; done']"));
    k.wait("condition=Ready", "pod/deaf");
    let began = std::time::Instant::now();
    k.run("delete pod deaf");
    let took = began.elapsed();
    assert!(took > Duration::from_secs(1) && took < cluster_tests::patience() / 4, "{took:?}");
    assert!(k.refused("get pod deaf").contains("NotFound"));
}

fn classes_of_runtimes_take_their_share(room: &Room) {
    let k = &room.kubectl;
    let class = |name: &str, handler: &str| {
        format!(
            "
---
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: {{name: {name}}}
handler: {handler}
overhead: {{podFixed: {{memory: 16Mi, cpu: 10m}}}}
"
        )
    };
    k.apply(&(class("dear", "runc") + &class("absent", "nowhere")));
    let limits = "[sleep, infinity]\n    resources: {limits: {cpu: 50m, memory: 32Mi}}";
    let pod =
        |name: &str| shell(name, &format!("runtimeClassName: {name}")).replace("[sleep, infinity]", limits);
    k.apply(&(pod("dear") + &pod("absent")));
    let refused = |pod: &str, handler: &str| {
        let said = k.event(pod, "FailedCreatePodSandBox");
        assert!(said.contains(&format!("no runtime for \"{handler}\" is configured")), "{said}");
    };
    refused("absent", "nowhere");
    if room.cluster.engine() == Engine::Embedded {
        // It has no handlers to name.
        refused("dear", "runc");
        k.run("delete runtimeclass dear absent");
        return;
    }
    k.wait("condition=Ready", "pod/dear");
    assert_eq!(k.field("pod/dear", ".spec.overhead.memory"), "16Mi");
    // The pod's own bound has room for it.
    let uid = k.field("pod/dear", ".metadata.uid");
    let find = format!(
        "find /sys/fs/cgroup -path '*pod{uid}/memory.max' -o -path '*pod{uid}/memory.limit_in_bytes' | xargs cat"
    );
    let output = std::process::Command::new("sh").args(["-c", &find]).output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(told.lines().next(), Some("50331648"), "{told}");
    let node = k.run("describe node helm");
    let row = node.lines().find(|line| line.contains(&k.namespace) && line.contains("dear")).unwrap();
    assert!(row.contains("60m") && row.contains("48Mi"), "{row}");
    k.run("delete runtimeclass dear absent");
}
