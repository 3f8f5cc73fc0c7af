//! Wires the API server: store, table, authenticators, authorizers, admission, documents.

use crate::auth;
use crate::cli::StoreEngine;
use crate::encryption_reload::Reload;
use crate::health::Steps;
use crate::running::Running;
use crate::settings::{EndpointReconciler, Settings, bundle_pem};
use anyhow::{Context as _, Result};
use apimachinery::clock::{Clock, SystemClock};
use apiserver::admission::{self, Chain};
use apiserver::aggregation::{Aggregation, controller::Controller as AggregationController};
use apiserver::authn::impersonation::Impersonation;
use apiserver::authn::token_keys::Keys;
use apiserver::authz::{AuthorizationMetrics, Authorizer, node::NodeAuthorizer, rbac::Rbac};
use apiserver::bootstrap;
use apiserver::cache::StoreSource;
use apiserver::custom::controller::Definitions;
use apiserver::documents::{Documents, VersionInfo};
use apiserver::egress::Purpose;
use apiserver::flowcontrol::controller::Controller as FlowController;
use apiserver::gate::{Gate, Limit};
use apiserver::inprocess::InProcess;
use apiserver::observed::Observed;
use apiserver::openid::OpenId;
use apiserver::outbound::Outbound;
use apiserver::registry::Registry;
use apiserver::resources::Resources;
use apiserver::rooms::{Issuer, KubeletTls, LogCounts, Rooms, StreamCounts, Translation};
use apiserver::server::Server;
use apiserver::services::{Repair, ServiceStock};
use apiserver::spans::Tracer;
use apiserver::user::{ALL_AUTHENTICATED, MASTERS, User};
use client::measures::Requests;
use client::source::Source;
use client::{Client, Informers};
use component::gates::FeatureGates;
use pki::tls::{ALPN_HTTP1, ByName, Trust};
use std::sync::Arc;
use store::{Pin, Store};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A running API server.
pub(crate) struct ControlPlane {
    pub server: Arc<Server>,
    pub store: Arc<dyn Store>,
    /// Which of the other parts run here.
    pub running: Running,
    /// The features that are on, of all parts.
    pub gates: Arc<component::gates::FeatureGates>,
    /// What says goodbye once the server is told to stop.
    background: TaskTracker,
    /// What answers clients, until their last request is finished.
    serving: TaskTracker,
    /// How long the server goes on, unready, before it stops.
    delay: std::time::Duration,
}

/// How long that may take.
const GOODBYE: std::time::Duration = std::time::Duration::from_secs(2);

fn version_info() -> VersionInfo {
    VersionInfo {
        major: "1".into(),
        minor: "36".into(),
        git_version: crate::server::KUBERNETES_VERSION.into(),
        git_commit: String::new(),
        git_tree_state: "clean".into(),
        build_date: "1970-01-01T00:00:00Z".into(),
        go_version: "none".into(),
        compiler: "rustc".into(),
        platform: "linux/amd64".into(),
    }
}

/// Where clients outside find this server, host and port.
fn external_address(settings: &Settings) -> String {
    match &settings.connections.external_hostname {
        Some(name) if name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) => {
            name.clone()
        }
        Some(name) => format!("{name}:{}", settings.secure_port),
        None => format!("{}:{}", settings.advertise_address, settings.secure_port),
    }
}

/// What tells this server from others, to those who watch it: upstream's, of the name of its machine.
fn identity() -> Result<String> {
    let host = rustix::system::uname();
    let host = host.nodename().to_bytes();
    let mut told = Vec::new();
    for part in [host, b"kube-apiserver"] {
        told.extend(u16::try_from(part.len())?.to_be_bytes());
        told.extend(part);
    }
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &told);
    let hash: [u8; 16] = hash.as_ref()[..16].try_into()?;
    let number = u128::from_be_bytes(hash);
    // 26 digits of five bits, the last of them filled up with two zeros.
    let digit = |at: u32| {
        let five = if at == 25 { (number & 7) << 2 } else { number >> (123 - 5 * at) & 31 };
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[five as usize])
    };
    Ok(std::iter::once("apiserver-".to_owned()).chain((0..26).map(|at| digit(at).to_string())).collect())
}

fn documents(resources: &Arc<Resources>, settings: &Settings, address: &str, keys: Keys) -> Documents {
    let served = resources.clone();
    let issuer = settings.service_accounts.issuers.first().map_or("", String::as_str);
    let openid = OpenId::new(issuer, settings.jwks_uri.as_deref(), address, keys);
    let openid = openid.inspect_err(|error| {
        tracing::error!(
            "Could not construct pre-rendered responses for ServiceAccountIssuerDiscovery endpoints. Endpoints will not be enabled. Error: {error}"
        );
    });
    Documents::new(
        api::table(),
        &move |row| served.get(&row.group, &row.version, row.split().0).is_some(),
        settings.features.encodings(),
        address,
        version_info(),
        openid.ok(),
    )
    .with_pod_resources(settings.pod_resources)
}

/// Builds the server, brings up its caches, writes what every cluster has, and begins to serve.
pub(crate) async fn start(
    settings: Settings,
    listener: TcpListener,
    shutdown: &CancellationToken,
) -> Result<ControlPlane> {
    let features = settings.features.clone();
    let resources = Arc::new(Resources::serving(api::table(), &|row| features.serves(row)));
    let encodings = features.encodings();
    let gates = Arc::new(features.gates.clone());
    let looking_back = settings.look_back.is_some();
    let metrics = Arc::new(component::metrics::Registry::limited(settings.metrics.clone()));
    let issuer = settings.token_keys.issuer(&settings.service_accounts, &metrics).await?;
    let egress = crate::store::egress(&settings.storage, &metrics)?;
    let opened = match &settings.look_back {
        Some(look) => crate::store::look_back(look, &settings.storage, &resources).await?,
        None => {
            crate::store::open(&settings.storage, &settings.directory, &resources, encodings, &egress).await?
        }
    };
    let (store, encryption) = (opened.store, opened.encryption);
    component::process::register(&metrics);
    features.gates.register(&metrics);
    version_info().register(&metrics);
    apiserver::storage::metrics::register(&metrics, &store, &resources);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());

    let source: Arc<dyn Source> =
        Arc::new(StoreSource { store: store.clone(), resources: resources.clone() });
    let informers = Informers::from_source(source.clone(), shutdown.clone());
    let rbac = Rbac::new(&informers);
    let node = Arc::new(NodeAuthorizer::new(&source, &gates, &metrics, shutdown));
    let chain = auth::authorization(&settings.authorization, &rbac, &node, &clock, &metrics, &egress)?;
    let authorizers: Vec<Arc<dyn Authorizer>> = vec![chain.clone()];
    let outbound = Arc::new(Outbound::new(store.clone(), &resources, None).through(egress.clone()));
    let asked = gates.clone();
    let deps = admission::Deps {
        gates: Arc::new(move |gate| asked.enabled(gate)),
        store: store.clone(),
        resources: resources.clone(),
        rbac: rbac.clone(),
        authorizers: authorizers.clone(),
        outbound: outbound.clone(),
        metrics: metrics.clone(),
    };
    let plugins = admission::plugins(&deps, &settings.admission).map_err(anyhow::Error::msg)?;
    let stock = ServiceStock::new(store.clone(), &resources, &settings.ranges, &metrics);
    let stock = stock.map_err(anyhow::Error::msg)?;
    let registry = Arc::new(Registry {
        store: store.clone(),
        resources: resources.clone(),
        admission: Chain::measured(plugins, &metrics),
        stocks: vec![stock.clone()],
        encryption: encryption.clone(),
        clock: clock.clone(),
        event_ttl: settings.event_ttl,
        gates: Arc::new(move |gate| features.field(gate)),
    });
    let id = format!("{}:{}", settings.advertise_address, settings.secure_port);
    let who = auth::authentication(&settings, issuer.keys.clone(), &registry, &metrics, &id, &egress)?;
    // Other servers know this one by the front proxy's certificate.
    let front = settings.front_client.clone();
    let to_others = Outbound::new(store.clone(), &resources, front).through(egress.clone());
    let aggregation = Arc::new(Aggregation::new(Arc::new(to_others), settings.redirects));
    let (steps, leaving) = (Steps::default(), CancellationToken::new());
    let health =
        crate::health::checks(&store, &metrics, &steps, &leaving, settings.limits.livez_grace_period);
    let address = external_address(&settings);
    let documents = documents(&resources, &settings, &address, issuer.keys.clone());
    let running = Running::default();
    let audit = settings.audit.audit(&metrics, &clock, egress.way(Purpose::ControlPlane))?;
    let background = TaskTracker::new();
    let tracer = match &settings.traces {
        Some(configuration) => {
            let (tracer, sending) =
                Tracer::new(configuration, &identity()?, egress.clone(), shutdown.clone())
                    .map_err(anyhow::Error::msg)?;
            background.spawn(sending);
            Some(tracer)
        }
        None => None,
    };
    let kubelet_tls = |trust: &Trust| {
        let client = settings.kubelet_client.clone();
        pki::tls::client_config(trust, client, ALPN_HTTP1).map(Arc::new)
    };
    let rooms = Rooms {
        bytes_per_second: settings.connections.bytes_per_second,
        kubelet_address_types: settings.kubelet_address_types,
        egress,
        components: running.components(&store),
        aggregation: Some(aggregation.clone()),
        issuer: Some(Arc::new(Issuer {
            name: settings.service_accounts.issuers.first().cloned().unwrap_or_default(),
            audiences: settings.service_accounts.audiences.clone(),
            signer: issuer.signer,
            longest: issuer.longest,
            extends: issuer.extends,
        })),
        tokens: Some(who.tokens.clone()),
        authorization: Some(Arc::new(AuthorizationMetrics::new(&metrics))),
        impersonation: Arc::new(Impersonation::new(&metrics)),
        metrics: Some(Arc::default()),
        kubelet_tls: Some(KubeletTls {
            checked: kubelet_tls(&settings.kubelet_trust)?,
            unchecked: kubelet_tls(&Trust::Anyone)?,
        }),
        log_counts: LogCounts::default(),
        stream_counts: StreamCounts::default(),
        translation: Translation::of(&gates),
        insecure_tls: Some(Arc::new(pki::tls::client_config(&Trust::Anyone, None, ALPN_HTTP1)?)),
    };
    let limit = settings.limits.limit(&metrics, &clock)?;
    let timing = settings.limits.timing()?;
    let flow = match &limit {
        Limit::Fair(flow) => Some(flow.clone()),
        _ => None,
    };
    let server = Arc::new(Server {
        registry: registry.clone(),
        authenticators: vec![who.chain],
        authorizers,
        rooms,
        gate: Gate {
            audit,
            tracer,
            limit,
            timing,
            encodings,
            browsers: settings.connections.browsers,
            leaving,
            observed: Some(Arc::new(Observed::new(&metrics))),
        },
        events: Default::default(),
        documents,
        health,
        metrics: metrics.clone(),
        shutdown: shutdown.clone(),
    });
    // With etcd this server may be one of several.
    let reconciles = settings.endpoint_reconciler == EndpointReconciler::Lease;
    let shared = settings.storage.store == StoreEngine::Etcd && !looking_back && reconciles;
    let node_ip = settings.advertise_address;
    let addresses = match shared {
        false if !reconciles => Vec::new(),
        true => bootstrap::living::announce(&*store, node_ip)
            .await
            .map_err(|status| anyhow::anyhow!("telling the other servers of this one: {status}"))?,
        false => vec![node_ip],
    };
    let config = bootstrap::Config {
        ranges: settings.ranges.clone(),
        advertise_address: node_ip,
        addresses,
        secure_port: settings.secure_port,
        client_ca: bundle_pem(&settings.client_authorities),
        request_header_ca: bundle_pem(&settings.front_authorities),
        request_header_names: settings.front_names.clone(),
        request_headers: settings.front_headers.clone(),
        dns: settings.dns,
        gates: FeatureGates::clone(&gates),
        join: settings.join,
    };
    let written = match looking_back {
        true => Default::default(),
        false => bootstrap::run(&registry, &config)
            .await
            .map_err(|status| anyhow::anyhow!("writing what every cluster has: {status}"))?,
    };
    steps.bootstrapped.done();
    Definitions::start(server.clone(), outbound)
        .await
        .map_err(|status| anyhow::anyhow!("reading the custom resource definitions: {status}"))?;
    steps.defined.done();
    if let Keys::External(keys) = issuer.keys {
        background.spawn(keys.follow(shutdown.clone()));
    }
    if shared {
        background.spawn(bootstrap::living::run(registry.clone(), config, shutdown.clone()));
    }
    rbac.synced(&written).await;
    node.synced().await;
    steps.informed.done();
    // Of a saved state nothing is kept up: it is shown as it was.
    if !looking_back {
        AggregationController::start(server.clone(), aggregation)
            .await
            .map_err(|status| anyhow::anyhow!("registering the APIServices: {status}"))?;
        let own = client(&server, "system:apiserver", &[MASTERS], None).named("kube-apiserver");
        if let Some(flow) = flow {
            let (registry, own) = (registry.clone(), own.clone());
            let controller = FlowController::start(flow, registry, &informers, own, &written).await;
            background.spawn(controller.run(shutdown.clone()));
        }
        let mut repair = Repair::new(stock, &own, clock, &settings.ranges, &metrics);
        repair.once().await;
        background.spawn(repair.run(shutdown.clone()));
    }
    if let Some(encryption) =
        encryption.filter(|_| settings.storage.encryption_provider_config_automatic_reload)
        && let Some(path) = &settings.storage.encryption_provider_config
    {
        let reload = Reload::new(path, encryption, store.clone(), &server.metrics, &id)
            .with_context(|| format!("watching {}", path.display()))?;
        background.spawn(reload.run(shutdown.clone()));
    }
    auth::follow(
        (&settings.authentication, who.issuers),
        (&settings.authorization, chain),
        &server.metrics,
        &id,
        &background,
        shutdown,
    )?;
    // What there is nothing to do for is done.
    steps.done();

    for reload in settings.reloads {
        reload.start(&background, shutdown)?;
    }
    let certificates = Arc::new(ByName::new(settings.serving, settings.serving_by_name));
    let (protocol, handshake) = (settings.connections.protocol, &settings.connections.handshake);
    let authorities = &settings.client_authorities;
    let tls = pki::tls::server_config_agreeing(certificates, authorities, protocol.alpn(), handshake)?;
    let serving = TaskTracker::new();
    serving.spawn(apiserver::serve::serve(server.clone(), listener, Arc::new(tls), protocol));
    serving.close();
    let delay = settings.limits.shutdown_delay_duration;
    Ok(ControlPlane { server, store, running, background, serving, delay, gates })
}

impl ControlPlane {
    /// Tells load balancers that this server is about to stop, and gives them the time to turn from it.
    pub(crate) async fn leave(&self) {
        self.server.gate.leaving.cancel();
        if !self.delay.is_zero() {
            tracing::info!(delay = ?self.delay, "serving on before the shutdown");
            tokio::time::sleep(self.delay).await;
        }
    }

    /// Waits for the last requests and the goodbyes of a server that was told to stop, and closes its store.
    pub(crate) async fn stopped(&self) {
        self.serving.wait().await;
        self.background.close();
        if tokio::time::timeout(GOODBYE, self.background.wait()).await.is_err() {
            tracing::debug!("the other servers will miss this one by themselves");
        }
        if let Some(audit) = &self.server.gate.audit {
            audit.shutdown().await;
        }
        self.store.close().await;
    }

    /// A component of the control plane, `system:kube-scheduler`; as leader, with the pin of its term.
    pub(crate) fn component(&self, name: &str, pin: Option<&Pin>) -> Client {
        client(&self.server, name, &[], pin)
    }

    /// A part of the server that may do everything, as who gave it its orders may: `system:NAME`.
    pub(crate) fn master(&self, name: &str) -> Client {
        client(&self.server, &format!("system:{name}"), &[MASTERS], None)
    }

    /// A controller, as its own service account of `kube-system`.
    pub(crate) fn controller(&self, name: &str, pin: Option<&Pin>) -> Client {
        const GROUPS: &[&str] = &["system:serviceaccounts", "system:serviceaccounts:kube-system"];
        client(&self.server, &format!("system:serviceaccount:kube-system:{name}"), GROUPS, pin)
    }

    /// A node's kubelet.
    pub(crate) fn node(&self, name: &str) -> Client {
        client(&self.server, &format!("system:node:{name}"), &["system:nodes"], None)
    }
}

/// An in-process client of a user, who has the rights that the cluster gives that user and no more.
fn client(server: &Arc<Server>, name: &str, groups: &[&str], pin: Option<&Pin>) -> Client {
    let mut user = User::new(name, groups);
    user.groups.push(ALL_AUTHENTICATED.into());
    user.pin = pin.cloned();
    let agent = name.rsplit(':').next().unwrap_or(name).to_owned();
    let transport = Arc::new(InProcess::new(server.clone(), user));
    // They go no way that has a host; in upstream's server it is the loopback's.
    Client::new(Requests::new(&server.metrics).counting(transport, "localhost"), &agent)
}
