//! `konnectivity_network_proxy_client_*`: what goes through tunnels, how many there are, and why dialling failed.

use super::generated::packet::Payload;
use crate::grpc;
use component::metrics::{CounterVec, GaugeVec, Opts, Registry, Stability};
use tonic::Code;

#[derive(Clone)]
pub(in crate::egress) struct Measures {
    packets: CounterVec,
    errors: CounterVec,
    failures: CounterVec,
    connections: GaugeVec,
}

/// A tunnel, counted by what becomes of it.
pub(super) struct Counted {
    connections: GaugeVec,
    status: &'static str,
}

impl Counted {
    pub(super) fn becomes(&mut self, status: &'static str) {
        self.connections.with(&[self.status]).dec();
        self.connections.with(&[status]).inc();
        self.status = status;
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.connections.with(&[self.status]).dec();
    }
}

impl Measures {
    pub(in crate::egress) fn new(registry: &Registry) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Unmarked };
        Measures {
            packets: registry.counter_vec(
                opts(
                    "konnectivity_network_proxy_client_stream_packets_total",
                    "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
                ),
                &["segment", "packet_type"],
            ),
            errors: registry.counter_vec(
                opts(
                    "konnectivity_network_proxy_client_stream_errors_total",
                    "Count of gRPC stream errors, by segment, grpc Code, packet type. (example: from_agent, Code.Unavailable, DIAL_RSP)",
                ),
                &["segment", "code", "packet_type"],
            ),
            failures: registry.counter_vec(
                opts(
                    "konnectivity_network_proxy_client_dial_failure_total",
                    "Number of dial failures observed, by reason (example: remote endpoint error)",
                ),
                &["reason"],
            ),
            connections: registry.gauge_vec(
                opts(
                    "konnectivity_network_proxy_client_client_connections",
                    "Number of open client connections, by status (Example: dialing)",
                ),
                &["status"],
            ),
        }
    }

    pub(super) fn tunnel(&self) -> Counted {
        let status = "created";
        self.connections.with(&[status]).inc();
        Counted { connections: self.connections.clone(), status }
    }

    pub(super) fn sent(&self, payload: &Payload) {
        self.packets.with(&["from_client", super::kind(payload).as_str_name()]).inc();
    }

    pub(super) fn received(&self, payload: &Payload) {
        self.packets.with(&["to_client", super::kind(payload).as_str_name()]).inc();
    }

    pub(super) fn broken(&self, code: Code) {
        self.errors.with(&["to_client", grpc::name(code), "Unknown"]).inc();
    }

    pub(super) fn failed(&self, reason: &str) {
        self.failures.with(&[reason]).inc();
    }
}
