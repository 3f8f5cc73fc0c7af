//! The transport over the network: one HTTP/2 connection, opened when needed and opened again when it breaks.

use crate::error::Error;
use crate::transport::{BoxError, ResponseBody, Transport};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

/// Reads the bearer token for a request; called per request, so that a rotated token file is seen.
pub type TokenSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Where the server is and who calls.
#[derive(Clone)]
pub struct Https {
    inner: Arc<Inner>,
}

struct Inner {
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    token: Option<TokenSource>,
    connection: Mutex<Option<(u64, http2::SendRequest<Full<Bytes>>)>>,
    /// How often it was said that the next request wants a new connection.
    reconnects: AtomicU64,
}

impl std::fmt::Debug for Https {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Https({}:{})", self.inner.host, self.inner.port)
    }
}

impl Https {
    /// `server` is a URL (`https://host:port`); `tls` holds roots and the client certificate.
    pub fn new(
        server: &str,
        mut tls: rustls::ClientConfig,
        token: Option<TokenSource>,
    ) -> Result<Self, Error> {
        let uri: Uri = server.parse().map_err(|e| Error::Request(format!("server {server:?}: {e}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(Error::Request(format!("server {server:?}: not an https:// address")));
        }
        let host = uri.host().ok_or_else(|| Error::Request(format!("server {server:?}: no host")))?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Https {
            inner: Arc::new(Inner {
                host: host.trim_matches(['[', ']']).to_owned(),
                port: uri.port_u16().unwrap_or(443),
                tls: Arc::new(tls),
                token,
                connection: Mutex::new(None),
                reconnects: AtomicU64::new(0),
            }),
        })
    }

    /// Has the next request open a connection, with the credentials of that moment. What is under way goes on.
    pub fn reconnect(&self) {
        self.inner.reconnects.fetch_add(1, Ordering::Relaxed);
    }
}

impl Inner {
    async fn connect(&self) -> Result<http2::SendRequest<Full<Bytes>>, Error> {
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .map_err(|e| Error::Request(format!("host {:?}: {e}", self.host)))?;
        let dial = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            tokio_rustls::TlsConnector::from(self.tls.clone()).connect(name, tcp).await
        };
        let tls = tokio::time::timeout(Duration::from_secs(10), dial)
            .await
            .map_err(|_| Error::transport("connecting to the API server", "timed out"))?
            .map_err(|e| Error::transport("connecting to the API server", e))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Many watches share the connection; a small window would let one slow reader stall the others.
            .initial_connection_window_size(64 << 20)
            .initial_stream_window_size(4 << 20)
            .keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(15))
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| Error::transport("opening HTTP/2", e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the API server ended");
            }
        });
        Ok(sender)
    }

    async fn sender(&self) -> Result<http2::SendRequest<Full<Bytes>>, Error> {
        let mut slot = self.connection.lock().await;
        let wanted = self.reconnects.load(Ordering::Relaxed);
        if let Some((_, sender)) = slot.as_ref().filter(|(made, s)| *made == wanted && !s.is_closed()) {
            return Ok(sender.clone());
        }
        let sender = self.connect().await?;
        *slot = Some((wanted, sender.clone()));
        Ok(sender)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<ResponseBody>, Error> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let authority = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        parts.uri = format!("https://{authority}{path}")
            .parse()
            .map_err(|e| Error::Request(format!("path {path:?}: {e}")))?;
        parts.version = http::Version::HTTP_2;
        if let Some(token) = self.token.as_ref().and_then(|t| t()) {
            let mut value = http::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::Request("the token is not a header value".into()))?;
            value.set_sensitive(true);
            parts.headers.insert(http::header::AUTHORIZATION, value);
        }
        let mut sender = self.sender().await?;
        sender.ready().await.map_err(|e| Error::transport("waiting for the connection", e))?;
        let response = sender
            .send_request(Request::from_parts(parts, Full::new(body)))
            .await
            .map_err(|e| Error::transport("sending the request", e))?;
        Ok(response.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()))
    }
}

impl Transport for Https {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>, Error>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.send(request).await })
    }
}
