//! The node of a server: runtime, pod network and kubelet, put together.

use crate::node_flags::{ClusterFlags, CpuManagerPolicy, NodeFlags};
use crate::places::Places;
use crate::reload::Reload;
use crate::{images, kernel_settings};
use anyhow::{Context as _, Result};
use client::{Client, Informers};
use cri::v1::ListPodSandboxRequest;
use cri::{ImageService, RuntimeService, Streams};
use kubelet::server::Serving;
use kubelet::{Kubelet, Parts};
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who and where the node is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub name: String,
    pub ip: IpAddr,
}

impl Identity {
    /// As the flags say, or as the machine is called and reached.
    pub(crate) fn of(flags: &NodeFlags) -> Result<Identity> {
        let ip = match flags.node_ip {
            Some(ip) => ip,
            None => default_address().context("finding this machine's address; give it with --node-ip")?,
        };
        let name = match &flags.node_name {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("reading the host name")?
                .trim()
                .to_lowercase(),
        };
        Ok(Identity { name, ip })
    }
}

/// The address from which this machine would reach others. Nothing is sent.
pub(crate) fn default_address() -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9")?;
    Ok(socket.local_addr()?.ip())
}

/// The runtime a node uses.
pub(crate) struct Engine {
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    /// The embedded one.
    pub embedded: Option<runtime::Runtime>,
}

/// Opens the embedded runtime and its network; what runs is adopted.
pub(crate) async fn open_embedded(
    places: &Places,
    cluster_cidr: Option<&str>,
    node_ip: Option<IpAddr>,
) -> Result<(runtime::Runtime, cni::PodNetwork)> {
    let mut network = cni::Config::new(places.network());
    network.conf_dir = places.cni_conf.clone();
    network.node_ips.extend(node_ip);
    if let Some(cidr) = cluster_cidr {
        let cidr = cidr
            .parse()
            .map_err(|error| anyhow::anyhow!("--cluster-cidr {cidr:?} is not a CIDR: {error}"))?;
        network.cluster_cidrs.push(cidr);
    }
    let network = cni::PodNetwork::open(network).await.context("opening the pod network")?;
    let registries = runtime::images::registry::RegistriesFile::load(&places.registries)?;
    let config = runtime::Config {
        registries: runtime::images::registry::Registries::new(registries),
        cgroup_root: places.shims_cgroup.clone(),
        seccomp_dir: places.root_dir.join("seccomp"),
        network: Some(Arc::new(network.clone())),
        ..runtime::Config::new(places.runtime(), &places.run_dir)
    };
    let runtime = runtime::Runtime::open(config).await.context("opening the container runtime")?;
    let sandboxes = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await?;
    let alive: Vec<String> = sandboxes.items.into_iter().map(|sandbox| sandbox.id).collect();
    network.collect_garbage(&alive).await.context("collecting addresses of pods that are gone")?;
    Ok((runtime, network))
}

/// The runtime at an endpoint, with the images at another where there is one; else the embedded one.
async fn engine(
    cluster: &ClusterFlags,
    places: &Places,
    node_ip: IpAddr,
    endpoint: Option<&String>,
    images: Option<&String>,
) -> Result<Engine> {
    let connect = |flag: &str, endpoint: &String| {
        let client = cri::GrpcClient::new(endpoint).with_context(|| format!("{flag} {endpoint:?}"));
        client.map(Arc::new)
    };
    if let Some(endpoint) = endpoint {
        let client = connect("--container-runtime-endpoint", endpoint)?;
        let images = images.map(|images| connect("imageServiceEndpoint", images)).transpose()?;
        return Ok(Engine { runtime: client.clone(), images: images.unwrap_or(client), embedded: None });
    }
    anyhow::ensure!(images.is_none(), "imageServiceEndpoint needs containerRuntimeEndpoint beside it");
    let (runtime, _) = open_embedded(places, Some(&cluster.cluster_cidr), Some(node_ip)).await?;
    let shared = Arc::new(runtime.clone());
    Ok(Engine { runtime: shared.clone(), images: shared, embedded: Some(runtime) })
}

/// How a node and the API server know each other.
pub(crate) struct Membership {
    /// Of `system:node:<name>`, as are the informers.
    pub client: Client,
    pub informers: Informers,
    /// What the node shows to callers; without it, it asks for a certificate.
    pub serving: Option<Arc<pki::tls::Slot>>,
    /// Who signs callers.
    pub client_authorities: Vec<pki::Certificate>,
    /// What the node calls with at first, if that is not kept yet.
    pub bootstrap: Option<kubelet::certificates::Pair>,
    /// Where its certificate to call with is taken from, and who is told of a new one.
    pub calling: Option<kubelet::certificates::Calling>,
}

/// Starts the node's tasks. Returns where the certificate is shown that it was given, if it is.
pub(crate) async fn start(
    (flags, cluster): (&NodeFlags, &ClusterFlags),
    places: &Places,
    identity: &Identity,
    membership: Membership,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Option<Arc<pki::tls::Slot>>> {
    kernel_settings::remember(places)?;
    let mut config = kubelet::Config::new(&identity.name, &identity.ip.to_string());
    config.root_dir = places.root_dir.clone();
    config.pod_logs_dir = places.pod_logs.clone();
    config.container_logs_dir = places.container_logs.clone();
    config.cgroup_root = places.pods_cgroup.clone();
    config.cluster_dns = vec![cluster.cluster_dns.to_string()];
    config.cluster_domain = cluster.cluster_domain.clone();
    config.address.set_ip(flags.bind_address);
    config.healthz = (flags.healthz_bind_address, flags.healthz_port).into();
    config.eviction_thresholds = kubelet::config::parse_hard(&flags.eviction_hard)
        .map_err(|error| anyhow::anyhow!("--eviction-hard: {error}"))?;
    config.features = flags.features.gates();
    config.cpu_manager_policy = match flags.cpu_manager_policy {
        CpuManagerPolicy::None => kubelet::cpus::Policy::None,
        CpuManagerPolicy::Static => kubelet::cpus::Policy::Static,
    };
    let options = flags.cpu_manager_policy_options.iter().map(|option| {
        let pair = option.split_once('=').with_context(|| format!("{option:?} is no key=value"))?;
        Ok((pair.0.to_owned(), pair.1.to_owned()))
    });
    let options = options.collect::<Result<_>>().context("--cpu-manager-policy-options")?;
    config
        .set_cpu_manager_options(&options)
        .map_err(|error| anyhow::anyhow!("--cpu-manager-policy-options: {error}"))?;
    config.reserved_cpus = flags.reserved_cpus.clone();
    (config.image_gc_high, config.image_gc_low) =
        (flags.image_gc_high_threshold, flags.image_gc_low_threshold);
    config.credential_providers = kubelet::config::CredentialProviders {
        config: flags.image_credential_provider_config.clone(),
        bin_dir: flags.image_credential_provider_bin_dir.clone(),
    };
    if let Some(limit) = flags.pod_max_pids {
        config.pod_pids_limit = Some(limit).filter(|limit| *limit > 0);
    }
    let (file, drop_ins) = (flags.kubelet_config.as_deref(), flags.kubelet_config_dir.as_deref());
    if file.is_some() || drop_ins.is_some() {
        let told = kubelet::configuration::load(file, drop_ins, &mut config);
        for warning in told.map_err(anyhow::Error::msg).context("--kubelet-config")? {
            tracing::warn!("--kubelet-config: {warning}");
        }
        flags.features.check(&config.features).context("--kubelet-config")?;
    }
    let runtime = flags.container_runtime_endpoint.as_ref().or(config.container_runtime_endpoint.as_ref());
    let engine =
        engine(cluster, places, identity.ip, runtime, config.image_service_endpoint.as_ref()).await?;
    let slot = match &config.tls_files {
        Some((certificate, key)) => {
            let named = || format!("reading {} and {}", certificate.display(), key.display());
            let slot = pki::tls::Slot::of_pem(
                &std::fs::read(certificate).with_context(named)?,
                &std::fs::read(key).with_context(named)?,
            );
            let slot = slot.with_context(named)?;
            // What was asked for counts before the files.
            if !config.server_tls_bootstrap {
                Reload::pair(certificate, key, slot.clone()).start(tasks, shutdown)?;
            }
            slot
        }
        None => match &membership.serving {
            Some(serving) if !config.server_tls_bootstrap => serving.clone(),
            _ => pki::tls::Slot::empty(),
        },
    };
    // A node that was given nothing to show asks for it.
    config.server_tls_bootstrap |= config.tls_files.is_none() && membership.serving.is_none();
    let shown = (config.tls_files.is_none() && !config.server_tls_bootstrap).then(|| slot.clone());
    let serving = Serving { identity: slot, client_authorities: membership.client_authorities };
    let streams = engine.embedded.as_ref().map(|runtime| Arc::new(runtime.clone()) as Arc<dyn Streams>);
    let parts = Parts {
        client: membership.client,
        informers: membership.informers,
        runtime: engine.runtime,
        images: engine.images.clone(),
        streams,
        serving: Some(serving),
        bootstrap: membership.bootstrap,
        calling: membership.calling,
    };
    let embedded = engine.embedded.map(|runtime| runtime.images());
    let door = images::server::bind(&places.images_socket(), engine.images, embedded)
        .with_context(|| format!("listening on {}", places.images_socket().display()))?;
    tasks.spawn(door.run(shutdown.clone()));
    let (kubelet, stop) = (Kubelet::new(config, parts), shutdown.clone());
    tasks.spawn(async move {
        if let Err(error) = kubelet.run(stop.clone()).await {
            tracing::error!(%error, "the kubelet ended");
            stop.cancel();
        }
    });
    Ok(shown)
}
