//! `tiphys server`: control plane and node in one process.

use crate::cli::{Server as Flags, StoreEngine};
use crate::control_plane::{self, ControlPlane};
use crate::foreground;
use crate::manifests::Manifests;
use crate::node::{self, Identity, Membership};
use crate::places::Places;
use crate::renew::{self, Renew};
use crate::services;
use crate::settings::{Settings, service_ranges};
use anyhow::{Context as _, Result};
use apimachinery::validation::parse_cidr_sloppy;
use apiserver::terms;
use client::Informers;
use client::leader::{Elector, Term, Timing};
use futures::future::BoxFuture;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::Pin;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");
pub(crate) const KUBERNETES_VERSION: &str = "v1.36.2";
/// How long components may take to stop.
const STOP: Duration = Duration::from_secs(20);

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(flags: Flags) -> Result<()> {
    foreground::run(|shutdown| serve(flags, shutdown))
}

async fn serve(flags: Flags, shutdown: CancellationToken) -> Result<()> {
    let manifests = flags.manifests.as_deref().map(Manifests::of).transpose()?;
    let places = Places::of(&flags.node.data_dir, flags.node.root_dir.as_deref()).context("--data-dir")?;
    let identity = Identity::of(&flags.node)?;
    let data_dir = &flags.node.data_dir;
    pki::files::private_dir(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    let service_ip = service_ranges(&flags)?.first_address();
    let mut params = pki::bundle::Params::new(&identity.name, &[identity.ip], &[service_ip]);
    params.cluster_domain = flags.cluster.cluster_domain.clone();
    let bundle = pki::Bundle::ensure(&data_dir.join("pki"), &params).context("preparing certificates")?;
    let address = SocketAddr::new(flags.node.bind_address, flags.secure_port);
    let listener = listen(&flags, address).await.with_context(|| format!("listening on {address}"))?;

    let url = format!("https://{}:{}", identity.ip, flags.secure_port);
    let kubeconfig = bundle.kubeconfig(&url, &bundle.admin);
    let own = data_dir.join("admin.kubeconfig");
    let kubeconfigs: Vec<_> = std::iter::once(own).chain(flags.write_kubeconfig.clone()).collect();
    for path in &kubeconfigs {
        kubeconfig.save(path).with_context(|| format!("writing {}", path.display()))?;
    }

    // The API server outlives the components, so that they can say goodbye.
    let server_shutdown = CancellationToken::new();
    let settings = Settings::of_server(&flags, &bundle, identity.ip)?;
    let mut shows: Vec<renew::Place> = vec![(|bundle| &bundle.apiserver, settings.serving.clone())];
    shows.extend(
        settings
            .front_client
            .clone()
            .map(|slot| -> renew::Place { (|bundle| &bundle.front_proxy_client, slot) }),
    );
    shows.extend(
        settings
            .kubelet_client
            .clone()
            .map(|slot| -> renew::Place { (|bundle| &bundle.apiserver_kubelet_client, slot) }),
    );
    let plane = control_plane::start(settings, listener, &server_shutdown).await?;
    let plane = Arc::new(plane);
    tracing::info!(%url, "the API server is ready");
    let components = TaskTracker::new();
    if flags.snapshot.is_some() {
        shutdown.cancelled().await;
        server_shutdown.cancel();
        plane.stopped().await;
        return Ok(());
    }
    // Several servers may share an etcd; a directory has one server.
    let timing = flags.election.timing()?;
    let candidate = match flags.storage.store {
        StoreEngine::Embedded => None,
        StoreEngine::Etcd => Some((format!("{}_{}", identity.name, uuid::Uuid::new_v4()), timing)),
    };
    start_components(&plane, cluster(&flags, &bundle)?, candidate, &components, &shutdown);
    if let Some(manifests) = manifests {
        components.spawn(manifests.run(plane.master("tiphys-manifests"), shutdown.clone()));
    }
    if !flags.no_node {
        let client = plane.node(&identity.name);
        let calling = &bundle.kubelet_client;
        let membership = Membership {
            informers: Informers::new(&client, shutdown.clone()),
            client,
            serving: Some(pki::tls::Slot::of(&bundle.kubelet_server)?),
            client_authorities: vec![bundle.cluster_ca.certificate.clone()],
            bootstrap: Some((calling.certificate.to_pem(), calling.key.to_pem())),
            calling: None,
        };
        let told = (&flags.node, &flags.cluster);
        let shown = node::start(told, &places, &identity, membership, &components, &shutdown);
        shows.extend(shown.await?.map(|slot| -> renew::Place { (|bundle| &bundle.kubelet_server, slot) }));
        let clients = services::Clients {
            proxy: plane.component("system:kube-proxy", None),
            dns: plane.controller("coredns", None),
            network: plane.node(&identity.name),
        };
        let metrics = &plane.server.metrics;
        services::start(&flags.cluster, &places, &identity, clients, metrics, &components, &shutdown)?;
    }
    let renew = Renew { directory: data_dir.join("pki"), params, places: shows, url, kubeconfigs };
    components.spawn(renew.run(shutdown.clone()));
    components.close();
    shutdown.cancelled().await;
    tracing::info!("stopping");
    plane.leave().await;
    if tokio::time::timeout(STOP, components.wait()).await.is_err() {
        tracing::warn!("some components did not stop in time");
    }
    server_shutdown.cancel();
    plane.stopped().await;
    Ok(())
}

/// Listens on an address. A server that was killed while it started a process may leave its socket to that one for the
/// moment until it runs a program of its own.
async fn listen(flags: &Flags, address: SocketAddr) -> std::io::Result<TcpListener> {
    const AGAIN: Duration = Duration::from_millis(50);
    let patience = tokio::time::Instant::now() + Duration::from_secs(2);
    loop {
        match flags.connections.listen(address) {
            Err(error)
                if error.kind() == std::io::ErrorKind::AddrInUse
                    && tokio::time::Instant::now() < patience =>
            {
                tokio::time::sleep(AGAIN).await;
            }
            listening => return listening,
        }
    }
}

/// Starts scheduler and controllers: at once, or as `candidate` whenever it leads.
fn start_components(
    plane: &Arc<ControlPlane>,
    cluster: controllers::Cluster,
    candidate: Option<(String, Timing)>,
    components: &TaskTracker,
    shutdown: &CancellationToken,
) {
    let schedule = {
        let plane = plane.clone();
        move |pin: Option<Pin>, ended| {
            let running = plane.running.scheduler.begin();
            let client = plane.component("system:kube-scheduler", pin.as_ref());
            let (metrics, gates) = (plane.server.metrics.clone(), plane.gates.clone());
            async move {
                scheduler::run(client, &gates, &metrics, ended).await;
                drop(running);
            }
        }
    };
    let control = {
        let plane = plane.clone();
        let running = plane.running.controllers.clone();
        move |pin: Option<Pin>, ended: CancellationToken| {
            let manager = plane.component("system:kube-controller-manager", pin.as_ref());
            let informers = Informers::new(&manager, ended.clone());
            let metrics = (*plane.server.metrics).clone();
            let gates = plane.gates.clone();
            let plane = plane.clone();
            let client = move |name: &str| match name {
                controllers::MANAGER => manager.clone(),
                name => plane.controller(name, pin.as_ref()),
            };
            let running = running.begin();
            let run = controllers::run(client, informers, cluster.clone(), metrics, gates, ended);
            async move {
                run.await;
                drop(running);
            }
        }
    };
    let Some((identity, timing)) = candidate else {
        components.spawn(schedule(None, shutdown.clone()));
        components.spawn(control(None, shutdown.clone()));
        return;
    };
    let elector = |name: &str| Elector {
        client: plane.component(&format!("system:{name}"), None),
        namespace: "kube-system".into(),
        name: name.into(),
        identity: identity.clone(),
        timing,
    };
    let scheduler = leading(plane, &identity, schedule);
    components.spawn(elector("kube-scheduler").run(shutdown.clone(), scheduler));
    let controllers = leading(plane, &identity, control);
    components.spawn(elector("kube-controller-manager").run(shutdown.clone(), controllers));
}

/// Work as it is done by a leader: from when everything that earlier ones wrote has been seen, and with every write pinned
/// to the term.
fn leading<Work, Run>(
    plane: &Arc<ControlPlane>,
    identity: &str,
    work: Work,
) -> impl Fn(Term) -> BoxFuture<'static, ()> + Send + 'static
where
    Work: Fn(Option<Pin>, CancellationToken) -> Run + Send + Sync + 'static,
    Run: Future<Output = ()> + Send + 'static,
{
    let (plane, identity, work) = (plane.clone(), identity.to_owned(), Arc::new(work));
    move |term| {
        let (plane, identity, work) = (plane.clone(), identity.clone(), work.clone());
        Box::pin(async move {
            let meta = &term.lease.metadata;
            let (lease, version) = ((meta.namespace.as_str(), meta.name.as_str()), &meta.resource_version);
            let begun = tokio::select! {
                begun = terms::begin(&plane.server.registry, lease, version, &identity) => begun,
                () = term.ended.cancelled() => return,
            };
            match begun {
                Ok(pin) => work(Some(pin), term.ended).await,
                Err(status) => {
                    tracing::warn!(lease = meta.name, %status, "could not begin to lead");
                    term.ended.cancel();
                }
            }
        })
    }
}

/// What controllers know of the cluster. Each node gets the size upstream gives by default.
fn cluster(flags: &Flags, bundle: &pki::Bundle) -> Result<controllers::Cluster> {
    let cidr = parse_cidr_sloppy(&flags.cluster.cluster_cidr)
        .with_context(|| format!("--cluster-cidr {:?} is not a CIDR", flags.cluster.cluster_cidr))?;
    let network = cidr.network();
    Ok(controllers::Cluster {
        root_ca: bundle.cluster_ca.certificate.to_pem(),
        pod_cidrs: vec![(network, cidr.prefix)],
        node_mask: if network.is_ipv4() { 24 } else { 64 },
        domain: flags.cluster.cluster_domain.clone(),
        dns_port: flags.cluster.dns_port,
        signing: Some(signing(flags, bundle).context("reading the keys that controllers sign with")?),
    })
}

/// The keys that controllers sign with.
fn signing(flags: &Flags, bundle: &pki::Bundle) -> Result<controllers::Signing> {
    let ca = &bundle.cluster_ca;
    let authority = pki::Authority::from_pem(ca.certificate.to_pem().as_bytes(), ca.key.to_pem().as_bytes())?;
    // Tokens that our own key signs are not trusted when another signs them.
    let tokens = match flags.auth.service_account_signing_endpoint {
        Some(_) => None,
        None => {
            let key = pki::PrivateKey::from_pem(bundle.service_account.to_pem().as_bytes())?;
            Some(Arc::new(pki::jwt::Signer::new(key)))
        }
    };
    Ok(controllers::Signing {
        authority: Arc::new(authority),
        duration: flags.cluster_signing_duration,
        tokens,
    })
}

/// Prints the administrator's kubeconfig of the server whose data is in `data_dir`.
pub(crate) fn print_kubeconfig(data_dir: &Path) -> Result<()> {
    let path = data_dir.join("admin.kubeconfig");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    std::io::stdout().write_all(text.as_bytes()).context("printing it")
}
