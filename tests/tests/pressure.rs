//! A node whose disk fills up: it says so, takes nobody in, ends whoever fills it, and is well again.
#![allow(clippy::unwrap_used)]

use cluster_tests::cluster::{NODE, Settings};
use cluster_tests::manifests::shell;
use cluster_tests::{Room, Scenario, Suite, scenarios};
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![disk_pressure_comes_and_goes];
    let settings = Settings { configuration: CONFIGURATION, disk_mib: 1500, ..Default::default() };
    const ALONE: &[Scenario] = scenarios![memory_pressure_ends_who_may_go];
    Suite { settings, alone: ALONE, ..Suite::new("pressure", TOGETHER) }.run()
}

const CONFIGURATION: &str = "
evictionHard: {nodefs.available: 300Mi}
evictionPressureTransitionPeriod: 1s
";

fn disk_pressure_comes_and_goes(room: &Room) {
    let k = &room.kubectl;
    let node = format!("node/{NODE}");
    let pressure = |status: &str, reason: &str, message: &str| {
        k.until(&node, reason, |node| {
            let conditions = node["status"]["conditions"].as_array()?;
            let disk = conditions.iter().find(|condition| condition["type"] == "DiskPressure")?;
            (disk["status"] == status && disk["reason"] == reason && disk["message"] == message).then_some(())
        });
    };
    let tainted = |wanted: bool| {
        k.until(&node, "the taint", |node| {
            let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
            let found = taints.iter().any(|taint| {
                taint["key"] == "node.kubernetes.io/disk-pressure" && taint["effect"] == "NoSchedule"
            });
            (found == wanted).then_some(())
        });
    };
    pressure("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure");
    k.apply(&shell("calm", ""));
    k.wait("condition=Ready", "pod/calm");
    // Room is left of less than a fifth of the threshold, in no time.
    let data = room.cluster.data();
    let stat = rustix::fs::statvfs(&data).unwrap();
    let free = (stat.f_bavail * stat.f_frsize) >> 20;
    let script = format!("[sh, -c, 'fallocate -l {}M /v/cargo; exec sleep infinity']", free - 60);
    let mount = "\n    volumeMounts: [{name: v, mountPath: /v}]";
    let greedy = shell("greedy", "volumes: [{name: v, emptyDir: {}}]");
    k.apply(&greedy.replace("[sleep, infinity]", &format!("{script}{mount}")));
    pressure("True", "KubeletHasDiskPressure", "kubelet has disk pressure");
    k.until("pod/greedy", "evicted", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    assert_eq!(k.field("pod/greedy", ".status.reason"), "Evicted");
    let message = k.field("pod/greedy", ".status.message");
    assert!(
        message.starts_with(
            "The node was low on resource: ephemeral-storage. Threshold quantity: 300Mi, available: "
        ) && message.contains("Container sh was using ")
            && message.contains(", request is 0, has larger consumption of ephemeral-storage."),
        "{message}"
    );
    assert_eq!(k.event("greedy", "Evicted").trim_end(), message.trim_end());
    let disruption = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    assert_eq!(k.field("pod/greedy", disruption), "TerminationByKubelet");
    let told = k.run(&format!("get events -A --field-selector involvedObject.name={NODE},reason=EvictionThresholdMet -o jsonpath={{.items[0].message}}"));
    assert_eq!(told, "Attempting to reclaim ephemeral-storage");
    // What filled the disk is gone with it.
    pressure("False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure");
    tainted(false);
    k.apply(&shell("later", ""));
    k.wait("condition=Ready", "pod/later");
    assert_eq!(k.field("pod/calm", ".status.phase"), "Running");
    // While it is short, nobody comes: filled by what is no pod's to give back.
    let cargo = std::fs::File::create(data.join("cargo")).unwrap();
    let stat = rustix::fs::statvfs(&data).unwrap();
    let free = stat.f_bavail * stat.f_frsize;
    rustix::fs::fallocate(&cargo, rustix::fs::FallocateFlags::empty(), 0, free - (60 << 20)).unwrap();
    tainted(true);
    k.apply(&shell("waits", ""));
    let refused = k.event("waits", "FailedScheduling");
    assert!(refused.contains("1 node(s) had untolerated taint(s)"), "{refused}");
    drop(cargo);
    std::fs::remove_file(data.join("cargo")).unwrap();
    tainted(false);
    k.wait("condition=Ready", "pod/waits");
}

/// Nothing is used up for it: the node is told that all of its memory must be free.
fn memory_pressure_ends_who_may_go(room: &Room) {
    let k = &room.kubectl;
    let node = format!("node/{NODE}");
    let pressure = |status: &str, reason: &str| {
        k.until(&node, reason, |node| {
            let conditions = node["status"]["conditions"].as_array()?;
            let memory = conditions.iter().find(|condition| condition["type"] == "MemoryPressure")?;
            (memory["status"] == status && memory["reason"] == reason).then_some(())
        });
    };
    let resources = "[sleep, infinity]\n    resources: {requests: {memory: 16Mi}}";
    k.apply(&shell("modest", "").replace("[sleep, infinity]", resources));
    let critical = shell("critical", "priorityClassName: system-node-critical");
    k.apply(&critical.replace("[sleep, infinity]", resources));
    for pod in ["modest", "critical"] {
        k.wait("condition=Ready", &format!("pod/{pod}"));
    }
    pressure("False", "KubeletHasSufficientMemory");
    room.cluster
        .reconfigure("evictionHard: {memory.available: 99.9%}\nevictionPressureTransitionPeriod: 1s\n");
    pressure("True", "KubeletHasInsufficientMemory");
    k.until("pod/modest", "evicted", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
    assert_eq!(k.field("pod/modest", ".status.reason"), "Evicted");
    let message = k.field("pod/modest", ".status.message");
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: ")
            && message.contains(", available: "),
        "{message}"
    );
    let disruption = ".status.conditions[?(@.type==\"DisruptionTarget\")].reason";
    assert_eq!(k.field("pod/modest", disruption), "TerminationByKubelet");
    let told = k.run(&format!("get events -A --field-selector involvedObject.name={NODE},reason=EvictionThresholdMet -o jsonpath={{.items[*].message}}"));
    assert!(told.contains("Attempting to reclaim memory"), "{told}");
    // Whoever asks for nothing is not even tried.
    k.apply(&shell("beggar", ""));
    let refused = k.event("beggar", "FailedScheduling");
    assert!(refused.contains("1 node(s) had untolerated taint(s)"), "{refused}");
    assert_eq!(k.field("pod/critical", ".status.phase"), "Running");
    room.cluster.reconfigure(CONFIGURATION);
    pressure("False", "KubeletHasSufficientMemory");
    k.wait("condition=Ready", "pod/beggar");
}
