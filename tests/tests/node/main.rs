//! What a node does for its pods beyond running them: it resizes them, mounts images, ends those that outgrow their
//! limits or the node's resources, and tells what all of it uses.
#![allow(clippy::unwrap_used)]

mod bounds;
mod certificates;
mod limits;
mod lives;
mod memory;
mod newer;
mod places;
mod rights;

use bounds::{bounds_pods_as_a_whole, tells_the_kernel_of_every_class, tells_what_waits};
use certificates::renews_its_certificates;
use cluster_tests::cluster::{NODE, Settings};
use cluster_tests::manifests::shell;
use cluster_tests::{Room, Scenario, Suite, scenarios};
use limits::{asks_credential_providers, limits_the_processes_of_a_pod, starts_again_soon};
use lives::{
    refuses_what_it_cannot_run, restarts_by_rules, runs_static_pods, says_that_it_lives,
    sleeps_and_calls_before_it_ends,
};
use memory::{has_huge_pages, swaps_as_far_as_it_may};
use newer::{
    keeps_memory_on_one_node, makes_ephemeral_volumes, reads_variables_from_files, refuses_unsafe_sysctls,
    starts_all_containers_anew,
};
use places::{has_of_the_node_what_it_names, reads_only_all_the_way_down, takes_the_archives_that_are_some};
use rights::{
    has_the_rights_it_asks_for, is_called_as_it_asks, is_confined_where_the_kernel_can,
    is_of_the_groups_it_asks_for, sees_all_of_proc_among_its_own_users,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    const TOGETHER: &[Scenario] = scenarios![
        top,
        resizes_in_place,
        mounts_images,
        takes_the_archives_that_are_some,
        gives_pods_users_of_their_own,
        ends_what_outgrows_its_storage,
        keeps_memory_on_one_node,
        starts_all_containers_anew,
        reads_variables_from_files,
        refuses_unsafe_sysctls,
        makes_ephemeral_volumes,
        runs_static_pods,
        says_that_it_lives,
        restarts_by_rules,
        sleeps_and_calls_before_it_ends,
        refuses_what_it_cannot_run,
        has_the_rights_it_asks_for,
        is_of_the_groups_it_asks_for,
        sees_all_of_proc_among_its_own_users,
        is_confined_where_the_kernel_can,
        is_called_as_it_asks,
        tells_the_kernel_of_every_class,
        bounds_pods_as_a_whole,
        tells_what_waits,
        has_of_the_node_what_it_names,
        reads_only_all_the_way_down,
        limits_the_processes_of_a_pod,
        starts_again_soon,
    ];
    // The last leaves a mark on the image that all are made of: it was pulled with a password, which others do not have.
    const ALONE: &[Scenario] = scenarios![
        has_huge_pages,
        swaps_as_far_as_it_may,
        renews_its_certificates,
        asks_credential_providers
    ];
    let settings = Settings { configuration: CONFIGURATION, ..Default::default() };
    const ON_CONTAINERD: &[Scenario] = scenarios![
        top,
        resizes_in_place,
        runs_static_pods,
        sleeps_and_calls_before_it_ends,
        tells_the_kernel_of_every_class,
        limits_the_processes_of_a_pod,
        swaps_as_far_as_it_may
    ];
    Suite { settings, alone: ALONE, on_containerd: ON_CONTAINERD, ..Suite::new("node", TOGETHER) }.run()
}

/// Nothing of it is in the way of pods that do not ask for it.
pub(crate) const CONFIGURATION: &str = "
allowedUnsafeSysctls: [kernel.msg*]
podPidsLimit: 100
crashLoopBackOff: {maxContainerRestartPeriod: 2s}
systemReserved: {memory: 64Mi}
memoryManagerPolicy: Static
reservedMemory: [{numaNode: 0, limits: {memory: 64Mi}}]
topologyManagerPolicy: single-numa-node
staticPodPath: $DATA/manifests
";

fn top(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("busy", "").replace(
        "[sleep, infinity]",
        "[sh, -c, 'while :; do :; done']\n    resources: {limits: {cpu: 100m, memory: 32Mi}}",
    ));
    k.wait("condition=Ready", "pod/busy");
    let pod = k.run("top pod busy --no-headers --containers");
    let words: Vec<&str> = pod.split_whitespace().collect();
    assert_eq!(&words[..2], ["busy", "sh"], "{pod}");
    let cpu: u64 = words[2].strip_suffix('m').unwrap().parse().unwrap();
    assert!((20..=200).contains(&cpu), "{pod}");
    assert!(words[3].ends_with("Mi"), "{pod}");
    let node = k.run("top node");
    assert!(node.lines().next().unwrap().starts_with("NAME") && node.contains(NODE), "{node}");
    assert_eq!(
        k.run("top pod -l app=absent --no-headers 2>&1 || true"),
        format!("No resources found in {} namespace.", k.namespace)
    );
    let api = k.run("get --raw /apis/metrics.k8s.io/v1beta1");
    assert!(api.contains("\"NodeMetrics\"") && api.contains("\"PodMetrics\""), "{api}");
    assert_eq!(k.field("apiservice/v1beta1.metrics.k8s.io", ".status.conditions[0].status"), "True");
}

fn resizes_in_place(room: &Room) {
    let k = &room.kubectl;
    let resources = "\n    resources: {requests: {cpu: 50m, memory: 32Mi}, limits: {cpu: 100m, memory: 64Mi}}\n    resizePolicy: [{resourceName: memory, restartPolicy: RestartContainer}]";
    k.apply(&shell("grows", "").replace("[sleep, infinity]", &format!("[sleep, infinity]{resources}")));
    k.wait("condition=Ready", "pod/grows");
    // What the kernel has been told, in percent of a processor.
    let quota = "sh -c 'cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us 2>/dev/null || cut -d\" \" -f1 /sys/fs/cgroup/cpu.max'";
    assert_eq!(k.run(&format!("exec grows -- {quota}")), "10000");
    let ask = |resources: &str| {
        let patch = format!(r#"{{"spec":{{"containers":[{{"name":"sh","resources":{resources}}}]}}}}"#);
        k.run(&format!("patch pod grows --subresource resize --patch '{patch}'"));
    };
    let settled = |what: &str, cpu: &str, memory: &str, restarts: u64| {
        k.until("pod/grows", what, |pod| {
            let status = &pod["status"]["containerStatuses"][0];
            let limits = &status["resources"]["limits"];
            let conditions = pod["status"]["conditions"].as_array()?;
            let waits =
                conditions.iter().any(|c| c["type"].as_str().unwrap_or_default().starts_with("PodResize"));
            (limits["cpu"] == cpu
                && limits["memory"] == memory
                && status["restartCount"] == restarts
                && status["ready"] == true
                && !waits)
                .then_some(())
        });
    };
    ask(r#"{"limits":{"cpu":"200m"}}"#);
    settled("more processor time", "200m", "64Mi", 0);
    assert_eq!(k.run(&format!("exec grows -- {quota}")), "20000");
    ask(r#"{"limits":{"memory":"96Mi"}}"#);
    settled("more memory, after a restart", "200m", "96Mi", 1);
    // As much as the node has, of which others have some.
    let ballast = "[sleep, infinity]\n    resources: {requests: {cpu: 300m}}";
    k.apply(&shell("ballast", "").replace("[sleep, infinity]", ballast));
    k.wait("condition=Ready", "pod/ballast");
    let all = k.run(&format!("get node {NODE} -o jsonpath={{.status.allocatable.cpu}}"));
    ask(&format!(r#"{{"requests":{{"cpu":"{all}"}},"limits":{{"cpu":"{all}"}}}}"#));
    k.until("pod/grows", "it must wait", |pod| {
        let conditions = pod["status"]["conditions"].as_array()?;
        let pending = conditions.iter().find(|c| c["type"] == "PodResizePending")?;
        (pending["reason"] == "Deferred").then_some(())
    });
    ask(r#"{"requests":{"cpu":"50m"},"limits":{"cpu":"100m"}}"#);
    settled("less again", "100m", "96Mi", 1);
    let events = k.run("get events --field-selector involvedObject.name=grows");
    for reason in ["ResizeStarted", "ResizeCompleted", "ResizeDeferred"] {
        assert!(events.contains(reason), "{reason} is not in:\n{events}");
    }
}

fn mounts_images(room: &Room) {
    let k = &room.kubectl;
    let volumes = "volumes: [{name: content, image: {reference: localhost/busybox:debian12, pullPolicy: IfNotPresent}}]";
    let mounts = "[sleep, infinity]\n    volumeMounts: [{name: content, mountPath: /whole}, {name: content, mountPath: /part, subPath: bin}]";
    k.apply(&shell("reads", volumes).replace("[sleep, infinity]", mounts));
    k.wait("condition=Ready", "pod/reads");
    assert_eq!(
        k.run("exec reads -- sh -c 'test -x /whole/bin/sh && test -x /part/sh && /part/busybox echo runs'"),
        "runs"
    );
    assert!(k.refused("exec reads -- touch /whole/x").contains("Read-only file system"));
    // A subpath that is not in the image, and an image that is nowhere.
    k.apply(&shell("lacks", volumes).replace(
        "[sleep, infinity]",
        "[sleep, infinity]\n    volumeMounts: [{name: content, mountPath: /v, subPath: absent}]",
    ));
    let absent = volumes.replace("busybox:debian12", "absent:1").replace("IfNotPresent", "Never");
    k.apply(&shell("fails", &absent).replace(
        "[sleep, infinity]",
        "[sleep, infinity]\n    volumeMounts: [{name: content, mountPath: /v}]",
    ));
    for (pod, reason) in [("lacks", "CreateContainerError"), ("fails", "ErrImageNeverPull")] {
        k.until(&format!("pod/{pod}"), reason, |pod| {
            (pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason).then_some(())
        });
    }
}

fn gives_pods_users_of_their_own(room: &Room) {
    let k = &room.kubectl;
    let supported =
        k.field(&format!("node/{NODE}"), ".status.runtimeHandlers[?(@.name==\"\")].features.userNamespaces");
    let pod = shell("apart", "hostUsers: false\n  volumes: [{name: v, emptyDir: {}}]")
        .replace("[sleep, infinity]", "[sleep, infinity]\n    volumeMounts: [{name: v, mountPath: /v}]");
    k.apply(&pod);
    if supported != "true" {
        // The node says why, and nothing runs among its own users by mistake.
        k.event("apart", "FailedCreatePodSandBox");
        return;
    }
    k.wait("condition=Ready", "pod/apart");
    let map = k.run("exec apart -- cat /proc/self/uid_map");
    let map: Vec<u32> = map.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert!(map[0] == 0 && map[1] >= 65536 && map[2] == 65536, "{map:?}");
    assert_eq!(
        k.run("exec apart -- sh -c 'id -u; touch /v/x; stat -c %u /v/x /etc/hosts /bin/sh'"),
        "0\n0\n0\n0"
    );
}

fn ends_what_outgrows_its_storage(room: &Room) {
    let k = &room.kubectl;
    let pod = |name: &str, rest: &str, at: &str, more: &str| {
        let script = format!("[sh, -c, 'dd if=/dev/zero of={at} bs=1M count=3; exec sleep infinity']{rest}");
        shell(name, more).replace("[sleep, infinity]", &script)
    };
    let mount = "\n    volumeMounts: [{name: v, mountPath: /v}]";
    k.apply(&pod("volume", mount, "/v/x", "volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}]"));
    let limit = "\n    resources: {limits: {ephemeral-storage: 1Mi}}";
    k.apply(&pod("layer", limit, "/x", ""));
    k.apply(&pod("fits", "\n    resources: {limits: {ephemeral-storage: 100Mi}}", "/x", ""));
    for (name, message) in [
        ("volume", "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
        ("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. "),
    ] {
        k.until(&format!("pod/{name}"), "evicted", |pod| (pod["status"]["phase"] == "Failed").then_some(()));
        assert_eq!(k.field(&format!("pod/{name}"), ".status.reason"), "Evicted");
        assert_eq!(k.field(&format!("pod/{name}"), ".status.message"), message.trim_end());
    }
    assert_eq!(k.field("pod/fits", ".status.phase"), "Running");
}
