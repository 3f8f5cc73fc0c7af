//! Pods that cannot be as they are written: what their users are told, in upstream's words.
#![allow(clippy::unwrap_used)]

use cluster_tests::{Room, Suite, scenarios};
use serde_json::Value;
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[cluster_tests::Scenario] = scenarios![
        missing_image,
        never_pulled,
        invalid_image_name,
        command_not_found,
        command_fails,
        failing_init_container,
        failing_hook,
        absent_config_map_volume,
        absent_secret_volume,
        absent_key_in_environment,
        absent_host_path,
        git_repo_is_refused,
        too_large_for_the_node,
        no_node_matches,
        deadline,
        out_of_memory,
        run_as_root_is_refused,
        termination_messages,
    ];
    Suite { on_containerd: TOGETHER, ..Suite::new("bad-pods", TOGETHER) }.run()
}

/// A pod of one container; `container` and `pod` are further lines of their specs.
fn pod(name: &str, container: &str, pod: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    {container}
  {pod}
"
    )
}

const IMAGE: &str = "image: localhost/busybox:debian12";

/// The reason and message with which the container waits, once the reason is as wanted.
#[track_caller]
fn waiting(room: &Room, pod: &str, reason: &str) -> String {
    room.kubectl.until(&format!("pod/{pod}"), &format!("waiting as {reason}"), |pod| {
        let statuses = ["initContainerStatuses", "containerStatuses"]
            .map(|list| pod["status"][list].as_array().cloned());
        let waits = |status: &Value| {
            let waiting = &status["state"]["waiting"];
            (waiting["reason"] == reason).then(|| waiting["message"].as_str().unwrap_or_default().to_owned())
        };
        statuses.into_iter().flatten().flatten().find_map(|status| waits(&status))
    })
}

/// What `kubectl get pod` shows as its status.
fn shown(room: &Room, pod: &str) -> String {
    let line = room.kubectl.run(&format!("get pod {pod} --no-headers"));
    line.split_whitespace().nth(2).unwrap().to_owned()
}

#[track_caller]
fn says(text: &str, wanted: &str) {
    assert!(text.contains(wanted), "{wanted:?} is not in {text:?}");
}

fn missing_image(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("lost", "image: localhost:1/nobody/has-it:v1", ""));
    let message = waiting(room, "lost", "ErrImagePull");
    says(&message, "failed to pull and unpack image \"localhost:1/nobody/has-it:v1\"");
    let message = waiting(room, "lost", "ImagePullBackOff");
    says(&message, "Back-off pulling image \"localhost:1/nobody/has-it:v1\": ErrImagePull: ");
    assert_eq!(k.event("lost", "Pulling"), "Pulling image \"localhost:1/nobody/has-it:v1\"");
    says(&k.event("lost", "Failed"), "Failed to pull image \"localhost:1/nobody/has-it:v1\": ");
    says(&k.event("lost", "BackOff"), "Back-off pulling image \"localhost:1/nobody/has-it:v1\"");
    assert_eq!(k.field("pod/lost", ".status.phase"), "Pending");
    let describe = k.run("describe pod lost");
    says(&describe, "Error: ErrImagePull");
}

fn never_pulled(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("never", "image: localhost/absent:v1\n    imagePullPolicy: Never", ""));
    let message = waiting(room, "never", "ErrImageNeverPull");
    assert_eq!(message, "Container image \"localhost/absent:v1\" is not present with pull policy of Never");
    assert_eq!(shown(room, "never"), "ErrImageNeverPull");
    assert_eq!(k.event("never", "ErrImageNeverPull"), message);
    assert_eq!(k.event("never", "Failed"), "Error: ErrImageNeverPull");
}

fn invalid_image_name(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("invalid", "image: 'localhost/UPPER Case'", ""));
    let message = waiting(room, "invalid", "InvalidImageName");
    says(&message, "Failed to apply default image tag \"localhost/UPPER Case\": couldn't parse image name");
    says(&k.event("invalid", "InspectFailed"), "Failed to apply default image tag \"localhost/UPPER Case\"");
}

fn command_not_found(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("absent", &format!("{IMAGE}\n    command: [/no/such/program]"), ""));
    let message = waiting(room, "absent", "RunContainerError");
    says(&message, "/no/such/program");
    says(&message, "no such file or directory");
    waiting(room, "absent", "CrashLoopBackOff");
    let status = k.json("pod/absent");
    let last = &status["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!((&last["reason"], &last["exitCode"]), (&"StartError".into(), &128.into()), "{last}");
    says(last["message"].as_str().unwrap(), "/no/such/program");
    says(last["message"].as_str().unwrap(), "no such file or directory");
    says(&k.event("absent", "Failed"), "no such file or directory");
    k.event("absent", "BackOff");
}

fn command_fails(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("crash", &format!("{IMAGE}\n    command: [sh, -c, 'echo so it goes; exit 3']"), ""));
    let uid = k.field("pod/crash", ".metadata.uid");
    let message = waiting(room, "crash", "CrashLoopBackOff");
    assert_eq!(
        message,
        format!("back-off 10s restarting failed container=main pod=crash_{}({uid})", k.namespace)
    );
    assert_eq!(shown(room, "crash"), "CrashLoopBackOff");
    let status = k.json("pod/crash");
    let main = &status["status"]["containerStatuses"][0];
    assert_eq!(main["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(main["lastState"]["terminated"]["reason"], "Error");
    assert_eq!((&main["ready"], &main["started"]), (&false.into(), &false.into()));
    assert_eq!(status["status"]["phase"], "Running");
    assert_eq!(
        k.event("crash", "BackOff"),
        format!("Back-off restarting failed container main in pod crash_{}({uid})", k.namespace)
    );
    assert_eq!(k.run("logs crash --previous"), "so it goes");
}

fn failing_init_container(room: &Room) {
    let k = &room.kubectl;
    let init =
        format!("initContainers: [{{name: first, {IMAGE}, command: [sh, -c, 'exit 4']}}]\n  restartPolicy: ");
    k.apply(&pod("forever", &format!("{IMAGE}\n    command: [sleep, infinity]"), &format!("{init}Always")));
    k.apply(&pod("once", &format!("{IMAGE}\n    command: [sleep, infinity]"), &format!("{init}Never")));
    waiting(room, "forever", "CrashLoopBackOff");
    assert_eq!(shown(room, "forever"), "Init:CrashLoopBackOff");
    assert_eq!(waiting(room, "forever", "PodInitializing"), "");
    k.wait("jsonpath={.status.phase}=Failed", "pod/once");
    assert_eq!(shown(room, "once"), "Init:Error");
    let conditions = k.run("get pod forever -o 'jsonpath={range .status.conditions[*]}{.type}={.status}/{.reason}/{.message};{end}'");
    says(
        &conditions,
        "Initialized=False/ContainersNotInitialized/containers with incomplete status: [first];",
    );
    says(&conditions, "Ready=False/ContainersNotReady/containers with unready status: [main];");
}

fn failing_hook(room: &Room) {
    let k = &room.kubectl;
    let hook = format!(
        "{IMAGE}\n    command: [sleep, infinity]\n    lifecycle: {{postStart: {{exec: {{command: [sh, -c, 'echo no wind; exit 1']}}}}}}"
    );
    k.apply(&pod("hook", &hook, ""));
    says(&k.event("hook", "FailedPostStartHook"), "PostStartHook failed");
    assert_eq!(k.event("hook", "Killing"), "FailedPostStartHook");
    waiting(room, "hook", "CrashLoopBackOff");
}

fn absent_config_map_volume(room: &Room) {
    let k = &room.kubectl;
    let volume = "volumes: [{name: chart, configMap: {name: not-there}}]";
    k.apply(&pod(
        "map",
        &format!(
            "{IMAGE}\n    command: [sleep, infinity]\n    volumeMounts: [{{name: chart, mountPath: /chart}}]"
        ),
        volume,
    ));
    assert_eq!(
        k.event("map", "FailedMount"),
        "MountVolume.SetUp failed for volume \"chart\" : configmap \"not-there\" not found"
    );
    assert_eq!(shown(room, "map"), "ContainerCreating");
    // It comes later: the pod goes on by itself.
    k.run("create configmap not-there --from-literal=course=north");
    k.wait("condition=Ready", "pod/map");
    assert_eq!(k.run("exec map -- cat /chart/course"), "north");
}

fn absent_secret_volume(room: &Room) {
    let k = &room.kubectl;
    let mounts = format!(
        "{IMAGE}\n    command: [sleep, infinity]\n    volumeMounts: [{{name: key, mountPath: /key}}]"
    );
    k.apply(&pod("needs", &mounts, "volumes: [{name: key, secret: {secretName: not-there}}]"));
    k.apply(&pod("may", &mounts, "volumes: [{name: key, secret: {secretName: not-there, optional: true}}]"));
    k.wait("condition=Ready", "pod/may");
    assert_eq!(
        k.event("needs", "FailedMount"),
        "MountVolume.SetUp failed for volume \"key\" : secret \"not-there\" not found"
    );
    // A key that is missing is told as such.
    k.run("create secret generic not-there --from-literal=a=1");
    let items = "volumes: [{name: key, secret: {secretName: not-there, items: [{key: b, path: b}]}}]";
    k.apply(&pod("item", &mounts, items));
    assert_eq!(
        k.event("item", "FailedMount"),
        "MountVolume.SetUp failed for volume \"key\" : references non-existent secret key: b"
    );
    k.wait("condition=Ready", "pod/needs");
}

fn absent_key_in_environment(room: &Room) {
    let k = &room.kubectl;
    let env = format!(
        "{IMAGE}\n    command: [sleep, infinity]\n    env: [{{name: A, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]"
    );
    k.apply(&pod("env", &env, ""));
    assert_eq!(waiting(room, "env", "CreateContainerConfigError"), "configmap \"c\" not found");
    k.run("create configmap c --from-literal=other=1");
    let message = format!("couldn't find key k in ConfigMap {}/c", k.namespace);
    k.until("pod/env", &message, |pod| {
        (pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"] == message.as_str())
            .then_some(())
    });
    assert_eq!(shown(room, "env"), "CreateContainerConfigError");
    says(&k.event("env", "Failed"), "Error: ");
    k.run("create configmap c --from-literal=k=1 --dry-run=client -o yaml > c.yaml");
    k.run("replace -f c.yaml");
    k.wait("condition=Ready", "pod/env");
}

fn absent_host_path(room: &Room) {
    let k = &room.kubectl;
    let mounts = format!("{IMAGE}\n    volumeMounts: [{{name: h, mountPath: /h}}]");
    k.apply(&pod(
        "host",
        &mounts,
        "volumes: [{name: h, hostPath: {path: /no/such/directory, type: Directory}}]",
    ));
    assert_eq!(
        k.event("host", "FailedMount"),
        "MountVolume.SetUp failed for volume \"h\" : hostPath type check failed: /no/such/directory is not a directory"
    );
}

fn git_repo_is_refused(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod(
        "clones",
        IMAGE,
        "volumes: [{name: v, gitRepo: {repository: 'https://example.com/x.git'}}]",
    ));
    let message = k.event("clones", "FailedMount");
    says(&message, "git-repo volume plugin has been disabled; if necessary, it may be re-enabled");
    assert_eq!(k.field("pod/clones", ".status.phase"), "Pending");
}

fn too_large_for_the_node(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("large", &format!("{IMAGE}\n    resources: {{requests: {{cpu: 1k}}}}"), ""));
    assert_eq!(
        k.event("large", "FailedScheduling"),
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    let conditions = k.run("get pod large -o 'jsonpath={.status.conditions[?(@.type==\"PodScheduled\")]}'");
    says(&conditions, "\"reason\":\"Unschedulable\"");
}

fn no_node_matches(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("picky", IMAGE, "nodeSelector: {sea: aegean}"));
    assert_eq!(
        k.event("picky", "FailedScheduling"),
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
}

fn deadline(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("late", &format!("{IMAGE}\n    command: [sleep, infinity]"), "activeDeadlineSeconds: 1"));
    k.wait("jsonpath={.status.phase}=Failed", "pod/late");
    assert_eq!(k.field("pod/late", ".status.reason"), "DeadlineExceeded");
    assert_eq!(
        k.field("pod/late", ".status.message"),
        "Pod was active on the node longer than the specified deadline"
    );
    assert_eq!(
        k.event("late", "DeadlineExceeded"),
        "Pod was active on the node longer than the specified deadline"
    );
}

fn out_of_memory(room: &Room) {
    let k = &room.kubectl;
    let eat = format!(
        "{IMAGE}\n    command: [sh, -c, 'x=0123456789; while :; do x=$x$x; done']\n    resources: {{limits: {{memory: 16Mi}}}}"
    );
    k.apply(&pod("greedy", &eat, "restartPolicy: Never"));
    k.wait("jsonpath={.status.phase}=Failed", "pod/greedy");
    let pod = k.json("pod/greedy");
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&"OOMKilled".into(), &137.into()), "{ended}");
    assert_eq!(shown(room, "greedy"), "OOMKilled");
}

fn run_as_root_is_refused(room: &Room) {
    let k = &room.kubectl;
    k.apply(&pod("root", &format!("{IMAGE}\n    securityContext: {{runAsNonRoot: true}}"), ""));
    let message = waiting(room, "root", "CreateContainerConfigError");
    says(&message, "container has runAsNonRoot and image will run as root");
}

fn termination_messages(room: &Room) {
    let k = &room.kubectl;
    let write = format!("{IMAGE}\n    command: [sh, -c, 'echo -n aground > /dev/termination-log; exit 1']");
    k.apply(&pod("file", &write, "restartPolicy: Never"));
    let log = format!(
        "{IMAGE}\n    command: [sh, -c, 'echo last words; exit 1']\n    terminationMessagePolicy: FallbackToLogsOnError"
    );
    k.apply(&pod("log", &log, "restartPolicy: Never"));
    for (name, words) in [("file", "aground"), ("log", "last words\n")] {
        k.wait("jsonpath={.status.phase}=Failed", &format!("pod/{name}"));
        let pod = k.json(&format!("pod/{name}"));
        assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"], words);
        assert_eq!(shown(room, name), "Error");
    }
}
