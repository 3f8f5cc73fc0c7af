//! Usage, read when it is asked for: from the cgroups, the writable layers, the pods' network namespaces.

use super::{Container, Inner, Sandbox};
use crate::record::{Phase, now};
use cri::filter;
use cri::v1::*;
use linux::cgroup::{Pressure, Stats};
use linux::interface::Interface;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

fn value(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn psi(pressure: Option<[Pressure; 2]>) -> Option<PsiStats> {
    let data = |p: Pressure| PsiData { total: p.total, avg10: p.avg10, avg60: p.avg60, avg300: p.avg300 };
    pressure.map(|[some, full]| PsiStats { some: Some(data(some)), full: Some(data(full)) })
}

fn cpu(stats: &Stats, timestamp: i64) -> Option<CpuUsage> {
    stats.cpu.as_ref().map(|cpu| CpuUsage {
        timestamp,
        usage_core_nano_seconds: value(cpu.usage),
        // A rate needs two readings: whoever reads twice can tell.
        usage_nano_cores: None,
        psi: psi(cpu.pressure),
    })
}

fn memory(stats: &Stats, timestamp: i64) -> Option<MemoryUsage> {
    stats.memory.as_ref().map(|memory| MemoryUsage {
        timestamp,
        working_set_bytes: value(memory.working_set),
        available_bytes: memory.limit.and_then(|limit| value(limit.saturating_sub(memory.working_set))),
        usage_bytes: value(memory.usage),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: psi(memory.pressure),
    })
}

fn swap(stats: &Stats, timestamp: i64) -> Option<SwapUsage> {
    let used = stats.memory.as_ref()?.swap?;
    let limit = stats.memory.as_ref()?.swap_limit;
    Some(SwapUsage {
        timestamp,
        swap_available_bytes: limit.and_then(|limit| value(limit.saturating_sub(used))),
        swap_usage_bytes: value(used),
    })
}

pub(super) fn container(inner: &Inner, container: &Container) -> ContainerStats {
    let record = container.record();
    let timestamp = now();
    let stats = inner.group(&record.cgroup).map(|group| group.stats()).unwrap_or_default();
    let (bytes, inodes) = disk_usage(&container.dir.join("upper"));
    ContainerStats {
        attributes: Some(ContainerAttributes {
            id: record.id.clone(),
            metadata: record.config.metadata.clone(),
            labels: record.config.labels.clone(),
            annotations: record.config.annotations.clone(),
        }),
        cpu: cpu(&stats, timestamp),
        memory: memory(&stats, timestamp),
        writable_layer: Some(FilesystemUsage {
            timestamp,
            fs_id: Some(FilesystemIdentifier {
                mountpoint: inner.config.data_dir.to_string_lossy().into_owned(),
            }),
            used_bytes: value(bytes),
            inodes_used: value(inodes),
        }),
        swap: swap(&stats, timestamp),
        io: psi(stats.io_pressure).map(|psi| IoUsage { timestamp, psi: Some(psi) }),
    }
}

/// What a tree takes on disk; files that vanish meanwhile are not counted.
pub(super) fn disk_usage(dir: &Path) -> (u64, u64) {
    let (mut bytes, mut inodes) = (0, 0);
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            inodes += 1;
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    (bytes, inodes)
}

pub(super) fn containers(inner: &Inner, wanted: Option<&ContainerStatsFilter>) -> Vec<ContainerStats> {
    let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
    let wanted = wanted.cloned().unwrap_or_default();
    let wanted = ContainerFilter {
        id: wanted.id,
        // As containerd: usage is that of running containers.
        state: Some(running),
        pod_sandbox_id: wanted.pod_sandbox_id,
        label_selector: wanted.label_selector,
    };
    let listed = super::status::list_containers(inner, Some(&wanted));
    listed.iter().filter_map(|c| inner.container(&c.id).ok()).map(|c| container(inner, &c)).collect()
}

pub(super) fn sandbox(inner: &Inner, sandbox: &Sandbox) -> PodSandboxStats {
    let record = sandbox.record();
    let timestamp = now();
    let config = &record.config;
    // With no parent given, the pod has no cgroup of its own.
    let own = config.linux.as_ref().is_some_and(|linux| !linux.cgroup_parent.is_empty());
    let stats = match own {
        true => inner.group(&record.cgroup_parent).map(|group| group.stats()).unwrap_or_default(),
        false => Stats::default(),
    };
    let all = inner.containers_of(&sandbox.id);
    let running = all.iter().filter(|container| container.is_running());
    PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: record.id.clone(),
            metadata: config.metadata.clone(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: cpu(&stats, timestamp),
            memory: memory(&stats, timestamp),
            network: network(sandbox, timestamp),
            process: stats.pids.map(|count| ProcessUsage { timestamp, process_count: value(count) }),
            containers: running.map(|c| container(inner, c)).collect(),
            io: psi(stats.io_pressure).map(|psi| IoUsage { timestamp, psi: Some(psi) }),
        }),
        windows: None,
    }
}

/// The interfaces of a pod with a network of its own, but for the loopback.
pub(super) fn interfaces(sandbox: &Sandbox) -> Option<Vec<Interface>> {
    if sandbox.phase() != Phase::Ready || crate::spec::on_host_network(&sandbox.record().config) {
        return None;
    }
    let read = || std::fs::read_to_string("/proc/thread-self/net/dev");
    let text = linux::netns::Netns::open(sandbox.netns()).and_then(|netns| netns.run(read)?).ok()?;
    Some(text.lines().filter_map(Interface::of_line).filter(|interface| interface.name != "lo").collect())
}

fn network(sandbox: &Sandbox, timestamp: i64) -> Option<NetworkUsage> {
    let usage = |interface: Interface| NetworkInterfaceUsage {
        name: interface.name,
        rx_bytes: interface.received.bytes.and_then(value),
        rx_errors: interface.received.errors.and_then(value),
        tx_bytes: interface.sent.bytes.and_then(value),
        tx_errors: interface.sent.errors.and_then(value),
    };
    let mut all: Vec<NetworkInterfaceUsage> = interfaces(sandbox)?.into_iter().map(usage).collect();
    let default = all.iter().position(|interface| interface.name == "eth0").map(|at| all.remove(at));
    Some(NetworkUsage { timestamp, default_interface: default, interfaces: all })
}

pub(super) fn sandboxes(inner: &Inner, wanted: Option<&PodSandboxStatsFilter>) -> Vec<PodSandboxStats> {
    ready(inner, wanted).iter().map(|pod| sandbox(inner, pod)).collect()
}

/// The pods that run, of those that are wanted.
pub(super) fn ready(inner: &Inner, wanted: Option<&PodSandboxStatsFilter>) -> Vec<Arc<Sandbox>> {
    let wanted = wanted.cloned().unwrap_or_default();
    let state = PodSandboxStateValue { state: PodSandboxState::SandboxReady.into() };
    let wanted =
        PodSandboxFilter { id: wanted.id, state: Some(state), label_selector: wanted.label_selector };
    let listed = super::status::list_sandboxes(inner, None);
    let fits = |record: &&PodSandbox| filter::sandbox_matches(Some(&wanted), record);
    let listed: Vec<&str> = listed.iter().filter(fits).map(|record| record.id.as_str()).collect();
    let all: Vec<Arc<Sandbox>> = inner.sandboxes.lock().values().cloned().collect();
    all.into_iter().filter(|pod| listed.contains(&pod.id.as_str())).collect()
}
