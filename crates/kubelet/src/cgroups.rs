//! The kubelet's cgroups: `kubepods`, its quality-of-service tiers, and one per pod; on v1, v2 and hybrid layouts.
//! Containers' own cgroups beneath are the runtime's. Upstream: `cm/pod_container_manager_linux.go`, `qos_container_manager`.

use crate::config::Config;
use crate::container_config::resources::{QUOTA_PERIOD, page_size, page_size_name, quota, shares};
use crate::container_config::swap::Accounting;
use api::core::v1::Pod;
use rules::pod_requests::{Options, limits_as, requests_as};
use rules::qos::{QosClass, pod_qos};
use std::io;
use std::path::{Path, PathBuf};

/// What a cgroup is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub cpu_shares: Option<i64>,
    pub cpu_quota: Option<i64>,
    pub memory: Option<i64>,
    pub pids: Option<i64>,
}

/// Where the controllers that matter here are mounted.
#[derive(Debug, Clone, Default)]
struct Layout {
    cpu: Option<PathBuf>,
    memory: Option<PathBuf>,
    pids: Option<PathBuf>,
    huge_pages: Option<PathBuf>,
    /// Every v1 hierarchy, for removal.
    all: Vec<PathBuf>,
    /// The v2 tree, when it has the controllers.
    unified: Option<PathBuf>,
    /// The v2 tree that has huge pages alone, beside the hierarchies of v1.
    unified_huge_pages: Option<PathBuf>,
}

/// The cgroups of one kubelet.
#[derive(Debug)]
pub(crate) struct Cgroups {
    /// `/kubepods`, or `/<root>/kubepods`.
    kubepods: String,
    layout: Layout,
    /// Of each pod.
    pids_limit: Option<i64>,
    /// Whether limits of processors are enforced.
    quota: bool,
    /// Bytes of each kind of huge page.
    page_sizes: Vec<i64>,
}

fn detect(mountinfo: &str, unified_controllers: impl Fn(&Path) -> String) -> Layout {
    let mut out = Layout::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let Some(point) = left.split(' ').nth(4).map(PathBuf::from) else { continue };
        let mut right = right.split(' ');
        match right.next() {
            Some("cgroup") => {
                let options: Vec<&str> = right.nth(1).unwrap_or_default().split(',').collect();
                if options.contains(&"cpu") {
                    out.cpu = Some(point.clone());
                }
                if options.contains(&"memory") {
                    out.memory = Some(point.clone());
                }
                if options.contains(&"pids") {
                    out.pids = Some(point.clone());
                }
                if options.contains(&"hugetlb") {
                    out.huge_pages = Some(point.clone());
                }
                out.all.push(point);
            }
            Some("cgroup2") => {
                let controllers = unified_controllers(&point);
                let has = |name: &str| controllers.split_whitespace().any(|known| known == name);
                if has("memory") {
                    out.unified = Some(point.clone());
                } else if has("hugetlb") {
                    out.unified_huge_pages = Some(point.clone());
                }
                out.all.push(point);
            }
            _ => {}
        }
    }
    out
}

impl Cgroups {
    /// Looks where the controllers are.
    pub(crate) fn new(config: &Config) -> Self {
        let root = &config.cgroup_root;
        let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let layout = detect(&mountinfo, |point| {
            std::fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default()
        });
        Cgroups {
            kubepods: format!("{}/kubepods", root.trim_end_matches('/')),
            layout,
            pids_limit: config.pod_pids_limit,
            quota: config.cpu_cfs_quota,
            page_sizes: crate::node::machine::huge_pages().into_iter().map(|(size, _)| size).collect(),
        }
    }

    fn tier(&self, class: QosClass) -> String {
        match class {
            QosClass::Guaranteed => self.kubepods.clone(),
            QosClass::Burstable => format!("{}/burstable", self.kubepods),
            QosClass::BestEffort => format!("{}/besteffort", self.kubepods),
        }
    }

    /// The pod's cgroup, as the runtime is told.
    pub(crate) fn pod_parent(&self, pod: &Pod) -> String {
        format!("{}/pod{}", self.tier(pod_qos(pod)), pod.metadata.uid)
    }

    /// Whether swap can be limited together with memory.
    pub(crate) fn swap_accounting(&self) -> Accounting {
        let has = |file: PathBuf| file.exists();
        match (&self.layout.memory, &self.layout.unified) {
            (Some(v1), _) if has(v1.join("memory.memsw.limit_in_bytes")) => Accounting::Together,
            // The root of the tree has no limits: ours does.
            (None, Some(v2))
                if has(v2.join(self.kubepods.trim_start_matches('/')).join("memory.swap.max")) =>
            {
                Accounting::Alone
            }
            _ => Accounting::None,
        }
    }

    /// Whether the controllers are on the unified tree.
    pub(crate) fn is_v2(&self) -> bool {
        self.layout.unified.is_some() && self.layout.memory.is_none()
    }

    /// Makes `kubepods` and its tiers; all pods together may have so much memory.
    pub(crate) fn set_up(&self, cpu_milli: i64, memory: Option<i64>) -> io::Result<()> {
        let root = PodLimits { cpu_shares: Some(shares(cpu_milli)), memory, ..Default::default() };
        self.make(&self.kubepods, root)?;
        let least = PodLimits { cpu_shares: Some(shares(0)), ..Default::default() };
        self.make(&self.tier(QosClass::Burstable), least)?;
        self.make(&self.tier(QosClass::BestEffort), least)
    }

    /// Makes the pod's cgroup with its limits.
    pub(crate) fn set_up_pod(&self, pod: &Pod) -> io::Result<()> {
        let limits = PodLimits { pids: self.pids_limit, ..pod_resources(pod) };
        self.make(&self.pod_parent(pod), limits)?;
        self.limit_huge_pages(pod)
    }

    /// A pod has as many huge pages as it asks for, and none of sizes that it does not ask for.
    fn limit_huge_pages(&self, pod: &Pod) -> io::Result<()> {
        let layout = &self.layout;
        let parent = self.pod_parent(pod);
        let relative = parent.trim_start_matches('/');
        let (dir, file) = match (&layout.unified, &layout.huge_pages, &layout.unified_huge_pages) {
            (Some(unified), ..) => (unified.join(relative), "max"),
            (None, Some(v1), _) => (v1.join(relative), "limit_in_bytes"),
            (None, None, Some(unified)) => (make_passing_on(unified, relative, &["hugetlb"])?, "max"),
            (None, None, None) => return Ok(()),
        };
        let requests = requests_as::<i64>(pod, Options::default());
        std::fs::create_dir_all(&dir)?;
        for size in &self.page_sizes {
            let asked = requests.iter().filter(|(name, _)| page_size(name) == Some(*size));
            let limit: i64 = asked.map(|(_, bytes)| bytes).sum();
            let file = format!("hugetlb.{}.{file}", page_size_name(*size));
            if dir.join(&file).exists() {
                write(&dir, &file, limit)?;
            }
        }
        Ok(())
    }

    /// Changes limits of a pod that runs; those that are `None` stay.
    pub(crate) fn update_pod(&self, pod: &Pod, limits: PodLimits) -> io::Result<()> {
        if limits == PodLimits::default() {
            return Ok(());
        }
        self.make(&self.pod_parent(pod), limits)
    }

    /// Gives the burstable tier the weight of all its pods.
    pub(crate) fn weigh_burstable<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> io::Result<()> {
        let sum: i64 = pods
            .filter(|pod| pod_qos(pod) == QosClass::Burstable)
            .map(|pod| requests_as::<i64>(pod, Options::default()).get("cpu").copied().unwrap_or(0))
            .sum();
        let weight = PodLimits { cpu_shares: Some(shares(sum)), ..Default::default() };
        self.make(&self.tier(QosClass::Burstable), weight)
    }

    /// How many processes the pod has.
    pub(crate) fn processes(&self, pod: &Pod) -> u64 {
        let parent = self.pod_parent(pod);
        let hierarchy = self.layout.unified.as_ref().or(self.layout.memory.as_ref());
        hierarchy.map_or(0, |hierarchy| count(&hierarchy.join(parent.trim_start_matches('/'))))
    }

    /// Removes the cgroup of a pod that has ended; fails while processes are in it.
    pub(crate) fn remove_pod(&self, pod: &Pod) -> io::Result<()> {
        let parent = self.pod_parent(pod);
        self.layout
            .all
            .iter()
            .try_for_each(|hierarchy| remove(&hierarchy.join(parent.trim_start_matches('/'))))
    }

    fn make(&self, name: &str, mut resources: PodLimits) -> io::Result<()> {
        if !self.quota {
            resources.cpu_quota = None;
        }
        let relative = name.trim_start_matches('/');
        if let Some(unified) = &self.layout.unified {
            return make_v2(unified, relative, resources);
        }
        if let Some(cpu) = &self.layout.cpu {
            let dir = cpu.join(relative);
            std::fs::create_dir_all(&dir)?;
            if let Some(shares) = resources.cpu_shares {
                write(&dir, "cpu.shares", shares)?;
            }
            if let Some(quota) = resources.cpu_quota {
                write(&dir, "cpu.cfs_period_us", QUOTA_PERIOD)?;
                write(&dir, "cpu.cfs_quota_us", quota)?;
            }
        }
        if let Some(memory) = &self.layout.memory {
            let dir = memory.join(relative);
            std::fs::create_dir_all(&dir)?;
            if let Some(limit) = resources.memory {
                write(&dir, "memory.limit_in_bytes", limit)?;
            }
        }
        if let (Some(pids), Some(limit)) = (&self.layout.pids, resources.pids) {
            let dir = pids.join(relative);
            std::fs::create_dir_all(&dir)?;
            write(&dir, "pids.max", limit)?;
        }
        Ok(())
    }
}

/// Makes a group of the v2 tree, to which those above it pass controllers on.
fn make_passing_on(root: &Path, relative: &str, controllers: &[&str]) -> io::Result<PathBuf> {
    let mut dir = root.to_owned();
    for component in Path::new(relative).components() {
        // Controllers reach a child only when its parent passes them on.
        for controller in controllers {
            // Not every kernel has every controller.
            let _ = std::fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
        }
        dir.push(component);
        match std::fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(dir)
}

fn make_v2(root: &Path, relative: &str, resources: PodLimits) -> io::Result<()> {
    let dir = make_passing_on(root, relative, &["cpu", "memory", "pids", "cpuset", "io", "hugetlb"])?;
    if let Some(shares) = resources.cpu_shares {
        write(&dir, "cpu.weight", weight(shares))?;
    }
    if let Some(quota) = resources.cpu_quota {
        let max = if quota > 0 { quota.to_string() } else { "max".into() };
        std::fs::write(dir.join("cpu.max"), format!("{max} {QUOTA_PERIOD}"))?;
    }
    if let Some(limit) = resources.memory {
        write(&dir, "memory.max", limit)?;
    }
    if let Some(limit) = resources.pids {
        write(&dir, "pids.max", limit)?;
    }
    Ok(())
}

/// The processes of a cgroup and those beneath it.
fn count(dir: &Path) -> u64 {
    let own = std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines().count();
    let beneath = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let beneath = beneath.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    u64::try_from(own).unwrap_or(0) + beneath.map(|entry| count(&entry.path())).sum::<u64>()
}

/// `cpu.shares` (2 to 262144) as `cpu.weight` (1 to 10000).
fn weight(shares: i64) -> i64 {
    1 + (shares - 2) * 9999 / 262_142
}

fn write(dir: &Path, file: &str, value: i64) -> io::Result<()> {
    std::fs::write(dir.join(file), value.to_string())
}

/// Removes a cgroup and those beneath it.
fn remove(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What the whole pod may use. Upstream: `ResourceConfigForPod`.
pub(crate) fn pod_resources(pod: &Pod) -> PodLimits {
    let requests = requests_as::<i64>(pod, Options::default());
    let limits = limits_as::<i64>(pod, Options::default());
    let pod_level = |name: &str| pod.spec.resources.as_ref().is_some_and(|r| r.limits.contains_key(name));
    let all_limited = |name: &str| {
        let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        pod_level(name)
            || all.into_iter().all(|c| c.resources.limits.get(name).is_some_and(|q| q.milli_value() > 0))
    };
    let get = |map: &std::collections::BTreeMap<String, i64>, name: &str| map.get(name).copied().unwrap_or(0);
    PodLimits {
        cpu_shares: Some(if pod_qos(pod) == QosClass::BestEffort {
            shares(0)
        } else {
            shares(get(&requests, "cpu"))
        }),
        cpu_quota: all_limited("cpu").then(|| quota(get(&limits, "cpu"))),
        memory: all_limited("memory").then(|| get(&limits, "memory")),
        pids: None,
    }
}
