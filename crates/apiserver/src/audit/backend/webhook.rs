//! Events posted to another server (`--audit-webhook-config-file`), again and again until it takes them or patience ends.

use super::Backend;
use crate::audit::Metrics;
use crate::audit::event::{self, Event};
use crate::egress::Way;
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use pki::kubeconfig::Kubeconfig;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A whole call, its answer included.
const PATIENCE: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 5;
const FACTOR: f64 = 1.5;
const JITTER: f64 = 0.2;
const LONGEST_ANSWER: usize = 1 << 20;

/// Where events are posted to.
pub struct Webhook(Arc<Inner>);

struct Inner {
    host: String,
    port: u16,
    path: String,
    server_name: String,
    /// Absent: plain HTTP.
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<http::HeaderValue>,
    way: Way,
    initial_backoff: Duration,
    metrics: Metrics,
}

impl Webhook {
    /// Reads the kubeconfig file that says where to.
    pub fn load(path: &Path, initial_backoff: Duration, metrics: Metrics, way: Way) -> Result<Self, String> {
        let resolved = Kubeconfig::load(path).and_then(|config| config.resolve(None));
        let resolved = resolved.map_err(|error| error.to_string())?;
        let uri: http::Uri = resolved.server.parse().map_err(|e| format!("{}: {e}", resolved.server))?;
        let is_plain = uri.scheme_str() == Some("http");
        let tls = match is_plain {
            true => None,
            false => {
                let config = pki::tls::client_config_of(&resolved, pki::tls::ALPN_HTTP1);
                Some(Arc::new(config.map_err(|error| error.to_string())?))
            }
        };
        let token = match (resolved.user.token.as_str(), resolved.user.token_file.as_str()) {
            ("", "") => String::new(),
            ("", file) => std::fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?,
            (token, _) => token.to_owned(),
        };
        let authorization = match (token.trim(), resolved.user.username.as_str()) {
            ("", "") => None,
            ("", name) => {
                use base64::Engine as _;
                let plain = format!("{name}:{}", resolved.user.password);
                Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(plain)))
            }
            (token, _) => Some(format!("Bearer {token}")),
        };
        let authorization = authorization.map(|text| http::HeaderValue::from_str(&text)).transpose();
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        Ok(Webhook(Arc::new(Inner {
            port: uri.port_u16().unwrap_or(if is_plain { 80 } else { 443 }),
            path: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            server_name: resolved.tls_server_name.clone().unwrap_or_else(|| host.clone()),
            host,
            tls,
            authorization: authorization.map_err(|error| error.to_string())?,
            way,
            initial_backoff,
            metrics,
        })))
    }
}

impl Inner {
    async fn post(&self, body: Bytes) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let tcp = self.way.dial(&self.host, self.port).await.map_err(|e| text(&e))?;
        match &self.tls {
            None => self.speak(TokioIo::new(tcp), body).await,
            Some(config) => {
                let name = rustls_pki_types::ServerName::try_from(self.server_name.clone());
                let name = name.map_err(|e| text(&e))?;
                let connector = tokio_rustls::TlsConnector::from(config.clone());
                let tls = connector.connect(name, tcp).await.map_err(|e| text(&e))?;
                self.speak(TokioIo::new(tls), body).await
            }
        }
    }

    async fn speak<T>(&self, io: T, body: Bytes) -> Result<(), String>
    where
        T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(io).await.map_err(|e| text(&e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the audit webhook ended");
            }
        });
        let mut request = Request::post(&self.path)
            .header(header::HOST, format!("{}:{}", self.host, self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/json, */*")
            .header(header::USER_AGENT, "kube-apiserver")
            .body(Full::new(body))
            .map_err(|e| text(&e))?;
        let headers = request.headers_mut();
        headers.extend(self.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        let response = sender.send_request(request).await.map_err(|e| text(&e))?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        answer.map_err(|e| text(&e))?;
        match status.is_success() {
            true => Ok(()),
            false => Err(format!("the server responded with the status code {}", status.as_u16())),
        }
    }

    async fn deliver(&self, events: &[Arc<Event>]) -> Result<(), String> {
        let body = Bytes::from(event::list(events).map_err(|error| error.to_string())?);
        let mut wait = self.initial_backoff;
        for attempt in 1.. {
            let posted = match tokio::time::timeout(PATIENCE, self.post(body.clone())).await {
                Ok(posted) => posted,
                Err(_) => Err("context deadline exceeded".into()),
            };
            match posted {
                // Whatever was wrong, it may be right next time.
                Err(why) if attempt < ATTEMPTS => {
                    tracing::debug!(why, attempt, "audit events could not be posted");
                    let spread = f64::from(uuid::Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX);
                    tokio::time::sleep(wait.mul_f64(1.0 + JITTER * spread)).await;
                    wait = wait.mul_f64(FACTOR);
                }
                done => return done,
            }
        }
        Ok(())
    }
}

impl Backend for Webhook {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        let inner = self.0.clone();
        Box::pin(async move {
            match inner.deliver(&events).await {
                Ok(()) => true,
                Err(why) => {
                    inner.metrics.failed("webhook", &why, &events);
                    false
                }
            }
        })
    }
}
