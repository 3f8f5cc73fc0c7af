//! Other servers that requests are handed on to: kubelets, pods, services.

use crate::body::{self, Answer};
use crate::egress::{Egress, Purpose};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use apimachinery::value::Value;
use client::transport::ResponseBody;
use component::dial;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::tls;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use streaming::proxy::Pace;

const PATIENCE: Duration = Duration::from_secs(10);
/// What a kubelet may answer at most.
const MAX_DOCUMENT: usize = 64 << 20;

/// A TLS or plain stream to a backend.
pub(super) trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Io for T {}

/// Where a request goes.
pub(super) struct Backend {
    pub(super) host: String,
    pub(super) port: u16,
    /// How to speak TLS to it, if it does.
    pub(super) tls: Option<Arc<rustls::ClientConfig>>,
    pub(super) egress: Arc<Egress>,
    /// What it says of itself that it can do, if it is a node's kubelet. Upstream: declared features.
    pub(super) declared: Vec<String>,
}

/// Why a backend cannot be spoken to, in the words of a failed connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("{0}")]
    Handshake(tls::Failure),
    #[error("{0}")]
    Broken(String),
}

impl Unreachable {
    /// Whether it is there, and nobody vouches for it.
    pub(super) fn is_distrust(&self) -> bool {
        matches!(self, Unreachable::Handshake(tls::Failure::Distrust(_)))
    }

    /// To whom waits for the answer of what stands behind the backend.
    pub(super) fn reaching(self) -> Status {
        Status::service_unavailable(format!("error trying to reach service: {self}"))
    }

    /// To whom waits for a connection to it.
    pub(super) fn dialing(self) -> Status {
        Status::plain_error(format!("error dialing backend: {self}"))
    }
}

impl Backend {
    /// `host:port`.
    pub(super) fn address(&self) -> String {
        dial::join_host_port(&self.host, self.port)
    }

    fn unreachable(&self, error: &io::Error) -> Unreachable {
        match tls::failure(error, &self.host) {
            Some(failure) => Unreachable::Handshake(failure),
            None => Unreachable::Broken(dial::tcp_failed(&self.host, self.port, error)),
        }
    }

    pub(super) async fn connect(&self) -> Result<Box<dyn Io>, Unreachable> {
        let dial = async {
            let tcp = self.egress.dial(Purpose::Cluster, &self.host, self.port).await?;
            let Some(config) = &self.tls else { return Ok::<Box<dyn Io>, io::Error>(Box::new(tcp)) };
            let name = rustls_pki_types::ServerName::try_from(self.host.clone()).map_err(io::Error::other)?;
            Ok(Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await?))
        };
        match tokio::time::timeout(PATIENCE, dial).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => Err(self.unreachable(&error)),
            Err(_) => Err(self.unreachable(&io::ErrorKind::TimedOut.into())),
        }
    }
}

pub(super) fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The address of the first of the types that a node has one of.
fn preferred<'a>(addresses: &'a [Value], types: &[String]) -> Option<&'a str> {
    const DEFAULT: [&str; 5] = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"];
    let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    match types {
        [] => DEFAULT.into_iter().find_map(of),
        types => types.iter().map(String::as_str).find_map(of),
    }
}

/// A node's kubelet.
pub(super) fn node_backend(server: &Server, node: &str) -> Result<Backend, Status> {
    let nodes = server.registry.resources.get("", "v1", "nodes").ok_or_else(Status::path_not_found)?;
    let value = server.registry.get(&nodes, "", node)?.value;
    let addresses = value["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let Some(host) = preferred(&addresses, &server.rooms.kubelet_address_types) else {
        return Err(Status::internal_error(format!(
            "no preferred addresses found; known addresses: {addresses:?}"
        )));
    };
    let port = value["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(10250);
    let Some(tls) = &server.rooms.kubelet_tls else {
        return Err(Status::service_unavailable("this API server has no client certificate for kubelets"));
    };
    let tls = Some(tls.checked.clone());
    let declared = value["status"]["declaredFeatures"].as_array().into_iter().flatten();
    let declared = declared.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
    Ok(Backend { host: host.to_owned(), port, tls, egress: server.rooms.egress.clone(), declared })
}

/// The kubelet of a pod, if it has one yet. `pods` are what the request is about.
pub(super) fn node_backend_of(
    server: &Server,
    pods: &Served,
    pod: &Value,
) -> Result<Option<Backend>, Status> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        return Ok(None);
    }
    node_backend(server, node).map(Some).map_err(|status| match status.is_not_found() {
        // Upstream's storage of nodes speaks of what the request is about.
        true => pods.not_found(node),
        false => status,
    })
}

/// A JSON document of a node's kubelet.
pub(crate) async fn kubelet_get(server: &Server, node: &str, path: &str) -> Result<Value, Status> {
    let backend = node_backend(server, node)?;
    let request = Request::get(path).body(body::full("")).map_err(Status::internal_error)?;
    let response = send(&backend, request).await.map_err(Unreachable::reaching)?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
    let bytes = bytes.map_err(Status::internal_error)?.to_bytes();
    if !status.is_success() {
        return Err(Status::internal_error(format!("the kubelet of {node} answers {status}")));
    }
    serde_json::from_slice(&bytes).map_err(Status::internal_error)
}

/// Sends a request; the answer is yet to be read.
pub(super) async fn send(
    backend: &Backend,
    mut request: Request<ResponseBody>,
) -> Result<Response<Incoming>, Unreachable> {
    let io = backend.connect().await?;
    let broken = |error: &dyn std::fmt::Display| Unreachable::Broken(error.to_string());
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| broken(&e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    request.headers_mut().insert(header::HOST, backend.address().parse().map_err(|e| broken(&e))?);
    sender.send_request(request).await.map_err(|e| broken(&e))
}

/// Hands an upgraded connection through to the backend, which speaks the same protocols.
pub(super) async fn upgrade(
    server: &Server,
    backend: &Backend,
    call: Call,
    path: &str,
) -> Result<Answer, Status> {
    let io = backend.connect().await.map_err(Unreachable::dialing)?;
    upgrade_over(io, server, backend, call, path).await
}

/// The same, over a connection that is there.
pub(super) async fn upgrade_over(
    io: Box<dyn Io>,
    server: &Server,
    backend: &Backend,
    call: Call,
    path: &str,
) -> Result<Answer, Status> {
    let mut head = Request::builder()
        .method(call.parts.method.clone())
        .uri(path)
        .body(())
        .map_err(Status::internal_error)?;
    for (name, value) in &call.parts.headers {
        if !matches!(*name, header::AUTHORIZATION | header::HOST)
            && !name.as_str().starts_with("impersonate-")
        {
            head.headers_mut().append(name, value.clone());
        }
    }
    head.headers_mut().insert(header::HOST, backend.address().parse().map_err(Status::internal_error)?);
    let mut client = Request::from_parts(call.parts, ());
    match streaming::proxy::proxy_upgrade(&mut client, head, io).await {
        Ok(streaming::proxy::Proxied::Switched(response, tunnel)) => {
            let (held, tunnel) =
                (crate::context::hold(), tunnel.at(Pace::bytes_per_second(server.rooms.bytes_per_second)));
            tokio::spawn(async move {
                let _held = held;
                if let Err(error) = tunnel.run().await {
                    tracing::debug!(%error, "an upgraded connection ended");
                }
            });
            Ok(response.map(|()| body::full("")))
        }
        Ok(streaming::proxy::Proxied::Refused(response)) => Ok(response.map(body::stream)),
        Ok(streaming::proxy::Proxied::Redirected) => Ok(body::text(
            StatusCode::BAD_GATEWAY,
            "the backend attempted to redirect this request, which is not permitted",
        )),
        Err(error) => Err(Status::bad_request(format!("Upgrade request required: {error}"))),
    }
}
