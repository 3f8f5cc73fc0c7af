//! What an API server is told, whoever tells it: `tiphys server` from its own authority, `tiphys apiserver` from flags.

use crate::cli::{Server as Flags, StoreFlags};
use crate::token_keys::TokenKeys;
use anyhow::{Context as _, Result, bail};
use apiserver::aggregation::Redirects;
use apiserver::authn::configuration::{Anonymous, AuthenticationConfiguration};
use apiserver::authn::request_header::Headers;
use apiserver::authz::configuration::AuthorizationConfiguration;
use apiserver::bootstrap::Dns;
use apiserver::bootstrap::join::Join;
use apiserver::features::Features;
use apiserver::services::Ranges;
use pki::tls::{ClientRoots, Slot, Trust};
use pki::{Certificate, PrivateKey};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A saved state to be served in place of a store.
pub(crate) struct LookBack {
    pub file: PathBuf,
    pub revision: Option<u64>,
}

/// Who a request is from, beside certificates and service account tokens.
pub(crate) struct Authentication {
    pub configuration: AuthenticationConfiguration,
    /// The file that says so, and its text, if it is followed.
    pub file: Option<(PathBuf, String)>,
    /// The algorithms that issuers may sign with.
    pub algorithms: Vec<String>,
    pub anonymous: Anonymous,
    pub token_file: Option<PathBuf>,
    pub bootstrap_tokens: bool,
    pub webhook: Option<PathBuf>,
    pub webhook_version: String,
    pub webhook_ttl: Duration,
}

/// What they may do.
pub(crate) struct Authorization {
    pub configuration: AuthorizationConfiguration,
    /// Of ABAC.
    pub policy_file: Option<PathBuf>,
    /// The file that says so, and its text, if it is followed.
    pub file: Option<(PathBuf, String)>,
}

/// The tokens of service accounts.
pub(crate) struct ServiceAccounts {
    /// The first issues new ones.
    pub issuers: Vec<String>,
    /// Whom they are for, unless they say so.
    pub audiences: Vec<String>,
    pub lookup: bool,
    pub longest: Option<Duration>,
    pub extends: bool,
}

pub(crate) struct Settings {
    pub storage: StoreFlags,
    pub look_back: Option<LookBack>,
    /// The embedded engine's.
    pub directory: PathBuf,
    /// What Services take.
    pub ranges: Ranges,
    /// The Service in front of the nodes' DNS, where the nodes serve one.
    pub dns: Option<Dns>,
    /// What nodes that join must know.
    pub join: Option<Join>,
    pub advertise_address: IpAddr,
    pub secure_port: u16,
    pub serving: Arc<Slot>,
    /// Further ones, by the names that clients ask for.
    pub serving_by_name: Vec<(Vec<String>, Arc<Slot>)>,
    /// Files that certificates, keys and authorities are read anew from.
    pub reloads: Vec<crate::reload::Reload>,
    pub client_roots: Option<ClientRoots>,
    pub front_roots: Option<ClientRoots>,
    /// Who signs clients.
    pub client_authorities: Vec<Certificate>,
    /// Who signs proxies that assert users, and what those are called.
    pub front_authorities: Vec<Certificate>,
    pub front_names: Vec<String>,
    /// In which headers they say whom they assert.
    pub front_headers: Headers,
    /// What this server shows to those that it is a front for.
    pub front_client: Option<Arc<Slot>>,
    /// Whom to believe a kubelet, and what to show it.
    pub kubelet_trust: Trust,
    pub kubelet_client: Option<Arc<Slot>>,
    pub authentication: Authentication,
    pub authorization: Authorization,
    pub service_accounts: ServiceAccounts,
    /// Where the keys of service-account tokens are published, if not here.
    pub jwks_uri: Option<String>,
    /// The keys of service-account tokens.
    pub token_keys: TokenKeys,
    pub event_ttl: Duration,
    /// What is served.
    pub features: Features,
    /// What is recorded of requests.
    pub audit: crate::audit::AuditFlags,
    /// How many requests at a time, and how long they may take.
    pub limits: crate::limits::LimitFlags,
    /// Which admission plugins run, and how they are configured.
    pub admission: apiserver::admission::Options,
    /// By which of a node's addresses its kubelet is reached.
    pub kubelet_address_types: Vec<String>,
    /// What becomes of redirections of the servers behind this one.
    pub redirects: Redirects,
    /// Who keeps the endpoints of the `kubernetes` Service.
    pub endpoint_reconciler: EndpointReconciler,
    /// What is not to be measured.
    pub metrics: component::metrics::Limits,
    /// Whether what pods ask for is told of.
    pub pod_resources: bool,
    /// What a collector of traces is told.
    pub traces: Option<apiserver::spans::Configuration>,
    /// How clients are spoken to.
    pub connections: crate::connections::Connections,
}

/// Who keeps the endpoints of the `kubernetes` Service: all servers that live, or somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EndpointReconciler {
    Lease,
    None,
}

/// What runs in a cluster of our own beside upstream's default plugins, as in kubeadm's: nodes touch what is theirs.
const PLUGINS: &[&str] = &["NodeRestriction"];

/// What Services may take. The network of the nodes that run here has one family.
pub(crate) fn service_ranges(flags: &Flags) -> Result<Ranges> {
    let ranges = flags.services.ranges(&flags.service_cidr).context("--service-cidr")?;
    match ranges.families()[..] {
        ["IPv4"] => Ok(ranges),
        _ if flags.no_node => Ok(ranges),
        _ => bail!("--service-cidr {:?}: the network of the nodes has IPv4 alone", flags.service_cidr),
    }
}

impl Settings {
    /// Those of a server with an authority of its own.
    pub(crate) fn of_server(flags: &Flags, bundle: &pki::Bundle, node_ip: IpAddr) -> Result<Self> {
        let ca = &bundle.cluster_ca.certificate;
        Ok(Settings {
            storage: flags.storage.clone(),
            look_back: flags.snapshot.clone().map(|file| LookBack { file, revision: flags.at_revision }),
            directory: flags.node.data_dir.join("store"),
            ranges: service_ranges(flags)?,
            dns: Some(Dns { service_ip: flags.cluster.cluster_dns, port: flags.cluster.dns_port }),
            join: Some(Join {
                kubeconfig: bundle.cluster_info(&format!("https://{node_ip}:{}", flags.secure_port))?,
                settings: flags.cluster.to_settings(),
            }),
            advertise_address: node_ip,
            secure_port: flags.secure_port,
            serving: Slot::of(&bundle.apiserver)?,
            serving_by_name: Vec::new(),
            reloads: Vec::new(),
            client_roots: Some(ClientRoots::new(std::slice::from_ref(ca))?),
            front_roots: Some(ClientRoots::new(std::slice::from_ref(&bundle.front_proxy_ca.certificate))?),
            client_authorities: vec![ca.clone()],
            front_authorities: vec![bundle.front_proxy_ca.certificate.clone()],
            front_names: vec!["front-proxy-client".into()],
            front_headers: Headers::standard(),
            front_client: Some(Slot::of(&bundle.front_proxy_client)?),
            kubelet_trust: Trust::pem(ca.to_pem().as_bytes())?,
            kubelet_client: Some(Slot::of(&bundle.apiserver_kubelet_client)?),
            // As kubeadm sets it up: nodes join with such tokens.
            authentication: Authentication {
                bootstrap_tokens: true,
                ..flags.auth.authentication(&[ISSUER.into()])?
            },
            authorization: flags.auth.authorization()?,
            service_accounts: flags.auth.service_accounts(vec![ISSUER.into()])?,
            jwks_uri: None,
            token_keys: match &flags.auth.service_account_signing_endpoint {
                Some(endpoint) => TokenKeys::elsewhere(endpoint)?,
                None => TokenKeys::here(
                    PrivateKey::from_pem(bundle.service_account.to_pem().as_bytes())?,
                    vec![bundle.service_account.public().clone()],
                ),
            },
            event_ttl: Duration::from_secs(3600),
            features: flags.node.features.features()?,
            audit: flags.audit.clone(),
            limits: flags.limits.clone(),
            admission: flags.admission.options(PLUGINS)?,
            // Nodes of our own are known by their addresses, whatever names there are.
            kubelet_address_types: ["InternalIP", "Hostname", "ExternalIP"].map(str::to_owned).into(),
            redirects: Redirects::Rejected,
            endpoint_reconciler: EndpointReconciler::Lease,
            metrics: flags.metrics.limits()?,
            pod_resources: true,
            traces: flags.traces.configuration()?,
            connections: flags.connections.connections()?,
        })
    }
}

/// The authorities' certificates in one text.
pub(crate) fn bundle_pem(authorities: &[Certificate]) -> String {
    authorities.iter().map(Certificate::to_pem).collect()
}
