//! `/metrics/cadvisor`: what every container and pod does and may do, under cAdvisor's names, read from the cgroups when
//! it is asked for. A pod's own rows have no container. Upstream: `cadvisor/metrics/prometheus.go`.

use super::Inner;
use super::answer::{Response, text, with_type};
use crate::labels::{CONTAINER_NAME, POD_UID};
use component::metrics::{CONTENT_TYPE, Encoder, Registry};
use cri::v1;
use http::StatusCode;
use linux::cgroup::{Cgroup, Cgroups, Details, DeviceIo, Stats};
use std::collections::BTreeMap;

/// The labels of every row, in this order.
const LABELS: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];

/// One cgroup, whose it is and what it says.
struct Row {
    labels: [String; 6],
    stats: Stats,
    details: Details,
    processes: Processes,
    /// Seconds since the epoch.
    started_at: Option<f64>,
    /// Bytes and inodes of a container's own files.
    disk: Option<(u64, u64)>,
    /// Of pods with a network of their own.
    network: Vec<v1::NetworkInterfaceUsage>,
}

/// What is counted from `/proc`.
#[derive(Default)]
struct Processes {
    count: u64,
    descriptors: u64,
    sockets: u64,
}

fn processes(group: &Cgroup) -> Processes {
    let mut out = Processes::default();
    for pid in group.processes().unwrap_or_default() {
        out.count += 1;
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            out.descriptors += 1;
            let target = std::fs::read_link(entry.path()).unwrap_or_default();
            out.sockets += u64::from(target.as_os_str().as_encoded_bytes().starts_with(b"socket:"));
        }
    }
    out
}

/// All rows, pods first.
async fn rows(inner: &Inner) -> Result<Vec<Row>, String> {
    let runtime = &inner.context.runtime;
    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let filter = v1::ContainerFilter { state: Some(running), ..Default::default() };
    let listed = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await;
    let listed = listed.map_err(|error| error.to_string())?.containers;
    // Runtimes may count neither files nor packets: then there are no rows of them.
    let layers = runtime.list_container_stats(v1::ListContainerStatsRequest::default()).await;
    let layers: BTreeMap<String, v1::FilesystemUsage> = layers
        .map(|answer| answer.stats)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| Some((one.attributes?.id, one.writable_layer?)))
        .collect();
    let sandboxes = runtime.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await;
    let mut networks: BTreeMap<String, v1::NetworkUsage> = sandboxes
        .map(|answer| answer.stats)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|one| Some((one.attributes?.labels.get(POD_UID)?.clone(), one.linux?.network?)))
        .collect();
    let mut pods = Vec::new();
    for mailbox in inner.pods.list() {
        let pod = mailbox.letter().pod;
        let parent = inner.context.cgroups.pod_parent(&pod);
        let network = networks.remove(&pod.metadata.uid).map_or_else(Vec::new, |network| {
            network.default_interface.into_iter().chain(network.interfaces).collect()
        });
        let started_at = mailbox.status().start_time.map(|at| at.unix() as f64);
        pods.push((pod, parent, network, started_at));
    }
    let walk = move || {
        let cgroups = Cgroups::detect().map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let mut add = |labels: [&str; 6], started_at, disk, network| {
            let Ok(group) = cgroups.group(labels[1]) else { return };
            if group.exists() {
                let (stats, details, processes) = (group.stats(), group.details(), processes(&group));
                let labels = labels.map(str::to_owned);
                out.push(Row { labels, stats, details, processes, started_at, disk, network });
            }
        };
        for (pod, parent, network, started_at) in pods {
            let meta = &pod.metadata;
            add(["", &parent, "", "", &meta.namespace, &meta.name], started_at, None, network);
            for container in &listed {
                if container.labels.get(POD_UID) != Some(&meta.uid) {
                    continue;
                }
                let name = container.labels.get(CONTAINER_NAME).map(String::as_str).unwrap_or_default();
                let image = container.image.as_ref();
                let image = image.map_or("", |image| match image.user_specified_image.as_str() {
                    "" => image.image.as_str(),
                    given => given,
                });
                let count = |of: Option<v1::UInt64Value>| of.map_or(0, |value| value.value);
                let disk = layers.get(&container.id).map(|l| (count(l.used_bytes), count(l.inodes_used)));
                let id = format!("{parent}/{}", container.id);
                let labels = [name, &id, image, &container.id, &meta.namespace, &meta.name];
                add(labels, Some(container.created_at as f64 / 1e9), disk, Vec::new());
            }
        }
        Ok(out)
    };
    tokio::task::spawn_blocking(walk).await.map_err(|error| error.to_string())?
}

type Read = fn(&Row) -> Option<f64>;

fn seconds(nanoseconds: Option<u64>) -> Option<f64> {
    nanoseconds.map(|nanoseconds| nanoseconds as f64 / 1e9)
}

fn number(value: Option<u64>) -> Option<f64> {
    value.map(|value| value as f64)
}

/// Microseconds of a pressure's line as seconds.
fn stalled(pressure: Option<[linux::cgroup::Pressure; 2]>, line: usize) -> Option<f64> {
    pressure.map(|lines| lines[line].total as f64 / 1e6)
}

/// The families with one value a row: name, what it is, kind, value.
const PLAIN: &[(&str, &str, &str, Read)] = &[
    ("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", "counter", |r| {
        seconds(r.details.cpu_user)
    }),
    (
        "container_cpu_system_seconds_total",
        "Cumulative system cpu time consumed in seconds.",
        "counter",
        |r| seconds(r.details.cpu_system),
    ),
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "counter", |r| {
        r.details.cpu_quota.and(number(r.details.cfs_periods))
    }),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", "counter", |r| {
        r.details.cpu_quota.and(number(r.details.cfs_throttled_periods))
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        "counter",
        |r| r.details.cpu_quota.and(seconds(r.details.cfs_throttled)),
    ),
    ("container_memory_cache", "Number of bytes of page cache memory.", "gauge", |r| number(r.details.cache)),
    ("container_memory_rss", "Size of RSS in bytes.", "gauge", |r| Some(r.stats.memory.as_ref()?.rss as f64)),
    ("container_memory_kernel_usage", "Size of kernel memory allocated in bytes.", "gauge", |r| {
        number(r.details.kernel_memory)
    }),
    ("container_memory_mapped_file", "Size of memory mapped files in bytes.", "gauge", |r| {
        number(r.details.mapped_file)
    }),
    ("container_memory_swap", "Container swap usage in bytes.", "gauge", |r| {
        number(r.stats.memory.as_ref()?.swap)
    }),
    ("container_memory_failcnt", "Number of memory usage hits limits", "counter", |r| {
        number(r.details.memory_failures)
    }),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        "gauge",
        |r| Some(r.stats.memory.as_ref()?.usage as f64),
    ),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "gauge", |r| {
        number(r.details.max_memory)
    }),
    ("container_memory_working_set_bytes", "Current working set in bytes.", "gauge", |r| {
        Some(r.stats.memory.as_ref()?.working_set as f64)
    }),
    ("container_memory_total_active_file_bytes", "Current total active file in bytes.", "gauge", |r| {
        number(r.details.active_file)
    }),
    ("container_memory_total_inactive_file_bytes", "Current total inactive file in bytes.", "gauge", |r| {
        number(r.details.inactive_file)
    }),
    ("container_processes", "Number of processes running inside the container.", "gauge", |r| {
        Some(r.processes.count as f64)
    }),
    ("container_file_descriptors", "Number of open file descriptors for the container.", "gauge", |r| {
        Some(r.processes.descriptors as f64)
    }),
    ("container_sockets", "Number of open sockets for the container.", "gauge", |r| {
        Some(r.processes.sockets as f64)
    }),
    (
        "container_threads_max",
        "Maximum number of threads allowed inside the container, infinity if value is zero",
        "gauge",
        |r| Some(r.details.max_threads.unwrap_or(0) as f64),
    ),
    ("container_threads", "Number of threads running inside the container", "gauge", |r| {
        number(r.stats.pids)
    }),
    (
        "container_oom_events_total",
        "Count of out of memory events observed for the container",
        "counter",
        |r| number(r.details.oom_kills),
    ),
    (
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds.",
        "gauge",
        |r| r.started_at,
    ),
    ("container_last_seen", "Last time a container was seen by the exporter", "gauge", |_| {
        Some(crate::clock::time().unix() as f64)
    }),
    ("container_spec_cpu_period", "CPU period of the container.", "gauge", |r| number(r.details.cpu_period)),
    ("container_spec_cpu_quota", "CPU quota of the container.", "gauge", |r| number(r.details.cpu_quota)),
    ("container_spec_cpu_shares", "CPU share of the container.", "gauge", |r| number(r.details.cpu_shares)),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge", |r| {
        Some(r.stats.memory.as_ref()?.limit.unwrap_or(0) as f64)
    }),
    ("container_spec_memory_swap_limit_bytes", "Memory swap limit for the container.", "gauge", |r| {
        Some(r.stats.memory.as_ref()?.swap_limit.unwrap_or(0) as f64)
    }),
    (
        "container_spec_memory_reservation_limit_bytes",
        "Memory reservation limit for the container.",
        "gauge",
        |r| Some(r.details.memory_reservation.unwrap_or(0) as f64),
    ),
    (
        "container_pressure_cpu_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to CPU congestion.",
        "counter",
        |r| stalled(r.stats.cpu.as_ref()?.pressure, 1),
    ),
    (
        "container_pressure_cpu_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to CPU congestion.",
        "counter",
        |r| stalled(r.stats.cpu.as_ref()?.pressure, 0),
    ),
    (
        "container_pressure_memory_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to memory congestion.",
        "counter",
        |r| stalled(r.stats.memory.as_ref()?.pressure, 1),
    ),
    (
        "container_pressure_memory_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to memory congestion.",
        "counter",
        |r| stalled(r.stats.memory.as_ref()?.pressure, 0),
    ),
    (
        "container_pressure_io_stalled_seconds_total",
        "Total time duration no tasks in the container could make progress due to IO congestion.",
        "counter",
        |r| stalled(r.stats.io_pressure, 1),
    ),
    (
        "container_pressure_io_waiting_seconds_total",
        "Total time duration tasks in the container have waited due to IO congestion.",
        "counter",
        |r| stalled(r.stats.io_pressure, 0),
    ),
];

fn names(more: &[&str]) -> Vec<String> {
    LABELS.iter().chain(more).map(|name| (*name).to_owned()).collect()
}

/// A row's labels, and more.
fn with(row: &Row, more: &[&str]) -> Vec<String> {
    row.labels.iter().cloned().chain(more.iter().map(|value| (*value).to_owned())).collect()
}

fn faults(encoder: &mut Encoder, rows: &[Row]) {
    let help = "Cumulative count of memory allocation failures.";
    let labels = names(&["failure_type", "scope"]);
    let mut family = encoder.family("container_memory_failures_total", help, "counter", &labels);
    for row in rows {
        let all = row.stats.memory.as_ref().map(|memory| (memory.page_faults, memory.major_page_faults));
        for (scope, counts) in [("container", row.details.own_faults), ("hierarchy", all)] {
            let Some((minor, major)) = counts else { continue };
            family.value(&with(row, &["pgfault", scope]), minor as f64);
            family.value(&with(row, &["pgmajfault", scope]), major as f64);
        }
    }
}

/// `/dev/vda` of its numbers.
fn device((major, minor): (u32, u32)) -> String {
    let text = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent")).unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

fn io(encoder: &mut Encoder, rows: &[Row]) {
    type Count = fn(&DeviceIo) -> u64;
    let labels = names(&["device"]);
    let families: [(&str, &str, Count); 4] = [
        ("container_fs_reads_bytes_total", "Cumulative count of bytes read", |io| io.read_bytes),
        ("container_fs_reads_total", "Cumulative count of reads completed", |io| io.reads),
        ("container_fs_writes_bytes_total", "Cumulative count of bytes written", |io| io.write_bytes),
        ("container_fs_writes_total", "Cumulative count of writes completed", |io| io.writes),
    ];
    for (name, help, count) in families {
        let mut family = encoder.family(name, help, "counter", &labels);
        for row in rows {
            for (number, io) in &row.details.io {
                family.value(&with(row, &[&device(*number)]), count(io) as f64);
            }
        }
    }
    let labels = names(&["device", "major", "minor", "operation"]);
    let mut family =
        encoder.family("container_blkio_device_usage_total", "Blkio Device bytes usage", "counter", &labels);
    for row in rows {
        for (number, io) in &row.details.io {
            let (name, major, minor) = (device(*number), number.0.to_string(), number.1.to_string());
            for (operation, bytes) in [("Read", io.read_bytes), ("Write", io.write_bytes)] {
                family.value(&with(row, &[&name, &major, &minor, operation]), bytes as f64);
            }
        }
    }
    let usage = "Number of bytes that are consumed by the container on this filesystem.";
    let mut family = encoder.family("container_fs_usage_bytes", usage, "gauge", &names(&["device"]));
    for row in rows {
        if let Some((bytes, _)) = row.disk {
            family.value(&with(row, &[""]), bytes as f64);
        }
    }
}

fn network(encoder: &mut Encoder, rows: &[Row]) {
    type Count = fn(&v1::NetworkInterfaceUsage) -> Option<v1::UInt64Value>;
    let labels = names(&["interface"]);
    let families: [(&str, &str, Count); 4] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |n| n.rx_bytes),
        (
            "container_network_receive_errors_total",
            "Cumulative count of errors encountered while receiving",
            |n| n.rx_errors,
        ),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |n| n.tx_bytes),
        (
            "container_network_transmit_errors_total",
            "Cumulative count of errors encountered while transmitting",
            |n| n.tx_errors,
        ),
    ];
    for (name, help, count) in families {
        let mut family = encoder.family(name, help, "counter", &labels);
        for row in rows {
            for interface in &row.network {
                if let Some(count) = count(interface) {
                    family.value(&with(row, &[&interface.name]), count.value as f64);
                }
            }
        }
    }
}

pub(super) async fn answer(inner: &Inner) -> Response {
    let rows = match rows(inner).await {
        Ok(rows) => rows,
        Err(error) => return text(StatusCode::INTERNAL_SERVER_ERROR, error),
    };
    let machine = inner.context.machine.clone();
    let registry = Registry::new();
    registry.collector(move |encoder| {
        for (name, help, kind, read) in PLAIN {
            let mut family = encoder.family(name, help, kind, &names(&[]));
            for row in &rows {
                if let Some(value) = read(row) {
                    family.value(&row.labels, value);
                }
            }
        }
        let help = "Cumulative cpu time consumed in seconds.";
        let mut family =
            encoder.family("container_cpu_usage_seconds_total", help, "counter", &names(&["cpu"]));
        for row in &rows {
            if let Some(cpu) = &row.stats.cpu {
                family.value(&with(row, &["total"]), cpu.usage as f64 / 1e9);
            }
        }
        faults(encoder, &rows);
        io(encoder, &rows);
        network(encoder, &rows);
        let labels = ["boot_id", "machine_id", "system_uuid"].map(str::to_owned);
        let of_machine = [&machine.boot_id, &machine.machine_id, &machine.system_uuid];
        for (name, help, value) in [
            ("machine_cpu_cores", "Number of logical CPU cores.", machine.cpus),
            ("machine_memory_bytes", "Amount of memory installed on the machine.", machine.memory),
            ("machine_swap_bytes", "Amount of swap memory available on the machine.", machine.swap),
        ] {
            encoder.family(name, help, "gauge", &labels).value(&of_machine, value as f64);
        }
        let help = "1 if there was an error while getting container metrics, 0 otherwise";
        let none: [&str; 0] = [];
        encoder.family("container_scrape_error", help, "gauge", &[]).value(&none, 0.0);
    });
    with_type(StatusCode::OK, CONTENT_TYPE, registry.render())
}
