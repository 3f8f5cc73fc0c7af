//! Limits, in the units of CRI (which are v1's), written to whichever layout there is.

use super::Cgroup;
use std::fs;
use std::io;
use std::path::Path;

/// What to set. `None` and empty leave a limit as it is; -1 means unlimited where the kernel has such a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Microseconds.
    pub cpu_period: Option<i64>,
    /// Microseconds per period.
    pub cpu_quota: Option<i64>,
    /// 1024 is one CPU's worth.
    pub cpu_shares: Option<i64>,
    /// Such as `0-3,7`.
    pub cpuset_cpus: String,
    /// Such as `0`.
    pub cpuset_mems: String,
    /// Bytes.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together.
    pub memory_and_swap: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Page size such as `2MB`, and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of v2, as they are.
    pub unified: Vec<(String, String)>,
}

/// v1's `cpu.shares` as v2's `cpu.weight`: 1024 becomes 100, with the curve of OCI runtimes since 2025.
pub fn shares_to_weight(shares: i64) -> u64 {
    match shares {
        ..=2 => 1,
        262_144.. => 10_000,
        shares => {
            let log = (shares as f64).log2();
            let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
            // Rounding up must not be moved by the last bit.
            (10f64.powf(exponent) - 1e-9).ceil() as u64
        }
    }
}

impl Cgroup {
    /// Sets the limits. Those of a controller that this machine lacks are skipped, except memory and pids.
    pub fn apply(&self, resources: &Resources) -> io::Result<()> {
        match self.is_v2() {
            true => self.apply_v2(resources),
            false => self.apply_v1(resources),
        }
    }

    fn apply_v1(&self, r: &Resources) -> io::Result<()> {
        if let Some(dir) = self.v1_dir("cpu") {
            set(dir, "cpu.shares", r.cpu_shares.map(|shares| shares.max(2)))?;
            // Period and quota are checked together by the kernel, against the parent's too: try both orders.
            if r.cpu_period.is_some() && set(dir, "cpu.cfs_period_us", r.cpu_period).is_err() {
                set(dir, "cpu.cfs_quota_us", r.cpu_quota)?;
                set(dir, "cpu.cfs_period_us", r.cpu_period)?;
            }
            set(dir, "cpu.cfs_quota_us", r.cpu_quota)?;
        }
        if let Some(dir) = self.v1_dir("cpuset") {
            set_text(dir, "cpuset.cpus", &r.cpuset_cpus)?;
            set_text(dir, "cpuset.mems", &r.cpuset_mems)?;
        }
        if r.memory.is_some() || r.memory_and_swap.is_some() {
            let dir = self.v1_dir("memory").ok_or_else(|| missing("memory"))?;
            let swap = r.memory_and_swap.filter(|_| dir.join("memory.memsw.limit_in_bytes").exists());
            // memsw may never be below the memory limit: which goes first depends on the direction.
            if set(dir, "memory.limit_in_bytes", r.memory).is_err() {
                set(dir, "memory.memsw.limit_in_bytes", swap)?;
                set(dir, "memory.limit_in_bytes", r.memory)?;
            }
            set(dir, "memory.memsw.limit_in_bytes", swap)?;
        }
        if r.pids.is_some() {
            let dir = self.v1_dir("pids").ok_or_else(|| missing("pids"))?;
            set_text(dir, "pids.max", &max(r.pids))?;
        }
        match (self.v1_dir("hugetlb"), &self.unified) {
            (Some(dir), _) => limit_huge_pages(dir, "limit_in_bytes", &r.hugepages),
            // Beside the hierarchies of v1 the unified one may have this controller.
            (None, Some(dir)) if !r.hugepages.is_empty() => {
                self.pass_huge_pages_on(dir);
                limit_huge_pages(dir, "max", &r.hugepages)
            }
            _ => Ok(()),
        }
    }

    /// Has the groups above, which nobody else gives controllers in a hybrid layout, pass this one on.
    fn pass_huge_pages_on(&self, dir: &Path) {
        let depth = self.path.split('/').filter(|part| !part.is_empty()).count();
        let mut above: Vec<&Path> = dir.ancestors().skip(1).take(depth).collect();
        above.reverse();
        for group in above {
            let passed = fs::read_to_string(group.join("cgroup.subtree_control"));
            if passed.is_ok_and(|passed| !passed.split_whitespace().any(|name| name == "hugetlb")) {
                // A kernel without it, or somebody's own hierarchy: then there is no limit to be had.
                let _ = fs::write(group.join("cgroup.subtree_control"), "+hugetlb");
            }
        }
    }

    fn apply_v2(&self, r: &Resources) -> io::Result<()> {
        let Some(dir) = self.unified.as_deref() else { return Ok(()) };
        if let Some(shares) = r.cpu_shares.filter(|_| dir.join("cpu.weight").exists()) {
            fs::write(dir.join("cpu.weight"), shares_to_weight(shares).to_string())?;
        }
        if (r.cpu_quota.is_some() || r.cpu_period.is_some()) && dir.join("cpu.max").exists() {
            let now = fs::read_to_string(dir.join("cpu.max"))?;
            let (quota, period) = now.trim().split_once(' ').unwrap_or(("max", "100000"));
            let quota = r.cpu_quota.map_or(quota.to_owned(), |quota| max(Some(quota)));
            let period = r.cpu_period.map_or(period.to_owned(), |period| period.to_string());
            fs::write(dir.join("cpu.max"), format!("{quota} {period}"))?;
        }
        if dir.join("cpuset.cpus").exists() {
            set_text(dir, "cpuset.cpus", &r.cpuset_cpus)?;
            set_text(dir, "cpuset.mems", &r.cpuset_mems)?;
        }
        if r.memory.is_some() {
            set_text(dir, "memory.max", &max(r.memory))?;
        }
        if let Some(both) = r.memory_and_swap.filter(|_| dir.join("memory.swap.max").exists()) {
            let swap = match (both, r.memory) {
                (..0, _) => "max".to_owned(),
                (both, Some(memory)) if memory > 0 => (both - memory).max(0).to_string(),
                (both, _) => both.to_string(),
            };
            set_text(dir, "memory.swap.max", &swap)?;
        }
        if r.pids.is_some() {
            set_text(dir, "pids.max", &max(r.pids))?;
        }
        limit_huge_pages(dir, "max", &r.hugepages)?;
        for (file, value) in &r.unified {
            if file.contains('/') || file.starts_with("cgroup.") {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("cgroup file {file:?} is not a limit"),
                ));
            }
            fs::write(dir.join(file), value)?;
        }
        Ok(())
    }

    /// The directory of a v1 controller that is really there.
    pub(super) fn v1_dir(&self, controller: &str) -> Option<&Path> {
        let found = self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|c| c == controller));
        found.map(|hierarchy| hierarchy.root.as_path())
    }
}

/// What is faulted in, and what is reserved, where the kernel has both.
fn limit_huge_pages(dir: &Path, file: &str, limits: &[(String, u64)]) -> io::Result<()> {
    for (size, bytes) in limits {
        for file in [format!("hugetlb.{size}.{file}"), format!("hugetlb.{size}.rsvd.{file}")] {
            if dir.join(&file).exists() {
                fs::write(dir.join(&file), bytes.to_string())?;
            }
        }
    }
    Ok(())
}

fn missing(controller: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("cgroup controller {controller} is not available"))
}

fn max(value: Option<i64>) -> String {
    match value {
        None | Some(..0) => "max".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn set(dir: &Path, file: &str, value: Option<i64>) -> io::Result<()> {
    value.map_or(Ok(()), |value| set_text(dir, file, &value.to_string()))
}

fn set_text(dir: &Path, file: &str, value: &str) -> io::Result<()> {
    if value.is_empty() {
        return Ok(());
    }
    fs::write(dir.join(file), value)
        .map_err(|error| io::Error::new(error.kind(), format!("setting {file} to {value}: {error}")))
}
