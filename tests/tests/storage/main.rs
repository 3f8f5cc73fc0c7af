//! Volumes: what is in them, who may read it, and that changes are seen whole; and how claims come by them.
#![allow(clippy::unwrap_used)]

mod claims;
mod pod_certificates;
mod trust_bundles;

use claims::{
    a_claim_for_one_pod, claims_of_a_stateful_set, claims_that_wait_for_a_pod, devices,
    grows_where_it_is_mounted, released_and_taken_again, static_volumes, volumes_that_are_deleted,
};
use cluster_tests::cluster::Settings;
use cluster_tests::{Room, Suite, scenarios};
use pod_certificates::{certificates_of_pods, who_signs_for_pods};
use std::process::ExitCode;
use trust_bundles::{absent_trust_bundles, trust_bundles, who_publishes_trust_bundles};

fn main() -> ExitCode {
    const CONTENT: &[cluster_tests::Scenario] = scenarios![
        config_map,
        secret,
        environment,
        downward_api,
        projected,
        service_account_token,
        empty_dir_is_shared_and_goes_with_its_pod,
        empty_dir_in_memory,
        host_path,
        sub_paths,
        owner_of_a_volume,
        read_only,
        trust_bundles,
        absent_trust_bundles,
        certificates_of_pods,
    ];
    const CLAIMS: &[cluster_tests::Scenario] = scenarios![
        static_volumes,
        claims_that_wait_for_a_pod,
        claims_of_a_stateful_set,
        released_and_taken_again,
        a_claim_for_one_pod,
        volumes_that_are_deleted,
        devices,
        grows_where_it_is_mounted,
    ];
    const REST: &[cluster_tests::Scenario] = scenarios![who_publishes_trust_bundles, who_signs_for_pods];
    let settings = Settings { flags: trust_bundles::FLAGS, ..Default::default() };
    let all = [CONTENT, CLAIMS, REST].concat().leak();
    Suite { settings, on_containerd: CONTENT, ..Suite::new("storage", all) }.run()
}

/// A waiting pod with volumes; `mounts` and `volumes` are lists in YAML's flow style.
fn pod(name: &str, mounts: &str, volumes: &str, more: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{crew: argo}}, annotations: {{course: north}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: localhost/busybox:debian12
    command: [sleep, infinity]
    resources: {{requests: {{cpu: 10m, memory: 8Mi}}, limits: {{cpu: 250m, memory: 32Mi}}}}
    volumeMounts: {mounts}
  volumes: {volumes}
  {more}
"
    )
}

#[track_caller]
fn start(room: &Room, name: &str, mounts: &str, volumes: &str, more: &str) {
    room.kubectl.apply(&pod(name, mounts, volumes, more));
    room.kubectl.wait("condition=Ready", &format!("pod/{name}"));
}

/// What a shell says in the pod.
#[track_caller]
fn inside(room: &Room, pod: &str, script: &str) -> String {
    room.kubectl.run(&format!("exec {pod} -- sh -c '{script}'"))
}

/// Waits in the pod until a condition of its shell holds; the kubelet tells nobody that it changed a file.
#[track_caller]
fn until(room: &Room, pod: &str, condition: &str) {
    inside(room, pod, &format!("timeout 90 sh -c \"until {condition}; do usleep 20000; done\""));
}

fn config_map(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap chart --from-literal=course=north --from-literal=speed=5 --from-literal=stays=1");
    let volumes = "[{name: chart, configMap: {name: chart}}, {name: some, configMap: {name: chart, defaultMode: 0400, \
                   items: [{key: course, path: deep/way}, {key: speed, path: fast, mode: 0644}]}}]";
    start(room, "a", "[{name: chart, mountPath: /chart}, {name: some, mountPath: /some}]", volumes, "");
    assert_eq!(inside(room, "a", "cd /chart; ls; cat course"), "course\nspeed\nstays\nnorth");
    assert_eq!(
        inside(room, "a", "stat -L -c \"%a %u\" /chart/course /some/deep/way /some/fast"),
        "644 0\n400 0\n644 0"
    );
    // Both keys change at once: whoever reads through the directory never sees one without the other.
    let watch = "while :; do cd /chart/..data && echo $(cat course) $(cat speed); usleep 1000; done";
    let mut seen = k.start(&format!("exec a -- sh -c '{watch}'"));
    seen.line("north 5");
    k.run("patch configmap chart -p '{\"data\":{\"course\":\"south\",\"speed\":\"9\",\"stays\":null}}'");
    seen.line("south 9");
    drop(seen);
    until(room, "a", "grep -q south /some/deep/way");
    assert_eq!(inside(room, "a", "ls /chart"), "course\nspeed");
}

fn secret(room: &Room) {
    let k = &room.kubectl;
    k.run("create secret generic key --from-literal=password=golden-fleece");
    start(
        room,
        "a",
        "[{name: key, mountPath: /key, readOnly: true}]",
        "[{name: key, secret: {secretName: key, defaultMode: 0440}}]",
        "",
    );
    assert_eq!(
        inside(room, "a", "cat /key/password; stat -L -c %a /key/password; stat -f -c %T /key"),
        "golden-fleece440\ntmpfs"
    );
    k.run("patch secret key -p '{\"stringData\":{\"password\":\"ram\"}}'");
    until(room, "a", "grep -q ram /key/password");
    let describe = k.run("describe pod a");
    assert!(describe.contains("Type:        Secret (a volume populated by a Secret)"), "{describe}");
}

fn environment(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap c --from-literal=A=1 --from-literal=B=2");
    k.run("create secret generic s --from-literal=C=3");
    k.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: env, labels: {crew: argo}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: localhost/busybox:debian12
    command: [env]
    resources: {limits: {memory: 64Mi, cpu: 500m}}
    envFrom: [{prefix: X_, configMapRef: {name: c}}, {secretRef: {name: s}}, {configMapRef: {name: absent, optional: true}}]
    env:
    - {name: PLAIN, value: plain}
    - {name: BOTH, value: $(PLAIN)-$(C)-$$(C)-$(ABSENT)}
    - {name: KEY, valueFrom: {configMapKeyRef: {name: c, key: B}}}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: LABEL, valueFrom: {fieldRef: {fieldPath: \"metadata.labels['crew']\"}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
",
    );
    k.wait("jsonpath={.status.phase}=Succeeded", "pod/env");
    let env = k.run("logs env");
    let ip = k.pod_ip("env");
    for line in [
        "X_A=1",
        "X_B=2",
        "C=3",
        "PLAIN=plain",
        "BOTH=plain-3-$(C)-$(ABSENT)",
        "KEY=2",
        "POD=env",
        "LABEL=argo",
        "MEMORY=64",
        "CPU=500",
        "HOSTNAME=env",
        &format!("IP={ip}"),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} is not in {env}");
    }
}

fn downward_api(room: &Room) {
    let k = &room.kubectl;
    let items = "[{path: name, fieldRef: {fieldPath: metadata.name}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}, \
                 {path: annotations, fieldRef: {fieldPath: metadata.annotations}}, \
                 {path: memory, resourceFieldRef: {containerName: main, resource: limits.memory}}, \
                 {path: cpu, resourceFieldRef: {containerName: main, resource: limits.cpu, divisor: 1m}}]";
    start(
        room,
        "a",
        "[{name: me, mountPath: /me}]",
        &format!("[{{name: me, downwardAPI: {{items: {items}}}}}]"),
        "",
    );
    assert_eq!(
        inside(room, "a", "cd /me; cat name; echo; cat labels; echo; cat memory; echo; cat cpu"),
        "a\ncrew=\"argo\"\n33554432\n250"
    );
    k.run("label pod a captain=jason");
    until(room, "a", "grep -q jason /me/labels");
    k.run("annotate pod a course=south --overwrite");
    until(room, "a", "grep -q south /me/annotations");
}

fn projected(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap c --from-literal=a=1");
    k.run("create secret generic s --from-literal=b=2");
    let sources = "[{configMap: {name: c}}, {secret: {name: s, items: [{key: b, path: secret/b}]}}, \
                   {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]";
    start(
        room,
        "a",
        "[{name: all, mountPath: /all}]",
        &format!("[{{name: all, projected: {{defaultMode: 0600, sources: {sources}}}}}]"),
        "",
    );
    assert_eq!(inside(room, "a", "cd /all; cat a secret/b name; echo; stat -L -c %a secret/b"), "12a\n600");
    k.run("patch configmap c -p '{\"data\":{\"a\":\"9\"}}'");
    until(room, "a", "grep -q 9 /all/a");
}

fn service_account_token(room: &Room) {
    let k = &room.kubectl;
    let token = "[{name: token, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}}]";
    start(room, "a", "[{name: token, mountPath: /vault}]", token, "");
    let names = inside(
        room,
        "a",
        "cd /var/run/secrets/kubernetes.io/serviceaccount; ls; cat namespace; echo; head -n 1 ca.crt",
    );
    assert_eq!(names, format!("ca.crt\nnamespace\ntoken\n{}\n-----BEGIN CERTIFICATE-----", k.namespace));
    // The API server knows whose it is, and for whom it is meant.
    let own = inside(room, "a", "cat /var/run/secrets/kubernetes.io/serviceaccount/token");
    let who = k.sh(&format!("kubectl --kubeconfig /dev/null --server https://192.0.2.10:6443 --insecure-skip-tls-verify --token {own} auth whoami -o 'jsonpath={{.status.userInfo.username}} {{.status.userInfo.extra}}'"));
    assert!(who.starts_with(&format!("system:serviceaccount:{}:default ", k.namespace)), "{who}");
    assert!(who.contains("\"authentication.kubernetes.io/pod-name\":[\"a\"]"), "{who}");
    let vault = inside(room, "a", "cat /vault/token");
    let out = k.script(&format!("kubectl --kubeconfig /dev/null --server https://192.0.2.10:6443 --insecure-skip-tls-verify --token {vault} get pods"), "");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && said.contains("You must be logged in to the server"), "{said}");
    // With the pod gone its tokens are worth nothing.
    k.run("delete pod a --now");
    let out = k.script(&format!("kubectl --kubeconfig /dev/null --server https://192.0.2.10:6443 --insecure-skip-tls-verify --token {own} get pods"), "");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(!out.status.success() && said.contains("You must be logged in to the server"), "{said}");
}

fn empty_dir_is_shared_and_goes_with_its_pod(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: writer, image: localhost/busybox:debian12, command: [sleep, infinity], volumeMounts: [{name: hold, mountPath: /w}]}
  - {name: reader, image: localhost/busybox:debian12, command: [sleep, infinity], volumeMounts: [{name: hold, mountPath: /r, readOnly: true}]}
  volumes: [{name: hold, emptyDir: {}}]
",
    );
    k.wait("condition=Ready", "pod/pair");
    k.run("exec pair -c writer -- sh -c 'echo wine > /w/cargo'");
    assert_eq!(k.run("exec pair -c reader -- cat /r/cargo"), "wine");
    let refused = k.refused("exec pair -c reader -- touch /r/x");
    assert!(refused.contains("Read-only file system"), "{refused}");
    // It outlives a container, and not the pod.
    room.cluster.kill_container(k, "pair", "writer");
    k.until("pod/pair", "restarted", |pod| {
        let one = pod["status"]["containerStatuses"].as_array()?.iter().find(|s| s["name"] == "writer")?;
        (one["restartCount"] == 1 && one["ready"] == true).then_some(())
    });
    assert_eq!(k.run("exec pair -c writer -- cat /w/cargo"), "wine");
    let uid = k.field("pod/pair", ".metadata.uid");
    let dir = room.cluster.data().join("kubelet/pods").join(&uid);
    assert!(dir.join("volumes/kubernetes.io~empty-dir/hold/cargo").exists());
    k.run("delete pod pair");
    // The kubelet removes it when the object is gone, and tells nobody.
    let deadline = std::time::Instant::now() + cluster_tests::patience();
    while dir.exists() {
        assert!(std::time::Instant::now() < deadline, "the pod is gone and its directory is not");
        std::thread::yield_now();
    }
}

fn empty_dir_in_memory(room: &Room) {
    start(
        room,
        "a",
        "[{name: m, mountPath: /m}]",
        "[{name: m, emptyDir: {medium: Memory, sizeLimit: 8Mi}}]",
        "",
    );
    assert_eq!(
        inside(
            room,
            "a",
            "stat -f -c %T /m; stat -c %a /m; df -k /m | tail -n 1 | tr -s \" \" | cut -d \" \" -f 2"
        ),
        "tmpfs\n777\n8192"
    );
}

fn host_path(room: &Room) {
    let k = &room.kubectl;
    let dir = k.home().join("on-the-node");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("note"), "land").unwrap();
    let volumes = format!(
        "[{{name: h, hostPath: {{path: {}}}}}, {{name: new, hostPath: {{path: {}/new, type: DirectoryOrCreate}}}}]",
        dir.display(),
        dir.display()
    );
    start(room, "a", "[{name: h, mountPath: /h}, {name: new, mountPath: /n}]", &volumes, "");
    assert_eq!(inside(room, "a", "cat /h/note; echo ahoy > /n/answer"), "land");
    assert_eq!(std::fs::read_to_string(dir.join("new/answer")).unwrap(), "ahoy\n");
    k.run("delete pod a --now");
    assert_eq!(std::fs::read_to_string(dir.join("note")).unwrap(), "land");
}

fn sub_paths(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap c --from-literal=nginx.conf=one");
    let mounts = "[{name: c, mountPath: /etc/app/nginx.conf, subPath: nginx.conf}, {name: e, mountPath: /own, subPathExpr: $(POD)/x}]\n    \
                  env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]";
    start(room, "a", mounts, "[{name: c, configMap: {name: c}}, {name: e, emptyDir: {}}]", "");
    assert_eq!(inside(room, "a", "cat /etc/app/nginx.conf; ls /etc/app; touch /own/y"), "onenginx.conf");
    let uid = k.field("pod/a", ".metadata.uid");
    assert!(
        room.cluster
            .data()
            .join(format!("kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir/e/a/x/y"))
            .exists()
    );
    // A mount of one file does not follow updates, as upstream documents.
    k.run("patch configmap c -p '{\"data\":{\"nginx.conf\":\"two\"}}'");
    assert_eq!(inside(room, "a", "cat /etc/app/nginx.conf"), "one");
}

fn owner_of_a_volume(room: &Room) {
    let security =
        "securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 2000, supplementalGroups: [3000]}";
    room.kubectl.run("create secret generic s --from-literal=k=v");
    start(
        room,
        "a",
        "[{name: e, mountPath: /e}, {name: s, mountPath: /s}]",
        "[{name: e, emptyDir: {}}, {name: s, secret: {secretName: s, defaultMode: 0400}}]",
        security,
    );
    assert_eq!(
        inside(
            room,
            "a",
            "id -u; id -g; id -G; touch /e/f; stat -c \"%u %g\" /e/f; stat -c \"%g %a\" /e; cat /s/k; echo; stat -L -c \"%g %a\" /s/k"
        ),
        "1000\n1000\n1000 2000 3000\n1000 2000\n2000 2777\nv\n2000 440"
    );
}

fn read_only(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap c --from-literal=k=v");
    start(
        room,
        "a",
        "[{name: c, mountPath: /c}]\n    securityContext: {readOnlyRootFilesystem: true}",
        "[{name: c, configMap: {name: c}}]",
        "",
    );
    for file in ["/c/new", "/new"] {
        let refused = k.refused(&format!("exec a -- touch {file}"));
        assert!(refused.contains("Read-only file system"), "{refused}");
    }
}
