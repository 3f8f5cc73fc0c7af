//! The flags of a node, be it a server's own or one that joined.

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Upstream's names; options of the static policy are not among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CpuManagerPolicy {
    None,
    Static,
}

fn cpus(text: &str) -> Result<kubelet::cpus::set::CpuSet, String> {
    text.parse()
}

/// What a node is told.
#[derive(Debug, Args)]
pub(crate) struct NodeFlags {
    /// State of the control plane and the embedded runtime.
    #[arg(long, default_value = "/var/lib/tiphys")]
    pub data_dir: PathBuf,
    /// The kubelet's directory [default: /var/lib/kubelet, beneath a data directory that is not the default].
    #[arg(long)]
    pub root_dir: Option<PathBuf>,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The node's name [default: the host's].
    #[arg(long)]
    pub node_name: Option<String>,
    /// The node's address [default: that of the default route].
    #[arg(long)]
    pub node_ip: Option<IpAddr>,
    #[command(flatten)]
    pub features: crate::features::FeatureFlags,
    /// A CRI runtime's socket, unix://…; the embedded runtime when absent.
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// A KubeletConfiguration (kubelet.config.k8s.io/v1beta1) for this node; what it says counts before flags.
    #[arg(long, value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// Path to a directory containing drop-in configuration files that override settings from defaults and the
    /// --kubelet-config file. Drop-in files must have a '.conf' suffix; all of the directory and its subdirectories are
    /// processed in lexical order.
    #[arg(long, value_name = "DIR")]
    pub kubelet_config_dir: Option<PathBuf>,
    /// The port of the localhost healthz endpoint of the node (set to 0 to disable).
    #[arg(long, default_value_t = 10248)]
    pub healthz_port: u16,
    /// The IP address for the node's healthz server to serve on (set to '0.0.0.0' or '::' for listening on all interfaces
    /// and IP address families).
    #[arg(long, default_value = "127.0.0.1")]
    pub healthz_bind_address: IpAddr,
    /// Set the maximum number of processes per pod. If -1, the node's own limit holds.
    #[arg(long, allow_negative_numbers = true)]
    pub pod_max_pids: Option<i64>,
    /// Path to a credential provider plugin config file (JSON/YAML/YML) or a directory of such files (merged in
    /// lexicographical order; non-recursive search).
    #[arg(long, value_name = "PATH")]
    pub image_credential_provider_config: Option<PathBuf>,
    /// The path to the directory where credential provider plugin binaries are located.
    #[arg(long, value_name = "DIR")]
    pub image_credential_provider_bin_dir: Option<PathBuf>,
    /// CPU Manager policy to use.
    #[arg(long, value_enum, default_value = "none")]
    pub cpu_manager_policy: CpuManagerPolicy,
    /// A set of key=value CPU Manager policy options to use, to fine tune their behaviour.
    #[arg(long, value_name = "KEY=VALUE")]
    pub cpu_manager_policy_options: Vec<String>,
    /// A comma-separated list of CPUs or CPU ranges that are reserved for system and kubernetes usage: no container gets
    /// them for itself.
    #[arg(long, default_value = "", value_parser = cpus)]
    pub reserved_cpus: kubelet::cpus::set::CpuSet,
    /// Eviction thresholds (e.g. memory.available<1Gi) that if met would trigger a pod eviction. Nearer to full than a
    /// kubelet's own defaults (10 % and 15 % of the disk), because here the disk is rarely the node's alone.
    #[arg(
        long,
        default_value = "memory.available<100Mi,nodefs.available<1Gi,nodefs.inodesFree<2%,imagefs.available<1Gi,imagefs.inodesFree<2%"
    )]
    pub eviction_hard: String,
    /// The percent of disk usage after which image garbage collection is always run.
    #[arg(long, default_value_t = 85)]
    pub image_gc_high_threshold: u64,
    /// The percent of disk usage before which image garbage collection is never run.
    #[arg(long, default_value_t = 80)]
    pub image_gc_low_threshold: u64,
}

/// What all nodes of a cluster agree on.
#[derive(Debug, Clone, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ClusterFlags {
    /// The range of pods' addresses: each node gets a part of it.
    #[arg(long, default_value = "10.244.0.0/16")]
    pub cluster_cidr: String,
    /// The address of the cluster's DNS, in the range of Services.
    #[arg(long, default_value = "10.96.0.10")]
    pub cluster_dns: IpAddr,
    /// What the names of Services end with.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where each node's DNS server listens, behind --cluster-dns.
    #[arg(long, default_value_t = 10053)]
    pub dns_port: u16,
}

impl ClusterFlags {
    /// As nodes are told that join.
    pub(crate) fn to_settings(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("cluster-cidr".into(), self.cluster_cidr.clone()),
            ("cluster-dns".into(), self.cluster_dns.to_string()),
            ("cluster-domain".into(), self.cluster_domain.clone()),
            ("dns-port".into(), self.dns_port.to_string()),
        ])
    }

    /// As they were told.
    pub(crate) fn of_settings(settings: &BTreeMap<String, String>) -> Result<Self> {
        let get =
            |name: &str| settings.get(name).with_context(|| format!("the cluster does not tell its {name}"));
        Ok(ClusterFlags {
            cluster_cidr: get("cluster-cidr")?.clone(),
            cluster_dns: get("cluster-dns")?.parse().context("cluster-dns")?,
            cluster_domain: get("cluster-domain")?.clone(),
            dns_port: get("dns-port")?.parse().context("dns-port")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_are_told_is_what_the_server_was() {
        let flags = ClusterFlags {
            cluster_cidr: "10.1.0.0/16".into(),
            cluster_dns: [10, 2, 0, 10].into(),
            cluster_domain: "c.example".into(),
            dns_port: 53,
        };
        let mut settings = flags.to_settings();
        assert_eq!(ClusterFlags::of_settings(&settings).unwrap(), flags);
        settings.remove("dns-port");
        let error = ClusterFlags::of_settings(&settings).unwrap_err();
        assert_eq!(error.to_string(), "the cluster does not tell its dns-port");
    }
}
