//! Memory and topology managers on a machine of two NUMA nodes, as far as `/sys` can tell: what a pod asks for comes from
//! one node, or the pod is refused.

use crate::{Node, container};
use apimachinery::json;
use apimachinery::value::Value;
use kubelet::Config;
use kubelet::topology::{Policy, Scope, Settings};
use std::path::Path;

const MIB: u64 = 1 << 20;

fn put(dir: &Path, file: &str, text: &str) {
    let path = dir.join(file);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Two nodes of two processors and 64 MiB each, of which the system keeps a processor, and 16 MiB each.
fn two_nodes(config: &mut Config) {
    let system = config.root_dir.with_file_name("system");
    for node in 0..2 {
        let cpus = [2 * node, 2 * node + 1];
        put(&system, &format!("node/node{node}/cpulist"), &format!("{}-{}\n", cpus[0], cpus[1]));
        put(
            &system,
            &format!("node/node{node}/meminfo"),
            &format!("Node {node} MemTotal:          65536 kB\n"),
        );
        put(&system, &format!("node/node{node}/distance"), if node == 0 { "10 20\n" } else { "20 10\n" });
        for cpu in cpus {
            put(&system, &format!("cpu/cpu{cpu}/topology/core_id"), &format!("{cpu}\n"));
            put(&system, &format!("cpu/cpu{cpu}/topology/physical_package_id"), &format!("{node}\n"));
        }
    }
    config.system_devices = system;
    config.cpu_manager_policy = kubelet::cpus::Policy::Static;
    config.reserved_cpus = "0".parse().unwrap();
    config.reserved.insert("memory".into(), "32Mi".parse().unwrap());
    let kept = || [("memory".to_owned(), 16 * MIB)].into();
    config.memory_manager = Some([(0, kept()), (1, kept())].into());
    config.topology = Settings { policy: Policy::SingleNumaNode, scope: Scope::Pod, ..Default::default() };
}

fn pod(name: &str, cpu: &str, memory: &str) -> Value {
    let mut one = container(name);
    let resources = json!({ "cpu": cpu, "memory": memory });
    one["resources"] = json!({ "limits": resources, "requests": resources });
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [one] })
}

/// Processors and nodes of a container, as the runtime was told.
fn place(node: &Node, name: &str) -> (String, String) {
    let id = node.runtime.container_named(name).unwrap();
    let made = node.runtime.containers()[&id].config.linux.clone().unwrap().resources.unwrap();
    (made.cpuset_cpus, made.cpuset_mems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_keeps_pods_on_one_numa_node() {
    let mut node = Node::with(two_nodes);
    node.create("web", pod("web", "100m", "60Mi"));
    node.until("refused", |n| n.phase("web") == "Failed").await;
    let status = node.api.pod("web").unwrap().status;
    assert_eq!(
        (status.reason.as_str(), status.message.as_str()),
        ("TopologyAffinityError", "Pod was rejected: Resources cannot be allocated with Topology locality")
    );
    let why = "TopologyAffinityError: Resources cannot be allocated with Topology locality";
    node.until("told", |n| n.api.events().iter().any(|event| event == why)).await;
    node.create("two", pod("two", "100m", "40Mi"));
    node.until("ready", |n| n.ready("two")).await;
    assert_eq!(place(&node, "two"), ("0-3".into(), "0".into()));
    // Another machine than this one may have too few processors to let it in.
    node.create("three", pod("three", "1", "40Mi"));
    node.until("placed", |n| n.ready("three") || n.phase("three") == "Failed").await;
    if node.ready("three") {
        // The processor is where the memory is.
        assert_eq!(place(&node, "three"), ("2".into(), "1".into()));
    }
    let state = std::fs::read_to_string(node.dir.path().join("kubelet/memory_manager_state")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let uid = node.api.pod("two").unwrap().metadata.uid;
    assert_eq!(
        state["entries"][&uid]["two"],
        json!([{ "numaAffinity": [0], "type": "memory", "size": 40 * MIB }])
    );
    assert_eq!(state["machineState"]["0"]["memoryMap"]["memory"]["free"], json!(8 * MIB));

    node.counts(&[
        "kubelet_container_aligned_compute_resources_failure_count{boundary=\"numa_node\",scope=\"pod\"} 1",
        "kubelet_topology_manager_admission_errors_total 1",
        "kubelet_memory_manager_pinning_errors_total 0",
        "kubelet_cpu_manager_allocation_per_numa{numa_node=\"0\"} 0",
    ])
    .await;
    let placed = if node.ready("three") { 2 } else { 1 };
    node.counts(&[
        &format!("kubelet_memory_manager_pinning_requests_total {placed}"),
        &format!(
            "kubelet_container_aligned_compute_resources_count{{boundary=\"numa_node\",scope=\"pod\"}} {placed}"
        ),
    ])
    .await;

    node.stop().await;
    node.start();
    node.runtime.exit(&node.runtime.container_named("two").unwrap(), 0);
    node.until("ended", |n| n.phase("two") == "Succeeded").await;
    node.create("next", pod("next", "100m", "48Mi"));
    node.until("it has the memory now", |n| n.ready("next")).await;
    assert_eq!(place(&node, "next").1, "0");
    node.stop().await;
}
