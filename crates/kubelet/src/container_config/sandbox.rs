//! The configuration of a pod's sandbox. Upstream: `generatePodSandboxConfig`.

use super::{dns, hostname, resources, security};
use crate::context::Context;
use crate::labels;
use api::core::v1::Pod;
use cri::v1;
use rules::pod_requests::{Options, limits_as, requests_as};

/// Builds the configuration; warnings are told as events by the caller.
pub(crate) fn sandbox_config(
    context: &Context,
    pod: &Pod,
    attempt: u32,
) -> Result<(v1::PodSandboxConfig, Vec<String>), String> {
    let config = &context.config;
    let meta = &pod.metadata;
    let node_resolv_conf = std::fs::read_to_string(&config.resolv_conf).unwrap_or_default();
    let cluster =
        dns::ClusterDns { servers: config.cluster_dns.clone(), domain: config.cluster_domain.clone() };
    let (dns_config, warnings) = dns::config(pod, &cluster, &node_resolv_conf);
    let hostname = if pod.spec.host_network && pod.spec.hostname_override.is_none() {
        String::new()
    } else {
        hostname::kernel_hostname(pod, &config.cluster_domain)?
    };
    let mut port_mappings = Vec::new();
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        for port in &container.ports {
            port_mappings.push(v1::PortMapping {
                protocol: match port.protocol.as_str() {
                    "UDP" => v1::Protocol::Udp,
                    "SCTP" => v1::Protocol::Sctp,
                    _ => v1::Protocol::Tcp,
                } as i32,
                container_port: port.container_port,
                host_port: port.host_port,
                host_ip: port.host_ip.clone(),
            });
        }
    }
    let mut sysctls = std::collections::HashMap::new();
    for sysctl in pod.spec.security_context.iter().flat_map(|c| &c.sysctls) {
        sysctls.insert(sysctl.name.clone(), sysctl.value.clone());
    }
    let mut security = security::sandbox_context(pod, config.seccomp_default, &config.seccomp_root())?;
    let users = context.user_namespaces.of(config, pod)?;
    if users.is_some() && !context.runtime_info.user_namespaces {
        let why = "the container runtime does not support user namespaces on this node";
        return Err(format!("failed to create user namespace: {why}"));
    }
    if let Some(options) = security.namespace_options.as_mut() {
        options.userns_options = users;
    }
    let out = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            attempt,
        }),
        hostname,
        log_directory: config
            .pod_log_dir(&meta.namespace, &meta.name, &meta.uid)
            .to_string_lossy()
            .into_owned(),
        dns_config: Some(dns_config),
        port_mappings,
        labels: labels::sandbox_labels(pod),
        annotations: meta.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: context.cgroups.pod_parent(pod),
            security_context: Some(security),
            sysctls,
            overhead: Some(overhead(pod)),
            resources: Some(pod_resources(pod)),
        }),
        windows: None,
    };
    Ok((out, warnings))
}

fn overhead(pod: &Pod) -> v1::LinuxContainerResources {
    let get = |name: &str| pod.spec.overhead.get(name).map_or(0, |q| rules::pod_requests::amount(name, q));
    let cpu = get("cpu");
    v1::LinuxContainerResources {
        memory_limit_in_bytes: get("memory"),
        cpu_shares: if cpu > 0 { resources::shares(cpu) } else { 0 },
        cpu_quota: resources::quota(cpu),
        cpu_period: if cpu > 0 { resources::QUOTA_PERIOD } else { 0 },
        ..Default::default()
    }
}

/// The sum of the containers, for runtimes that size a sandbox (virtual machines).
fn pod_resources(pod: &Pod) -> v1::LinuxContainerResources {
    let options = Options { exclude_overhead: true, ..Default::default() };
    let requests = requests_as::<i64>(pod, options);
    let limits = limits_as::<i64>(pod, options);
    let get = |map: &std::collections::BTreeMap<String, i64>, name: &str| map.get(name).copied().unwrap_or(0);
    let all_limited = |name: &str| {
        let sidecars = pod.spec.init_containers.iter();
        pod.spec.containers.iter().chain(sidecars).all(|c| c.resources.limits.contains_key(name))
    };
    let mut out = v1::LinuxContainerResources {
        cpu_shares: resources::shares(get(&requests, "cpu")),
        cpu_period: resources::QUOTA_PERIOD,
        ..Default::default()
    };
    if all_limited("cpu") {
        out.cpu_quota = resources::quota(get(&limits, "cpu"));
    }
    if all_limited("memory") {
        out.memory_limit_in_bytes = get(&limits, "memory");
    }
    out
}
