//! Calls that the server makes itself: to webhooks and other servers, by URL or through a Service, over TLS.

use crate::caller::Caller;
use crate::egress::{Connection, Egress, Purpose};
use crate::resources::{Resources, Served};
use crate::spans::Asking;
use apimachinery::value::Value;
use bytes::Bytes;
use component::dial;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use pki::tls::{Slot, Trust};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use store::Store;

/// The largest answer that is read.
const MAX_ANSWER: usize = 8 << 20;

/// Where services and their endpoints are looked up, and the trust of each caller's bundle.
pub struct Outbound {
    store: Arc<dyn Store>,
    services: Option<Arc<Served>>,
    slices: Option<Arc<Served>>,
    /// How the server shows itself to those who ask; to aggregated servers.
    identity: Option<Arc<Slot>>,
    trusts: Mutex<HashMap<String, Arc<rustls::ClientConfig>>>,
    egress: Arc<Egress>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// Whom to call.
#[derive(Debug, Clone)]
pub struct Target {
    /// As messages name it: `https://name.namespace.svc:443/path`.
    pub url: String,
    host: String,
    port: u16,
    server_name: String,
    path: String,
    tls: Arc<rustls::ClientConfig>,
    /// As whom it is called, where that is not what this server shows to everybody.
    caller: Option<Arc<Caller>>,
}

impl Target {
    /// Another path of the same server.
    pub fn at(&self, path: &str) -> Target {
        Target { path: path.to_owned(), ..self.clone() }
    }
}

/// Whom a client trusts.
#[derive(Debug, Clone, Copy)]
pub enum Roots<'a> {
    /// The authorities of a PEM bundle, base64 as objects have it; the system's when it is empty.
    Bundle(&'a str),
    /// Anybody (`insecureSkipTLSVerify`).
    Anyone,
}

/// The host and port that a `clientConfig` leads to.
fn host_and_port(config: &Value) -> Result<String, String> {
    if let Some(url) = config["url"].as_str() {
        let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        return Ok(format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443)));
    }
    let service = &config["service"];
    let text = |key: &str| service[key].as_str().unwrap_or_default();
    let port = service["port"].as_u64().unwrap_or(443);
    Ok(format!("{}.{}.svc:{port}", text("name"), text("namespace")))
}

impl Outbound {
    pub fn new(store: Arc<dyn Store>, resources: &Resources, identity: Option<Arc<Slot>>) -> Self {
        Outbound {
            store,
            services: resources.get("", "v1", "services"),
            slices: resources.get("discovery.k8s.io", "v1", "endpointslices"),
            identity,
            trusts: Mutex::default(),
            egress: Arc::default(),
        }
    }

    /// With connections that go these ways.
    pub fn through(self, egress: Arc<Egress>) -> Self {
        Outbound { egress, ..self }
    }

    fn trust(
        &self,
        roots: Roots<'_>,
        caller: Option<&Arc<Caller>>,
    ) -> Result<Arc<rustls::ClientConfig>, String> {
        let bundle = match roots {
            Roots::Bundle(bundle) => bundle,
            Roots::Anyone => "anyone",
        };
        let key = format!("{}\n{bundle}", caller.map_or("", |caller| caller.name.as_str()));
        if let Some(config) = self.trusts.lock().get(&key) {
            return Ok(config.clone());
        }
        let trust = match roots {
            Roots::Anyone => Trust::Anyone,
            Roots::Bundle("") => Trust::system().map_err(|e| e.to_string())?,
            Roots::Bundle(bundle) => {
                use base64::Engine as _;
                let pem = base64::engine::general_purpose::STANDARD.decode(bundle);
                let pem = pem.map_err(|e| format!("unable to load root certificates: {e}"))?;
                Trust::pem(&pem).map_err(|e| format!("unable to load root certificates: {e}"))?
            }
        };
        let identity = caller.map_or(&self.identity, |caller| &caller.identity);
        let config = pki::tls::client_config(&trust, identity.clone(), pki::tls::ALPN_HTTP1);
        let config = Arc::new(config.map_err(|e| e.to_string())?);
        let mut trusts = self.trusts.lock();
        // Bundles change with their certificates: what nobody uses any more is forgotten at some point.
        if trusts.len() > 256 {
            trusts.clear();
        }
        trusts.insert(key, config.clone());
        Ok(config)
    }

    /// The target of a `clientConfig`: a URL or a Service, and whom to trust.
    pub fn target(&self, config: &Value) -> Result<Target, String> {
        self.target_as(config, |_| None)
    }

    /// Such a target, called as whoever is meant for its host and port.
    pub(crate) fn target_as<'c>(
        &self,
        config: &Value,
        callers: impl Fn(&str) -> Option<&'c Arc<Caller>>,
    ) -> Result<Target, String> {
        let roots = Roots::Bundle(config["caBundle"].as_str().unwrap_or_default());
        let caller = callers(&host_and_port(config)?);
        let tls = self.trust(roots, caller)?;
        if let Some(url) = config["url"].as_str() {
            let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let path = uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
            return Ok(Target {
                url: url.to_owned(),
                port: uri.port_u16().unwrap_or(443),
                server_name: host.clone(),
                host,
                path,
                tls,
                caller: caller.cloned(),
            });
        }
        let service = &config["service"];
        let text = |key: &str| service[key].as_str().unwrap_or_default();
        let port = service["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or(443);
        let path = match text("path") {
            "" => "/".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let mut target = self.service(text("namespace"), text("name"), port, tls)?;
        target.url = format!("https://{}:{port}{path}", target.server_name);
        target.path = path;
        target.caller = caller.cloned();
        Ok(target)
    }

    /// A port of a Service.
    pub fn service_target(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        roots: Roots<'_>,
    ) -> Result<Target, String> {
        let tls = self.trust(roots, None)?;
        self.service(namespace, name, port, tls)
    }

    fn service(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
        tls: Arc<rustls::ClientConfig>,
    ) -> Result<Target, String> {
        let missing = || format!("service \"{name}\" not found");
        let services = self.services.as_ref().ok_or_else(missing)?;
        let entry = self.store.get(&services.key(namespace, name)).ok_or_else(missing)?;
        let service = crate::registry::decode(services, &entry).map_err(|s| s.message)?.value;
        let server_name = format!("{name}.{namespace}.svc");
        let url = format!("https://{server_name}:{port}/");
        let to = |host: &str, port: u16| Target {
            url: url.clone(),
            host: host.to_owned(),
            port,
            server_name: server_name.clone(),
            path: "/".to_owned(),
            tls: tls.clone(),
            caller: None,
        };
        let spec = &service["spec"];
        if spec["type"] == "ExternalName" {
            return Ok(to(spec["externalName"].as_str().unwrap_or_default(), port));
        }
        let ports = spec["ports"].as_array().into_iter().flatten();
        let chosen = ports.into_iter().find(|p| p["port"].as_u64() == Some(u64::from(port)));
        let chosen = chosen.ok_or_else(|| format!("no service port {port} found for service \"{name}\""))?;
        let port_name = chosen["name"].as_str().unwrap_or_default();
        // To the endpoints themselves: the server need not stand where service addresses lead anywhere.
        if let Some((host, port)) = self.endpoint(namespace, name, port_name) {
            return Ok(to(&host, port));
        }
        Err(format!("no endpoints available for service \"{name}\""))
    }

    fn endpoint(&self, namespace: &str, service: &str, port_name: &str) -> Option<(String, u16)> {
        let slices = self.slices.as_ref()?;
        let snapshot = self.store.snapshot(&slices.prefix);
        for entry in snapshot.range(&format!("{namespace}/"), "") {
            let Ok(slice) = crate::registry::decode(slices, entry) else { continue };
            let slice = slice.value;
            if slice["metadata"]["labels"]["kubernetes.io/service-name"] != *service {
                continue;
            }
            let mut ports = slice["ports"].as_array().into_iter().flatten();
            let port = ports.find(|p| p["name"].as_str().unwrap_or_default() == port_name);
            let port = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok());
            let mut endpoints = slice["endpoints"].as_array().into_iter().flatten();
            let ready = endpoints.find(|e| e["conditions"]["ready"] != false);
            if let (Some(port), Some(host)) = (port, ready.and_then(|e| e["addresses"][0].as_str())) {
                return Some((host.to_owned(), port));
            }
        }
        None
    }

    /// A connection over which one request can be sent.
    pub async fn connect(
        &self,
        target: &Target,
    ) -> Result<tokio_rustls::client::TlsStream<Connection>, String> {
        let dialled = self.egress.dial(Purpose::ControlPlane, &target.host, target.port).await;
        let tcp = dialled.map_err(|e| dial::tcp_failed(&target.host, target.port, &e))?;
        let name = rustls_pki_types::ServerName::try_from(target.server_name.clone());
        let name = name.map_err(|e| e.to_string())?;
        let connector = tokio_rustls::TlsConnector::from(target.tls.clone());
        connector.connect(name, tcp).await.map_err(|e| format!("tls: {e}"))
    }

    /// Sends one request; its path is the target's unless it has one of its own.
    pub async fn send(
        &self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        if request.uri().path() == "" || request.uri() == "/" {
            *request.uri_mut() = target.path.parse().map_err(|e| format!("{}: {e}", target.path))?;
        }
        if let Ok(host) = format!("{}:{}", target.server_name, target.port).parse() {
            request.headers_mut().entry(header::HOST).or_insert(host);
        }
        if let Some(caller) = &target.caller {
            caller.add(request.headers_mut())?;
        }
        // As messages name the server, and what it is asked.
        let end = target.url.match_indices('/').nth(2).map_or(target.url.len(), |(at, _)| at);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let url = || format!("{}{uri}", &target.url[..end]);
        let asking = Asking::begin(&method, url, request.headers_mut());
        let answer = self.send_over(target, request).await;
        asking.answered(&answer);
        answer
    }

    async fn send_over(
        &self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<http::Response<hyper::body::Incoming>, String> {
        let stream = self.connect(target).await?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to another server ended");
            }
        });
        sender.send_request(request).await.map_err(|e| e.to_string())
    }

    /// Posts a JSON document and reads the answer, within the time.
    pub async fn post(&self, target: &Target, body: Vec<u8>, timeout: Duration) -> Result<Value, String> {
        let separator = if target.path.contains('?') { '&' } else { '?' };
        let query = format!("{separator}timeout={}s", timeout.as_secs());
        let asked = format!("Post \"{}{query}\"", target.url);
        let call = async {
            let request = Request::post(format!("{}{query}", target.path))
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, "application/json, */*")
                .header(header::USER_AGENT, "kube-apiserver-admission")
                .body(Full::new(Bytes::from(body)))
                .map_err(|e| e.to_string())?;
            let response = self.send(target, request).await.map_err(|e| format!("{asked}: {e}"))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let bytes = body.map_err(|e| format!("{asked}: {e}"))?.to_bytes();
            if status != StatusCode::OK && status != StatusCode::CREATED {
                let text = String::from_utf8_lossy(&bytes);
                let text = text.trim();
                return Err(match text {
                    "" => format!("the server responded with the status code {}", status.as_u16()),
                    text => {
                        format!("an error on the server ({text:?}) has prevented the request from succeeding")
                    }
                });
            }
            serde_json::from_slice(&bytes).map_err(|e| e.to_string())
        };
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{asked}: context deadline exceeded")),
        }
    }
}
