//! What a group did and may do beyond its [`Stats`](super::Stats): throttling, faults, input and output, limits, for those
//! who measure. Read from whichever layout there is; what cannot be read is absent.

use super::Cgroup;
use super::stats::{field, number};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Bytes and operations of one block device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceIo {
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// All of it. Times are nanoseconds, sizes bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Details {
    pub cpu_user: Option<u64>,
    pub cpu_system: Option<u64>,
    pub cfs_periods: Option<u64>,
    pub cfs_throttled_periods: Option<u64>,
    pub cfs_throttled: Option<u64>,
    pub cache: Option<u64>,
    pub mapped_file: Option<u64>,
    pub kernel_memory: Option<u64>,
    pub max_memory: Option<u64>,
    pub memory_failures: Option<u64>,
    pub active_file: Option<u64>,
    pub inactive_file: Option<u64>,
    /// Page faults and major ones, of this very group.
    pub own_faults: Option<(u64, u64)>,
    pub oom_kills: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpu_period: Option<u64>,
    /// Microseconds a period; absent without a limit.
    pub cpu_quota: Option<u64>,
    pub memory_reservation: Option<u64>,
    pub max_threads: Option<u64>,
    /// By the size of the pages (`2MB`): bytes in use, and the most that were.
    pub huge_pages: BTreeMap<String, (u64, Option<u64>)>,
    /// By major and minor number.
    pub io: BTreeMap<(u32, u32), DeviceIo>,
}

impl Cgroup {
    /// Reads them.
    pub fn details(&self) -> Details {
        match self.is_v2() {
            true => self.unified.as_deref().map(unified).unwrap_or_default(),
            false => self.v1_details(),
        }
    }

    fn v1_details(&self) -> Details {
        let mut out = Details::default();
        let read = |dir: &Path, file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        if let Some(dir) = self.v1_dir("cpuacct") {
            out.cpu_user = number(dir, "cpuacct.usage_user");
            out.cpu_system = number(dir, "cpuacct.usage_sys");
        }
        if let Some(dir) = self.v1_dir("cpu") {
            let stat = read(dir, "cpu.stat");
            out.cfs_periods = field(&stat, "nr_periods");
            out.cfs_throttled_periods = field(&stat, "nr_throttled");
            out.cfs_throttled = field(&stat, "throttled_time");
            out.cpu_shares = number(dir, "cpu.shares");
            out.cpu_period = number(dir, "cpu.cfs_period_us");
            // -1 is no number of these.
            out.cpu_quota = number(dir, "cpu.cfs_quota_us");
        }
        if let Some(dir) = self.v1_dir("memory") {
            let stat = read(dir, "memory.stat");
            out.cache = field(&stat, "total_cache");
            out.mapped_file = field(&stat, "total_mapped_file");
            out.active_file = field(&stat, "total_active_file");
            out.inactive_file = field(&stat, "total_inactive_file");
            out.own_faults = field(&stat, "pgfault").zip(field(&stat, "pgmajfault"));
            out.kernel_memory = number(dir, "memory.kmem.usage_in_bytes");
            out.max_memory = number(dir, "memory.max_usage_in_bytes");
            out.memory_failures = number(dir, "memory.failcnt");
            out.oom_kills = field(&read(dir, "memory.oom_control"), "oom_kill");
            let reservation = number(dir, "memory.soft_limit_in_bytes");
            out.memory_reservation = reservation.filter(|bytes| *bytes < super::stats::UNLIMITED);
        }
        if let Some(dir) = self.v1_dir("pids") {
            out.max_threads = number(dir, "pids.max");
        }
        if let Some(dir) = self.v1_dir("hugetlb") {
            out.huge_pages = huge_pages(dir, "usage_in_bytes");
        }
        if let Some(dir) = self.v1_dir("blkio") {
            for (file, bytes) in [
                ("blkio.throttle.io_service_bytes_recursive", true),
                ("blkio.throttle.io_serviced_recursive", false),
            ] {
                for line in read(dir, file).lines() {
                    v1_io(&mut out.io, line, bytes);
                }
            }
        }
        out
    }
}

/// `8:0 Read 4096`.
fn v1_io(io: &mut BTreeMap<(u32, u32), DeviceIo>, line: &str, bytes: bool) {
    let words: Vec<&str> = line.split(' ').collect();
    let [device, operation, count] = words.as_slice() else { return };
    let (Some(device), Ok(count)) = (device_number(device), count.parse()) else { return };
    let entry = io.entry(device).or_default();
    match (*operation, bytes) {
        ("Read", true) => entry.read_bytes = count,
        ("Write", true) => entry.write_bytes = count,
        ("Read", false) => entry.reads = count,
        ("Write", false) => entry.writes = count,
        _ => {}
    }
}

/// From the files `hugetlb.2MB.<used>` of a group.
fn huge_pages(dir: &Path, used: &str) -> BTreeMap<String, (u64, Option<u64>)> {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = files.filter_map(|file| {
        let name = file.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(used)?.strip_suffix('.')?;
        // Those that are reserved are counted apart.
        let most = number(dir, &format!("hugetlb.{size}.max_usage_in_bytes"));
        (!size.contains('.')).then(|| Some((size.to_owned(), (number(dir, &name)?, most))))?
    });
    sizes.collect()
}

fn device_number(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn unified(dir: &Path) -> Details {
    let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let (cpu, memory, events) = (read("cpu.stat"), read("memory.stat"), read("memory.events"));
    let micros = |name: &str| field(&cpu, name).map(|micros| micros * 1000);
    let max = read("cpu.max");
    let mut max = max.split_whitespace();
    let (quota, period) = (max.next(), max.next());
    let mut io = BTreeMap::new();
    for line in read("io.stat").lines() {
        let mut words = line.split(' ');
        let Some(device) = words.next().and_then(device_number) else { continue };
        let mut entry = DeviceIo::default();
        for (name, count) in words.filter_map(|word| word.split_once('=')) {
            let count = count.parse().unwrap_or(0);
            match name {
                "rbytes" => entry.read_bytes = count,
                "wbytes" => entry.write_bytes = count,
                "rios" => entry.reads = count,
                "wios" => entry.writes = count,
                _ => {}
            }
        }
        io.insert(device, entry);
    }
    Details {
        cpu_user: micros("user_usec"),
        cpu_system: micros("system_usec"),
        cfs_periods: field(&cpu, "nr_periods"),
        cfs_throttled_periods: field(&cpu, "nr_throttled"),
        cfs_throttled: micros("throttled_usec"),
        cache: field(&memory, "file"),
        mapped_file: field(&memory, "file_mapped"),
        kernel_memory: field(&memory, "kernel"),
        max_memory: number(dir, "memory.peak"),
        memory_failures: field(&events, "max"),
        active_file: field(&memory, "active_file"),
        inactive_file: field(&memory, "inactive_file"),
        own_faults: field(&memory, "pgfault").zip(field(&memory, "pgmajfault")),
        oom_kills: field(&events, "oom_kill"),
        // As runtimes turn shares into weights, the other way round.
        cpu_shares: number(dir, "cpu.weight").map(|weight| 2 + (weight.max(1) - 1) * 262_142 / 9999),
        cpu_period: period.and_then(|text| text.parse().ok()),
        cpu_quota: quota.and_then(|text| text.parse().ok()),
        memory_reservation: number(dir, "memory.low").filter(|bytes| *bytes > 0),
        max_threads: number(dir, "pids.max"),
        huge_pages: huge_pages(dir, "current"),
        io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            (
                "cpu.stat",
                "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 3\nnr_throttled 2\nthrottled_usec 7\n",
            ),
            ("cpu.max", "50000 100000\n"),
            ("cpu.weight", "1\n"),
            (
                "memory.stat",
                "anon 1\nfile 2\nfile_mapped 3\nactive_file 4\ninactive_file 5\npgfault 6\npgmajfault 7\n",
            ),
            ("memory.events", "low 0\nmax 8\noom 1\noom_kill 2\n"),
            ("pids.max", "max\n"),
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.rsvd.current", "8388608\n"),
            ("io.stat", "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
        ] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let seen = unified(dir.path());
        assert_eq!((seen.cpu_user, seen.cfs_throttled, seen.cpu_shares), (Some(5000), Some(7000), Some(2)));
        assert_eq!((seen.cpu_quota, seen.cpu_period, seen.max_threads), (Some(50000), Some(100_000), None));
        assert_eq!((seen.own_faults, seen.oom_kills, seen.memory_failures), (Some((6, 7)), Some(2), Some(8)));
        assert_eq!(seen.io[&(254, 0)], DeviceIo { read_bytes: 1, write_bytes: 2, reads: 3, writes: 4 });
        assert_eq!(seen.huge_pages, BTreeMap::from([("2MB".into(), (4 << 20, None))]));
        let mut io = BTreeMap::new();
        for line in ["8:0 Read 10", "8:0 Write 20", "8:0 Sync 5", "Total 30"] {
            v1_io(&mut io, line, true);
        }
        v1_io(&mut io, "8:0 Read 1", false);
        assert_eq!(io[&(8, 0)], DeviceIo { read_bytes: 10, write_bytes: 20, reads: 1, writes: 0 });
    }
}
