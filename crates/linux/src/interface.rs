//! What goes through network interfaces, under cAdvisor's names: one table for all who are asked for it, the kubelet's
//! `/metrics/cadvisor` and CRI's metrics. Upstream: `cadvisor/metrics/prometheus.go`.

/// What went through an interface in one direction; nothing of what nobody counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes: Option<u64>,
    pub packets: Option<u64>,
    pub errors: Option<u64>,
    pub dropped: Option<u64>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// A counter of interfaces: its name, its help, and where it is read.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    pub name: &'static str,
    pub help: &'static str,
    pub read: fn(&Interface) -> Option<u64>,
}

/// All of them. Their labels are the container's and `interface`.
pub const MEASURES: &[Measure] = &[
    Measure {
        name: "container_network_receive_bytes_total",
        help: "Cumulative count of bytes received",
        read: |interface| interface.received.bytes,
    },
    Measure {
        name: "container_network_receive_packets_total",
        help: "Cumulative count of packets received",
        read: |interface| interface.received.packets,
    },
    Measure {
        name: "container_network_receive_packets_dropped_total",
        help: "Cumulative count of packets dropped while receiving",
        read: |interface| interface.received.dropped,
    },
    Measure {
        name: "container_network_receive_errors_total",
        help: "Cumulative count of errors encountered while receiving",
        read: |interface| interface.received.errors,
    },
    Measure {
        name: "container_network_transmit_bytes_total",
        help: "Cumulative count of bytes transmitted",
        read: |interface| interface.sent.bytes,
    },
    Measure {
        name: "container_network_transmit_packets_total",
        help: "Cumulative count of packets transmitted",
        read: |interface| interface.sent.packets,
    },
    Measure {
        name: "container_network_transmit_packets_dropped_total",
        help: "Cumulative count of packets dropped while transmitting",
        read: |interface| interface.sent.dropped,
    },
    Measure {
        name: "container_network_transmit_errors_total",
        help: "Cumulative count of errors encountered while transmitting",
        read: |interface| interface.sent.errors,
    },
];

impl Interface {
    /// A line of `/proc/net/dev`; none of what is no interface.
    pub fn of_line(line: &str) -> Option<Self> {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let traffic = |from: usize| {
            let number = |at: usize| numbers.get(from + at).copied();
            Traffic { bytes: number(0), packets: number(1), errors: number(2), dropped: number(3) }
        };
        (numbers.len() >= 16).then(|| Interface {
            name: name.trim().to_owned(),
            received: traffic(0),
            sent: traffic(8),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_interfaces() {
        let line = "  eth0:    1296      14    1    2    0     0          0         0     1086      15    3    4    0     0       0          0";
        let eth0 = Interface::of_line(line).unwrap();
        assert_eq!(eth0.name, "eth0");
        let read: Vec<Option<u64>> = MEASURES.iter().map(|measure| (measure.read)(&eth0)).collect();
        assert_eq!(read, [1296, 14, 2, 1, 1086, 15, 4, 3].map(Some));
        assert_eq!(
            Interface::of_line(
                "Inter-|   Receive                                                |  Transmit"
            ),
            None
        );
    }
}
