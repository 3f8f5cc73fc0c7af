//! The static CPU manager: a Guaranteed container with whole processors has them alone, the others move off them, and
//! back when it has ended; over a restart of the kubelet.

use crate::{Node, container};
use apimachinery::json;
use apimachinery::value::Value;

/// One that asks for processors, or for nothing.
fn pod(name: &str, cpu: &str) -> Value {
    let mut one = container(name);
    if !cpu.is_empty() {
        let resources = json!({ "cpu": cpu, "memory": "8Mi" });
        one["resources"] = json!({ "limits": resources, "requests": resources });
    }
    json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [one] })
}

fn machine() -> usize {
    std::fs::read_to_string("/proc/cpuinfo")
        .unwrap()
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count()
}

/// Where a container runs, as the runtime was last told.
fn place(node: &Node, name: &str) -> String {
    let id = node.runtime.container_named(name).unwrap();
    let made = &node.runtime.containers()[&id];
    let updated =
        made.status.resources.as_ref().and_then(|r| r.linux.as_ref()).map(|l| l.cpuset_cpus.clone());
    let asked = made.config.linux.as_ref().unwrap().resources.as_ref().unwrap().cpuset_cpus.clone();
    updated.filter(|set| !set.is_empty()).unwrap_or(asked)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn root_gives_processors_alone() {
    let count = machine();
    if count < 2 {
        println!("skipped: a machine of one processor has none to give away");
        return;
    }
    let mut node = Node::with(|config| {
        config.cpu_manager_policy = kubelet::cpus::Policy::Static;
        config.reserved_cpus = "0".parse().unwrap();
    });
    let last = count - 1;
    let all = format!("0-{last}");
    node.create("shares", pod("shares", ""));
    node.until("ready", |n| n.ready("shares")).await;
    assert_eq!(place(&node, "shares"), all);
    let whole = last.to_string();
    node.create("alone", pod("alone", &whole));
    node.until("ready", |n| n.ready("alone")).await;
    let own = if last == 1 { "1".to_owned() } else { format!("1-{last}") };
    assert_eq!(place(&node, "alone"), own);
    let id = node.runtime.container_named("alone").unwrap();
    let made = node.runtime.containers()[&id].config.linux.clone().unwrap().resources.unwrap();
    assert_eq!(made.cpu_quota, -1);
    // The fake runtime tells nobody of an update: the calls are what there is.
    let moved =
        |n: &Node| n.runtime.calls().iter().any(|call| call.starts_with("update_container_resources"));
    let waiting = async {
        while !moved(&node) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.expect("the other moves off");
    let state = std::fs::read_to_string(node.dir.path().join("kubelet/cpu_manager_state")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let uid = node.api.pod("alone").unwrap().metadata.uid;
    assert_eq!((&state["defaultCpuSet"], &state["entries"][&uid]["alone"]), (&json!("0"), &json!(own)));

    node.counts(&[
        "kubelet_cpu_manager_pinning_requests_total 1",
        "kubelet_cpu_manager_pinning_errors_total 0",
        "kubelet_cpu_manager_shared_pool_size_millicores 1000",
        &format!("kubelet_cpu_manager_exclusive_cpu_allocation_count {last}"),
        &format!("kubelet_cpu_manager_allocation_per_numa{{numa_node=\"0\"}} {last}"),
        // Of two processors the one that is given is behind one cache, whatever the machine.
        "kubelet_container_aligned_compute_resources_count{boundary=\"physical_cpu\",scope=\"container\"} 0",
    ])
    .await;

    node.stop().await;
    node.start();
    node.create("late", pod("late", ""));
    node.until("ready", |n| n.ready("late")).await;
    assert_eq!(place(&node, "late"), "0");
    node.create("greedy", pod("greedy", "1"));
    node.until("refused", |n| n.phase("greedy") == "Failed").await;
    let status = node.api.pod("greedy").unwrap().status;
    assert!(["OutOfcpu", "UnexpectedAdmissionError"].contains(&status.reason.as_str()), "{status:?}");
    node.runtime.exit(&node.runtime.container_named("alone").unwrap(), 0);
    node.until("ended", |n| n.phase("alone") == "Succeeded").await;
    node.create("next", pod("next", &whole));
    node.until("it has them now", |n| n.ready("next")).await;
    assert_eq!(place(&node, "next"), own);
    node.stop().await;
}
