//! What newer versions of Kubernetes have brought to the node.

use cluster_tests::Room;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;

pub(crate) fn keeps_memory_on_one_node(room: &Room) {
    let k = &room.kubectl;
    let resources = "\n    resources: {limits: {cpu: 50m, memory: 32Mi}}";
    k.apply(&shell("near", "").replace("[sleep, infinity]", &format!("[sleep, infinity]{resources}")));
    k.wait("condition=Ready", "pod/near");
    assert_eq!(k.field("pod/near", ".status.qosClass"), "Guaranteed");
    let allowed = k.run("exec near -- sh -c 'grep Mems_allowed_list /proc/self/status'");
    let node: u32 = allowed.split_whitespace().nth(1).unwrap().parse().expect("one node");
    let state = std::fs::read_to_string(room.cluster.data().join("kubelet/memory_manager_state")).unwrap();
    let uid = k.field("pod/near", ".metadata.uid");
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(
        state["entries"][&uid]["sh"],
        serde_json::json!([{ "numaAffinity": [node], "type": "memory", "size": 32 << 20 }])
    );
    let features = k.field(&format!("node/{NODE}"), ".status.declaredFeatures");
    assert!(features.contains("RestartAllContainersOnContainerExits"), "{features}");
}

pub(crate) fn starts_all_containers_anew(room: &Room) {
    let k = &room.kubectl;
    // The first run of `a` ends in a way that makes all begin again, init container included.
    k.apply(
        "
---
apiVersion: v1
kind: Pod
metadata: {name: anew}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: first
    image: localhost/busybox:debian12
    command: [sh, -c, 'echo begun >> /v/log']
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: a
    image: localhost/busybox:debian12
    command: [sh, -c, 'test $(wc -l < /v/log) = 1 && exit 42; exec sleep infinity']
    volumeMounts: [{name: v, mountPath: /v}]
    restartPolicy: Never
    restartPolicyRules: [{action: RestartAllContainers, exitCodes: {operator: In, values: [42]}}]
  - name: b
    image: localhost/busybox:debian12
    command: [sleep, infinity]
  volumes: [{name: v, emptyDir: {}}]
",
    );
    k.until("pod/anew", "all run again", |pod| {
        let statuses = pod["status"]["containerStatuses"].as_array()?;
        let again = |status: &serde_json::Value| status["restartCount"] == 1 && status["ready"] == true;
        statuses.iter().all(again).then_some(())
    });
    assert_eq!(k.run("exec anew -c a -- cat /v/log"), "begun\nbegun");
    assert_eq!(k.field("pod/anew", ".status.initContainerStatuses[0].restartCount"), "1");
    let last = ".status.containerStatuses[?(@.name==\"b\")].lastState.terminated.reason";
    assert_eq!(k.field("pod/anew", last), "RestartingAllContainers");
    let condition = ".status.conditions[?(@.type==\"AllContainersRestarting\")].status";
    assert_eq!(k.field("pod/anew", condition), "False");
    // What was said before is still there.
    k.run("logs anew -c first");
}

pub(crate) fn reads_variables_from_files(room: &Room) {
    let k = &room.kubectl;
    k.apply(
        "
---
apiVersion: v1
kind: Pod
metadata: {name: told}
spec:
  terminationGracePeriodSeconds: 0
  initContainers:
  - name: tells
    image: localhost/busybox:debian12
    command: [sh, -c, \"echo \\\"HEADING='north by east'\\\" > /v/env\"]
    volumeMounts: [{name: v, mountPath: /v}]
  containers:
  - name: sh
    image: localhost/busybox:debian12
    command: [sleep, infinity]
    env:
    - {name: COURSE, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: HEADING}}}
    - {name: ABSENT, valueFrom: {fileKeyRef: {volumeName: v, path: env, key: NONE, optional: true}}}
  volumes: [{name: v, emptyDir: {}}]
",
    );
    k.wait("condition=Ready", "pod/told");
    assert_eq!(k.run("exec told -c sh -- sh -c 'echo $COURSE ${ABSENT-unset}'"), "north by east unset");
}

pub(crate) fn refuses_unsafe_sysctls(room: &Room) {
    let k = &room.kubectl;
    let pod = |name: &str, sysctl: &str, value: &str| {
        let context = format!("securityContext: {{sysctls: [{{name: {sysctl}, value: \"{value}\"}}]}}");
        shell(name, &context)
    };
    k.apply(&(pod("allowed", "kernel.msgmax", "16384") + &pod("forbidden", "kernel.shmmax", "65536")));
    k.wait("condition=Ready", "pod/allowed");
    assert_eq!(k.run("exec allowed -- cat /proc/sys/kernel/msgmax"), "16384");
    k.until("pod/forbidden", "refused", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    assert_eq!(k.field("pod/forbidden", ".status.reason"), "SysctlForbidden");
    assert_eq!(
        k.event("forbidden", "SysctlForbidden"),
        "forbidden sysctl: \"kernel.shmmax\" not allowlisted"
    );
}

pub(crate) fn makes_ephemeral_volumes(room: &Room) {
    let k = &room.kubectl;
    let claim = "volumes: [{name: scratch, ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], storageClassName: \"\", resources: {requests: {storage: 1Mi}}}}}}]";
    let mount = "[sleep, infinity]\n    volumeMounts: [{name: scratch, mountPath: /scratch}]";
    k.apply(&shell("owner", claim).replace("[sleep, infinity]", mount));
    k.until("persistentvolumeclaims", "the claim is made", |claim| {
        (claim["metadata"]["name"] == "owner-scratch").then_some(())
    });
    let waits = k.event("owner", "FailedScheduling");
    assert!(
        waits.starts_with("0/1 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim \"owner-scratch\".")
            || waits.starts_with("0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        "{waits}"
    );
    // An administrator has a place for it.
    let place = k.home().join(format!("{}-scratch", k.namespace));
    std::fs::create_dir(&place).unwrap();
    let namespace = &k.namespace;
    let volume = format!("{namespace}-scratch");
    k.apply(&format!(
        "
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {volume}}}
spec:
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  claimRef: {{namespace: {namespace}, name: owner-scratch}}
  local: {{path: {}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{NODE}]}}]}}]}}}}
",
        place.display()
    ));
    k.wait("condition=Ready", "pod/owner");
    k.run("exec owner -- sh -c 'echo deep > /scratch/sea'");
    assert_eq!(std::fs::read_to_string(place.join("sea")).unwrap(), "deep\n");
    // With its pod it goes.
    k.run("delete pod owner");
    k.run("wait --for=delete pvc/owner-scratch --timeout=$PATIENCE");
    k.run(&format!("delete pv {volume} --wait=false"));
}
