//! A small HTTP client for probes and lifecycle hooks: one GET on one fresh connection, HTTPS without verification,
//! redirects followed on the same host only. Errors read as Go's.

use api::core::v1::{Container, HTTPGetAction};
use apimachinery::int_or_string::IntOrString;
use bytes::Bytes;
use component::dial::{self, join_host_port};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

const MAX_BODY: usize = 10 * 1024;
const MAX_REDIRECTS: usize = 10;

/// Where a GET goes, and with which headers.
#[derive(Debug, Clone)]
pub(crate) struct Get {
    pub https: bool,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(String, String)>,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    /// At most ten kilobytes.
    pub body: String,
}

/// The port that a number or the name of a container's port means.
pub(crate) fn resolve_port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => match container.ports.iter().find(|p| &p.name == name) {
            Some(port) => i64::from(port.container_port),
            None => name.parse::<i64>().map_err(|_| format!("couldn't find port: {name:?}"))?,
        },
    };
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("invalid port number: {number}")),
    }
}

impl Get {
    /// The request of an `httpGet` action; `purpose` (`probe`, `lifecycle`) names it in the User-Agent.
    pub(crate) fn of(
        action: &HTTPGetAction,
        container: &Container,
        pod_ip: &str,
        purpose: &str,
    ) -> Result<Self, String> {
        let port = resolve_port(&action.port, container)?;
        let mut headers: Vec<(String, String)> =
            action.http_headers.iter().map(|h| (h.name.clone(), h.value.clone())).collect();
        let has = |headers: &[(String, String)], name: &str| {
            headers.iter().any(|(n, _)| n.eq_ignore_ascii_case(name))
        };
        if !has(&headers, "User-Agent") {
            headers.push(("User-Agent".into(), format!("kube-{purpose}/1.36")));
        }
        if !has(&headers, "Accept") {
            headers.push(("Accept".into(), "*/*".into()));
        } else {
            headers.retain(|(n, v)| !(n.eq_ignore_ascii_case("Accept") && v.is_empty()));
        }
        let path =
            if action.path.starts_with('/') { action.path.clone() } else { format!("/{}", action.path) };
        Ok(Get {
            https: action.scheme.eq_ignore_ascii_case("https"),
            host: if action.host.is_empty() { pod_ip.to_owned() } else { action.host.clone() },
            port,
            path,
            headers,
        })
    }

    fn authority(&self) -> String {
        join_host_port(&self.host, self.port)
    }

    /// As Go prints it in errors.
    fn url(&self) -> String {
        format!("{}://{}{}", if self.https { "https" } else { "http" }, self.authority(), self.path)
    }
}

/// Performs the GET; an error is the text that upstream shows.
pub(crate) async fn get(request: &Get, timeout: Duration) -> Result<Answer, String> {
    match tokio::time::timeout(timeout, follow(request)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!(
            "Get {:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            request.url()
        )),
    }
}

async fn follow(request: &Get) -> Result<Answer, String> {
    let mut request = request.clone();
    for _ in 0..=MAX_REDIRECTS {
        let (answer, location) = once(&request).await.map_err(|e| format!("Get {:?}: {e}", request.url()))?;
        match location.and_then(|l| redirect(&request, &l)).filter(|_| (300..400).contains(&answer.status)) {
            Some(next) => request = next,
            None => return Ok(answer),
        }
    }
    Err(format!("Get {:?}: stopped after 10 redirects", request.url()))
}

/// The request that a `Location` on the same host leads to.
fn redirect(from: &Get, location: &str) -> Option<Get> {
    let uri: http::Uri = location.parse().ok()?;
    let mut next = from.clone();
    if let Some(authority) = uri.authority() {
        if authority.host().trim_matches(['[', ']']) != from.host {
            return None;
        }
        next.https = uri.scheme_str() == Some("https");
        next.port = authority.port_u16().unwrap_or(if next.https { 443 } else { 80 });
    }
    next.path = uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    Some(next)
}

/// Connects, with Go's words when it fails.
pub(crate) async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let address = join_host_port(host, port);
    TcpStream::connect(&address).await.map_err(|error| dial::failed("tcp", &address, &error))
}

async fn once(request: &Get) -> Result<(Answer, Option<String>), String> {
    let stream = dial(&request.host, request.port).await?;
    // A probe is one packet each way.
    let _ = stream.set_nodelay(true);
    if request.https {
        let name =
            rustls::pki_types::ServerName::try_from(request.host.clone()).map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(unverified());
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let told = error.to_string();
            if told.contains("InvalidContentType") || told.contains("corrupt message") {
                "http: server gave HTTP response to HTTPS client".to_owned()
            } else {
                told
            }
        })?;
        exchange(stream, request).await
    } else {
        exchange(stream, request).await
    }
}

async fn exchange<S>(stream: S, request: &Get) -> Result<(Answer, Option<String>), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
    let connection = tokio::spawn(connection);
    let _end = AbortOnDrop(connection.abort_handle());
    let mut builder = http::Request::get(request.path.as_str()).header(http::header::CONNECTION, "close");
    let mut host = request.authority();
    for (name, value) in &request.headers {
        if name.eq_ignore_ascii_case("Host") {
            host = value.clone();
        } else {
            builder = builder.header(name, value);
        }
    }
    let message =
        builder.header(http::header::HOST, host).body(Empty::<Bytes>::new()).map_err(|e| e.to_string())?;
    let response = sender.send_request(message).await.map_err(|error| {
        if error.is_incomplete_message() || error.is_canceled() {
            "EOF".to_owned()
        } else {
            error.to_string()
        }
    })?;
    let status = response.status().as_u16();
    let location =
        response.headers().get(http::header::LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BODY {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    bytes.extend_from_slice(data);
                }
            }
            // The status was read; what is missing of the body does not matter.
            Some(Err(_)) | None => break,
        }
    }
    bytes.truncate(MAX_BODY);
    Ok((Answer { status, body: String::from_utf8_lossy(&bytes).into_owned() }, location))
}

/// Ends a connection's task when its request is given up.
pub(crate) struct AbortOnDrop(pub tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A TLS client that takes any certificate: probes and hooks ask a pod, by address, whether it answers.
fn unverified() -> Arc<rustls::ClientConfig> {
    static CONFIG: LazyLock<Arc<rustls::ClientConfig>> = LazyLock::new(|| {
        let provider = pki::tls::provider();
        let verifier = Arc::new(AnyCertificate(provider.clone()));
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Arc::new(config)
    });
    CONFIG.clone()
}

#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
