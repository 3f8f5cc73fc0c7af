//! What a pod uses: memory and processes as the runtime counts them, disk as walked here. Upstream: the stats providers'
//! `PodStats`.

use crate::context::Context;
use crate::labels;
use api::core::v1::Pod;
use cri::v1::{ContainerStats, ListContainerStatsRequest};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Space and inodes on a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Disk {
    pub bytes: u64,
    pub inodes: u64,
}

impl std::ops::Add for Disk {
    type Output = Disk;

    fn add(self, other: Disk) -> Disk {
        Disk { bytes: self.bytes + other.bytes, inodes: self.inodes + other.inodes }
    }
}

/// One container's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ContainerUsage {
    pub name: String,
    /// Working set.
    pub memory: u64,
    pub root_fs: Disk,
    pub logs: Disk,
}

/// One pod's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodUsage {
    pub containers: Vec<ContainerUsage>,
    /// Of volumes that live and die with the pod on this node's disk, by name.
    pub volumes: Vec<(String, Disk)>,
    pub processes: u64,
}

impl PodUsage {
    pub(crate) fn memory(&self) -> u64 {
        self.containers.iter().map(|c| c.memory).sum()
    }

    /// All that the pod's limit on ephemeral storage is about.
    pub(crate) fn disk(&self) -> Disk {
        let volumes = self.volumes.iter().map(|(_, disk)| *disk);
        self.containers.iter().map(|c| c.root_fs + c.logs).chain(volumes).fold(Disk::default(), |a, b| a + b)
    }
}

/// Everything below a directory. What vanishes meanwhile is not counted; other file systems are not entered.
pub(crate) fn disk_of(dir: &Path) -> Disk {
    let Ok(top) = std::fs::symlink_metadata(dir) else { return Disk::default() };
    let mut sum = Disk { bytes: top.blocks() * 512, inodes: 1 };
    let mut seen = std::collections::HashSet::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            // A file with several names is one file.
            if meta.dev() != top.dev() || meta.nlink() > 1 && !meta.is_dir() && !seen.insert(meta.ino()) {
                continue;
            }
            sum = sum + Disk { bytes: meta.blocks() * 512, inodes: 1 };
            if meta.is_dir() {
                left.push(entry.path());
            }
        }
    }
    sum
}

/// The volumes whose content is the pod's own and on disk: upstream's `IsLocalEphemeralVolume`.
fn ephemeral_volumes(pod: &Pod) -> impl Iterator<Item = (&str, &'static str)> {
    pod.spec.volumes.iter().filter_map(|volume| {
        let plugin = match volume {
            v if v.empty_dir.as_ref().is_some_and(|e| e.medium.is_empty()) => "kubernetes.io~empty-dir",
            v if v.config_map.is_some() => "kubernetes.io~configmap",
            v if v.git_repo.is_some() => "kubernetes.io~git-repo",
            _ => return None,
        };
        Some((volume.name.as_str(), plugin))
    })
}

/// What the runtime counts of all containers, by the uid of their pod.
pub(crate) async fn container_stats(context: &Context) -> cri::Result<HashMap<String, Vec<ContainerStats>>> {
    let mut out: HashMap<String, Vec<ContainerStats>> = HashMap::new();
    let stats = match context.runtime.list_container_stats(ListContainerStatsRequest::default()).await {
        Ok(answer) => answer.stats,
        // A runtime that counts nothing.
        Err(error) if error.code == cri::Code::Unimplemented => Vec::new(),
        Err(error) => return Err(error),
    };
    for one in stats {
        let uid = one.attributes.as_ref().and_then(|a| a.labels.get(labels::POD_UID)).cloned();
        if let Some(uid) = uid {
            out.entry(uid).or_default().push(one);
        }
    }
    Ok(out)
}

/// A pod's usage. Blocks: walks its directories.
pub(crate) fn of_pod(context: &Context, pod: &Pod, stats: &[ContainerStats]) -> PodUsage {
    let meta = &pod.metadata;
    let logs = context.config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid);
    let get = |value: Option<cri::v1::UInt64Value>| value.map_or(0, |value| value.value);
    let containers = stats.iter().filter_map(|one| {
        let name = one.attributes.as_ref()?.labels.get(labels::CONTAINER_NAME)?.clone();
        let layer = one.writable_layer.clone().unwrap_or_default();
        Some(ContainerUsage {
            memory: one.memory.as_ref().map_or(0, |memory| get(memory.working_set_bytes)),
            root_fs: Disk { bytes: get(layer.used_bytes), inodes: get(layer.inodes_used) },
            logs: disk_of(&logs.join(&name)),
            name,
        })
    });
    let dir = context.config.pod_dir(&meta.uid).join("volumes");
    let volumes = ephemeral_volumes(pod)
        .map(|(name, plugin)| (name.to_owned(), disk_of(&dir.join(plugin).join(name))))
        .collect();
    PodUsage { containers: containers.collect(), volumes, processes: context.cgroups.processes(pod) }
}
