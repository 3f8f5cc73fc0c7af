//! What the runtime must be told, and the network it asks for pods' addresses.

use crate::images::Limits;
use crate::images::registry::Registries;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

/// Where things are and what they are called. Two runtimes on one machine differ in all of it.
#[derive(Clone)]
pub struct Config {
    /// Images, snapshots, containers' writable layers and records: survives a reboot.
    pub data_dir: PathBuf,
    /// Sockets and namespaces: need not survive a reboot. At most 50 bytes, for the sockets' sake.
    pub run_dir: PathBuf,
    /// The cgroup for shims and for pods that name no parent: `/tiphys`.
    pub cgroup_root: String,
    /// Localhost seccomp profiles that are not absolute lie under this.
    pub seccomp_dir: PathBuf,
    /// Where CDI specifications are; of two with one name the later counts.
    pub cdi_dirs: Vec<PathBuf>,
    /// Mirrors and credentials.
    pub registries: Registries,
    /// Caps on layers.
    pub limits: Limits,
    /// Gives sandboxes their addresses; without one they have a loopback interface only.
    pub network: Option<Arc<dyn Network>>,
}

impl Config {
    /// The defaults for a data directory such as `/var/lib/tiphys/runtime` and a run directory such as `/run/tiphys`.
    pub fn new(data_dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            run_dir: run_dir.into(),
            cgroup_root: "/tiphys".into(),
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            cdi_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            registries: Registries::default(),
            limits: Limits::default(),
            network: None,
        }
    }
}

/// A sandbox as its network sees it.
#[derive(Debug, Clone)]
pub struct NetworkSandbox {
    /// The sandbox.
    pub id: String,
    /// The pod.
    pub name: String,
    /// The pod's.
    pub namespace: String,
    /// The pod's.
    pub uid: String,
    /// Where the network namespace is pinned; for a teardown it may be gone.
    pub netns: PathBuf,
    /// As given by the kubelet; those without a host port are left out.
    pub port_mappings: Vec<cri::v1::PortMapping>,
    /// Of the sandbox (bandwidth, for instance).
    pub annotations: std::collections::HashMap<String, String>,
}

/// The pod network. Both calls may be repeated; a teardown of what never was succeeds.
#[async_trait::async_trait]
pub trait Network: Send + Sync + 'static {
    /// Gives the sandbox its network; the primary address first.
    async fn setup(&self, sandbox: &NetworkSandbox) -> Result<Vec<IpAddr>, String>;

    /// Takes it away.
    async fn teardown(&self, sandbox: &NetworkSandbox) -> Result<(), String>;

    /// Whether pods can be set up; if not, why: the message of the condition `NetworkReady`.
    async fn status(&self) -> Result<(), String>;

    /// The node's pod ranges, in CIDR notation, as a kubelet tells them. A network that has addresses of its own heeds
    /// no ranges.
    async fn set_ranges(&self, ranges: &[String]) -> Result<(), String> {
        let _ = ranges;
        Ok(())
    }
}

/// The pod network of crate `cni`: plugins if configured, else built in.
#[async_trait::async_trait]
impl Network for cni::PodNetwork {
    async fn setup(&self, sandbox: &NetworkSandbox) -> Result<Vec<IpAddr>, String> {
        let sandbox = to_cni(sandbox)?;
        cni::PodNetwork::setup(self, sandbox).await.map(|ips| ips.0).map_err(|error| chain(&error))
    }

    async fn teardown(&self, sandbox: &NetworkSandbox) -> Result<(), String> {
        let sandbox = to_cni(sandbox)?;
        cni::PodNetwork::teardown(self, &sandbox.id).await.map_err(|error| chain(&error))
    }

    async fn status(&self) -> Result<(), String> {
        cni::PodNetwork::status(self).await.map_err(|error| chain(&error))
    }

    async fn set_ranges(&self, ranges: &[String]) -> Result<(), String> {
        let ranges: Vec<cni::Cidr> = ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>()?;
        cni::PodNetwork::set_pod_cidrs(self, &ranges).await.map_err(|error| chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

fn to_cni(sandbox: &NetworkSandbox) -> Result<cni::Sandbox, String> {
    let mapping = |mapping: &cri::v1::PortMapping| {
        let port = |port: i32| u16::try_from(port).map_err(|_| format!("invalid port {port}"));
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            ip => Some(ip.parse().map_err(|_| format!("invalid host IP {ip:?}"))?),
        };
        let protocol = match mapping.protocol() {
            cri::v1::Protocol::Tcp => cni::Protocol::Tcp,
            cri::v1::Protocol::Udp => cni::Protocol::Udp,
            cri::v1::Protocol::Sctp => cni::Protocol::Sctp,
        };
        let (host_port, container_port) = (port(mapping.host_port)?, port(mapping.container_port)?);
        Ok::<_, String>(cni::PortMapping { protocol, host_port, container_port, host_ip })
    };
    Ok(cni::Sandbox {
        id: sandbox.id.clone(),
        namespace: sandbox.namespace.clone(),
        name: sandbox.name.clone(),
        uid: sandbox.uid.clone(),
        netns: sandbox.netns.clone(),
        port_mappings: sandbox.port_mappings.iter().map(mapping).collect::<Result<_, _>>()?,
    })
}
