//! Control groups of every layout: v1 (a directory per controller), v2 (one directory), and hybrid (v1 controllers
//! beside an empty v2 tree, of which `cgroup.kill` is used). A path such as `/kubepods/pod1/abc` names the same group
//! in all of them.

/// What is measured beyond usage.
mod details;
/// Which devices a group may use.
mod devices;
/// Ending every process of a group.
mod kill;
/// Usage under the names that metrics have for it.
mod measures;
/// Limits.
mod resources;
/// Usage.
mod stats;

pub use details::{Details, DeviceIo};
pub use devices::DeviceRule;
pub use measures::{Disk, MEASURES, Measure, MetricKind, Processes, Reading, Tell};
pub use resources::{Resources, shares_to_weight};
pub use stats::{Cpu, Memory, Pressure, Stats};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One mounted v1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hierarchy {
    controllers: Vec<String>,
    root: PathBuf,
}

/// The cgroup mounts of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cgroups {
    v1: Vec<Hierarchy>,
    unified: Option<PathBuf>,
}

/// The directories of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
    v1: Vec<Hierarchy>,
    /// With its controllers on v2; in hybrid only for killing.
    unified: Option<PathBuf>,
}

impl Cgroups {
    /// Reads the mounts of this process.
    pub fn detect() -> io::Result<Cgroups> {
        let found = Cgroups::parse(&fs::read_to_string("/proc/self/mountinfo")?);
        match found.v1.is_empty() && found.unified.is_none() {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "no cgroup file system is mounted")),
            false => Ok(found),
        }
    }

    fn parse(mountinfo: &str) -> Cgroups {
        const FLAGS: [&str; 10] = [
            "rw",
            "ro",
            "noprefix",
            "clone_children",
            "xattr",
            "favordynmods",
            "nsdelegate",
            "seclabel",
            "none",
            "",
        ];
        let mut found = Cgroups::default();
        for line in mountinfo.lines() {
            let Some((before, after)) = line.split_once(" - ") else { continue };
            let Some(point) = before.split(' ').nth(4) else { continue };
            let mut after = after.split(' ');
            match (after.next(), after.nth(1)) {
                (Some("cgroup2"), _) if found.unified.is_none() => found.unified = Some(point.into()),
                (Some("cgroup"), Some(options)) => {
                    let named =
                        |option: &&str| !FLAGS.contains(option) && !option.starts_with("release_agent");
                    let controllers: Vec<String> =
                        options.split(',').filter(named).map(str::to_owned).collect();
                    // A hierarchy may be mounted more than once.
                    if !found.v1.iter().any(|hierarchy| hierarchy.controllers == controllers) {
                        found.v1.push(Hierarchy { controllers, root: point.into() });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether the controllers are on the unified tree.
    pub fn is_v2(&self) -> bool {
        self.v1.iter().all(|hierarchy| hierarchy.controllers.iter().all(|name| name.starts_with("name=")))
    }

    /// The controllers there are, on v1 or v2.
    pub fn controllers(&self) -> Vec<String> {
        let v1 = self.v1.iter().flat_map(|hierarchy| hierarchy.controllers.clone());
        let v1 = v1.filter(|name| !name.starts_with("name="));
        let v2 =
            self.unified.iter().filter_map(|root| fs::read_to_string(root.join("cgroup.controllers")).ok());
        v1.chain(v2.flat_map(|list| list.split_whitespace().map(str::to_owned).collect::<Vec<_>>())).collect()
    }

    /// The group of that path, which need not exist. Components that lead upwards are refused.
    pub fn group(&self, path: &str) -> io::Result<Cgroup> {
        let relative: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if relative.iter().any(|part| *part == "." || *part == "..") {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("invalid cgroup path {path:?}")));
        }
        let relative = relative.join("/");
        let v1 = self.v1.iter().map(|hierarchy| Hierarchy {
            controllers: hierarchy.controllers.clone(),
            root: hierarchy.root.join(&relative),
        });
        let v1 = if self.is_v2() { Vec::new() } else { v1.collect() };
        let unified = self.unified.as_ref().map(|root| root.join(&relative));
        Ok(Cgroup { path: format!("/{relative}"), v1, unified })
    }
}

impl Cgroup {
    /// As it was asked for, normalised.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the controllers are on v2: then `dirs` is one directory.
    pub fn is_v2(&self) -> bool {
        self.v1.is_empty()
    }

    /// Every directory that a member process must be written into.
    pub fn dirs(&self) -> Vec<PathBuf> {
        self.v1.iter().map(|hierarchy| hierarchy.root.clone()).chain(self.unified.clone()).collect()
    }

    /// The directory with the files of a controller.
    pub fn controller(&self, name: &str) -> Option<&Path> {
        let v1 = self.v1.iter().find(|hierarchy| hierarchy.controllers.iter().any(|c| c == name));
        match v1 {
            Some(hierarchy) => Some(&hierarchy.root),
            None => self.unified.as_deref(),
        }
    }

    /// Whether it is there, in any hierarchy: who is killed in the midst of [`Cgroup::remove`] leaves the last ones.
    pub fn exists(&self) -> bool {
        self.dirs().iter().any(|dir| dir.exists())
    }

    /// Makes it and the groups above it; one that exists is left as it is.
    pub fn create(&self) -> io::Result<()> {
        crate::steps::step("making a cgroup");
        for hierarchy in &self.v1 {
            let has = |name: &str| hierarchy.controllers.iter().any(|controller| controller == name);
            make(&hierarchy.root, if has("cpuset") { Kind::Cpuset } else { Kind::Plain })?;
        }
        match &self.unified {
            Some(dir) => make(dir, if self.is_v2() { Kind::Unified } else { Kind::Plain }),
            None => Ok(()),
        }
    }

    /// The processes in this very group, not those of groups below.
    pub fn processes(&self) -> io::Result<Vec<i32>> {
        match self.dirs().first() {
            Some(dir) => read_processes(dir),
            None => Ok(Vec::new()),
        }
    }

    /// Removes it and the groups below it, which must have no processes; one that is not there is removed already.
    pub fn remove(&self) -> io::Result<()> {
        crate::steps::step("removing a cgroup");
        for dir in self.dirs() {
            remove_tree(&dir)?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// A group without CPUs or memory nodes takes no process: they are inherited by hand.
    Cpuset,
    /// Controllers reach a group only if its parent passes them on.
    Unified,
}

fn make(dir: &Path, kind: Kind) -> io::Result<()> {
    // Above a mount point there is nothing to make: a hierarchy's root is there, and its cpuset is never empty.
    if dir.exists() && (kind != Kind::Cpuset || !lacks_cpus(dir)?) {
        return Ok(());
    }
    let parent = dir.parent().ok_or(io::ErrorKind::NotFound)?;
    make(parent, kind)?;
    if kind == Kind::Unified {
        let available = fs::read_to_string(parent.join("cgroup.controllers"))?;
        for controller in available.split_whitespace() {
            // One that cannot be passed on (threaded, or in use by processes of the parent) is missed when it is needed.
            let _ = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    if kind == Kind::Cpuset { inherit_cpuset(parent, dir) } else { Ok(()) }
}

const CPUSET: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Whether a v1 cpuset group is as the kernel makes it: one that another thread has made this very moment, or another
/// program that did not care.
fn lacks_cpus(dir: &Path) -> io::Result<bool> {
    for file in CPUSET {
        if fs::read_to_string(dir.join(file))?.trim().is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whoever comes first writes; the second writes the same.
fn inherit_cpuset(parent: &Path, dir: &Path) -> io::Result<()> {
    for file in CPUSET {
        if fs::read_to_string(dir.join(file))?.trim().is_empty() {
            fs::write(dir.join(file), fs::read_to_string(parent.join(file))?.trim())?;
        }
    }
    Ok(())
}

fn read_processes(dir: &Path) -> io::Result<Vec<i32>> {
    match fs::read_to_string(dir.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        // A group that is being removed.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    // The last process may be dying still: the kernel says busy for a moment after it was reaped.
    let mut pause = std::time::Duration::from_millis(1);
    loop {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && pause.as_millis() < 600 => {
                std::thread::sleep(pause);
                pause *= 2;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
