//! What pods may use, as the kernel is told.

use cluster_tests::Room;
use cluster_tests::cluster::NODE;
use cluster_tests::manifests::shell;
use std::path::{Path, PathBuf};

/// The directories of a pod's cgroup, one of each hierarchy.
pub(crate) fn groups(uid: &str) -> Vec<PathBuf> {
    fn walk(place: &Path, name: &str, found: &mut Vec<PathBuf>) {
        let Ok(entries) = std::fs::read_dir(place) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            if entry.file_name() == *name {
                found.push(entry.path());
            } else {
                walk(&entry.path(), name, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &format!("pod{uid}"), &mut found);
    found
}

/// The first of these files that one of the groups has, up to the first blank.
fn told(groups: &[PathBuf], files: [&str; 2]) -> String {
    let texts = groups.iter().flat_map(|group| files.map(|file| std::fs::read_to_string(group.join(file))));
    let text = texts.flatten().next().unwrap_or_else(|| panic!("none of {groups:?} has any of {files:?}"));
    text.split_whitespace().next().unwrap().to_owned()
}

const MEMORY: [&str; 2] = ["memory.limit_in_bytes", "memory.max"];
const QUOTA: [&str; 2] = ["cpu.cfs_quota_us", "cpu.max"];
/// As shares, and as the weight that they come to.
const SHARES: [&str; 2] = ["cpu.shares", "cpu.weight"];

pub(crate) fn tells_the_kernel_of_every_class(room: &Room) {
    let k = &room.kubectl;
    let with = |name: &str, resources: &str| {
        shell(name, "")
            .replace("[sleep, infinity]", &format!("[sleep, infinity]\n    resources: {{{resources}}}"))
    };
    k.apply(
        &(with("best", "")
            + &with("burst", "requests: {cpu: 250m, memory: 16Mi}, limits: {memory: 64Mi}")
            + &with("sure", "limits: {cpu: 50m, memory: 32Mi}")),
    );
    let mut scores = Vec::new();
    for (pod, class, place) in [
        ("best", "BestEffort", "besteffort"),
        ("burst", "Burstable", "burstable"),
        ("sure", "Guaranteed", ""),
    ] {
        k.wait("condition=Ready", &format!("pod/{pod}"));
        assert_eq!(k.field(&format!("pod/{pod}"), ".status.qosClass"), class);
        let groups = groups(&k.field(&format!("pod/{pod}"), ".metadata.uid"));
        assert!(!groups.is_empty(), "{pod} has no cgroup");
        for group in &groups {
            let text = group.to_str().unwrap();
            let found = ["besteffort", "burstable"].into_iter().find(|class| text.contains(class));
            assert_eq!(found.unwrap_or_default(), place, "{text}");
        }
        if pod == "sure" {
            assert_eq!(told(&groups, MEMORY), (32u64 << 20).to_string());
            assert_eq!(told(&groups, QUOTA), "5000");
        }
        if pod != "best" {
            let shares = told(&groups, SHARES);
            let expected = if pod == "sure" { ["51", "2", "3", "8"] } else { ["256", "10", "11", "35"] };
            assert!(expected.contains(&shares.as_str()), "{pod}: {shares}");
        }
        scores.push(k.run(&format!("exec {pod} -- cat /proc/1/oom_score_adj")).parse::<i32>().unwrap());
    }
    // The kernel takes those first that have asked for least; lowering a score takes a right that not every server has.
    assert_eq!(scores[0], 1000);
    assert!(scores[0] > scores[1] && scores[1] > scores[2], "{scores:?}");
}

pub(crate) fn bounds_pods_as_a_whole(room: &Room) {
    let k = &room.kubectl;
    let whole = "resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}";
    k.apply(&shell("whole", whole));
    k.wait("condition=Ready", "pod/whole");
    assert_eq!(k.field("pod/whole", ".status.qosClass"), "Burstable");
    let groups = groups(&k.field("pod/whole", ".metadata.uid"));
    assert_eq!(told(&groups, MEMORY), (64u64 << 20).to_string());
    assert_eq!(told(&groups, QUOTA), "20000");
    // And while it runs.
    k.run("patch pod whole --subresource resize --patch '{\"spec\":{\"resources\":{\"limits\":{\"cpu\":\"300m\"}}}}'");
    k.until("pod/whole", "resized", |pod| {
        (pod["status"]["resources"]["limits"]["cpu"] == "300m").then_some(())
    });
    assert_eq!(told(&groups, QUOTA), "30000");
    assert_eq!(k.field("pod/whole", ".status.containerStatuses[0].restartCount"), "0");
}

pub(crate) fn tells_what_waits(room: &Room) {
    let k = &room.kubectl;
    k.apply(&shell("waits", ""));
    k.wait("condition=Ready", "pod/waits");
    // Of a container only where its group has it, which is in the unified hierarchy.
    let kept = Path::new("/proc/pressure/cpu").exists();
    let unified = kept && Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let end = std::time::Instant::now() + cluster_tests::patience();
    loop {
        let summary = k.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy/stats/summary"));
        let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(summary["node"]["cpu"]["psi"]["some"]["avg10"].is_number(), kept, "{}", summary["node"]);
        let mut pods = summary["pods"].as_array().into_iter().flatten();
        let own = pods.find(|pod| pod["podRef"]["name"] == "waits" && pod["containers"].is_array());
        if let Some(own) = own {
            let told = own["containers"][0]["cpu"]["psi"]["some"]["avg10"].is_number();
            assert_eq!(told, unified, "{own}");
            return;
        }
        assert!(std::time::Instant::now() < end, "the pod is not in {summary}");
    }
}
