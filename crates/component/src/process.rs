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
    let netstat = std::fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let received = octets(&netstat, "InOctets");
    let help = "Number of bytes received by the process over the network.";
    write("process_network_receive_bytes_total", help, "counter", received);
    let help = "Number of bytes sent by the process over the network.";
    write("process_network_transmit_bytes_total", help, "counter", octets(&netstat, "OutOctets"));
    Some(())
}

/// A count of IP, which is that of the process' network namespace, as Go's client has it. Each protocol has a line of
/// names, and one of values.
fn octets(netstat: &str, name: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find_map(|(known, value)| (known == name).then_some(value))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_there() {
        let registry = Registry::new();
        register(&registry);
        let text = registry.render();
        assert_eq!(text.lines().filter(|l| l.starts_with("process_")).count(), 9, "{text}");
    }

    #[test]
    fn counts_stand_below_their_names() {
        let netstat =
            "TcpExt: TW InOctets\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 3 4 5\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets")), (Some(4.0), Some(5.0)));
        assert_eq!(octets("", "InOctets"), None);
    }
}
