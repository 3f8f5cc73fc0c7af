//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP to what the object stands for. Upstream: `UpgradeAwareHandler`.

use super::backend::{Backend, Unreachable, node_backend, send, upgrade, with_query};
use super::links::Links;
use crate::body::{self, Answer};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use http::{Method, Request, Response, StatusCode, header};
use std::sync::Arc;

pub(crate) async fn proxy(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let (scheme, name, port) = split_name(&call.info.name);
    let backend = match resource.row.resource.as_ref() {
        "nodes" => node_backend(server, name)?,
        "pods" => pod_backend(server, resource, &call, scheme, name, port)?,
        _ => service_backend(server, resource, &call, scheme, name, port)?,
    };
    let rest: String = call.info.rest.iter().map(|p| format!("/{p}")).collect();
    let query = call.parts.uri.query().unwrap_or_default();
    let slash = if call.info.path.ends_with('/') { "/" } else { "" };
    let path = if rest.ends_with('/') { rest.clone() } else { format!("{rest}{slash}") };
    let target = with_query(if path.is_empty() { "/" } else { &path }, query);
    if call.parts.headers.contains_key(header::UPGRADE) {
        return upgrade(server, &backend, call, &target).await;
    }
    if path.is_empty() && is_looked_at(&call.parts.method) {
        // So that relative links lead back here (kubernetes/kubernetes#4958).
        return moved(&with_query(&format!("{}/", call.info.path), query));
    }
    let prefix = call.info.path.strip_suffix(&path).unwrap_or(&call.info.path);
    let links = Links { host: format!("{}:{}", backend.host, backend.port), prefix: prefix.to_owned() };
    let mut request = Request::builder()
        .method(call.parts.method.clone())
        .uri(target)
        .header("x-forwarded-uri", &call.info.path)
        .body(call.body.take())
        .map_err(Status::internal_error)?;
    for (name, value) in &call.parts.headers {
        // Not those of this connection, nor who asks; and links can be rewritten only in what is not compressed.
        let ours = matches!(
            *name,
            header::AUTHORIZATION
                | header::HOST
                | header::CONNECTION
                | header::TRANSFER_ENCODING
                | header::ACCEPT_ENCODING
        );
        if !ours && !name.as_str().starts_with("impersonate-") {
            request.headers_mut().append(name, value.clone());
        }
    }
    let mut answer = send(&backend, request).await.map_err(Unreachable::reaching)?;
    if let Some(to) = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok()) {
        let to = links.rewrite(to).and_then(|to| to.parse().ok());
        to.map(|to| answer.headers_mut().insert(header::LOCATION, to));
    }
    let html = answer.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let html = html.is_some_and(|t| t.split(';').next().is_some_and(|t| t.trim() == "text/html"));
    if html && !answer.headers().contains_key(header::CONTENT_ENCODING) {
        answer.headers_mut().remove(header::CONTENT_LENGTH);
        return Ok(answer.map(|page| links.rewrite_page(page)));
    }
    Ok(answer.map(body::stream))
}

/// Whether the answer may be a page with links.
fn is_looked_at(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

fn moved(to: &str) -> Result<Answer, Status> {
    let answer = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, to);
    answer.body(body::full("")).map_err(Status::internal_error)
}

/// `https:name:port` into its parts.
fn split_name(text: &str) -> (&str, &str, &str) {
    match text.split(':').collect::<Vec<_>>()[..] {
        [scheme, name, port] => (scheme, name, port),
        [name, port] => ("", name, port),
        _ => ("", text, ""),
    }
}

/// `https:` in a name asks for TLS; whose certificate it is, is not checked.
fn tls(server: &Server, scheme: &str) -> Option<Arc<rustls::ClientConfig>> {
    server.rooms.insecure_tls.clone().filter(|_| scheme == "https")
}

fn pod_backend(
    server: &Server,
    pods: &Arc<Served>,
    call: &Call,
    scheme: &str,
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
    Ok(Backend { host: ip.to_owned(), port, tls: tls(server, scheme), egress: server.rooms.egress.clone() })
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
            return Ok(Backend {
                host: ip.to_owned(),
                port,
                tls: tls(server, scheme),
                egress: server.rooms.egress.clone(),
            });
        }
    }
    Err(none())
}
