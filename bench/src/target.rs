//! Where the load goes: an API server by kubeconfig, and connections to it over TLS, HTTP/1.1 or HTTP/2.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use clap::ValueEnum;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The version of HTTP that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Http {
    #[value(name = "1")]
    One,
    #[value(name = "2")]
    Two,
}

impl std::fmt::Display for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Http::One => "HTTP/1.1",
            Http::Two => "HTTP/2",
        })
    }
}

/// An API server, and who calls it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Target {
    host: Arc<str>,
    port: u16,
    authority: HeaderValue,
    tls: Arc<rustls::ClientConfig>,
    token: Option<HeaderValue>,
    pub http: Http,
}

impl Target {
    /// The server of a kubeconfig's current context. Credentials are client certificates or a token.
    pub(crate) fn load(kubeconfig: &Path, http: Http) -> Result<Self> {
        let config = pki::Kubeconfig::load(kubeconfig)?;
        let resolved = config.resolve(None)?;
        let alpn: &[u8] = match http {
            Http::One => b"http/1.1",
            Http::Two => b"h2",
        };
        let tls = pki::tls::client_config_of(&resolved, &[alpn])?;
        let uri: http::Uri = resolved.server.parse().context("the kubeconfig's server")?;
        ensure!(uri.scheme_str() == Some("https"), "{}: not an https:// address", resolved.server);
        let host = uri.host().context("the kubeconfig's server has no host")?.trim_matches(['[', ']']);
        ensure!(resolved.user.exec.is_none(), "credentials of exec plugins are not supported");
        let token = match (&*resolved.user.token, &*resolved.user.token_file) {
            ("", "") => None,
            ("", file) => Some(std::fs::read_to_string(file).with_context(|| file.to_owned())?),
            (token, _) => Some(token.to_owned()),
        };
        let token = token.map(|t| HeaderValue::from_str(&format!("Bearer {}", t.trim())));
        Ok(Target {
            host: host.into(),
            port: uri.port_u16().unwrap_or(443),
            authority: HeaderValue::from_str(uri.authority().map_or(host, |a| a.as_str()))?,
            tls: Arc::new(tls),
            token: token.transpose().context("the token is not a header value")?,
            http,
        })
    }

    /// The same server over another version of HTTP.
    pub(crate) fn over(&self, http: Http) -> Self {
        let mut tls = (*self.tls).clone();
        tls.alpn_protocols = vec![match http {
            Http::One => b"http/1.1".to_vec(),
            Http::Two => b"h2".to_vec(),
        }];
        Target { tls: Arc::new(tls), http, ..self.clone() }
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        let dial = async {
            let tcp = TcpStream::connect((&*self.host, self.port)).await?;
            tcp.set_nodelay(true)?;
            let name = rustls::pki_types::ServerName::try_from(self.host.to_string())?;
            let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
            Ok::<_, anyhow::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        };
        let io = tokio::time::timeout(PATIENCE, dial).await.context("connecting")?.context("connecting")?;
        let sender = match self.http {
            Http::One => {
                let (sender, connection) = http1::Builder::new().handshake(io).await?;
                // Its errors come out of the requests it carries.
                tokio::spawn(async move { drop(connection.await) });
                Sender::One(sender)
            }
            Http::Two => {
                let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                    .initial_stream_window_size(16 << 20)
                    .initial_connection_window_size(16 << 20)
                    .handshake(io)
                    .await?;
                tokio::spawn(async move { drop(connection.await) });
                Sender::Two(sender)
            }
        };
        Ok(Connection { target: self.clone(), sender })
    }

    fn request(&self, call: Call) -> Result<Request<Full<Bytes>>> {
        let mut request = Request::builder().method(call.method);
        request = match self.http {
            Http::One => request.uri(&call.path).header(HOST, &self.authority),
            Http::Two => request.uri(format!("https://{}{}", self.authority.to_str()?, call.path)),
        };
        request = request.header(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        if !call.media.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static(call.media));
        }
        Ok(request.body(Full::new(call.body))?)
    }
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub method: Method,
    pub path: String,
    pub media: &'static str,
    pub body: Bytes,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Call { method: Method::GET, path: path.into(), media: "", body: Bytes::new() }
    }

    pub(crate) fn post(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Call { method: Method::POST, path: path.into(), media: "application/json", body: body.into() }
    }

    pub(crate) fn put(path: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Call { method: Method::PUT, ..Call::post(path, body) }
    }

    pub(crate) fn patch(path: impl Into<String>, media: &'static str, body: impl Into<Bytes>) -> Self {
        Call { method: Method::PATCH, path: path.into(), media, body: body.into() }
    }

    pub(crate) fn delete(path: impl Into<String>, options: &'static str) -> Self {
        Call {
            method: Method::DELETE,
            path: path.into(),
            media: "application/json",
            body: Bytes::from_static(options.as_bytes()),
        }
    }
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// One connection, for one request at a time.
pub(crate) struct Connection {
    target: Target,
    sender: Sender,
}

impl Connection {
    /// Sends a request; the body of the answer is still to be read.
    pub(crate) async fn open(&mut self, call: Call) -> Result<Response<Incoming>> {
        let request = self.target.request(call)?;
        let sent = async {
            match &mut self.sender {
                Sender::One(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Two(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        Ok(tokio::time::timeout(PATIENCE, sent).await.context("timed out")??)
    }

    /// Sends a request and reads its answer without keeping it: the status and the size.
    pub(crate) async fn measure(&mut self, call: Call) -> Result<(StatusCode, usize)> {
        let response = self.open(call).await?;
        let status = response.status();
        let mut body = response.into_body();
        let mut size = 0;
        let read = async {
            while let Some(frame) = body.frame().await {
                size += frame?.data_ref().map_or(0, Bytes::len);
            }
            Ok::<_, hyper::Error>(())
        };
        tokio::time::timeout(PATIENCE, read).await.context("timed out")??;
        Ok((status, size))
    }

    /// Sends a request and keeps its answer, whatever the status.
    pub(crate) async fn answer(&mut self, call: Call) -> Result<(StatusCode, Bytes)> {
        let response = self.open(call).await?;
        let status = response.status();
        let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
        Ok((status, body.context("timed out")??.to_bytes()))
    }

    /// Sends a request that must succeed, and reads its answer as JSON.
    pub(crate) async fn json(&mut self, call: Call) -> Result<serde_json::Value> {
        let what = format!("{} {}", call.method, call.path);
        let (status, body) = self.answer(call).await.with_context(|| what.clone())?;
        if !status.is_success() {
            bail!("{what}: {status}: {}", message(&body));
        }
        serde_json::from_slice(&body).with_context(|| what)
    }
}

/// What a refusal says.
pub(crate) fn message(body: &[u8]) -> String {
    let status: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match status["message"].as_str() {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}
