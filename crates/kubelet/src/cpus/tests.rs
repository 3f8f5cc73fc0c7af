//! Four processors, of which the first is reserved; and eight on two NUMA nodes.

use super::*;
use crate::topology::Provider as _;
use crate::topology::hint::Hints;

fn pod(uid: &str, cpu: &str) -> Pod {
    let resources = apimachinery::json!({ "limits": { "cpu": cpu, "memory": "8Mi" }, "requests": { "cpu": cpu, "memory": "8Mi" } });
    apimachinery::value::from_value(apimachinery::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": uid, "uid": uid },
        "spec": { "containers": [{ "name": "main", "resources": resources }] },
    }))
    .unwrap()
}

#[test]
fn whole_processors_of_guaranteed_pods_only() {
    let dir = tempfile::tempdir().unwrap();
    let topology: Topology =
        (0..4).map(|cpu| (cpu, assign::Place { core: cpu, ..Default::default() })).collect();
    let all: CpuSet = topology.keys().copied().collect();
    let cpus = || Cpus {
        topology: topology.clone(),
        options: Options::default(),
        reserved: "0".parse().unwrap(),
        path: dir.path().join(FILE),
        state: Mutex::new(
            read(&dir.path().join(FILE), &all, &"0".parse().unwrap(), Options::default()).unwrap(),
        ),
        shared: watch::Sender::new(all.clone()),
        counted: Default::default(),
    };
    let one = cpus();
    let place = |cpus: &Cpus, uid: &str| cpus.of(uid, "main").to_string();
    let give = |cpus: &Cpus, pod: Pod| cpus.give(&pod, &pod.spec.containers[0], Hint::default());
    give(&one, pod("shares", "1500m")).unwrap();
    give(&one, pod("a", "2")).unwrap();
    assert_eq!((place(&one, "shares").as_str(), place(&one, "a").as_str()), ("0,3", "1-2"));
    assert_eq!(
        give(&one, pod("b", "2")).unwrap_err().message,
        "Allocate failed due to not enough cpus available to satisfy request: requested=2, available=1, which is unexpected"
    );
    // The next kubelet knows.
    let two = cpus();
    assert_eq!((place(&two, "a").as_str(), place(&two, "x").as_str()), ("1-2", "0,3"));
    two.retain(|uid| uid != "a");
    give(&two, pod("c", "3")).unwrap();
    assert_eq!((place(&two, "c").as_str(), place(&two, "x").as_str()), ("1-3", "0"));
    std::fs::write(dir.path().join(FILE), r#"{"policyName":"none","defaultCpuSet":"","checksum":1}"#)
        .unwrap();
    assert!(
        read(&dir.path().join(FILE), &all, &"0".parse().unwrap(), Options::default())
            .unwrap_err()
            .contains("differs from state checkpoint")
    );
}

/// Two sockets, each a NUMA node, of four processors.
fn large(dir: &Path) -> Cpus {
    let place = |cpu: u32| assign::Place { socket: cpu / 4, node: cpu / 4, core: cpu, cache: cpu / 4 };
    let topology: Topology = (0..8).map(|cpu| (cpu, place(cpu))).collect();
    let all: CpuSet = topology.keys().copied().collect();
    Cpus {
        topology,
        options: Options::default(),
        reserved: "0".parse().unwrap(),
        path: dir.join(FILE),
        state: Mutex::new(State { shared: all.clone(), ..Default::default() }),
        shared: watch::Sender::new(all),
        counted: Default::default(),
    }
}

#[test]
fn processors_say_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let cpus = large(dir.path());
    let shown = |hints: &Hints| {
        let hints = hints.get("cpu").cloned().flatten().unwrap_or_default();
        let shown = hints.iter().map(|hint| {
            let nodes: String = hint.affinity.unwrap().nodes().map(|node| node.to_string()).collect();
            format!("{nodes}{}", if hint.preferred { "!" } else { "" })
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let of = |cpu: &str| {
        let pod = pod("p", cpu);
        shown(&cpus.hints(&pod, &pod.spec.containers[0]))
    };
    assert_eq!([of("500m"), of("3"), of("4"), of("5"), of("8")], ["", "0! 1! 01", "1! 01", "01!", ""]);
    let given = pod("p", "3");
    let near = Hint { affinity: Some([1].into_iter().collect()), preferred: true };
    cpus.give(&given, &given.spec.containers[0], near).unwrap();
    assert_eq!(cpus.of("p", "main").to_string(), "4-6");
    // What is given already is said again.
    assert_eq!(shown(&cpus.hints(&given, &given.spec.containers[0])), "1! 01");
    assert_eq!(shown(&cpus.pod_hints(&given)), "1! 01");
    // Near as far as that goes.
    let more = pod("q", "2");
    cpus.give(&more, &more.spec.containers[0], near).unwrap();
    assert_eq!(cpus.of("q", "main").to_string(), "1,7");
}

#[test]
fn options_of_the_policy() {
    let dir = tempfile::tempdir().unwrap();
    let mut cpus = large(dir.path());
    // Cores of two processors.
    for place in cpus.topology.values_mut() {
        place.core /= 2;
    }
    cpus.options.full_cores = true;
    let give = |cpus: &Cpus, uid: &str, cpu: &str| {
        let pod = pod(uid, cpu);
        cpus.serve(&pod, &pod.spec.containers[0], Hint::default())
            .map_err(|refused| (refused.reason, refused.message))
    };
    let refused = |message: &str| Err(("SMTAlignmentError", message.to_owned()));
    assert_eq!(
        give(&cpus, "a", "3"),
        refused("SMT Alignment Error: requested 3 cpus not multiple cpus per core = 2")
    );
    assert_eq!(
        give(&cpus, "a", "8"),
        refused(
            "SMT Alignment Error: not enough free physical CPUs: available physical CPUs = 6, requested CPUs = 8, CPUs per core = 2"
        )
    );
    give(&cpus, "a", "2").unwrap();
    assert_eq!(cpus.of("a", "main").to_string(), "2-3");
    let Counted { pinned, cores, no_cores, caches } = &cpus.counted;
    let counted = [&pinned.requests, &pinned.errors, cores, no_cores, caches].map(|one| one.get());
    assert_eq!(counted, [3.0, 2.0, 1.0, 2.0, 1.0]);

    // What is strictly reserved is nobody's, and a state in which it was somebody's is refused.
    let strict = Options { strict_reservation: true, ..Default::default() };
    let all: CpuSet = "0-7".parse().unwrap();
    let reserved: CpuSet = "0".parse().unwrap();
    let absent = dir.path().join("absent");
    assert_eq!(read(&absent, &all, &reserved, strict).unwrap().shared.to_string(), "1-7");
    assert_eq!(
        read(&dir.path().join(FILE), &all, &reserved, strict).unwrap_err(),
        "some of strictly reserved cpus: \"0\" are present in defaultCpuSet: \"0-1,4-7\""
    );
    assert_eq!(
        read(&dir.path().join(FILE), &all, &"2".parse().unwrap(), Options::default()).unwrap_err(),
        "not all reserved cpus: \"2\" are present in defaultCpuSet: \"0-1,4-7\""
    );

    // One socket of two nodes is as good as one node of it.
    let mut cpus = large(dir.path());
    for place in cpus.topology.values_mut() {
        place.socket = 0;
    }
    let both = Hint { affinity: Some([0, 1].into_iter().collect()), preferred: true };
    let three = pod("p", "3");
    let preferred = |cpus: &Cpus| {
        let hints = cpus.hints(&three, &three.spec.containers[0]).remove("cpu").flatten().unwrap();
        hints.contains(&both)
    };
    assert!(!preferred(&cpus));
    cpus.options.by_socket = true;
    assert!(preferred(&cpus));
    let one = [1].into_iter().collect();
    assert_eq!(cpus.near(one, &all), all);
}
