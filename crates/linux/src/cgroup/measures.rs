//! What a group uses and may use, under cAdvisor's names: one table for all who are asked for it, the kubelet's
//! `/metrics/cadvisor` and CRI's metrics. Upstream: `cadvisor/metrics/prometheus.go`.

use super::{Cgroup, Details, DeviceIo, Pressure, Stats};
use std::fs;
use std::path::Path;

/// What is counted from `/proc`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    pub count: u64,
    pub descriptors: u64,
    pub sockets: u64,
    /// How many files the first of them may open.
    pub soft_limit_of_files: Option<u64>,
}

/// The file system that a container's own files are on. Sizes are bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Disk {
    pub device: String,
    /// What the container takes of it.
    pub used: u64,
    pub size: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

impl Disk {
    /// The one that `path` is on, of which `used` bytes are the container's.
    pub fn at(path: &Path, used: u64) -> Option<Self> {
        let stat = rustix::fs::statvfs(path).ok()?;
        let number = rustix::fs::stat(path).ok()?.st_dev;
        Some(Disk {
            device: device((rustix::fs::major(number), rustix::fs::minor(number))),
            used,
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            inodes: stat.f_files,
            inodes_free: stat.f_ffree,
        })
    }
}

/// All that is read of a group at a moment.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    pub stats: Stats,
    pub details: Details,
    pub processes: Processes,
    /// Seconds since the epoch.
    pub started_at: Option<f64>,
    /// When it was read, in seconds since the epoch.
    pub seen_at: f64,
    pub disk: Option<Disk>,
}

impl Reading {
    /// Reads a group that began at `started_at`.
    pub fn of(group: &Cgroup, started_at: Option<f64>, disk: Option<Disk>) -> Self {
        let seen_at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Reading {
            stats: group.stats(),
            details: group.details(),
            processes: processes(group),
            started_at,
            seen_at: seen_at.map_or(0.0, |since| since.as_secs() as f64),
            disk,
        }
    }
}

fn processes(group: &Cgroup) -> Processes {
    let mut out = Processes::default();
    for pid in group.processes().unwrap_or_default() {
        if out.count == 0 {
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
            out.soft_limit_of_files = soft_limit_of_files(&limits);
        }
        out.count += 1;
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            out.descriptors += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            out.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    out
}

/// Of `/proc/[pid]/limits`; `unlimited` is no number.
fn soft_limit_of_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `/dev/vda` of its numbers.
fn device((major, minor): (u32, u32)) -> String {
    let text = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// What becomes of a metric with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
}

/// Is told values, each with those of the metric's own labels.
pub type Tell<'a> = &'a mut dyn FnMut(&[&str], f64);

/// A metric of groups. Times are seconds, sizes bytes.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub help: &'static str,
    pub kind: MetricKind,
    /// What its values are told apart by, beside whose they are.
    pub labels: &'static [&'static str],
    /// Tells all values there are.
    pub read: fn(&Reading, Tell<'_>),
}

const fn counter(name: &'static str, help: &'static str, read: fn(&Reading, Tell<'_>)) -> Measure {
    Measure { name, help, kind: MetricKind::Counter, labels: &[], read }
}

const fn gauge(name: &'static str, help: &'static str, read: fn(&Reading, Tell<'_>)) -> Measure {
    Measure { name, help, kind: MetricKind::Gauge, labels: &[], read }
}

impl Measure {
    const fn by(self, labels: &'static [&'static str]) -> Self {
        Measure { labels, ..self }
    }
}

fn one(tell: Tell<'_>, value: Option<f64>) {
    if let Some(value) = value {
        tell(&[], value);
    }
}

fn seconds(tell: Tell<'_>, nanoseconds: Option<u64>) {
    one(tell, nanoseconds.map(|nanoseconds| nanoseconds as f64 / 1e9));
}

fn number(tell: Tell<'_>, value: Option<u64>) {
    one(tell, value.map(|value| value as f64));
}

/// Microseconds of a pressure's line as seconds.
fn stalled(tell: Tell<'_>, pressure: Option<[Pressure; 2]>, line: usize) {
    one(tell, pressure.map(|lines| lines[line].total as f64 / 1e6));
}

fn of_memory(reading: &Reading, tell: Tell<'_>, get: fn(&super::Memory) -> Option<u64>) {
    number(tell, reading.stats.memory.as_ref().and_then(get));
}

fn of_disk(reading: &Reading, tell: Tell<'_>, get: fn(&Disk) -> u64) {
    if let Some(disk) = &reading.disk {
        tell(&[&disk.device], get(disk) as f64);
    }
}

fn of_devices(reading: &Reading, tell: Tell<'_>, get: fn(&DeviceIo) -> u64) {
    for (number, io) in &reading.details.io {
        tell(&[&device(*number)], get(io) as f64);
    }
}

const SOME: usize = 0;
const FULL: usize = 1;

/// All of them.
pub const MEASURES: &[Measure] = &[
    counter("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", |r, tell| {
        if let Some(cpu) = &r.stats.cpu {
            tell(&["total"], cpu.usage as f64 / 1e9);
        }
    })
    .by(&["cpu"]),
    counter(
        "container_cpu_user_seconds_total",
        "Cumulative user cpu time consumed in seconds.",
        |r, tell| seconds(tell, r.details.cpu_user),
    ),
    counter(
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        |r, tell| seconds(tell, r.details.cpu_system),
    ),
    counter(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals.",
        |r, tell| number(tell, r.details.cpu_quota.and(r.details.cfs_periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals.",
        |r, tell| number(tell, r.details.cpu_quota.and(r.details.cfs_throttled_periods)),
    ),
    counter(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        |r, tell| seconds(tell, r.details.cpu_quota.and(r.details.cfs_throttled)),
    ),
    gauge("container_memory_cache", "Number of bytes of page cache memory.", |r, tell| {
        number(tell, r.details.cache);
    }),
    gauge("container_memory_rss", "Size of RSS in bytes.", |r, tell| of_memory(r, tell, |m| Some(m.rss))),
    gauge("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", |r, tell| {
        number(tell, r.details.kernel_memory);
    }),
    gauge("container_memory_mapped_file", "Size of memory mapped files in bytes.", |r, tell| {
        number(tell, r.details.mapped_file);
    }),
    gauge("container_memory_swap", "Container swap usage in bytes.", |r, tell| {
        of_memory(r, tell, |m| m.swap);
    }),
    counter("container_memory_failcnt", "Number of memory usage hits limits", |r, tell| {
        number(tell, r.details.memory_failures);
    }),
    gauge(
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        |r, tell| of_memory(r, tell, |m| Some(m.usage)),
    ),
    gauge("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", |r, tell| {
        number(tell, r.details.max_memory);
    }),
    gauge("container_memory_working_set_bytes", "Current working set in bytes.", |r, tell| {
        of_memory(r, tell, |m| Some(m.working_set));
    }),
    gauge("container_memory_total_active_file_bytes", "Current total active file in bytes.", |r, tell| {
        number(tell, r.details.active_file)
    }),
    gauge(
        "container_memory_total_inactive_file_bytes",
        "Current total inactive file in bytes.",
        |r, tell| number(tell, r.details.inactive_file),
    ),
    counter(
        "container_memory_failures_total",
        "Cumulative count of memory allocation failures.",
        |r, tell| {
            let all = r.stats.memory.as_ref().map(|memory| (memory.page_faults, memory.major_page_faults));
            for (scope, counts) in [("container", r.details.own_faults), ("hierarchy", all)] {
                let Some((minor, major)) = counts else { continue };
                tell(&["pgfault", scope], minor as f64);
                tell(&["pgmajfault", scope], major as f64);
            }
        },
    )
    .by(&["failure_type", "scope"]),
    gauge("container_hugetlb_usage_bytes", "Current hugepage usage in bytes", |r, tell| {
        r.details.huge_pages.iter().for_each(|(size, (used, _))| tell(&[size], *used as f64));
    })
    .by(&["pagesize"]),
    gauge("container_hugetlb_max_usage_bytes", "Maximum hugepage usage recorded in bytes", |r, tell| {
        for (size, (_, most)) in &r.details.huge_pages {
            most.iter().for_each(|most| tell(&[size], *most as f64));
        }
    })
    .by(&["pagesize"]),
    gauge("container_processes", "Number of processes running inside the container.", |r, tell| {
        tell(&[], r.processes.count as f64);
    }),
    gauge("container_file_descriptors", "Number of open file descriptors for the container.", |r, tell| {
        tell(&[], r.processes.descriptors as f64);
    }),
    gauge("container_sockets", "Number of open sockets for the container.", |r, tell| {
        tell(&[], r.processes.sockets as f64);
    }),
    gauge(
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        |r, tell| tell(&[], r.details.max_threads.unwrap_or(0) as f64),
    ),
    gauge("container_threads", "Number of threads running inside the container", |r, tell| {
        number(tell, r.stats.pids);
    }),
    gauge(
        "container_ulimits_soft",
        "Soft ulimit values for the container root process. Unlimited if -1, except priority and nice",
        |r, tell| {
            if r.processes.count > 0 {
                let most = r.processes.soft_limit_of_files.map_or(-1.0, |most| most as f64);
                tell(&["max_open_files"], most);
            }
        },
    )
    .by(&["ulimit"]),
    counter(
        "container_oom_events_total",
        "Count of out of memory events observed for the container",
        |r, tell| number(tell, r.details.oom_kills),
    ),
    gauge(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        |r, tell| one(tell, r.started_at),
    ),
    gauge("container_last_seen", "Last time a container was seen by the exporter", |r, tell| {
        tell(&[], r.seen_at);
    }),
    gauge("container_spec_cpu_period", "CPU period of the container.", |r, tell| {
        number(tell, r.details.cpu_period);
    }),
    gauge("container_spec_cpu_quota", "CPU quota of the container.", |r, tell| {
        number(tell, r.details.cpu_quota);
    }),
    gauge("container_spec_cpu_shares", "CPU share of the container.", |r, tell| {
        number(tell, r.details.cpu_shares);
    }),
    gauge("container_spec_memory_limit_bytes", "Memory limit for the container.", |r, tell| {
        of_memory(r, tell, |m| Some(m.limit.unwrap_or(0)));
    }),
    gauge("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", |r, tell| {
        of_memory(r, tell, |m| Some(m.swap_limit.unwrap_or(0)));
    }),
    gauge(
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        |r, tell| tell(&[], r.details.memory_reservation.unwrap_or(0) as f64),
    ),
    counter(
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        |r, tell| stalled(tell, r.stats.cpu.as_ref().and_then(|cpu| cpu.pressure), FULL),
    ),
    counter(
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        |r, tell| stalled(tell, r.stats.cpu.as_ref().and_then(|cpu| cpu.pressure), SOME),
    ),
    counter(
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        |r, tell| stalled(tell, r.stats.memory.as_ref().and_then(|memory| memory.pressure), FULL),
    ),
    counter(
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        |r, tell| stalled(tell, r.stats.memory.as_ref().and_then(|memory| memory.pressure), SOME),
    ),
    counter(
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        |r, tell| stalled(tell, r.stats.io_pressure, FULL),
    ),
    counter(
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        |r, tell| stalled(tell, r.stats.io_pressure, SOME),
    ),
    gauge(
        "container_fs_usage_bytes",
        "Number of bytes that are consumed by the container on this filesystem.",
        |r, tell| of_disk(r, tell, |disk| disk.used),
    )
    .by(&["device"]),
    gauge(
        "container_fs_limit_bytes",
        "Number of bytes that can be consumed by the container on this filesystem.",
        |r, tell| of_disk(r, tell, |disk| disk.size),
    )
    .by(&["device"]),
    gauge("container_fs_inodes_total", "Number of Inodes", |r, tell| of_disk(r, tell, |disk| disk.inodes))
        .by(&["device"]),
    gauge("container_fs_inodes_free", "Number of available Inodes", |r, tell| {
        of_disk(r, tell, |disk| disk.inodes_free);
    })
    .by(&["device"]),
    counter("container_fs_reads_bytes_total", "Cumulative count of bytes read", |r, tell| {
        of_devices(r, tell, |io| io.read_bytes);
    })
    .by(&["device"]),
    counter("container_fs_reads_total", "Cumulative count of reads completed", |r, tell| {
        of_devices(r, tell, |io| io.reads);
    })
    .by(&["device"]),
    counter("container_fs_writes_bytes_total", "Cumulative count of bytes written", |r, tell| {
        of_devices(r, tell, |io| io.write_bytes);
    })
    .by(&["device"]),
    counter("container_fs_writes_total", "Cumulative count of writes completed", |r, tell| {
        of_devices(r, tell, |io| io.writes);
    })
    .by(&["device"]),
    counter("container_blkio_device_usage_total", "Blkio Device bytes usage", |r, tell| {
        for (number, io) in &r.details.io {
            let (name, major, minor) = (device(*number), number.0.to_string(), number.1.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
                tell(&[&name, &major, &minor, operation], bytes as f64);
            }
        }
    })
    .by(&["device", "major", "minor", "operation"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Cpu, Memory};

    /// What a reading comes to, as lines of `name[labels] value`.
    fn told(reading: &Reading) -> Vec<String> {
        let mut lines = Vec::new();
        for measure in MEASURES {
            (measure.read)(reading, &mut |labels, value| {
                assert_eq!(labels.len(), measure.labels.len(), "{}", measure.name);
                lines.push(format!("{}{labels:?} {value}", measure.name));
            });
        }
        lines
    }

    #[test]
    fn what_is_read_is_told_and_nothing_else() {
        let empty = told(&Reading::default());
        assert!(!empty.iter().any(|line| line.contains("cpu_cfs") || line.contains("pressure")), "{empty:?}");
        let mut reading = Reading {
            stats: Stats {
                cpu: Some(Cpu { usage: 1_500_000_000, pressure: Some([Pressure::default(); 2]) }),
                memory: Some(Memory { rss: 7, page_faults: 5, major_page_faults: 1, ..Memory::default() }),
                ..Stats::default()
            },
            details: Details { cfs_throttled: Some(2_000_000_000), ..Details::default() },
            ..Reading::default()
        };
        reading.details.huge_pages.insert("2MB".into(), (2 << 20, Some(4 << 20)));
        reading.disk = Some(Disk { device: "/dev/vda".into(), used: 3, ..Disk::default() });
        let lines = told(&reading);
        for line in [
            "container_cpu_usage_seconds_total[\"total\"] 1.5",
            "container_memory_rss[] 7",
            "container_memory_failures_total[\"pgmajfault\", \"hierarchy\"] 1",
            "container_hugetlb_max_usage_bytes[\"2MB\"] 4194304",
            "container_fs_usage_bytes[\"/dev/vda\"] 3",
            "container_pressure_cpu_waiting_seconds_total[] 0",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line} is not in {lines:#?}");
        }
        // Without a quota there is nothing to be throttled by.
        assert!(!lines.iter().any(|line| line.contains("throttled")));
        reading.details.cpu_quota = Some(20_000);
        assert!(told(&reading).contains(&"container_cpu_cfs_throttled_seconds_total[] 2".to_owned()));
    }

    #[test]
    fn limits_of_files() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(soft_limit_of_files(limits), Some(1024));
        assert_eq!(soft_limit_of_files("Max open files            unlimited  unlimited files"), None);
    }
}
