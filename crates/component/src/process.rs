//! `process_*` metrics of this process, read from /proc when somebody asks, under the names Go's client gives them.

use crate::metrics::{Encoder, Registry};

/// Adds them to a registry.
pub fn register(registry: &Registry) {
    registry.collector(|encoder| {
        collect(encoder);
    });
}

/// Nothing is written for what cannot be read.
fn collect(encoder: &mut Encoder) -> Option<()> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The command's name is in parentheses and may hold anything; fields count from 3 after it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |n: usize| fields.get(n - 3).and_then(|f| f.parse::<f64>().ok());
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    let mut write = |name: &str, help: &str, kind: &str, value: Option<f64>| {
        if let Some(value) = value {
            encoder.family(name, help, kind, &[]).value::<&str>(&[], value);
        }
    };
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks);
    write("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter", cpu);
    let memory = field(24).map(|pages| pages * page);
    write("process_resident_memory_bytes", "Resident memory size in bytes.", "gauge", memory);
    write("process_virtual_memory_bytes", "Virtual memory size in bytes.", "gauge", field(23));
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
    // Go's client prints the largest 64-bit number when there is no limit.
    let limit = limit.unwrap_or(u64::MAX) as f64;
    write(
        "process_virtual_memory_max_bytes",
        "Maximum amount of virtual memory available in bytes.",
        "gauge",
        Some(limit),
    );
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as f64);
    write("process_open_fds", "Number of open file descriptors.", "gauge", open);
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    write("process_max_fds", "Maximum number of open file descriptors.", "gauge", Some(files as f64));
    let boot = std::fs::read_to_string("/proc/stat")
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse::<f64>().ok());
    let start = field(22).zip(boot).map(|(since_boot, boot)| boot + since_boot / ticks);
    let help = "Start time of the process since unix epoch in seconds.";
    write("process_start_time_seconds", help, "gauge", start);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there() {
        let registry = Registry::new();
        register(&registry);
        let text = registry.render();
        assert_eq!(text.lines().filter(|l| l.starts_with("process_")).count(), 7, "{text}");
    }
}
