//! TLS settings on rustls. Servers only *ask* for a client certificate and check that the client holds
//! its key: whether the chain is trusted is the authenticator's question (`verify_client_chain`), which answers 401
//! where a failed handshake would say nothing. Certificates sit in slots, so that they can be exchanged live.

mod failure;

use std::{
    path::Path,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

pub use failure::{Failure, failure};
use jiff::Timestamp;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, ring, verify_tls12_signature, verify_tls13_signature},
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::handshake::Handshake;
use crate::{Certificate, Error, Identity, PrivateKey, Result, files, kubeconfig::Resolved, pem};

/// HTTP/2 where the peer can, else HTTP/1.1.
pub const ALPN_ALL: &[&[u8]] = &[b"h2", b"http/1.1"];
/// HTTP/1.1 only: for upgrades (exec, attach, port-forward).
pub const ALPN_HTTP1: &[&[u8]] = &[b"http/1.1"];

/// The one cryptography provider: aws-lc-rs, but for its cipher suites where another's are faster.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || CryptoProvider { cipher_suites: cipher_suites(), ..aws_lc_rs::default_provider() };
    PROVIDER.get_or_init(|| Arc::new(make())).clone()
}

/// Makes it the process's default, for libraries that ask for one. Harmless when called again.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = CryptoProvider::install_default((*provider()).clone());
}

/// The suites in Go's order, which puts AES-128 first, of whom this processor computes them fastest for.
fn cipher_suites() -> Vec<SupportedCipherSuite> {
    let of = if wide_aes_without_avx512() {
        ring::DEFAULT_CIPHER_SUITES
    } else {
        aws_lc_rs::DEFAULT_CIPHER_SUITES
    };
    let mut suites = of.to_vec();
    suites.sort_by_key(|suite| !AES_128.contains(&suite.suite()));
    suites
}

const AES_128: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// Whether the processor encrypts two blocks with one instruction, but has no AVX-512: AMD's Zen 3, Intel's desktops. For
/// these aws-lc has no code yet (its issue 2283), and ring is twice as fast.
fn wide_aes_without_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("vaes")
        && std::arch::is_x86_feature_detected!("vpclmulqdq")
        && !std::arch::is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    return false;
}

/// A place for a certificate and its key; every handshake takes what lies there at that moment.
#[derive(Debug)]
pub struct Slot(RwLock<Option<Arc<CertifiedKey>>>);

impl Slot {
    /// An empty slot: a server refuses handshakes, a client sends no certificate.
    pub fn empty() -> Arc<Slot> {
        Arc::new(Slot(RwLock::new(None)))
    }

    pub fn of(identity: &Identity) -> Result<Arc<Slot>> {
        let slot = Self::empty();
        slot.set(identity)?;
        Ok(slot)
    }

    /// From PEM: the whole chain and the key.
    pub fn of_pem(chain: &[u8], key: &[u8]) -> Result<Arc<Slot>> {
        let slot = Self::empty();
        slot.set_pem(chain, key)?;
        Ok(slot)
    }

    pub fn set(&self, identity: &Identity) -> Result<()> {
        self.replace(identity.chain(), identity.key.to_rustls())
    }

    pub fn set_pem(&self, chain: &[u8], key: &[u8]) -> Result<()> {
        self.replace(pem::certificates(chain)?, PrivateKey::from_pem(key)?.to_rustls())
    }

    fn replace(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<()> {
        let certified = CertifiedKey::from_der(chain, key, &provider())?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(certified));
        Ok(())
    }

    /// When the certificate that lies there expires.
    pub fn not_after(&self) -> Option<Timestamp> {
        let certificate = self.get()?.cert.first().map(|der| Certificate::from_der(der))?;
        certificate.ok().map(|certificate| certificate.not_after)
    }

    fn get(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Slot {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get()
    }
}

impl ResolvesClientCert for Slot {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get()
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

/// Certificates by the name that a client asks for (SNI), and one for those that ask for none of them.
#[derive(Debug)]
pub struct ByName {
    default: Arc<Slot>,
    named: Vec<(Vec<String>, Arc<Slot>)>,
}

impl ByName {
    /// `named` are names, exact ones or `*.` and a domain, each with its slot; the first one counts.
    pub fn new(default: Arc<Slot>, named: Vec<(Vec<String>, Arc<Slot>)>) -> Self {
        ByName { default, named }
    }

    /// The slot of a name: the exact one before the one with a star.
    fn slot(&self, name: &str) -> &Slot {
        let wildcard = name.split_once('.').map(|(_, domain)| format!("*.{domain}"));
        let of = |wanted: &str| self.named.iter().find(|(names, _)| names.iter().any(|n| n == wanted));
        let found = of(name).or_else(|| of(wildcard.as_deref()?));
        found.map_or(&self.default, |(_, slot)| slot)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        hello.server_name().map_or(&*self.default, |name| self.slot(&name.to_ascii_lowercase())).get()
    }
}

/// Asks for a client certificate, takes any or none, and checks the handshake's signature.
#[derive(Debug)]
struct RequestCertificate {
    provider: Arc<CryptoProvider>,
    /// Subjects of the authorities, which clients with several certificates choose by.
    hints: Vec<DistinguishedName>,
}

impl ClientCertVerifier for RequestCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Server settings: the certificate from the slot, client certificates asked for (naming `hints` as the authorities).
pub fn server_config(
    slot: Arc<dyn ResolvesServerCert>,
    hints: &[Certificate],
    alpn: &[&[u8]],
) -> Result<ServerConfig> {
    server_config_agreeing(slot, hints, alpn, &Handshake::default())
}

/// Such settings, for a server that agrees to no more than it is told.
pub fn server_config_agreeing(
    slot: Arc<dyn ResolvesServerCert>,
    hints: &[Certificate],
    alpn: &[&[u8]],
    handshake: &Handshake,
) -> Result<ServerConfig> {
    let verifier = RequestCertificate {
        provider: provider(),
        hints: hints.iter().map(|c| c.subject_der.clone().into()).collect(),
    };
    let mut config = ServerConfig::builder_with_provider(handshake.provider.clone())
        .with_protocol_versions(handshake.versions)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(slot);
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// Whom a client believes.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Servers with a certificate under (or among) these.
    Roots(Vec<CertificateDer<'static>>),
    /// Anyone. For `insecure-skip-tls-verify`, HTTPS probes, and kubelets without a known authority, as upstream.
    Anyone,
}

impl Trust {
    pub fn pem(roots: &[u8]) -> Result<Trust> {
        Ok(Trust::Roots(pem::certificates(roots)?))
    }

    /// The machine's own authorities.
    pub fn system() -> Result<Trust> {
        const PLACES: [&str; 4] = [
            "/etc/ssl/certs/ca-certificates.crt",
            "/etc/pki/tls/certs/ca-bundle.crt",
            "/etc/ssl/ca-bundle.pem",
            "/etc/ssl/cert.pem",
        ];
        let content = PLACES.iter().find_map(|p| files::read_if_present(Path::new(p)).ok().flatten());
        Self::pem(&content.unwrap_or_default())
    }
}

/// Client settings: whom to believe, and the certificate to show when asked.
pub fn client_config(trust: &Trust, slot: Option<Arc<Slot>>, alpn: &[&[u8]]) -> Result<ClientConfig> {
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Anyone => Arc::new(AnyServer(provider())),
        Trust::Roots(certificates) => {
            let mut store = RootCertStore::empty();
            // A bundle may hold an old certificate that rustls cannot read; the others still count.
            store.add_parsable_certificates(certificates.iter().cloned());
            if store.is_empty() {
                return Err(Error::Pem { wanted: "usable certificate authority" });
            }
            let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
                .build()
                .map_err(|e| Error::Certificate(e.to_string()))?;
            Arc::new(KnownServer { chain, pinned: certificates.clone() })
        }
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match slot {
        Some(slot) => builder.with_client_cert_resolver(slot),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(config)
}

/// Client settings as a kubeconfig asks for them.
pub fn client_config_of(kubeconfig: &Resolved, alpn: &[&[u8]]) -> Result<ClientConfig> {
    let trust = match &kubeconfig.certificate_authority {
        _ if kubeconfig.insecure_skip_tls_verify => Trust::Anyone,
        Some(data) => Trust::pem(&data.0)?,
        None => Trust::system()?,
    };
    let slot = match (&kubeconfig.client_certificate, &kubeconfig.client_key) {
        (Some(chain), Some(key)) => Some(Slot::of_pem(&chain.0, &key.0)?),
        _ => None,
    };
    client_config(&trust, slot, alpn)
}

/// A chain to a root, or a root itself: webhooks are often deployed with one self-signed certificate that calls itself
/// an authority, which Go accepts when it is in the bundle and webpki does not.
#[derive(Debug)]
struct KnownServer {
    chain: Arc<WebPkiServerVerifier>,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for KnownServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(other)))
                if self.pinned.iter().any(|p| p == end_entity) =>
            {
                let unreadable = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
                let certificate = Certificate::from_der(end_entity).map_err(unreadable)?;
                let now = now.as_secs() as i64;
                if now < certificate.not_before.as_second() {
                    return Err(CertificateError::NotValidYet.into());
                }
                if now > certificate.not_after.as_second() {
                    return Err(CertificateError::Expired.into());
                }
                let usages = &certificate.usages;
                let extended = [crate::Usage::ServerAuth, crate::Usage::Any];
                if usages.contains(&crate::Usage::ClientAuth) && !usages.iter().any(|u| extended.contains(u))
                {
                    return Err(CertificateError::Other(other).into());
                }
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A pool of authorities for client certificates: the cluster's, or the request-header proxy's. Clones share it, and
/// see when it is replaced.
#[derive(Clone, Debug)]
pub struct ClientRoots(Arc<RwLock<Arc<dyn ClientCertVerifier>>>);

fn verifier_of(authorities: &[Certificate]) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut store = RootCertStore::empty();
    for authority in authorities {
        store.add(authority.der().clone())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|e| Error::Certificate(e.to_string()))
}

impl ClientRoots {
    pub fn new(authorities: &[Certificate]) -> Result<ClientRoots> {
        Ok(ClientRoots(Arc::new(RwLock::new(verifier_of(authorities)?))))
    }

    /// Puts other authorities in the place of these.
    pub fn set_pem(&self, bundle: &[u8]) -> Result<()> {
        let all: Result<Vec<_>> =
            pem::certificates(bundle)?.iter().map(|c| Certificate::from_der(c)).collect();
        let verifier = verifier_of(&all?)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = verifier;
        Ok(())
    }

    /// From a PEM bundle.
    pub fn pem(bundle: &[u8]) -> Result<ClientRoots> {
        let all: Result<Vec<_>> =
            pem::certificates(bundle)?.iter().map(|c| Certificate::from_der(c)).collect();
        Self::new(&all?)
    }
}

/// Whether the chain that a client showed (its own certificate first) leads to the roots, is valid at `now` and may
/// authenticate clients; the client's certificate then.
pub fn verify_client_chain(
    chain: &[CertificateDer<'_>],
    roots: &ClientRoots,
    now: Timestamp,
) -> Result<Certificate> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::Pem { wanted: "client certificate" })?;
    let now = std::time::Duration::from_secs(now.as_second().try_into().unwrap_or(0));
    let roots = roots.0.read().unwrap_or_else(PoisonError::into_inner).clone();
    roots.verify_client_cert(leaf, intermediates, UnixTime::since_unix_epoch(now))?;
    Certificate::from_der(leaf)
}
