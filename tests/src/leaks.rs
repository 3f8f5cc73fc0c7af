//! What an ended cluster must not leave behind: processes, mounts, interfaces, addresses, routes, packet-filter rules,
//! cgroups, network namespaces, files, kernel settings. Taken before and after, and compared.

use crate::net::Net;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// What there is of one cluster on this machine, each with its kind.
#[derive(Debug, Default)]
pub struct Traces {
    things: BTreeSet<String>,
    /// How many descriptors of each kind the server has open.
    descriptors: BTreeMap<String, usize>,
}

/// As many more descriptors are no leak: connections come and go.
const FEW: usize = 16;

impl Traces {
    /// Of the cluster whose network and directory these are.
    pub(crate) fn of(net: &Net, base: &Path) -> Traces {
        let mut traces = Traces::default();
        let name = format!("tiphys-{:08x}", fnv32a(base.join("data").to_str().unwrap().as_bytes()));
        traces.network(net);
        traces.processes(net, base, &name);
        traces.mounts(base, &name);
        traces.cgroups(Path::new("/sys/fs/cgroup"), &name);
        for path in [base.join("data"), Path::new("/run").join(&name)] {
            if path.exists() {
                traces.add("file", path.display());
            }
        }
        traces
    }

    /// What is here now and was not before.
    pub(crate) fn new_ones(&self, now: &Traces) -> Vec<String> {
        let mut new: Vec<String> = now.things.difference(&self.things).cloned().collect();
        for (kind, count) in &now.descriptors {
            let before = self.descriptors.get(kind).copied().unwrap_or(0);
            if *count > before + FEW {
                new.push(format!("descriptors of kind {kind}: {count}, {before} before"));
            }
        }
        new
    }

    /// Whether the same is there, descriptors aside.
    pub(crate) fn same(&self, other: &Traces) -> bool {
        self.things == other.things
    }

    /// Everything below a directory.
    pub(crate) fn files(&mut self, dir: &Path) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            self.add("file", entry.path().display());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.files(&entry.path());
            }
        }
    }

    /// The descriptors of a process.
    pub(crate) fn descriptors(&mut self, pid: u32) {
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let kind = target.split(':').next().filter(|_| !target.starts_with('/')).unwrap_or("file");
            *self.descriptors.entry(kind.to_owned()).or_default() += 1;
        }
    }

    pub(crate) fn also(&mut self, kind: &str, all: Vec<String>) {
        all.iter().for_each(|one| self.add(kind, one));
    }

    fn add(&mut self, kind: &str, what: impl std::fmt::Display) {
        self.things.insert(format!("{kind} {what}"));
    }

    fn network(&mut self, net: &Net) {
        // No counters, lifetimes or indices in these.
        for (kind, command) in [
            ("interface", "ip -o link show | cut -d' ' -f2 | cut -d@ -f1"),
            ("address", "ip -o addr show | awk '{print $2, $4}'"),
            // The multicast route comes with an interface's carrier, whenever the kernel gets to it.
            (
                "route",
                "ip route show table all; ip -6 route show table all | cut -d' ' -f1-5 | grep -v ^multicast || true",
            ),
            ("rule", "ip rule show; ip -6 rule show"),
            ("neighbour", "ip neigh show nud permanent; ip neigh show proxy"),
            ("packet filter", "nft list ruleset"),
            ("setting", "grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/route_localnet"),
        ] {
            for line in net.run(command).lines().filter(|line| !line.trim().is_empty()) {
                self.add(kind, line);
            }
        }
    }

    fn processes(&mut self, net: &Net, base: &Path, name: &str) {
        let namespace = fs::metadata(net.path()).unwrap().ino();
        let own = std::process::id().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let pid = entry.file_name().into_string().unwrap_or_default();
            if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let at = entry.path();
            let read = |file: &str| {
                String::from_utf8_lossy(&fs::read(at.join(file)).unwrap_or_default()).into_owned()
            };
            let command = read("cmdline").replace('\0', " ");
            // Dead, and nobody's fault but its parent's.
            if read("stat").rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])) {
                continue;
            }
            let inside = fs::metadata(at.join("ns/net")).is_ok_and(|found| found.ino() == namespace);
            if inside
                || read("cgroup").contains(name)
                || command.contains(base.to_str().unwrap())
                || command.contains(name)
            {
                self.add("process", format!("{pid} {} {command}", read("comm").trim()));
            }
        }
    }

    fn mounts(&mut self, base: &Path, name: &str) {
        for line in fs::read_to_string("/proc/self/mountinfo").unwrap().lines() {
            if line.contains(base.to_str().unwrap()) || line.contains(name) {
                self.add("mount", line);
            }
        }
    }

    fn cgroups(&mut self, dir: &Path, name: &str) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_name().to_string_lossy().contains(name) {
                self.add("cgroup", path.display());
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.cgroups(&path, name);
            }
        }
    }
}

/// The name of a cluster's things on its machine comes from its data directory.
fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
