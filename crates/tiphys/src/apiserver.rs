//! `tiphys apiserver`: the API server alone, with upstream's flags, in place of kube-apiserver over the same etcd.

use crate::cli::{StoreEngine, StoreFlags};
use crate::control_plane;
use crate::foreground;
use crate::node::default_address;
use crate::reload::{NamedPair, Reload};
use crate::settings::{EndpointReconciler, Settings};
use crate::token_keys::TokenKeys;
use anyhow::{Context as _, Result, bail};
use apiserver::aggregation::Redirects;
use apiserver::authn::request_header::Headers;
use apiserver::services::Ranges;
use clap::Args;
use pki::files::{self, Access, Durability};
use pki::tls::{ClientRoots, Slot, Trust};
use pki::{Authority, Certificate, PrivateKey, Profile, PublicKey, San, Subject};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

#[derive(Debug, Args)]
pub(crate) struct ApiServer {
    #[command(flatten)]
    pub storage: StoreFlags,
    /// The embedded store's directory, with --store embedded.
    #[arg(long, default_value = "/var/lib/tiphys")]
    pub data_dir: PathBuf,
    /// The IP address on which to listen for the --secure-port port.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// The port on which to serve HTTPS with authentication and authorization.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// The IP address on which to advertise the apiserver to members of the cluster.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// File containing the default x509 Certificate for HTTPS. If it and --tls-private-key-file are not provided, a self-signed
    /// certificate and key are generated for the public address and saved to --cert-dir.
    #[arg(long, requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// File containing the default x509 private key matching --tls-cert-file.
    #[arg(long, requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,
    /// The directory where the TLS certs are located. If --tls-cert-file and --tls-private-key-file are provided, this flag
    /// will be ignored.
    #[arg(long, default_value = "/var/run/kubernetes")]
    pub cert_dir: PathBuf,
    /// A pair of x509 certificate and private key file paths, optionally suffixed with a list of domain patterns which are
    /// fully qualified domain names, possibly with prefixed wildcard segments: `cert,key:pattern,pattern`; may be given several times.
    #[arg(long, value_parser = NamedPair::parse)]
    pub tls_sni_cert_key: Vec<NamedPair>,
    /// Requests presenting a client certificate signed by one of these authorities are authenticated.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// Root certificate bundle that signs proxies which assert users.
    #[arg(long)]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of those proxies; any if there are none.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_allowed_names: Vec<String>,
    /// List of request headers to inspect for usernames. X-Remote-User is common.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_username_headers: Vec<String>,
    /// List of request headers to inspect for UIDs. X-Remote-Uid is suggested.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_uid_headers: Vec<String>,
    /// List of request headers to inspect for groups. X-Remote-Group is suggested.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_group_headers: Vec<String>,
    /// List of request header prefixes to inspect. X-Remote-Extra- is suggested.
    #[arg(long, value_delimiter = ',')]
    pub requestheader_extra_headers_prefix: Vec<String>,
    /// Client certificate used to prove the identity of the aggregator to the servers behind it.
    #[arg(long)]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Private key for that certificate.
    #[arg(long)]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Path to a cert file for the certificate authority of kubelets.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Path to a client cert file for TLS to kubelets.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Path to a client key file for TLS to kubelets.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// List of the preferred NodeAddressTypes to use for kubelet connections.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Aggregator reject forwarding redirect response back to client.
    #[arg(
        long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        action = clap::ArgAction::Set
    )]
    pub aggregator_reject_forwarding_redirect: bool,
    /// Use an endpoint reconciler: with lease, the endpoints of the kubernetes Service are the servers that live; with none,
    /// somebody else keeps them.
    #[arg(long, value_enum, default_value = "lease")]
    pub endpoint_reconciler_type: EndpointReconciler,
    /// Files with keys that verify service account tokens; may be given several times.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// The key that signs service account tokens.
    #[arg(long, required_unless_present = "service_account_signing_endpoint")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Identifier of the service account token issuer; the first one issues.
    #[arg(long, required = true)]
    pub service_account_issuer: Vec<String>,
    /// Overrides the URI for the JSON Web Key Set in the discovery doc served at /.well-known/openid-configuration.
    #[arg(long)]
    pub service_account_jwks_uri: Option<String>,
    #[command(flatten)]
    pub auth: Box<crate::auth_flags::AuthFlags>,
    /// A CIDR notation IP range from which to assign service cluster IPs. Max of two dual-stack CIDRs is allowed.
    #[arg(long, default_value = "10.0.0.0/24")]
    pub service_cluster_ip_range: String,
    #[command(flatten)]
    pub services: crate::service_flags::ServiceFlags,
    #[command(flatten)]
    pub settled: Box<crate::settled_flags::SettledFlags>,
    #[command(flatten)]
    pub features: crate::features::FeatureFlags,
    #[command(flatten)]
    pub audit: crate::audit::AuditFlags,
    #[command(flatten)]
    pub limits: crate::limits::LimitFlags,
    #[command(flatten)]
    pub admission: crate::admission::AdmissionFlags,
    #[command(flatten)]
    pub metrics: crate::metric_flags::MetricFlags,
    #[command(flatten)]
    pub traces: crate::tracing_flags::TracingFlags,
    #[command(flatten)]
    pub connections: crate::connections::ConnectionFlags,
    /// Amount of time to retain events.
    #[arg(long, default_value = "1h", value_parser = crate::cli::duration)]
    pub event_ttl: Duration,
    /// Allow privileged containers; they are.
    #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub allow_privileged: bool,
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<Certificate>> {
    let found = pki::pem::certificates(&read(path)?)?;
    let parsed = found.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    parsed.with_context(|| format!("reading the certificates of {}", path.display()))
}

fn slot(chain: &Path, key: &Path) -> Result<Arc<Slot>> {
    Slot::of_pem(&read(chain)?, &read(key)?).with_context(|| format!("using {}", chain.display()))
}

/// The certificate and key in a directory, made if they are not there yet.
fn self_signed(directory: &Path, names: Vec<San>) -> Result<(PathBuf, PathBuf)> {
    let (chain, key) = (directory.join("apiserver.crt"), directory.join("apiserver.key"));
    match (chain.exists(), key.exists()) {
        (true, true) => return Ok((chain, key)),
        (false, false) => {}
        _ => bail!("certificate and key must be supplied as a pair"),
    }
    std::fs::create_dir_all(directory)?;
    let (now, year) = (apimachinery::time::Timestamp::now(), Duration::from_secs(365 * 86_400));
    let host = format!("apiserver@{}", now.as_second());
    let authority = Authority::create(&format!("{host}-ca"), year, now)?;
    let profile = Profile::server(Subject::new(host, &[]), names, year);
    let made = authority.issue(&profile, now)?;
    let bundle = made.certificate.to_pem() + &authority.certificate.to_pem();
    files::write(&chain, bundle.as_bytes(), Access::Public, Durability::Renamed)?;
    files::write(&key, made.key.to_pem().as_bytes(), Access::Secret, Durability::Renamed)?;
    tracing::info!(certificate = %chain.display(), key = %key.display(), "Generated self-signed cert");
    Ok((chain, key))
}

impl ApiServer {
    /// In which headers proxies assert users: in none unless flags say so, as upstream.
    fn front_headers(&self) -> Result<Headers> {
        let headers = Headers {
            name: self.requestheader_username_headers.clone(),
            uid: self.requestheader_uid_headers.clone(),
            group: self.requestheader_group_headers.clone(),
            extra_prefix: self.requestheader_extra_headers_prefix.clone(),
        };
        for (flag, values) in [
            ("requestheader-username-headers", &headers.name),
            ("requestheader-uid-headers", &headers.uid),
            ("requestheader-group-headers", &headers.group),
            ("requestheader-extra-headers-prefix", &headers.extra_prefix),
            ("requestheader-allowed-names", &self.requestheader_allowed_names),
        ] {
            if values.iter().any(|value| value.trim().is_empty()) {
                bail!("empty value in {flag:?}");
            }
        }
        let standard = |uid: &String| uid.eq_ignore_ascii_case("X-Remote-Uid");
        if !headers.uid.is_empty() && !headers.uid.iter().any(standard) {
            bail!(
                "--requestheader-uid-headers is set without specifying the standard X-Remote-Uid header - API aggregation will not work"
            );
        }
        Ok(headers)
    }

    fn ranges(&self) -> Result<Ranges> {
        self.services.ranges(&self.service_cluster_ip_range).context("--service-cluster-ip-range")
    }

    /// The files that this server shows itself by: those of the flags, or its own.
    fn serving_files(&self, advertise_address: IpAddr) -> Result<(PathBuf, PathBuf)> {
        if let (Some(chain), Some(key)) = (&self.tls_cert_file, &self.tls_private_key_file) {
            return Ok((chain.clone(), key.clone()));
        }
        let bound = match self.bind_address.is_unspecified() {
            true => San::Dns("localhost".into()),
            false => San::Ip(self.bind_address),
        };
        let names = ["kubernetes.default.svc", "kubernetes.default", "kubernetes"].map(San::host);
        let service = San::Ip(self.ranges()?.first_address());
        let addresses = [San::Ip(advertise_address), service, bound];
        self_signed(&self.cert_dir, names.into_iter().chain(addresses).collect())
            .with_context(|| format!("making a certificate in {}", self.cert_dir.display()))
    }

    /// Where the keys of service account tokens are.
    fn token_keys(&self) -> Result<TokenKeys> {
        let (key_file, key_files) = (&self.service_account_signing_key_file, &self.service_account_key_file);
        if let Some(endpoint) = &self.auth.service_account_signing_endpoint {
            if key_file.is_some() || !key_files.is_empty() {
                bail!(
                    "can't set `--service-account-signing-key-file` and/or `--service-account-key-file` with `--service-account-signing-endpoint` (They are mutually exclusive)"
                );
            }
            return TokenKeys::elsewhere(endpoint);
        }
        let key_file = key_file.as_deref().context("--service-account-signing-key-file is required")?;
        let signer =
            PrivateKey::from_pem(&read(key_file)?).context("reading --service-account-signing-key-file")?;
        let mut trusted = Vec::new();
        for path in key_files {
            let text = read(path)?;
            // A private key's file holds the public one, too.
            match PublicKey::all_from_pem(&text) {
                Ok(keys) if !keys.is_empty() => trusted.extend(keys),
                _ => trusted.push(PrivateKey::from_pem(&text)?.public().clone()),
            }
        }
        if trusted.is_empty() {
            trusted.push(signer.public().clone());
        }
        Ok(TokenKeys::here(signer, trusted))
    }

    fn settings(&self, advertise_address: IpAddr) -> Result<Settings> {
        if !self.allow_privileged {
            bail!("--allow-privileged=false is not served");
        }
        let token_keys = self.token_keys()?;
        if let Some(uri) = &self.service_account_jwks_uri
            && !uri.starts_with("https://")
        {
            bail!("service-account-jwks-uri requires https scheme, parsed as: {uri}");
        }
        let client_authorities =
            self.client_ca_file.as_deref().map_or_else(|| Ok(Vec::new()), certificates)?;
        let front_authorities =
            self.requestheader_client_ca_file.as_deref().map_or_else(|| Ok(Vec::new()), certificates)?;
        let overlap =
            client_authorities.iter().any(|ca| front_authorities.iter().any(|f| f.der() == ca.der()));
        if overlap && self.requestheader_allowed_names.is_empty() {
            bail!(
                "--requestheader-client-ca-file and --client-ca-file contain overlapping certificates; --requestheader-allowed-names must be specified to ensure regular client certificates cannot set authenticating proxy headers for arbitrary users"
            );
        }
        let issuers = &self.service_account_issuer;
        let (chain, key) = self.serving_files(advertise_address)?;
        let serving = slot(&chain, &key)?;
        let mut reloads = vec![Reload::pair(&chain, &key, serving.clone())];
        let mut serving_by_name = Vec::new();
        for named in &self.tls_sni_cert_key {
            let slot = slot(&named.chain, &named.key)?;
            reloads.push(Reload::pair(&named.chain, &named.key, slot.clone()));
            serving_by_name.push((named.names()?, slot));
        }
        let mut roots =
            |file: &Option<PathBuf>, authorities: &[Certificate]| -> Result<Option<ClientRoots>> {
                let Some(file) = file else { return Ok(None) };
                let roots = ClientRoots::new(authorities)?;
                reloads.push(Reload::roots(file, roots.clone()));
                Ok(Some(roots))
            };
        let client_roots = roots(&self.client_ca_file, &client_authorities)?;
        let front_roots = roots(&self.requestheader_client_ca_file, &front_authorities)?;
        let mut client = |chain: &Option<PathBuf>,
                          key: &Option<PathBuf>,
                          flag: &str|
         -> Result<Option<Arc<Slot>>> {
            let (Some(chain), Some(key)) = (chain, key) else {
                return if chain.is_none() && key.is_none() { Ok(None) } else { bail!("{flag} go together") };
            };
            let slot = slot(chain, key)?;
            reloads.push(Reload::pair(chain, key, slot.clone()));
            Ok(Some(slot))
        };
        let front_client = client(
            &self.proxy_client_cert_file,
            &self.proxy_client_key_file,
            "--proxy-client-cert-file and --proxy-client-key-file",
        )?;
        let kubelet_client = client(
            &self.kubelet_client_certificate,
            &self.kubelet_client_key,
            "--kubelet-client-certificate and --kubelet-client-key",
        )?;
        Ok(Settings {
            look_back: None,
            storage: self.storage.clone(),
            directory: self.data_dir.join("store"),
            ranges: self.ranges()?,
            dns: None,
            join: None,
            advertise_address,
            secure_port: self.secure_port,
            serving,
            serving_by_name,
            reloads,
            client_roots,
            front_roots,
            client_authorities,
            front_authorities,
            front_names: self.requestheader_allowed_names.clone(),
            front_headers: self.front_headers()?,
            front_client,
            kubelet_trust: match &self.kubelet_certificate_authority {
                Some(path) => Trust::pem(&read(path)?)?,
                // As upstream: without an authority the kubelet's certificate is not verified.
                None => Trust::Anyone,
            },
            kubelet_client,
            authentication: self.auth.authentication(issuers)?,
            authorization: self.auth.authorization()?,
            service_accounts: self.auth.service_accounts(issuers.clone())?,
            jwks_uri: self.service_account_jwks_uri.clone(),
            token_keys,
            event_ttl: self.event_ttl,
            features: self.features.features()?,
            audit: self.audit.clone(),
            limits: self.limits.clone(),
            admission: self.admission.options(&[])?,
            kubelet_address_types: self.kubelet_preferred_address_types.clone(),
            redirects: match self.aggregator_reject_forwarding_redirect {
                true => Redirects::Rejected,
                false => Redirects::Forwarded,
            },
            endpoint_reconciler: self.endpoint_reconciler_type,
            metrics: self.metrics.limits()?,
            // The scheduler is elsewhere.
            pod_resources: false,
            traces: self.traces.configuration()?,
            connections: self.connections.connections()?,
        })
    }
}

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(mut flags: ApiServer) -> Result<()> {
    // Upstream has one engine, and its name goes without saying.
    if !flags.storage.etcd_servers.is_empty() {
        flags.storage.store = StoreEngine::Etcd;
    }
    foreground::run(|shutdown| async move {
        let advertise = match flags.advertise_address {
            Some(address) => address,
            None if !flags.bind_address.is_unspecified() => flags.bind_address,
            None => default_address()
                .context("finding this machine's address; give it with --advertise-address")?,
        };
        let settings = flags.settings(advertise)?;
        let address = SocketAddr::new(flags.bind_address, flags.secure_port);
        let listener =
            flags.connections.listen(address).with_context(|| format!("listening on {address}"))?;
        let stop = CancellationToken::new();
        let plane = control_plane::start(settings, listener, &stop).await?;
        tracing::info!(%address, "the API server is ready");
        shutdown.cancelled().await;
        plane.leave().await;
        stop.cancel();
        plane.stopped().await;
        Ok(())
    })
}
