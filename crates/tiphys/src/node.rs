//! The node of a server: runtime, pod network and kubelet, put together.

use crate::cli::Server as Flags;
use crate::images;
use crate::places::Places;
use anyhow::{Context as _, Result};
use api::core::v1::Node;
use client::{Client, Informers, Projection};
use cri::v1::ListPodSandboxRequest;
use cri::{ImageService, RuntimeService, Streams};
use kubelet::server::Serving;
use kubelet::{Kubelet, Parts};
use std::net::IpAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Who and where the node is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub name: String,
    pub ip: IpAddr,
}

/// The runtime a node uses.
pub(crate) struct Engine {
    pub runtime: Arc<dyn RuntimeService>,
    pub images: Arc<dyn ImageService>,
    /// The embedded one, and the network it gives pods.
    pub embedded: Option<(runtime::Runtime, cni::PodNetwork)>,
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
    let config = runtime::Config {
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

async fn engine(flags: &Flags, places: &Places, node_ip: IpAddr) -> Result<Engine> {
    if let Some(endpoint) = &flags.container_runtime_endpoint {
        let client = cri::GrpcClient::new(endpoint)
            .with_context(|| format!("--container-runtime-endpoint {endpoint:?}"))?;
        let client = Arc::new(client);
        return Ok(Engine { runtime: client.clone(), images: client, embedded: None });
    }
    let (runtime, network) = open_embedded(places, Some(&flags.cluster_cidr), Some(node_ip)).await?;
    let shared = Arc::new(runtime.clone());
    Ok(Engine { runtime: shared.clone(), images: shared, embedded: Some((runtime, network)) })
}

/// Starts the node's tasks. `client` and `informers` are those of `system:node:<name>`.
pub(crate) async fn start(
    flags: &Flags,
    places: &Places,
    identity: &Identity,
    bundle: &pki::Bundle,
    (client, informers): (Client, Informers),
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<()> {
    let engine = engine(flags, places, identity.ip).await?;
    let mut config = kubelet::Config::new(&identity.name, &identity.ip.to_string());
    config.root_dir = places.root_dir.clone();
    config.pod_logs_dir = places.pod_logs.clone();
    config.container_logs_dir = places.container_logs.clone();
    config.cgroup_root = places.pods_cgroup.clone();
    config.cluster_dns = vec![flags.cluster_dns.to_string()];
    config.cluster_domain = flags.cluster_domain.clone();
    config.address.set_ip(flags.bind_address);
    let serving = Serving {
        identity: pki::tls::Slot::of(&bundle.kubelet_server)?,
        client_authorities: vec![bundle.cluster_ca.certificate.clone()],
    };
    let streams = engine.embedded.as_ref().map(|(runtime, _)| Arc::new(runtime.clone()) as Arc<dyn Streams>);
    let parts = Parts {
        client,
        informers: informers.clone(),
        runtime: engine.runtime,
        images: engine.images.clone(),
        streams,
        serving: Some(serving),
    };
    if let Some((_, network)) = &engine.embedded {
        tasks.spawn(follow_ranges(informers, identity.name.clone(), network.clone(), shutdown.clone()));
    }
    let embedded = engine.embedded.map(|(runtime, _)| runtime.images());
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
    Ok(())
}

/// The pod ranges of a node.
struct Ranges(Vec<String>);

impl Projection for Ranges {
    type Kind = Node;
    fn project(node: &Node) -> Self {
        Ranges(node.spec.pod_cidrs.clone())
    }
}

/// Tells the pod network the node's ranges as the Node object has them.
async fn follow_ranges(
    informers: Informers,
    name: String,
    network: cni::PodNetwork,
    shutdown: CancellationToken,
) {
    let query = client::source::Query::of::<Node>().fields(format!("metadata.name={name}"));
    let node = informers.query::<Ranges>(query);
    let (sender, mut ranges) = tokio::sync::watch::channel(Vec::new());
    node.subscribe(move |change| {
        let new = &change.object().projection.0;
        sender.send_if_modified(|known| {
            let changed = known != new && !new.is_empty();
            if changed {
                known.clone_from(new);
            }
            changed
        });
    });
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = ranges.changed() => if changed.is_err() { return },
        }
        let texts = ranges.borrow_and_update().clone();
        let cidrs: Result<Vec<cni::Cidr>, String> = texts.iter().map(|text| text.parse()).collect();
        let done = match cidrs {
            Ok(cidrs) => network.set_pod_cidrs(&cidrs).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => tracing::info!(ranges = ?texts, "the node has its pod ranges"),
            Err(error) => tracing::error!(%error, ranges = ?texts, "the node's pod ranges cannot be used"),
        }
    }
}
