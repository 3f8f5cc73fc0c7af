//! Requests to one registry: plain TCP or TLS, HTTP/1.1, redirects (which never carry credentials to another host),
//! and the answer to a 401. A connection per request: an image is a handful of them.

use super::super::error::{Error, Result};
use super::super::{Digest, Reference};
use super::auth::{self, Challenge, Credentials, TokenAnswer};
use super::config::{Endpoint, TlsFiles};
use crate::service::dial_error;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For connecting, for a response to begin, and between two pieces of a body.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 10;
const USER_AGENT: &str = concat!("tiphys/", env!("CARGO_PKG_VERSION"));

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One repository on one host, with what it takes to be let in.
#[derive(Clone)]
pub(crate) struct Session {
    endpoint: Arc<Endpoint>,
    tls: Arc<ClientConfig>,
    path: String,
    /// The registry in the image's name: mirrors of several want to know (`?ns=`, as containerd).
    namespace: Option<String>,
    credentials: Option<Credentials>,
    authorization: Arc<Mutex<Option<String>>>,
}

fn failed(what: &Uri) -> impl Fn(&dyn std::fmt::Display) -> Error + '_ {
    // Queries may hold signatures.
    move |why| {
        let (host, path) = (what.authority().map_or("", |a| a.as_str()), what.path());
        Error::Registry(format!("{}://{host}{path}: {why}", what.scheme_str().unwrap_or("")))
    }
}

impl Session {
    pub(super) fn new(
        endpoint: Endpoint,
        reference: &Reference,
        auth: Option<Credentials>,
    ) -> Result<Session> {
        let tls = tls(endpoint.config.tls.as_ref())?;
        let direct = auth.as_ref().filter(|auth| !auth.registry_token.is_empty());
        let authorization = direct.map(|auth| format!("Bearer {}", auth.registry_token));
        Ok(Session {
            namespace: endpoint.mirror.then(|| reference.domain.clone()),
            endpoint: Arc::new(endpoint),
            tls,
            path: reference.path.clone(),
            credentials: auth,
            authorization: Arc::new(Mutex::new(authorization)),
        })
    }

    /// `GET /v2/<repository>/<what>`; only a success comes back.
    pub(super) async fn get(&self, what: &str, headers: &[(HeaderName, &str)]) -> Result<Response<Incoming>> {
        let base = self.endpoint.base.to_string();
        let query = self.namespace.as_ref().map_or(String::new(), |ns| format!("?ns={}", auth::encode(ns)));
        let url = format!("{}/v2/{}/{what}{query}", base.trim_end_matches('/'), self.path);
        let url: Uri = url.parse().map_err(|e| Error::Invalid(format!("{url}: {e}")))?;
        let authorization = self.authorization.lock().clone();
        let response = self.follow(url.clone(), headers, authorization).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return success(&url, response);
        }
        let challenge = response.headers().get_all(header::WWW_AUTHENTICATE).iter();
        let challenge = challenge.filter_map(|value| auth::parse(value.to_str().ok()?)).next();
        let authorization = self.answer(challenge).await?;
        *self.authorization.lock() = Some(authorization.clone());
        let response = self.follow(url.clone(), headers, Some(authorization)).await?;
        success(&url, response)
    }

    /// The header that meets a challenge.
    async fn answer(&self, challenge: Option<Challenge>) -> Result<String> {
        let denied = || Error::Denied(self.path.clone());
        let basic = self.credentials.as_ref().and_then(Credentials::basic);
        let (realm, service, scope) = match challenge {
            Some(Challenge::Basic) => return basic.ok_or_else(denied),
            Some(Challenge::Bearer { realm, service, scope }) => (realm, service, scope),
            None => return Err(denied()),
        };
        let url: Uri = realm.parse().map_err(|e| Error::Registry(format!("token server {realm:?}: {e}")))?;
        let plain = self.endpoint.base.scheme_str() == Some("http");
        if url.scheme_str() != Some("https") && !plain {
            return Err(Error::Registry(format!("token server {realm:?} is not reached over TLS")));
        }
        let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.path));
        let mut form = format!("scope={}", auth::encode(&scope));
        if let Some(service) = &service {
            form += &format!("&service={}", auth::encode(service));
        }
        let refresh = self.credentials.as_ref().map_or("", |credentials| &credentials.identity_token);
        let request = if refresh.is_empty() {
            let joint = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{joint}{form}"));
            if let Some(basic) = basic {
                request = request.header(header::AUTHORIZATION, sensitive(&basic)?);
            }
            request.body(Full::default())
        } else {
            form += &format!(
                "&grant_type=refresh_token&client_id=tiphys&refresh_token={}",
                auth::encode(refresh)
            );
            Request::post(&url)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(Full::from(form))
        };
        let request = request.map_err(|e| Error::Registry(format!("token server {realm:?}: {e}")))?;
        let response = self.send(request).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(denied());
        }
        let body = self.whole(success(&url, response)?, 1 << 20).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|e| failed(&url)(&e))?;
        answer.into_token().map(|token| format!("Bearer {token}")).ok_or_else(denied)
    }

    async fn follow(
        &self,
        url: Uri,
        headers: &[(HeaderName, &str)],
        mut authorization: Option<String>,
    ) -> Result<Response<Incoming>> {
        let mut url = url;
        for _ in 0..MAX_REDIRECTS {
            let mut request = Request::builder().method(Method::GET).uri(&url);
            for (name, value) in headers {
                request = request.header(name, *value);
            }
            if let Some(authorization) = &authorization {
                request = request.header(header::AUTHORIZATION, sensitive(authorization)?);
            }
            let request = request.body(Full::default()).map_err(|e| failed(&url)(&e))?;
            let response = self.send(request).await?;
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let next = location.and_then(|location| join(&url, location));
            let next = next.ok_or_else(|| failed(&url)(&"a redirect to nowhere"))?;
            if url.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(failed(&url)(&"a redirect away from TLS"));
            }
            if next.authority() != url.authority() {
                authorization = None;
            }
            url = next;
        }
        Err(failed(&url)(&"too many redirects"))
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let url = request.uri().clone();
        let error = failed(&url);
        let late = |_| error(&"timed out");
        let stream = tokio::time::timeout(CONNECT, self.connect(&url)).await.map_err(late)??;
        let authority = url.authority().ok_or_else(|| error(&"no host"))?;
        let host = authority.as_str().rsplit('@').next().unwrap_or("");
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_str(host).map_err(|e| error(&e))?);
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        let target = url.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().map_err(|e| error(&e))?;
        let exchange = async {
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| error(&e))?;
            // Ends with the body, or when the body is dropped.
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|e| error(&e))
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(late)?
    }

    async fn connect(&self, url: &Uri) -> Result<Box<dyn Stream>> {
        let error = failed(url);
        let tls = url.scheme_str() == Some("https");
        let host = url.host().ok_or_else(|| error(&"no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await;
        let tcp = tcp.map_err(|e| error(&dial_error("tcp", &format!("{host}:{port}"), &e)))?;
        tcp.set_nodelay(true).map_err(|e| error(&e))?;
        if !tls {
            return Ok(Box::new(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|e| error(&e))?;
        let connector = TlsConnector::from(self.tls.clone());
        Ok(Box::new(connector.connect(name, tcp).await.map_err(|e| error(&e))?))
    }

    /// The body of a response that must be small.
    pub(super) async fn whole(&self, response: Response<Incoming>, limit: u64) -> Result<Vec<u8>> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(piece) = next_piece(&mut body).await? {
            bytes.extend_from_slice(&piece);
            if bytes.len() as u64 > limit {
                return Err(Error::TooLarge { what: "document".into(), limit });
            }
        }
        Ok(bytes)
    }

    pub(super) fn blob_path(digest: &Digest) -> String {
        format!("blobs/{digest}")
    }
}

/// The next data of a body; a stalled one is an error.
pub(super) async fn next_piece(body: &mut Incoming) -> Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.map_err(|_| Error::Registry("registry stopped sending".into()))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(Error::Registry(format!("reading from registry: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

fn success(url: &Uri, response: Response<Incoming>) -> Result<Response<Incoming>> {
    match response.status() {
        status if status.is_success() => Ok(response),
        StatusCode::NOT_FOUND => Err(Error::NotFound(url.path().to_owned())),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Error::Denied(url.path().to_owned())),
        status => Err(failed(url)(&format!("unexpected status {status}"))),
    }
}

fn sensitive(value: &str) -> Result<HeaderValue> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| Error::Invalid("malformed credentials".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A `Location`, absolute or from the root of the same host.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        return format!("{}://{}{location}", base.scheme_str()?, base.authority()?).parse().ok();
    }
    let uri: Uri = location.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()).then_some(uri)
}

fn tls(files: Option<&TlsFiles>) -> Result<Arc<ClientConfig>> {
    let invalid =
        |path: &Path, why: &dyn std::fmt::Display| Error::Invalid(format!("{}: {why}", path.display()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = system_roots().clone();
    if let Some(path) = files.and_then(|files| files.ca_file.as_ref()) {
        for certificate in CertificateDer::pem_file_iter(path).map_err(|e| invalid(path, &e))? {
            roots.add(certificate.map_err(|e| invalid(path, &e))?).map_err(|e| invalid(path, &e))?;
        }
    }
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Invalid(e.to_string()))?
        .with_root_certificates(roots);
    let client = files.and_then(|files| Some((files.cert_file.as_ref()?, files.key_file.as_ref()?)));
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => {
            let chain = CertificateDer::pem_file_iter(certificates).and_then(Iterator::collect);
            let chain: Vec<_> = chain.map_err(|e| invalid(certificates, &e))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| invalid(key, &e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| invalid(certificates, &e))?
        }
    };
    if files.is_some_and(|files| files.insecure_skip_verify) {
        config.dangerous().set_certificate_verifier(Arc::new(TrustAnyone(provider)));
    }
    Ok(Arc::new(config))
}

/// The certificates the system trusts, read once; from where the distributions keep them.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let given = std::env::var("SSL_CERT_FILE").ok();
        let usual =
            ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
        let mut roots = RootCertStore::empty();
        for path in given.as_deref().into_iter().chain(usual) {
            if let Ok(certificates) = CertificateDer::pem_file_iter(path) {
                roots.add_parsable_certificates(certificates.flatten());
                break;
            }
        }
        roots
    })
}

/// What `insecure_skip_verify` asks for.
#[derive(Debug)]
struct TrustAnyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> std::result::Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> std::result::Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
