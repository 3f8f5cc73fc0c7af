//! What the kubelet answers: logs, exec, attach, port-forward, and proxies to nodes, pods and services.

use crate::body::{self, Answer};
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(10);

/// A TLS or plain stream to a backend.
trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Io for T {}

/// Where a request goes.
struct Backend {
    host: String,
    port: u16,
    tls: Option<Arc<rustls::ClientConfig>>,
}

fn unreachable(backend: &Backend, error: impl std::fmt::Display) -> Status {
    Status::service_unavailable(format!(
        "error dialing backend: dial tcp {}:{}: {error}",
        backend.host, backend.port
    ))
}

impl Backend {
    async fn connect(&self) -> Result<Box<dyn Io>, Status> {
        let dial = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            let Some(config) = &self.tls else { return Ok::<Box<dyn Io>, std::io::Error>(Box::new(tcp)) };
            let name =
                rustls_pki_types::ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
            Ok(Box::new(tokio_rustls::TlsConnector::from(config.clone()).connect(name, tcp).await?))
        };
        match tokio::time::timeout(PATIENCE, dial).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => Err(unreachable(self, error)),
            Err(_) => Err(unreachable(self, "i/o timeout")),
        }
    }
}

/// Serves a subresource that a kubelet answers.
pub(crate) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let pod = server.registry.get(resource, &call.info.namespace, &call.info.name)?.value;
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let (namespace, name) = (&call.info.namespace, &call.info.name);
    if node.is_empty() {
        return match call.info.subresource.as_str() {
            // Not scheduled yet: no log so far.
            "log" => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
            _ => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
        };
    }
    let query = call.parts.uri.query().unwrap_or_default();
    let (what, query) = match call.info.subresource.as_str() {
        "log" => ("containerLogs", query.to_owned()),
        "exec" => ("exec", streams(&call)),
        "attach" => ("attach", streams(&call)),
        _ => ("portForward", query.to_owned()),
    };
    let mut path = format!("/{what}/{namespace}/{name}");
    if what != "portForward" {
        path = format!("{path}/{}", container(&pod, &call)?);
    }
    let backend = node_backend(server, node)?;
    if what == "containerLogs" {
        let verb = Request::get(with_query(&path, &query));
        return forward(&backend, verb.body(Full::default()).map_err(Status::internal_error)?).await;
    }
    upgrade(&backend, call, &with_query(&path, &query)).await
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// The kubelet's names of the streams that the API calls `stdin`, `stdout`, `stderr`.
fn streams(call: &Call) -> String {
    let mut out = Vec::new();
    let query = &call.info.query;
    for (ours, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            out.push((theirs, "1".to_owned()));
        }
    }
    out.extend(query.all("command").map(|c| ("command", c.to_owned())));
    client::client::uri("", &out).trim_start_matches('?').to_owned()
}

/// The container asked for, or the pod's only one.
fn container(pod: &Value, call: &Call) -> Result<String, Status> {
    let names = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|c| c["name"].as_str()).collect()
    };
    let (containers, init, ephemeral) =
        (names("containers"), names("initContainers"), names("ephemeralContainers"));
    let pod_name = object::name(pod);
    match call.info.query.get("container").filter(|c| !c.is_empty()) {
        Some(wanted)
            if containers.contains(&wanted) || init.contains(&wanted) || ephemeral.contains(&wanted) =>
        {
            Ok(wanted.to_owned())
        }
        Some(wanted) => {
            Err(Status::bad_request(format!("container {wanted} is not valid for pod {pod_name}")))
        }
        None => match containers[..] {
            [only] => Ok(only.to_owned()),
            _ => {
                let mut text = format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]",
                    containers.join(" ")
                );
                if !init.is_empty() {
                    text = format!("{text} or one of the init containers: [{}]", init.join(" "));
                }
                Err(Status::bad_request(text))
            }
        },
    }
}

fn node_backend(server: &Server, node: &str) -> Result<Backend, Status> {
    let nodes = server.registry.resources.get("", "v1", "nodes").ok_or_else(Status::path_not_found)?;
    let value = server.registry.get(&nodes, "", node)?.value;
    let addresses = value["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let of = |kind: &str| addresses.iter().find(|a| a["type"] == kind).and_then(|a| a["address"].as_str());
    let host = of("InternalIP").or_else(|| of("Hostname")).or_else(|| of("ExternalIP"));
    let Some(host) = host else {
        return Err(Status::internal_error(format!(
            "no preferred addresses found; known addresses: {addresses:?}"
        )));
    };
    let port = value["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64();
    let port = port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0).unwrap_or(10250);
    let tls = server.rooms.kubelet_tls.clone();
    if tls.is_none() {
        return Err(Status::service_unavailable("this API server has no client certificate for kubelets"));
    }
    Ok(Backend { host: host.to_owned(), port, tls })
}

/// Sends a request and streams the answer back.
async fn forward(backend: &Backend, mut request: Request<Full<Bytes>>) -> Result<Answer, Status> {
    let io = backend.connect().await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(|e| unreachable(backend, e))?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a proxied connection ended");
        }
    });
    let host = format!("{}:{}", backend.host, backend.port);
    request.headers_mut().insert(header::HOST, host.parse().map_err(Status::internal_error)?);
    let response = sender.send_request(request).await.map_err(|e| unreachable(backend, e))?;
    Ok(response.map(body::stream))
}

/// Hands an upgraded connection through to the backend, which speaks the same protocols.
async fn upgrade(backend: &Backend, call: Call, path: &str) -> Result<Answer, Status> {
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
    let host = format!("{}:{}", backend.host, backend.port);
    head.headers_mut().insert(header::HOST, host.parse().map_err(Status::internal_error)?);
    let io = backend.connect().await?;
    let mut client = Request::from_parts(call.parts, ());
    match streaming::proxy::proxy_upgrade(&mut client, head, io).await {
        Ok(streaming::proxy::Proxied::Switched(response, tunnel)) => {
            tokio::spawn(async move {
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

/// `nodes/proxy`, `pods/proxy` and `services/proxy`: plain HTTP to what the object stands for.
pub(crate) async fn proxy(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let (scheme, name, port) = split_name(&call.info.name);
    let backend = match resource.row.resource.as_ref() {
        "nodes" => node_backend(server, name)?,
        "pods" => pod_backend(server, resource, &call, name, port)?,
        _ => service_backend(server, resource, &call, scheme, name, port)?,
    };
    let rest: String = call.info.rest.iter().map(|p| format!("/{p}")).collect();
    let mut path = if rest.is_empty() { "/".to_owned() } else { rest };
    if call.info.path.ends_with('/') && !path.ends_with('/') {
        path.push('/');
    }
    let path = with_query(&path, call.parts.uri.query().unwrap_or_default());
    if call.parts.headers.contains_key(header::UPGRADE) {
        return upgrade(&backend, call, &path).await;
    }
    let bytes = call.body.read().await?;
    let method: Method = call.parts.method.clone();
    let mut request =
        Request::builder().method(method).uri(path).body(Full::new(bytes)).map_err(Status::internal_error)?;
    for (name, value) in &call.parts.headers {
        let hop = matches!(
            *name,
            header::AUTHORIZATION
                | header::HOST
                | header::CONNECTION
                | header::TRANSFER_ENCODING
                | header::CONTENT_LENGTH
        );
        if !hop && !name.as_str().starts_with("impersonate-") {
            request.headers_mut().append(name, value.clone());
        }
    }
    forward(&backend, request).await
}

/// `https:name:port` into its parts.
fn split_name(text: &str) -> (&str, &str, &str) {
    match text.split(':').collect::<Vec<_>>()[..] {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", text, ""),
    }
}

fn pod_backend(
    server: &Server,
    pods: &Arc<Served>,
    call: &Call,
    name: &str,
    port: &str,
) -> Result<Backend, Status> {
    let pod = server.registry.get(pods, &call.info.namespace, name)?.value;
    let ip = pod["status"]["podIP"].as_str().filter(|ip| !ip.is_empty());
    let ip =
        ip.ok_or_else(|| Status::bad_request(format!("address not allowed: pod {name} has no address")))?;
    let first = pod["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|c| c["ports"][0]["containerPort"].as_u64());
    let port = match port {
        "" => first.and_then(|p| u16::try_from(p).ok()).unwrap_or(80),
        text => text.parse().map_err(|_| Status::bad_request(format!("invalid port {text:?}")))?,
    };
    Ok(Backend { host: ip.to_owned(), port, tls: None })
}

fn service_backend(
    server: &Server,
    services: &Arc<Served>,
    call: &Call,
    scheme: &str,
    name: &str,
    port: &str,
) -> Result<Backend, Status> {
    let service = server.registry.get(services, &call.info.namespace, name)?.value;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let chosen = ports.iter().find(|p| match port {
        "" => ports.len() == 1,
        wanted => p["name"] == wanted || p["port"].as_u64().is_some_and(|n| n.to_string() == wanted),
    });
    let none = || Status::service_unavailable(format!("no endpoints available for service \"{name}\""));
    let port_name = chosen.ok_or_else(none)?["name"].as_str().unwrap_or_default().to_owned();
    let slices =
        server.registry.resources.get("discovery.k8s.io", "v1", "endpointslices").ok_or_else(none)?;
    let snapshot = server.registry.store.snapshot(&slices.prefix);
    for entry in snapshot.range(&format!("{}/", call.info.namespace), "") {
        let slice = crate::registry::decode(&slices, entry)?.value;
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            continue;
        }
        let port = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        let ready =
            slice["endpoints"].as_array().into_iter().flatten().find(|e| e["conditions"]["ready"] != false);
        if let Some(ip) = ready.and_then(|e| e["addresses"][0].as_str()) {
            let tls = if scheme == "https" { server.rooms.insecure_tls.clone() } else { None };
            return Ok(Backend { host: ip.to_owned(), port, tls });
        }
    }
    Err(none())
}
