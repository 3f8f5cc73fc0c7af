//! Claims, and the volumes that they are bound to: volumes that somebody made, on this node.

use cluster_tests::cluster::NODE;
use cluster_tests::disk::Device;
use cluster_tests::{Kubectl, Room};
use std::io::Read as _;
use std::path::PathBuf;
use std::process::Command;

/// A volume of the scenario's own class, named after its namespace, in a directory of its own.
fn volume(k: &Kubectl, name: &str, size: &str, more: &str) -> PathBuf {
    let namespace = &k.namespace;
    let place = k.home().join(format!("{namespace}-{name}"));
    std::fs::create_dir_all(&place).unwrap();
    let modes = if more.contains("accessModes") { "" } else { "accessModes: [ReadWriteOnce]" };
    k.apply(&format!(
        "
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {namespace}-{name}}}
spec:
  capacity: {{storage: {size}}}
  storageClassName: {namespace}
  {modes}
  {}
",
        more.replace("PLACE", &place.to_string_lossy())
    ));
    place
}

/// Where a volume is on this node alone.
fn local() -> String {
    format!(
        "local: {{path: PLACE}}\n  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{NODE}]}}]}}]}}}}"
    )
}

/// A class whose volumes are chosen with the node.
fn delayed_class(k: &Kubectl) {
    k.apply(&format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {}}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
",
        k.namespace
    ));
}

fn claim(k: &Kubectl, name: &str, size: &str, mode: &str) {
    k.apply(&format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  storageClassName: {}
  accessModes: [{mode}]
  resources: {{requests: {{storage: {size}}}}}
",
        k.namespace
    ));
}

fn pod(k: &Kubectl, name: &str, claim: &str) {
    k.apply(&super::pod(
        name,
        "[{name: data, mountPath: /data}]",
        &format!("[{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]"),
        "",
    ));
}

/// Ends the volumes and classes of a scenario, which no namespace takes with it.
fn clear(k: &Kubectl, volumes: &[&str]) {
    let names: Vec<String> = volumes.iter().map(|name| format!("{}-{name}", k.namespace)).collect();
    k.run(&format!("delete pv {} --ignore-not-found --timeout=$PATIENCE", names.join(" ")));
    k.run(&format!("delete storageclass {} --ignore-not-found", k.namespace));
}

pub(crate) fn static_volumes(room: &Room) {
    let k = &room.kubectl;
    volume(k, "large", "1Gi", "hostPath: {path: PLACE}");
    let place = volume(k, "right", "100Mi", "hostPath: {path: PLACE}");
    claim(k, "data", "60Mi", "ReadWriteOnce");
    k.wait("jsonpath={.status.phase}=Bound", "pvc/data");
    let namespace = &k.namespace;
    assert_eq!(k.field("pvc/data", ".spec.volumeName"), format!("{namespace}-right"));
    let shown = k.run("get pvc data --no-headers");
    let shown: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(shown[1..5], ["Bound", &format!("{namespace}-right"), "100Mi", "RWO"]);
    let uid = k.field("pvc/data", ".metadata.uid");
    assert_eq!(k.field(&format!("pv/{namespace}-right"), ".spec.claimRef.uid"), uid);
    pod(k, "user", "data");
    k.wait("condition=Ready", "pod/user");
    k.run("exec user -- sh -c 'echo wine > /data/cargo'");
    assert_eq!(std::fs::read_to_string(place.join("cargo")).unwrap(), "wine\n");
    // A claim that is used stays until it is not.
    k.run("delete pvc data --wait=false");
    assert!(k.field("pvc/data", ".metadata.finalizers").contains("kubernetes.io/pvc-protection"));
    k.run("delete pod user");
    k.run("wait --for=delete pvc/data --timeout=$PATIENCE");
    k.wait("jsonpath={.status.phase}=Released", &format!("pv/{namespace}-right"));
    clear(k, &["large", "right"]);
}

pub(crate) fn claims_that_wait_for_a_pod(room: &Room) {
    let k = &room.kubectl;
    delayed_class(k);
    claim(k, "data", "50Mi", "ReadWriteOnce");
    assert_eq!(
        k.event("data", "WaitForFirstConsumer"),
        "waiting for first consumer to be created before binding"
    );
    // One that no node here reaches is as none.
    let elsewhere = local().replace(NODE, "nowhere");
    volume(k, "far", "50Mi", &elsewhere);
    pod(k, "user", "data");
    let why = k.event("user", "FailedScheduling");
    assert!(
        why.starts_with(
            "0/1 nodes are available: 1 node(s) didn't find available persistent volumes to bind."
        ),
        "{why}"
    );
    assert_eq!(k.event("data", "WaitForPodScheduled"), "waiting for pod user to be scheduled");
    let place = volume(k, "near", "100Mi", &local());
    k.wait("condition=Ready", "pod/user");
    assert_eq!(k.field("pod/user", ".status.nominatedNodeName"), "");
    let namespace = &k.namespace;
    assert_eq!(k.field("pvc/data", ".spec.volumeName"), format!("{namespace}-near"));
    assert_eq!(k.field(&format!("pv/{namespace}-far"), ".status.phase"), "Available");
    k.run("exec user -- touch /data/here");
    assert!(place.join("here").exists());
    k.run("delete pod user");
    k.run("delete pvc data");
    clear(k, &["far", "near"]);
}

pub(crate) fn claims_of_a_stateful_set(room: &Room) {
    let k = &room.kubectl;
    delayed_class(k);
    let places = ["one", "two"].map(|name| volume(k, name, "50Mi", &local()));
    k.apply(&format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  replicas: 2
  serviceName: db
  podManagementPolicy: Parallel
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: localhost/busybox:debian12
        command: [sh, -c, \"hostname >> /data/who; sleep infinity\"]
        volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
  - metadata: {{name: data}}
    spec: {{storageClassName: {}, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 20Mi}}}}}}
",
        k.namespace
    ));
    k.run("rollout status statefulset/db --timeout=$PATIENCE");
    let who = || {
        let mut all: Vec<String> =
            places.iter().map(|place| std::fs::read_to_string(place.join("who")).unwrap()).collect();
        all.sort();
        all
    };
    assert_eq!(who(), ["db-0\n", "db-1\n"]);
    // Whoever comes in a pod's place has its volume.
    k.run("delete pod db-1");
    k.run("rollout status statefulset/db --timeout=$PATIENCE");
    k.wait("condition=Ready", "pod/db-1");
    assert_eq!(who(), ["db-0\n", "db-1\ndb-1\n"]);
    k.run("delete statefulset db");
    k.run("delete pvc --all");
    clear(k, &["one", "two"]);
}

pub(crate) fn released_and_taken_again(room: &Room) {
    let k = &room.kubectl;
    let pv = format!("pv/{}-only", k.namespace);
    volume(k, "only", "50Mi", "hostPath: {path: PLACE}");
    k.wait("jsonpath={.status.phase}=Available", &pv);
    claim(k, "first", "50Mi", "ReadWriteOnce");
    k.wait("jsonpath={.status.phase}=Bound", &pv);
    k.run("delete pvc first");
    k.wait("jsonpath={.status.phase}=Released", &pv);
    // It is still the first one's, even to one of that name.
    claim(k, "first", "50Mi", "ReadWriteOnce");
    k.event("first", "ProvisioningFailed");
    assert_eq!(k.field(&pv, ".status.phase"), "Released");
    k.run("delete pvc first");
    k.run(&format!("patch {pv} --type merge --patch '{{\"spec\":{{\"claimRef\":null}}}}'"));
    k.wait("jsonpath={.status.phase}=Available", &pv);
    claim(k, "second", "50Mi", "ReadWriteOnce");
    k.wait("jsonpath={.status.phase}=Bound", "pvc/second");
    k.run("delete pvc second");
    clear(k, &["only"]);
}

pub(crate) fn a_claim_for_one_pod(room: &Room) {
    let k = &room.kubectl;
    volume(k, "only", "50Mi", "accessModes: [ReadWriteOncePod]\n  hostPath: {path: PLACE}");
    claim(k, "data", "50Mi", "ReadWriteOncePod");
    k.wait("jsonpath={.status.phase}=Bound", "pvc/data");
    pod(k, "first", "data");
    k.wait("condition=Ready", "pod/first");
    pod(k, "second", "data");
    let why = k.event("second", "FailedScheduling");
    assert!(
        why.starts_with("0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod."),
        "{why}"
    );
    k.run("delete pod first");
    k.wait("condition=Ready", "pod/second");
    k.run("delete pod second");
    k.run("delete pvc data");
    clear(k, &["only"]);
}

pub(crate) fn volumes_that_are_deleted(room: &Room) {
    let k = &room.kubectl;
    let namespace = &k.namespace;
    // Of this machine's directories, those of trials only.
    let place = std::env::temp_dir().join(format!("{namespace}-{}", std::process::id()));
    std::fs::create_dir_all(place.join("deep/down")).unwrap();
    let delete = |path: &str| format!("persistentVolumeReclaimPolicy: Delete\n  hostPath: {{path: {path}}}");
    volume(k, "trial", "50Mi", &delete(&place.to_string_lossy()));
    claim(k, "trial", "50Mi", "ReadWriteOnce");
    k.wait("jsonpath={.status.phase}=Bound", "pvc/trial");
    k.run("delete pvc trial");
    k.run(&format!("wait --for=delete pv/{namespace}-trial --timeout=$PATIENCE"));
    assert!(!place.exists());
    volume(k, "precious", "50Mi", &delete("/srv/precious"));
    claim(k, "precious", "50Mi", "ReadWriteOnce");
    k.wait("jsonpath={.status.phase}=Bound", "pvc/precious");
    k.run("delete pvc precious");
    k.wait("jsonpath={.status.phase}=Failed", &format!("pv/{namespace}-precious"));
    assert_eq!(
        k.in_namespace("default").event(&format!("{namespace}-precious"), "VolumeFailedDelete"),
        "host_path deleter only supports /tmp/.+ but received provided /srv/precious"
    );
    clear(k, &["precious"]);
}

/// A block device of so many MiB.
fn device(k: &Kubectl, name: &str, mebibytes: u64) -> Device {
    Device::make(&k.home().join(format!("{}-{name}.img", k.namespace)), mebibytes)
}

/// A device that has grown: its file system follows while a pod has it, and the claim tells it.
pub(crate) fn grows_where_it_is_mounted(room: &Room) {
    let k = &room.kubectl;
    // ext4 asks for CAP_SYS_RESOURCE, which not every machine has; xfs does not.
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let rights = own.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let may = u64::from_str_radix(rights.trim(), 16).unwrap() >> 24 & 1 == 1;
    let xfs = Command::new("mkfs.xfs").arg("-V").output().is_ok();
    let kind = if xfs { "xfs" } else { "ext4" };
    let (raw, disk) = (device(k, "raw", 32), device(k, "disk", 320));
    let on = |device: &Device, more: &str| {
        local().replace("PLACE", &format!("{}, fsType: {kind}", device.path())) + more
    };
    volume(k, "raw", "30Mi", &on(&raw, "\n  volumeMode: Block"));
    volume(k, "disk", "300Mi", &on(&disk, ""));
    claim(k, "disk", "1Mi", "ReadWriteOnce");
    claim_block(k, "raw");
    k.apply(
        &super::pod("a", "[]", "[{name: raw, persistentVolumeClaim: {claimName: raw}}]", "")
            .replace("volumeMounts: []", "volumeDevices: [{name: raw, devicePath: /dev/raw}]"),
    );
    pod(k, "b", "disk");
    for pod in ["pod/a", "pod/b"] {
        k.wait("condition=Ready", pod);
    }
    k.run("exec b -- sh -c 'echo wine > /data/cargo'");
    let size = || -> u64 {
        let said = k.run("exec b -- sh -c 'df -k /data | tail -n 1'");
        said.split_whitespace().rev().nth(4).unwrap().parse().unwrap()
    };
    let before = size();
    disk.grow(640);
    raw.grow(64);
    for (name, to) in [("raw", "60Mi"), ("disk", "600Mi")] {
        // As the resizer of a driver leaves it to the node.
        let pending = format!(
            r#"{{"status": {{"allocatedResources": {{"storage": "{to}"}},
                "allocatedResourceStatuses": {{"storage": "NodeResizePending"}},
                "conditions": [{{"type": "FileSystemResizePending", "status": "True"}}]}}}}"#
        );
        k.run(&format!("patch pvc {name} --subresource status --type merge --patch '{pending}'"));
        let size = format!(r#"{{"spec": {{"capacity": {{"storage": "{to}"}}}}}}"#);
        k.run(&format!("patch pv {}-{name} --patch '{size}'", k.namespace));
    }
    // The pods are looked at anew.
    k.run("annotate pod a b look=now");
    let grown = |pod: &str, name: &str, to: &str| {
        let status = k.until(&format!("pvc/{name}"), "grown", |claim| {
            (claim["status"]["capacity"]["storage"] == to).then(|| claim["status"].clone())
        });
        let left = (&status["conditions"], &status["allocatedResourceStatuses"]);
        assert!(left.0.is_null() && left.1.is_null(), "{status}");
        for whose in [pod, name] {
            let message = k.event(whose, "FileSystemResizeSuccessful");
            let volume = format!("{}-{name}", k.namespace);
            assert_eq!(
                message,
                format!("MountVolume.NodeExpandVolume succeeded for volume {volume:?} {NODE}")
            );
        }
    };
    grown("a", "raw", "60Mi");
    if may || xfs {
        grown("b", "disk", "600Mi");
        assert!(size() > before * 3 / 2, "{before}");
    } else {
        let message = k.event("b", "VolumeResizeFailed");
        assert!(message.contains("resize2fs output"), "{message}");
    }
    assert_eq!(k.run("exec b -- cat /data/cargo"), "wine");
    let metrics = k.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy/metrics"));
    for line in [
        r#"storage_operation_duration_seconds_count{migrated="false",operation_name="volume_fs_resize",status="success",volume_plugin="kubernetes.io/local-volume"}"#,
        r#"storage_operation_duration_seconds_count{migrated="false",operation_name="volume_mount",status="success",volume_plugin="kubernetes.io/local-volume"}"#,
        r#"volume_manager_total_volumes{plugin_name="kubernetes.io/local-volume",state="actual_state_of_world"}"#,
    ] {
        assert!(metrics.lines().any(|known| known.starts_with(line)), "{line}");
    }
    k.run("delete pod a b");
    k.run("delete pvc --all");
    clear(k, &["raw", "disk"]);
}

/// A claim of a bare device.
fn claim_block(k: &Kubectl, name: &str) {
    k.apply(&format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec: {{storageClassName: {}, volumeMode: Block, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
",
        k.namespace
    ));
}

pub(crate) fn devices(room: &Room) {
    let k = &room.kubectl;
    let (raw, disk) = (device(k, "raw", 32), device(k, "disk", 32));
    let on = |device: &Device, more: &str| format!("{}{more}", local().replace("PLACE", device.path()));
    volume(k, "raw", "32Mi", &on(&raw, "\n  volumeMode: Block"));
    volume(k, "disk", "30Mi", &on(&disk, ""));
    claim_block(k, "raw");
    claim(k, "disk", "1Mi", "ReadWriteOnce");
    k.apply(
        &super::pod("a", "[]", "[{name: raw, persistentVolumeClaim: {claimName: raw}}]", "")
            .replace("volumeMounts: []", "volumeDevices: [{name: raw, devicePath: /dev/raw}]"),
    );
    k.wait("condition=Ready", "pod/a");
    k.run("exec a -- sh -c 'echo ahoy | dd of=/dev/raw bs=512 conv=sync'");
    let mut seen = [0; 5];
    std::fs::File::open(raw.path()).unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(&seen, b"ahoy\n");
    // Where there is no file system one is made, once.
    pod(k, "b", "disk");
    k.wait("condition=Ready", "pod/b");
    assert_eq!(k.run("exec b -- sh -c 'echo wine > /data/cargo; stat -f -c %T /data'"), "ext2/ext3");
    k.run("delete pod b");
    pod(k, "b", "disk");
    k.wait("condition=Ready", "pod/b");
    assert_eq!(k.run("exec b -- cat /data/cargo"), "wine");
    k.run("delete pod a b");
    k.run("delete pvc --all");
    clear(k, &["raw", "disk"]);
}
