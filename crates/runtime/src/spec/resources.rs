//! CRI's resources as limits of a cgroup: zero means "as it is".

use cri::v1::LinuxContainerResources;
use linux::cgroup::Resources;

/// The limits to set.
pub(crate) fn limits(linux: &LinuxContainerResources) -> Resources {
    let set = |value: i64| Some(value).filter(|value| *value != 0);
    let memory = set(linux.memory_limit_in_bytes);
    Resources {
        cpu_period: set(linux.cpu_period),
        cpu_quota: set(linux.cpu_quota),
        cpu_shares: set(linux.cpu_shares),
        cpuset_cpus: linux.cpuset_cpus.clone(),
        cpuset_mems: linux.cpuset_mems.clone(),
        memory,
        // As containerd: no swap unless it was asked for.
        memory_and_swap: set(linux.memory_swap_limit_in_bytes).or(memory),
        pids: None,
        hugepages: linux.hugepage_limits.iter().map(|limit| (limit.page_size.clone(), limit.limit)).collect(),
        unified: linux.unified.iter().map(|(file, value)| (file.clone(), value.clone())).collect(),
    }
}

/// What is in force after an update: members that the update leaves out stay.
pub(crate) fn merge(
    mut old: LinuxContainerResources,
    new: LinuxContainerResources,
) -> LinuxContainerResources {
    let number = |old: &mut i64, new: i64| {
        if new != 0 {
            *old = new;
        }
    };
    number(&mut old.cpu_period, new.cpu_period);
    number(&mut old.cpu_quota, new.cpu_quota);
    number(&mut old.cpu_shares, new.cpu_shares);
    number(&mut old.memory_limit_in_bytes, new.memory_limit_in_bytes);
    number(&mut old.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes);
    number(&mut old.oom_score_adj, new.oom_score_adj);
    for (old, new) in [(&mut old.cpuset_cpus, new.cpuset_cpus), (&mut old.cpuset_mems, new.cpuset_mems)] {
        if !new.is_empty() {
            *old = new;
        }
    }
    if !new.hugepage_limits.is_empty() {
        old.hugepage_limits = new.hugepage_limits;
    }
    old.unified.extend(new.unified);
    old
}
