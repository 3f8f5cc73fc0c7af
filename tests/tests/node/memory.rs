//! Memory that is more than pages: huge pages, and what is swapped out. Both are the whole machine's, which is given some
//! for the time being.

use crate::CONFIGURATION;
use crate::bounds::groups;
use cluster_tests::Room;
use cluster_tests::cluster::NODE;
use cluster_tests::disk::{Device, ran};
use cluster_tests::manifests::shell;
use serde_json::Value;
use std::path::{Path, PathBuf};

const MIB: u64 = 1 << 20;
/// Without the memory manager, which wants the machine to be as it was.
const PLAIN: &str = "failSwapOn: false\n";

/// A number of `/proc/meminfo`: pages, or kibibytes.
fn meminfo(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The values of a file in the cgroups of a pod's container; none where the kernel has no such file.
fn of_container(room: &Room, pod: &str, file: &str) -> Vec<(PathBuf, String)> {
    let k = &room.kubectl;
    let id = k.field(&format!("pod/{pod}"), ".status.containerStatuses[0].containerID");
    let id = id.rsplit('/').next().unwrap().to_owned();
    let own =
        groups(&k.field(&format!("pod/{pod}"), ".metadata.uid")).into_iter().map(|group| group.join(&id));
    let files = own.map(|group| group.join(file)).filter(|path| path.exists());
    files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap().trim().to_owned())).collect()
}

/// How many bytes of huge pages a pod as a whole may have, where the kernel limits them.
fn of_pod(room: &Room, pod: &str) -> Vec<String> {
    let groups = groups(&room.kubectl.field(&format!("pod/{pod}"), ".metadata.uid"));
    let files = groups
        .into_iter()
        .flat_map(|group| ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"].map(|file| group.join(file)));
    let read = files.filter_map(|file| std::fs::read_to_string(file).ok());
    read.map(|text| text.trim().to_owned()).collect()
}

/// Huge pages of 2 MiB, until it is dropped.
struct HugePages(String);

impl HugePages {
    const NUMBER: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

    fn reserve(more: u64) -> Option<HugePages> {
        let before = std::fs::read_to_string(HugePages::NUMBER).ok()?.trim().to_owned();
        let wanted = before.parse::<u64>().ok()? + more;
        let reserved = HugePages(before);
        std::fs::write(HugePages::NUMBER, wanted.to_string()).ok()?;
        let got = std::fs::read_to_string(HugePages::NUMBER).ok()?.trim().parse::<u64>().ok()?;
        (got == wanted).then_some(reserved)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        drop(std::fs::write(HugePages::NUMBER, &self.0));
    }
}

pub(crate) fn has_huge_pages(room: &Room) {
    let k = &room.kubectl;
    let Some(reserved) = HugePages::reserve(16) else {
        println!("skipped: this kernel has no 16 huge pages of 2 MiB to give");
        return;
    };
    let all = meminfo("HugePages_Total");
    // A node counts them when it starts.
    room.cluster.reconfigure(PLAIN);
    let capacity = format!("{}Mi", 2 * all);
    k.until(&format!("node/{NODE}"), "they are counted", |node| {
        (node["status"]["allocatable"]["hugepages-2Mi"] == *capacity).then_some(())
    });
    let with = |name: &str, resources: &str| {
        let container = format!(
            "[sleep, infinity]\n    resources: {{limits: {{cpu: 50m, memory: 32Mi{resources}}}}}\n    volumeMounts: [{{name: huge, mountPath: /huge}}]"
        );
        shell(name, "volumes: [{name: huge, emptyDir: {medium: HugePages}}]")
            .replace("[sleep, infinity]", &container)
    };
    k.apply(&with("pages", ", hugepages-2Mi: 8Mi"));
    k.wait("condition=Ready", "pod/pages");
    let free = meminfo("HugePages_Free");
    k.run("exec pages -- fallocate -l 4194304 /huge/some");
    assert_eq!(meminfo("HugePages_Free"), free - 2);
    let limits: Vec<String> = ["hugetlb.2MB.max", "hugetlb.2MB.limit_in_bytes"]
        .into_iter()
        .flat_map(|file| of_container(room, "pages", file))
        .map(|(_, limit)| limit)
        .collect();
    if limits.is_empty() {
        println!("this kernel does not limit huge pages");
    } else {
        assert_eq!(limits, [(8 * MIB).to_string()]);
        assert_eq!(of_pod(room, "pages"), [(8 * MIB).to_string()]);
        let used = ["hugetlb.2MB.current", "hugetlb.2MB.usage_in_bytes"].into_iter();
        let used: Vec<String> =
            used.flat_map(|file| of_container(room, "pages", file)).map(|(_, used)| used).collect();
        assert_eq!(used, [(4 * MIB).to_string()]);
        let said = k.refused("exec pages -- fallocate -l 12582912 /huge/more");
        assert!(said.contains("No space left on device"), "{said}");
    }
    // Who asks for none has none, of whatever size.
    k.apply(&shell("none", ""));
    k.wait("condition=Ready", "pod/none");
    for (path, limit) in of_container(room, "none", "hugetlb.2MB.max") {
        assert_eq!(limit, "0", "{}", path.display());
    }
    assert!(of_pod(room, "none").iter().all(|limit| limit == "0"));
    k.apply(&with("odd", ""));
    let told = k.event("odd", "FailedMount");
    let why = "MountVolume.SetUp failed for volume \"huge\" : medium HugePages: hugePages storage requested, but there is no resource request for huge pages";
    assert!(told.contains(why), "{told}");
    k.apply(&with("greedy", &format!(", hugepages-2Mi: {}Mi", 2 * all)));
    let told = k.event("greedy", "FailedScheduling");
    assert!(told.contains("Insufficient hugepages-2Mi"), "{told}");
    k.run("delete pod --all --now");
    assert_eq!(meminfo("HugePages_Free"), meminfo("HugePages_Total"));
    drop(reserved);
    room.cluster.reconfigure(CONFIGURATION);
}

/// A file that the kernel swaps to, until it is dropped.
struct SwapFile {
    device: Device,
    file: PathBuf,
}

impl SwapFile {
    fn on(file: &Path, mebibytes: u64) -> Result<SwapFile, String> {
        let zeros = vec![0u8; usize::try_from(mebibytes * MIB).unwrap()];
        std::fs::write(file, zeros).map_err(|error| error.to_string())?;
        let swap = SwapFile { device: Device::of(file)?, file: file.to_owned() };
        ran("mkswap", &[swap.device.path()])?;
        ran("swapon", &[swap.device.path()])?;
        Ok(swap)
    }
}

impl Drop for SwapFile {
    fn drop(&mut self) {
        drop(ran("swapoff", &[self.device.path()]));
        drop(std::fs::remove_file(&self.file));
    }
}

pub(crate) fn swaps_as_far_as_it_may(room: &Room) {
    let k = &room.kubectl;
    let swap = match SwapFile::on(&room.cluster.base().join("swap"), 64) {
        Ok(swap) => swap,
        Err(why) => {
            println!("skipped: this kernel does not swap to a loop device: {why}");
            return;
        }
    };
    let burst = |name: &str| {
        let script =
            "x=$(head -c 33554432 /dev/zero | tr \"\\\\0\" x); touch /tmp/full; sleep infinity; echo ${#x}";
        let command = format!(
            "[sh, -c, '{script}']\n    resources: {{requests: {{memory: 256Mi}}, limits: {{memory: 512Mi}}}}\n    readinessProbe: {{exec: {{command: [test, -e, /tmp/full]}}, periodSeconds: 1}}"
        );
        shell(name, "").replace("[sleep, infinity]", &command)
    };
    // A node that was not told otherwise lets nobody swap.
    k.apply(&burst("calm"));
    k.wait("condition=Ready", "pod/calm");
    room.cluster.reconfigure(&format!("{PLAIN}memorySwap: {{swapBehavior: LimitedSwap}}\n"));
    let bytes = meminfo("SwapTotal") * 1024;
    k.until(&format!("node/{NODE}"), "it tells what it can swap", |node| {
        (node["status"]["nodeInfo"]["swap"]["capacity"] == bytes).then_some(())
    });
    let sure = shell("sure", "")
        .replace("[sleep, infinity]", "[sleep, infinity]\n    resources: {limits: {cpu: 50m, memory: 32Mi}}");
    k.apply(&(burst("burst") + &shell("best", "") + &sure));
    for pod in ["burst", "best", "sure"] {
        k.wait("condition=Ready", &format!("pod/{pod}"));
    }
    // The container's part of the node's swap is its request's part of the node's memory.
    let part = (256 * MIB) as u128 * u128::from(bytes) / u128::from(meminfo("MemTotal") * 1024);
    let in_pages = part / 4096 * 4096;
    let first = |pod: &str, file: &str| of_container(room, pod, file).into_iter().next();
    if first("burst", "memory.swap.max").is_some() {
        let allowed = |pod: &str| first(pod, "memory.swap.max").unwrap().1;
        assert_eq!(
            ["calm", "burst", "best", "sure"].map(allowed),
            ["0".to_owned(), in_pages.to_string(), "0".to_owned(), "0".to_owned()]
        );
        // What it does not use goes there when the kernel is asked to; it need not find all that is asked for.
        let reclaim = first("burst", "memory.swap.max").unwrap().0.with_file_name("memory.reclaim");
        drop(std::fs::write(reclaim, (8 * MIB).to_string()));
        let swapped = first("burst", "memory.swap.current").unwrap().1.parse::<u64>().unwrap();
        assert!(swapped > 0 && u128::from(swapped) <= part, "{swapped} of {part}");
        let metrics = k.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy/metrics/resource"));
        let shown = |name: &str| {
            let of = format!("{name}{{container=\"sh\",namespace=\"{}\",pod=\"burst\"}} ", k.namespace);
            let line =
                metrics.lines().find_map(|line| line.strip_prefix(&of)).unwrap_or_else(|| panic!("{of}"));
            line.parse::<f64>().unwrap()
        };
        assert!(shown("container_swap_usage_bytes") > 0.0);
        assert_eq!(shown("container_swap_limit_bytes"), in_pages as f64);
        for whose in [
            format!("pod_swap_usage_bytes{{namespace=\"{}\",pod=\"burst\"}} ", k.namespace),
            "node_swap_usage_bytes ".into(),
        ] {
            let used = metrics.lines().find_map(|line| line.strip_prefix(&whose)?.parse::<f64>().ok());
            assert!(used.is_some_and(|used| used > 0.0), "{whose}{used:?}");
        }
        let summary = k.run(&format!("get --raw /api/v1/nodes/{NODE}/proxy/stats/summary"));
        let summary: Value = serde_json::from_str(&summary).unwrap();
        let number =
            |of: &Value, name: &str| of["swap"][name].as_u64().unwrap_or_else(|| panic!("{name}: {of}"));
        let node = &summary["node"];
        assert_eq!(number(node, "swapUsageBytes") + number(node, "swapAvailableBytes"), bytes);
        let pods = summary["pods"].as_array().unwrap();
        let pod = pods.iter().find(|pod| pod["podRef"]["name"] == "burst").unwrap();
        assert!(number(pod, "swapUsageBytes") > 0);
        let own = &pod["containers"][0];
        let all = number(own, "swapUsageBytes") + number(own, "swapAvailableBytes");
        assert_eq!((number(own, "swapUsageBytes") > 0, u128::from(all)), (true, in_pages), "{own}");
    } else if first("burst", "memory.memsw.limit_in_bytes").is_some() {
        // With cgroup v1 nobody swaps: as much of both as of memory.
        for pod in ["calm", "burst", "sure"] {
            let both = first(pod, "memory.memsw.limit_in_bytes").unwrap().1;
            assert_eq!(both, first(pod, "memory.limit_in_bytes").unwrap().1, "{pod}");
        }
    } else {
        println!("this kernel does not account for swap");
    }
    k.run("delete pod --all --now");
    drop(swap);
    room.cluster.reconfigure(CONFIGURATION);
}
