//! `/stats/summary`: what node, pods and containers use, as far as the runtime counts it. Upstream: the CRI stats provider.

use super::Inner;
use super::answer::{Response, json, text};
use crate::labels;
use crate::usage::{self, Disk, PodUsage};
use apimachinery::json as value;
use apimachinery::time::Time;
use apimachinery::value::{Map, Value};
use cri::v1::{
    ContainerStats, CpuUsage, FilesystemUsage, ListContainerStatsRequest, MemoryUsage, PsiData, PsiStats,
    SwapUsage,
};
use http::StatusCode;
use std::collections::{BTreeMap, HashMap};

fn time(nanos: i64) -> Time {
    Time::from_unix(nanos.div_euclid(1_000_000_000))
}

fn number(of: Option<cri::v1::UInt64Value>) -> Value {
    of.map_or(Value::Null, |n| n.value.into())
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, v)| !v.is_null());
            Value::Object(kept.map(|(k, v)| (k, without_nulls(v))).collect::<Map>())
        }
        other => other,
    }
}

/// How long tasks waited: `some` of them, and `full` when none could go on.
fn psi(stats: Option<&PsiStats>) -> Value {
    let line = |data: Option<&PsiData>| {
        data.map(|d| value!({ "total": d.total, "avg10": d.avg10, "avg60": d.avg60, "avg300": d.avg300 }))
    };
    stats.map_or(Value::Null, |s| value!({ "full": line(s.full.as_ref()), "some": line(s.some.as_ref()) }))
}

fn swap(usage: &SwapUsage) -> Value {
    value!({
        "time": time(usage.timestamp),
        "swapAvailableBytes": number(usage.swap_available_bytes),
        "swapUsageBytes": number(usage.swap_usage_bytes),
    })
}

/// The machine's own pressure; nothing where the kernel does not count it.
fn node_psi(resource: &str) -> Value {
    let Ok(text) = std::fs::read_to_string(format!("/proc/pressure/{resource}")) else { return Value::Null };
    let line = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        let get = |name: &str| line.split(' ').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let average = |name: &str| get(name).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
        let total = get("total").and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Some(value!({
            "total": total, "avg10": average("avg10"), "avg60": average("avg60"), "avg300": average("avg300"),
        }))
    };
    value!({ "full": line("full"), "some": line("some") })
}

fn cpu(usage: &CpuUsage) -> Value {
    value!({
        "time": time(usage.timestamp),
        "usageNanoCores": number(usage.usage_nano_cores),
        "usageCoreNanoSeconds": number(usage.usage_core_nano_seconds),
        "psi": psi(usage.psi.as_ref()),
    })
}

fn memory(usage: &MemoryUsage) -> Value {
    value!({
        "time": time(usage.timestamp),
        "availableBytes": number(usage.available_bytes),
        "usageBytes": number(usage.usage_bytes),
        "workingSetBytes": number(usage.working_set_bytes),
        "rssBytes": number(usage.rss_bytes),
        "pageFaults": number(usage.page_faults),
        "majorPageFaults": number(usage.major_page_faults),
        "psi": psi(usage.psi.as_ref()),
    })
}

fn file_system(usage: &FilesystemUsage) -> Value {
    value!({ "time": time(usage.timestamp), "usedBytes": number(usage.used_bytes), "inodesUsed": number(usage.inodes_used) })
}

/// Statistics of every container, and what pods have swapped out, by uid.
pub(super) async fn counted(inner: &Inner) -> cri::Result<(Vec<ContainerStats>, HashMap<String, SwapUsage>)> {
    let mut containers =
        match inner.context.runtime.list_container_stats(ListContainerStatsRequest::default()).await {
            Ok(answer) => answer.stats,
            // A runtime that counts nothing: the node's own numbers are still true.
            Err(error) if error.code == cri::Code::Unimplemented => Vec::new(),
            Err(error) => return Err(error),
        };
    let swapped = super::swapped::tell(inner, &mut containers).await;
    Ok((containers, swapped))
}

/// What the whole node uses: seconds of processor time and bytes of memory.
pub(super) struct NodeUsage {
    pub cpu_seconds: f64,
    pub working_set: u64,
    pub available: u64,
    pub rss: u64,
    pub swap_used: u64,
    /// When the machine started, in seconds since the epoch.
    pub booted_at: i64,
}

/// Reads the kernel's own accounts.
pub(super) fn node_usage() -> NodeUsage {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let stat = read("/proc/stat");
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|t| t.parse().ok())
        .collect();
    // All but idle and waiting for disks, in hundredths of a second.
    let busy: u64 =
        ticks.iter().take(8).enumerate().filter(|(i, _)| *i != 3 && *i != 4).map(|(_, t)| t).sum();
    let meminfo = read("/proc/meminfo");
    let bytes = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let (total, available) = (bytes("MemTotal"), bytes("MemAvailable"));
    NodeUsage {
        cpu_seconds: busy as f64 / 100.0,
        working_set: total.saturating_sub(available),
        available,
        rss: bytes("AnonPages"),
        swap_used: bytes("SwapTotal").saturating_sub(bytes("SwapFree")),
        booted_at: stat
            .lines()
            .find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
            .unwrap_or_default(),
    }
}

/// Since when containers run, by uid and name.
fn starts(inner: &Inner) -> HashMap<(String, String), Time> {
    let mut out = HashMap::new();
    for mailbox in inner.pods.list() {
        let (uid, status) = (mailbox.letter().pod.metadata.uid.clone(), mailbox.status());
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        for one in all.chain(&status.ephemeral_container_statuses) {
            if let Some(since) = one.state.running.as_ref().and_then(|running| running.started_at) {
                out.insert((uid.clone(), one.name.clone()), since);
            }
        }
    }
    out
}

/// What pods take on disk, by uid.
async fn usages(inner: &Inner, stats: &[ContainerStats]) -> HashMap<String, PodUsage> {
    let pods: Vec<_> = inner.pods.list().iter().map(|mailbox| mailbox.letter().pod).collect();
    let (context, stats) = (inner.context.clone(), stats.to_vec());
    let walk = move || {
        let of = |uid: &str| -> Vec<ContainerStats> {
            let own = |one: &&ContainerStats| {
                one.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID)).is_some_and(|u| u == uid)
            };
            stats.iter().filter(own).cloned().collect()
        };
        let measured = pods.into_iter().map(|pod| {
            let uid = pod.metadata.uid.clone();
            let usage = usage::of_pod(&context, &pod, &of(&uid));
            (uid, usage)
        });
        measured.collect()
    };
    tokio::task::spawn_blocking(walk).await.unwrap_or_default()
}

fn disk(disk: Disk, now: Time) -> Value {
    value!({ "time": now, "usedBytes": disk.bytes, "inodesUsed": disk.inodes })
}

fn volumes(usage: &PodUsage, now: Time) -> Vec<Value> {
    let one = |(name, used): &(String, Disk)| {
        let mut out = disk(*used, now);
        out["name"] = name.as_str().into();
        out
    };
    usage.volumes.iter().map(one).collect()
}

pub(super) async fn summary(inner: &Inner, query: Option<&str>) -> Response {
    let pairs = super::answer::query(query);
    let brief = super::answer::value(&pairs, "only_cpu_and_memory").is_some_and(|value| value == "true");
    let (stats, swapped) = match counted(inner).await {
        Ok(counted) => counted,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let starts = starts(inner);
    let mut by_pod: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let mut sums: BTreeMap<String, (u64, u64, u64)> = BTreeMap::new();
    let now = crate::clock::time();
    for one in &stats {
        let Some(attributes) = &one.attributes else { continue };
        let Some(uid) = attributes.labels.get(labels::POD_UID) else { continue };
        let name = attributes.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default();
        by_pod.entry(uid.clone()).or_default().push(value!({
            "name": name,
            "startTime": starts.get(&(uid.clone(), attributes.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or_default())),
            "cpu": one.cpu.as_ref().map(cpu),
            "memory": one.memory.as_ref().map(memory),
            "io": one.io.as_ref().map(|io| value!({ "time": time(io.timestamp), "psi": psi(io.psi.as_ref()) })),
            "rootfs": one.writable_layer.as_ref().map(file_system),
            "swap": one.swap.as_ref().map(swap),
        }));
        let sum = sums.entry(uid.clone()).or_default();
        let get = |v: Option<cri::v1::UInt64Value>| v.map_or(0, |v| v.value);
        if let Some(cpu) = &one.cpu {
            sum.0 += get(cpu.usage_core_nano_seconds);
            sum.1 += get(cpu.usage_nano_cores);
        }
        if let Some(memory) = &one.memory {
            sum.2 += get(memory.working_set_bytes);
        }
    }
    let usages = if brief { HashMap::new() } else { usages(inner, &stats).await };
    let mut pods = Vec::new();
    for mailbox in inner.pods.list() {
        let pod = mailbox.letter().pod;
        let meta = &pod.metadata;
        let Some(containers) = by_pod.remove(&meta.uid) else { continue };
        let (seconds, cores, working_set) = sums.get(&meta.uid).copied().unwrap_or_default();
        pods.push(without_nulls(value!({
            "podRef": { "name": meta.name, "namespace": meta.namespace, "uid": meta.uid },
            "startTime": mailbox.status().start_time,
            "containers": containers.into_iter().map(without_nulls).collect::<Vec<_>>(),
            "cpu": { "time": now, "usageNanoCores": cores, "usageCoreNanoSeconds": seconds },
            "memory": { "time": now, "workingSetBytes": working_set },
            "swap": swapped.get(&meta.uid).map(swap),
            "volume": usages.get(&meta.uid).map(|usage| volumes(usage, now)),
            "ephemeral-storage": usages.get(&meta.uid).map(|usage| disk(usage.disk(), now)),
            "process_stats": usages.get(&meta.uid).map(|usage| value!({ "process_count": usage.processes })),
        })));
    }
    let node = node_usage();
    let machine = &inner.context.machine;
    let disk = rustix::fs::statvfs(&inner.context.config.root_dir).ok();
    let fs = disk.map(|s| {
        value!({
            "time": now,
            "availableBytes": s.f_bavail * s.f_frsize,
            "capacityBytes": s.f_blocks * s.f_frsize,
            "usedBytes": s.f_blocks.saturating_sub(s.f_bfree) * s.f_frsize,
            "inodesFree": s.f_ffree,
            "inodes": s.f_files,
            "inodesUsed": s.f_files.saturating_sub(s.f_ffree),
        })
    });
    json(&value!({
        "node": without_nulls(value!({
            "nodeName": inner.context.config.node_name,
            "startTime": Time::from_unix(node.booted_at),
            "cpu": { "time": now, "usageCoreNanoSeconds": (node.cpu_seconds * 1e9) as u64, "psi": node_psi("cpu") },
            "memory": {
                "time": now,
                "availableBytes": node.available,
                "usageBytes": u64::try_from(machine.memory).unwrap_or(0).saturating_sub(node.available),
                "workingSetBytes": node.working_set,
                "rssBytes": node.rss,
                "psi": node_psi("memory"),
            },
            "io": { "time": now, "psi": node_psi("io") },
            "swap": {
                "time": now,
                "swapUsageBytes": node.swap_used,
                "swapAvailableBytes": u64::try_from(machine.swap).unwrap_or(0).saturating_sub(node.swap_used),
            },
            "fs": fs,
        })),
        "pods": pods,
    }))
}
