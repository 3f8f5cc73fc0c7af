//! Spans of requests that are served and that are made, with OpenTelemetry's attributes of HTTP and upstream's own.

use super::generated::{KeyValue, Link, SpanKind};
use super::{About, COMPONENT, Current, Entered, HTTP, Span, Tracer, enter, number, text, w3c};
use crate::authn::Connection;
use crate::request::RequestInfo;
use crate::user::{MASTERS, User};
use http::request::Parts;
use http::{HeaderMap, Method, Version, header};
use std::sync::Arc;
use std::time::SystemTime;

/// Those whose traces go on here; others' begin anew.
const TRUSTED: [&str; 2] = [MASTERS, "system:monitoring"];
/// As much of a client's name as is told.
const AGENT: usize = 1024;

/// A request that is served: its span ends when its answer is sent.
pub(crate) struct Served(Span, u64);

/// The span of a request that has just been authenticated, and where its work is done.
pub(crate) fn began(
    tracer: Option<&Arc<Tracer>>,
    (parts, info, user): (&Parts, &RequestInfo, &User),
    connection: Option<&Connection>,
    audit_id: &str,
) -> Option<(Served, Current)> {
    let given = w3c::extract(&parts.headers);
    let Some(tracer) = tracer else {
        return given.map(|given| (Served(Span::default(), 0), Current::passed(given)));
    };
    let trusted = TRUSTED.iter().any(|group| user.in_group(group));
    let parent = given.as_ref().filter(|_| trusted);
    let request = About { audit_id: audit_id.to_owned(), client: client(&parts.headers, connection) };
    let (mut span, current) =
        Span::begin(tracer, parent, SpanKind::Server, HTTP, SystemTime::now(), Arc::new(request));
    if let Some(recording) = &mut span.0 {
        recording.data.name = name(&parts.method, info);
        recording.data.attributes = attributes(parts, connection, &recording.current.request);
        if let Some(given) = given.as_ref().filter(|_| !trusted) {
            recording.data.links.push(Link {
                trace_id: given.trace.to_vec(),
                span_id: given.span.to_vec(),
                trace_state: given.state.clone(),
                flags: u32::from(given.sampled) | super::KNOWS_REMOTE | super::IS_REMOTE,
            });
        }
    }
    Some((Served(span, 0), current))
}

impl Served {
    /// It is answered so, after so much of its body was read.
    pub(crate) fn answered(&mut self, code: http::StatusCode, read: Option<usize>) {
        if let Some(read) = read.filter(|read| *read > 0) {
            self.0.set(number("http.request.body.size", read));
        }
        if code.is_server_error() {
            self.0.fail(String::new());
        }
        self.0.set(number("http.response.status_code", code.as_u16()));
    }

    /// So much more of its answer is sent.
    pub(crate) fn sent(&mut self, size: usize) {
        self.1 += size as u64;
    }

    /// Whether anything is made of it.
    pub(crate) fn is_told(&self) -> bool {
        self.0.0.is_some()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if self.1 > 0 {
            self.0.set(number("http.response.body.size", self.1));
        }
    }
}

/// What is asked for, with names replaced.
fn name(method: &Method, info: &RequestInfo) -> String {
    if !info.is_resource {
        return method.to_string();
    }
    let mut path = match info.group.as_str() {
        "" => "/api".to_owned(),
        group => format!("/apis/{group}"),
    };
    let namespace = if info.namespace.is_empty() { "" } else { "namespaces/{:namespace}" };
    let object = if info.name.is_empty() { "" } else { "{:name}" };
    for part in [info.version.as_str(), namespace, &info.resource, object, &info.subresource] {
        if !part.is_empty() {
            path.push('/');
            path.push_str(part);
        }
    }
    format!("{method} {path}")
}

fn header(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2.0",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}

/// A host and the port behind it.
fn host_and_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => {
            (host.trim_matches(['[', ']']), port.parse().ok())
        }
        _ => (authority.trim_matches(['[', ']']), None),
    }
}

/// The client's address, as its proxies tell it or else as it came.
fn client(headers: &HeaderMap, connection: Option<&Connection>) -> String {
    let told = headers.get("x-forwarded-for").and_then(|value| value.to_str().ok());
    let first = told.and_then(|told| told.split(',').next()).map(str::trim).filter(|first| !first.is_empty());
    let peer = || connection.and_then(|c| c.peer).map_or_else(|| "127.0.0.1".into(), |p| p.ip().to_string());
    first.map_or_else(peer, str::to_owned)
}

fn attributes(parts: &Parts, connection: Option<&Connection>, request: &About) -> Vec<KeyValue> {
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let host = authority.unwrap_or_else(|| header(&parts.headers, header::HOST));
    let (host, port) = host_and_port(host);
    let mut all = vec![
        text("server.address", host),
        text("http.request.method", parts.method.as_str()),
        text("url.scheme", "https"),
    ];
    all.extend(port.filter(|port| *port != 443).map(|port| number("server.port", port)));
    if let Some(peer) = connection.and_then(|connection| connection.peer) {
        all.push(text("network.peer.address", peer.ip().to_string()));
        all.push(number("network.peer.port", peer.port()));
    }
    let agent = header(&parts.headers, header::USER_AGENT);
    if !agent.is_empty() {
        all.push(text("user_agent.original", agent));
    }
    all.push(text("client.address", &*request.client));
    all.push(text("url.path", parts.uri.path()));
    all.push(text("network.protocol.version", version(parts.version)));
    all.push(text("http.target", parts.uri.path_and_query().map_or("/", |path| path.as_str())));
    all.push(text("audit-id", &*request.audit_id));
    all
}

/// Enters the work of a verb, upstream's `Create`, `List` and so on.
pub(crate) fn verb(parts: &Parts, info: &RequestInfo) -> Option<Entered> {
    let name = match info.verb.as_str() {
        "get" => "Get",
        "list" => "List",
        "create" => "Create",
        "update" => "Update",
        "patch" => "Patch",
        "delete" | "deletecollection" => "Delete",
        _ => return None,
    };
    let method = match info.verb.as_str() {
        "create" => "POST".to_owned(),
        "update" => "PUT".to_owned(),
        "patch" if header(&parts.headers, header::CONTENT_TYPE).contains("apply-patch") => "APPLY".to_owned(),
        verb => verb.to_uppercase(),
    };
    enter(COMPONENT, name, |request| {
        let scope = match (info.name.as_str(), info.namespace.as_str()) {
            ("", _) if name == "Create" => "resource",
            ("", "") => "cluster",
            ("", _) => "namespace",
            _ => "resource",
        };
        let agent = header(&parts.headers, header::USER_AGENT);
        let agent = agent.chars().take(AGENT).collect::<String>();
        vec![
            text("accept", header(&parts.headers, header::ACCEPT)),
            text("audit-id", &*request.audit_id),
            text("client", &*request.client),
            text("api-group", &*info.group),
            text("api-version", &*info.version),
            text("name", &*info.name),
            text("subresource", &*info.subresource),
            text("namespace", &*info.namespace),
            text("protocol", format!("HTTP/{}", version(parts.version))),
            text("resource", &*info.resource),
            text("scope", scope),
            text("url", parts.uri.path()),
            text("user-agent", agent),
            text("verb", method),
        ]
    })
}

/// A request to somebody else: it is told where in the trace it is made, and its answer is noted.
pub(crate) struct Asking(Span);

impl Asking {
    pub(crate) fn begin(method: &Method, url: impl FnOnce() -> String, headers: &mut HeaderMap) -> Self {
        let mut span = Span::within(SpanKind::Client, HTTP, SystemTime::now);
        match &mut span.0 {
            None => super::inject(headers),
            Some(recording) => {
                w3c::inject(&recording.current.context, headers);
                recording.data.name = format!("HTTP {method}");
                let url = url();
                let authority = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
                let (host, port) = host_and_port(authority.split(['/', '?']).next().unwrap_or_default());
                let attributes = &mut recording.data.attributes;
                attributes.extend([
                    text("http.request.method", method.as_str()),
                    text("url.full", &*url),
                    text("server.address", host),
                ]);
                attributes.extend(port.filter(|port| *port != 443).map(|port| number("server.port", port)));
                attributes.push(text("network.protocol.version", "1.1"));
            }
        }
        Asking(span)
    }

    /// It came to this.
    pub(crate) fn answered<B>(mut self, answer: &Result<http::Response<B>, String>) {
        let code = match answer {
            Err(why) => return self.0.fail(why.clone()),
            Ok(answer) => answer.status(),
        };
        self.0.set(number("http.response.status_code", code.as_u16()));
        if code.is_client_error() || code.is_server_error() {
            self.0.set(text("error.type", code.as_str()));
            self.0.fail(String::new());
        }
    }
}
