//! The flags of what Services take.

use anyhow::{Error, Result};
use apiserver::services::{PortRange, Ranges};

/// Upstream's flags of both API server commands.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ServiceFlags {
    /// A port range to reserve for services with NodePort visibility, inclusive at both ends of the range; it must not
    /// overlap with the ephemeral port range on nodes.
    #[arg(long, default_value_t = PortRange::default())]
    service_node_port_range: PortRange,
    /// If non-zero, the kubernetes service will be of type NodePort, using this as the value of the port.
    #[arg(long, default_value_t = 0)]
    kubernetes_service_node_port: u16,
}

impl ServiceFlags {
    /// `cidrs` are the ranges of addresses, separated by a comma.
    pub(crate) fn ranges(&self, cidrs: &str) -> Result<Ranges> {
        let port = Some(self.kubernetes_service_node_port).filter(|port| *port > 0);
        Ranges::new(cidrs, self.service_node_port_range, port).map_err(Error::msg)
    }
}
