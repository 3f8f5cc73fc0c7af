//! Two nodes of 10 GiB, of which the system keeps one each.

use super::*;
use crate::topology::numa::NumaNode;
use apimachinery::json;
use expect_test::{Expect, expect};

const GIB: u64 = 1 << 30;

fn numa() -> Numa {
    let node = || NumaNode { memory: 10 * GIB, huge_pages: vec![(2 << 20, 512)], ..Default::default() };
    Numa([(0, node()), (1, node())].into())
}

fn reserved() -> Reserved {
    [(0, [("memory".to_owned(), GIB)].into()), (1, [("memory".to_owned(), GIB)].into())].into()
}

fn load(dir: &Path) -> Result<Memory, String> {
    Memory::load(dir, &numa(), (&reserved(), 2 * GIB), Pinned::default())
}

/// Containers as `name=8Gi`; those before `|` begin, `name*` are sidecars.
fn pod(uid: &str, text: &str) -> Pod {
    let list = |text: &str| -> Vec<apimachinery::value::Value> {
        text.split_whitespace()
            .map(|word| {
                let (name, memory) = word.split_once('=').unwrap();
                let resources = json!({ "cpu": "1", "memory": memory });
                let mut container = json!({ "name": name.trim_end_matches('*'), "resources": { "requests": resources, "limits": resources } });
                if name.ends_with('*') {
                    container["restartPolicy"] = json!("Always");
                }
                container
            })
            .collect()
    };
    let (init, regular) = text.split_once('|').unwrap_or(("", text));
    let spec = json!({ "initContainers": list(init), "containers": list(regular) });
    apimachinery::value::from_value(json!({ "metadata": { "name": uid, "uid": uid }, "spec": spec })).unwrap()
}

/// Gives all containers of a pod memory where the hint says, and shows what they have and what is left.
#[track_caller]
fn give(memory: &Memory, pod: &Pod, place: Hint, expected: Expect) {
    let mut out = String::new();
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        if let Err(error) = memory.give(pod, container, place) {
            out += &error;
            break;
        }
    }
    for (name, blocks) in memory.state.lock().entries.get(&pod.metadata.uid).into_iter().flatten() {
        for block in blocks {
            out += &format!("{name} {}Gi on {:?}; ", block.size / GIB, block.nodes);
        }
    }
    let free: Vec<u64> =
        memory.state.lock().nodes.values().map(|node| node.memory_map["memory"].free / GIB).collect();
    expected.assert_eq(&format!("{out}free {free:?}"));
}

fn on(nodes: &[u32]) -> Hint {
    Hint { affinity: Some(nodes.iter().copied().collect()), preferred: true }
}

const ANYWHERE: Hint = Hint { affinity: None, preferred: false };

#[test]
fn memory_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let memory = load(dir.path()).unwrap();
    give(&memory, &pod("a", "x=2Gi"), ANYWHERE, expect!["x 2Gi on [0]; free [6, 8]"]);
    give(&memory, &pod("b", "x=2Gi"), on(&[1]), expect!["x 2Gi on [1]; free [6, 6]"]);
    // Both nodes are given out alone: not together as well.
    give(
        &memory,
        &pod("c", "x=7Gi"),
        ANYWHERE,
        expect![
            "[memorymanager] failed to get the default NUMA affinity, no NUMA nodes with enough memory is availablefree [6, 6]"
        ],
    );
    // What an init container is done with is the next one's; a sidecar keeps what it has.
    give(
        &memory,
        &pod("d", "i=4Gi s*=1Gi|x=5Gi"),
        on(&[0]),
        expect!["i 0Gi on [0]; s 1Gi on [0]; x 5Gi on [0]; free [0, 6]"],
    );
    let hints = memory.hints(&pod("e", "x=2Gi"), &pod("e", "x=2Gi").spec.containers[0]);
    assert_eq!(hints["memory"], Some(vec![on(&[1])]));
    assert_eq!(memory.pod_hints(&pod("e", "i=6Gi|x=1Gi y=1Gi"))["memory"], Some(vec![on(&[1])]));
    // Over a restart.
    let memory = load(dir.path()).unwrap();
    assert_eq!(memory.nodes_of("d", "x"), [0].into());
    memory.begins(&pod("d", "i=4Gi s*=1Gi|x=5Gi"), "x");
    assert!(memory.nodes_of("d", "i").is_empty() && !memory.nodes_of("d", "s").is_empty());
    memory.retain(|uid| uid == "b");
    give(&memory, &pod("f", "x=8Gi"), on(&[0]), expect!["x 8Gi on [0]; free [0, 6]"]);
    memory.retain(|_| false);
    give(&memory, &pod("g", "x=9Gi"), ANYWHERE, expect!["x 9Gi on [0, 1]; free [0, 7]"]);
    // The nodes are given out together now.
    give(&memory, &pod("h", "x=1Gi"), ANYWHERE, expect!["x 1Gi on [0, 1]; free [0, 6]"]);
}

#[test]
fn nothing_is_believed_that_cannot_be() {
    let check = |result: Result<Memory, String>, expected: Expect| expected.assert_eq(&result.err().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let memory = load(dir.path()).unwrap();
    let one = pod("a", "x=2Gi");
    memory.give(&one, &one.spec.containers[0], ANYWHERE).unwrap();
    let mut smaller = numa();
    smaller.0.get_mut(&1).unwrap().memory -= GIB;
    check(
        Memory::load(dir.path(), &smaller, (&reserved(), 2 * GIB), Pinned::default()),
        expect!["[memorymanager] the expected machine state is different from the real one"],
    );
    check(
        Memory::load(dir.path(), &numa(), (&reserved(), GIB), Pinned::default()),
        expect![[
            r#"the total amount "2147483648" of type "memory" is not equal to the value "1073741824" determined by Node Allocatable feature"#
        ]],
    );
    check(
        Memory::load(dir.path(), &numa(), (&[(7, Amounts::new())].into(), 0), Pinned::default()),
        expect![
            "the reserved memory configuration references a NUMA node 7 that does not exist on this machine"
        ],
    );
    check(
        Memory::load(dir.path(), &numa(), (&Reserved::new(), 0), Pinned::default()),
        expect!["[memorymanager] you should specify the system reserved memory"],
    );
    let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
    std::fs::write(dir.path().join(FILE), text.replace("Static", "None")).unwrap();
    check(
        load(dir.path()),
        expect![[
            r#"[memorymanager] configured policy "Static" differs from state checkpoint policy "None""#
        ]],
    );
}
