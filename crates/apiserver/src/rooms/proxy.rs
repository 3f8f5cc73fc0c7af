//! `nodes/proxy`, `pods/proxy` and `services/proxy`: HTTP to what the object stands for. Upstream: `UpgradeAwareHandler`.

use super::backend::{Backend, Unreachable, node_backend, send, upgrade, with_query};
use super::links::Links;
use crate::body::{self, Answer};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::validation::{is_global_unicast, parse_ip_sloppy};
use apimachinery::value::Value;
use http::{Method, Request, Response, StatusCode, header};
use std::net::IpAddr;
use std::sync::Arc;

pub(crate) async fn proxy(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let asked = Asked::of(&call.info.name).ok_or_else(|| {
        let kind = &resource.row.singular;
        Status::bad_request(format!("invalid {kind} request {}", quote(&call.info.name)))
    })?;
    let backend = match resource.row.resource.as_ref() {
        "nodes" => node(server, asked).await?,
        "pods" => pod_backend(server, resource, &call, asked)?,
        _ => service_backend(server, resource, &call, asked)?,
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

/// What is asked for: `name`, `name:port` or `scheme:name:port`.
#[derive(Clone, Copy)]
struct Asked<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (scheme, name, port) = match text.split(':').collect::<Vec<_>>()[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https") && !name.is_empty();
        known.then_some(Asked { scheme, name, port })
    }

    /// A port of a host, over TLS if that is asked for; whose certificate it is, is not checked.
    fn at(self, server: &Server, host: &str, port: u16) -> Backend {
        let tls = server.rooms.insecure_tls.clone().filter(|_| self.scheme == "https");
        let egress = server.rooms.egress.clone();
        Backend { host: host.to_owned(), port, tls, egress, declared: Vec::new() }
    }

    fn number(self) -> Result<u16, Status> {
        self.port.parse().map_err(|_| Status::bad_request(format!("invalid port {:?}", self.port)))
    }
}

/// Refuses addresses that mean something else here than to whoever wrote them: those of this machine, of its link.
fn allowed(address: Option<IpAddr>) -> Result<(), Status> {
    match address.is_some_and(|address| is_global_unicast(address.to_canonical())) {
        true => Ok(()),
        false => Err(Status::bad_request("address not allowed")),
    }
}

/// A node's kubelet, or another port of the node.
async fn node(server: &Server, asked: Asked<'_>) -> Result<Backend, Status> {
    let kubelet = node_backend(server, asked.name)?;
    match kubelet.host.parse() {
        Ok(address) => allowed(Some(address))?,
        Err(_) => {
            let missing = || Status::bad_request(format!("lookup {}: no such host", kubelet.host));
            let found = tokio::net::lookup_host((kubelet.host.as_str(), kubelet.port)).await;
            let mut found = found.map_err(|_| missing())?.peekable();
            found.peek().ok_or_else(missing)?;
            found.try_for_each(|address| allowed(Some(address.ip())))?;
        }
    }
    match asked.port {
        "" => Ok(kubelet),
        port if port == kubelet.port.to_string() => Ok(kubelet),
        _ => Ok(asked.at(server, &kubelet.host, asked.number()?)),
    }
}

fn pod_backend(
    server: &Server,
    pods: &Arc<Served>,
    call: &Call,
    asked: Asked<'_>,
) -> Result<Backend, Status> {
    let pod = server.registry.get(pods, &call.info.namespace, asked.name)?.value;
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    allowed(parse_ip_sloppy(ip))?;
    let containers = pod["spec"]["containers"].as_array();
    let mut first = containers.into_iter().flatten().filter_map(|c| c["ports"][0]["containerPort"].as_u64());
    let default = if asked.scheme == "https" { 443 } else { 80 };
    let port = match asked.port {
        "" => first.next().and_then(|port| u16::try_from(port).ok()).unwrap_or(default),
        _ => asked.number()?,
    };
    Ok(asked.at(server, ip, port))
}

/// An endpoint of a Service that is a pod of its namespace: an address alone might be anybody's.
fn service_backend(
    server: &Server,
    services: &Arc<Served>,
    call: &Call,
    asked: Asked<'_>,
) -> Result<Backend, Status> {
    let (name, namespace) = (asked.name, call.info.namespace.as_str());
    let service = server.registry.get(services, namespace, name)?.value;
    let none = || {
        let id = &call.info.name;
        Status::service_unavailable(format!("no endpoints available for service {}", quote(id)))
    };
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let port_name = match asked.port.parse::<i64>() {
        Ok(number) => {
            let port = ports.iter().find(|port| port["port"].as_i64() == Some(number)).ok_or_else(|| {
                let why = format!("no service port {number} found for service {}", quote(name));
                Status::service_unavailable(why)
            })?;
            port["name"].as_str().unwrap_or_default()
        }
        Err(_) => asked.port,
    };
    let get = |group, resource| server.registry.resources.get(group, "v1", resource).ok_or_else(none);
    let (slices, pods) = (get("discovery.k8s.io", "endpointslices")?, get("", "pods")?);
    let is_pod = |endpoint: &Value, address: &str| {
        let target = &endpoint["targetRef"];
        let pod = target["name"].as_str().filter(|_| target["namespace"] == namespace);
        let pod = pod.and_then(|pod| server.registry.get(&pods, namespace, pod).ok());
        let ips = pod.as_ref().and_then(|pod| pod.value["status"]["podIPs"].as_array());
        ips.into_iter().flatten().any(|ip| ip["ip"] == address)
    };
    let snapshot = server.registry.store.snapshot(&slices.prefix);
    for entry in snapshot.range(&format!("{namespace}/"), "") {
        let slice = crate::registry::decode(&slices, entry)?.value;
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name {
            continue;
        }
        let mut ports = slice["ports"].as_array().into_iter().flatten();
        let port = ports.find(|port| port["name"].as_str().unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|p| p["port"].as_u64()).and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        let endpoints = slice["endpoints"].as_array().into_iter().flatten();
        for endpoint in endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false) {
            if let Some(address) = endpoint["addresses"][0].as_str().filter(|ip| is_pod(endpoint, ip)) {
                return Ok(asked.at(server, address, port));
            }
        }
    }
    Err(none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_scheme_and_port() {
        let told = |text| Asked::of(text).map(|asked| (asked.scheme, asked.name, asked.port));
        assert_eq!(told("a"), Some(("", "a", "")));
        assert_eq!(told("a:80"), Some(("", "a", "80")));
        assert_eq!(told("https:a:"), Some(("https", "a", "")));
        for text in ["", ":80", "ftp:a:80", "http::80", "a:b:c:d"] {
            assert_eq!(told(text), None, "{text}");
        }
    }
}
