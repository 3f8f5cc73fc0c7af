//! HTTPS to servers that are configured by URL or kubeconfig: identity providers, and webhooks of authentication and
//! authorization. Connections are kept for the next call; one that was closed meanwhile is opened anew.

use crate::caller::Authorization;
use crate::egress::Way;
use apimachinery::quote::quote;
use bytes::Bytes;
use component::dial;
use http::{HeaderMap, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pki::kubeconfig::Kubeconfig;
use pki::tls::Trust;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer that is read.
const MAX_ANSWER: usize = 8 << 20;
/// How many idle connections are kept.
const IDLE: usize = 16;
/// How often a redirection is followed, as Go's client does.
const REDIRECTS: usize = 10;

/// Whom to call, and as whom.
pub struct Remote {
    tls: Arc<rustls::ClientConfig>,
    server_name: Option<String>,
    authorization: Authorization,
    way: Way,
    idle: Mutex<Vec<(Origin, SendRequest<Full<Bytes>>)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    host: String,
    port: u16,
    encrypted: bool,
}

/// What came back.
#[derive(Debug)]
pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Response {
    /// As Go prints a status: `404 Not Found`.
    pub fn status_text(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.status.canonical_reason().unwrap_or_default())
    }
}

/// A call that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("{0}")]
    Broken(String),
    /// The connection ended before there was an answer.
    #[error("{0}")]
    Reset(String),
    #[error("{0}")]
    Timeout(String),
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    pub fn new(trust: &Trust) -> Result<Self, String> {
        let tls = pki::tls::client_config(trust, None, pki::tls::ALPN_HTTP1).map_err(|e| e.to_string())?;
        Ok(Remote {
            tls: Arc::new(tls),
            server_name: None,
            authorization: Authorization::None,
            way: Way::default(),
            idle: Mutex::default(),
        })
    }

    /// The server that a kubeconfig's current context names, and its URL.
    pub fn of_kubeconfig(path: &Path) -> Result<(Self, String), String> {
        let config = Kubeconfig::load(path).map_err(|e| described(&e))?;
        let resolved = config.resolve(None).map_err(|e| described(&e))?;
        let tls = pki::tls::client_config_of(&resolved, pki::tls::ALPN_HTTP1).map_err(|e| described(&e))?;
        let remote = Remote {
            tls: Arc::new(tls),
            server_name: resolved.tls_server_name.clone(),
            authorization: Authorization::of(&resolved.user)?,
            way: Way::default(),
            idle: Mutex::default(),
        };
        Ok((remote, resolved.server))
    }

    /// With connections that go this way.
    pub fn through(self, way: Way) -> Self {
        Remote { way, ..self }
    }

    /// Sends a request and reads the answer, within the time.
    pub async fn call(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response, CallError> {
        let name = method.as_str();
        let verb = format!("{}{}", &name[..1], name[1..].to_ascii_lowercase());
        let failed = |why: &str| format!("{verb} {}: {why}", quote(url));
        match tokio::time::timeout(timeout, self.follow(method, url, headers, body)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(CallError::Broken(why))) => Err(CallError::Broken(failed(&why))),
            Ok(Err(CallError::Reset(why))) => Err(CallError::Reset(failed(&why))),
            Ok(Err(CallError::Timeout(why))) => Err(CallError::Timeout(failed(&why))),
            Err(_) => Err(CallError::Timeout(failed("context deadline exceeded"))),
        }
    }

    /// Reads a document.
    pub async fn get(&self, url: &str, headers: HeaderMap, timeout: Duration) -> Result<Response, CallError> {
        self.call(Method::GET, url, headers, Bytes::new(), timeout).await
    }

    async fn follow(
        &self,
        method: Method,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, CallError> {
        let mut at: Uri = url.parse().map_err(|e| CallError::Broken(format!("{e}")))?;
        for _ in 0..=REDIRECTS {
            let response = self.once(&method, &at, &headers, &body).await?;
            let moved = method == Method::GET && response.status.is_redirection();
            let to = response.headers.get(header::LOCATION).and_then(|to| to.to_str().ok());
            let Some(to) = to.filter(|_| moved) else { return Ok(response) };
            at = redirected(&at, to)
                .ok_or_else(|| CallError::Broken(format!("cannot follow to {}", quote(to))))?;
        }
        Err(CallError::Broken(format!("stopped after {REDIRECTS} redirects")))
    }

    async fn once(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, CallError> {
        let encrypted = uri.scheme_str() != Some("http");
        let host = uri.host().ok_or_else(|| CallError::Broken("no Host in request URL".into()))?;
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let origin = Origin { host: host.trim_matches(['[', ']']).to_owned(), port, encrypted };
        let mut kept = {
            let mut idle = self.idle.lock();
            let at = idle.iter().position(|(known, sender)| *known == origin && !sender.is_closed());
            at.map(|at| idle.swap_remove(at).1)
        };
        loop {
            let reused = kept.is_some();
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => self.connect(&origin).await?,
            };
            let request = self.request(method, uri, headers, body)?;
            match exchange(&mut sender, request).await {
                Ok(response) => {
                    let mut idle = self.idle.lock();
                    idle.retain(|(_, sender)| !sender.is_closed());
                    if sender.is_ready() && idle.len() < IDLE {
                        idle.push((origin, sender));
                    }
                    return Ok(response);
                }
                // The server had closed it between two calls.
                Err(_) if reused => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn request(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Request<Full<Bytes>>, CallError> {
        let broken = |e: &dyn std::fmt::Display| CallError::Broken(e.to_string());
        let path = uri.path_and_query().map_or("/", |p| p.as_str());
        let host = uri.authority().map_or("", |a| a.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, "kube-apiserver")
            .body(Full::new(body.clone()))
            .map_err(|e| broken(&e))?;
        request.headers_mut().extend(headers.clone());
        self.authorization.add(request.headers_mut()).map_err(CallError::Broken)?;
        Ok(request)
    }

    async fn connect(&self, origin: &Origin) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let Origin { host, port, encrypted } = origin;
        let dialled = self.way.dial(host, *port).await;
        let tcp = dialled.map_err(|e| CallError::Broken(dial::tcp_failed(host, *port, &e)))?;
        if !encrypted {
            return handshake(TokioIo::new(tcp)).await;
        }
        let name = self.server_name.clone().unwrap_or_else(|| host.clone());
        let name =
            rustls_pki_types::ServerName::try_from(name).map_err(|e| CallError::Broken(e.to_string()))?;
        let connected = tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await;
        handshake(TokioIo::new(connected.map_err(|e| CallError::Broken(format!("tls: {e}")))?)).await
    }
}

/// An error and what caused it, in one line.
fn described(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn redirected(from: &Uri, to: &str) -> Option<Uri> {
    if to.starts_with('/') {
        return format!("{}://{}{to}", from.scheme_str()?, from.authority()?).parse().ok();
    }
    to.parse().ok().filter(|uri: &Uri| uri.host().is_some())
}

async fn handshake<T>(io: TokioIo<T>) -> Result<SendRequest<Full<Bytes>>, CallError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let made = hyper::client::conn::http1::handshake(io).await;
    let (sender, connection) = made.map_err(|e| CallError::Broken(e.to_string()))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to another server ended");
        }
    });
    Ok(sender)
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Response, CallError> {
    let ended = |e: hyper::Error| {
        if e.is_closed() || e.is_canceled() || e.is_incomplete_message() {
            CallError::Reset("EOF".into())
        } else {
            CallError::Broken(e.to_string())
        }
    };
    sender.ready().await.map_err(ended)?;
    let response = sender.send_request(request).await.map_err(ended)?;
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body.map_err(|e| CallError::Broken(e.to_string()))?.to_bytes();
    // The connection takes the next request once the whole answer was read.
    let _ = sender.ready().await;
    Ok(Response { status: parts.status, headers: parts.headers, body })
}
