//! What upstream's router says of a request to a built-in resource before any handler sees it: its path must have the method,
//! its patch must be of a known kind, and something of what its route makes must be named among what the client takes.
//! Ranges are no names here, but for the one of everything.

use super::negotiate::Encodings;
use super::{Patch, not_allowed};
use crate::resources::Served;
use crate::server::Call;
use apimachinery::status::Status;
use http::{HeaderMap, Method, header};

/// Subresources that make whatever a node or a pod makes.
const CONNECT: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

pub(super) fn check(resource: &Served, call: &Call) -> Result<(), Status> {
    let verb = if call.parts.method == Method::HEAD { "get" } else { call.info.verb.as_str() };
    method(resource, call, verb)?;
    if CONNECT.contains(&call.info.subresource.as_str()) {
        return Ok(());
    }
    if verb == "patch" {
        Patch::media(call)?;
    }
    accepts(&call.parts.headers, &made(call.encodings, &call.info.subresource, verb))
}

/// Refuses a method that the path of a request does not have.
fn method(resource: &Served, call: &Call, verb: &str) -> Result<(), Status> {
    let info = &call.info;
    let row = match info.subresource.as_str() {
        "" => &resource.row,
        name => resource.subresources.get(name).ok_or_else(Status::path_not_found)?,
    };
    let lists = matches!(verb, "list" | "watch");
    // A list that selects a name has one, too.
    let named = !info.name.is_empty() && !lists;
    let everywhere = resource.row.namespaced && info.namespace.is_empty();
    if everywhere && named {
        return Err(Status::path_not_found());
    }
    // No verb, but a method that proxies hand on like every other.
    if call.parts.method == Method::OPTIONS && info.subresource == "proxy" {
        return Ok(());
    }
    let misplaced = match verb {
        "create" => named && info.subresource.is_empty(),
        "update" | "patch" => !named,
        _ => false,
    };
    let misplaced = misplaced || (info.watches_by_path && verb != "watch");
    match row.allows(verb) && !misplaced && (lists || !everywhere) {
        true => Ok(()),
        false => Err(not_allowed()),
    }
}

/// What a route makes.
fn made(encodings: Encodings, subresource: &str, verb: &str) -> Vec<&'static str> {
    let mut made = encodings.names(|_| true);
    if subresource == "log" {
        made.insert(0, "text/plain");
    }
    if matches!(verb, "list" | "watch") && subresource.is_empty() {
        made.extend(streams(encodings));
    }
    made
}

/// What a watch makes.
pub(super) fn streams(encodings: Encodings) -> Vec<&'static str> {
    let mut made = vec!["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
    if encodings == Encodings::WithCbor {
        made.push(schema::cbor::SEQUENCE);
    }
    made
}

/// Refuses a client that takes nothing of what a route makes.
pub(crate) fn accepts(headers: &HeaderMap, made: &[&str]) -> Result<(), Status> {
    let accept = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let takes = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        media == "*/*" || made.contains(&media)
    };
    match accept.is_empty() || accept.split(',').any(takes) {
        true => Ok(()),
        false => Err(nothing_for(made)),
    }
}

/// Refuses a client of discovery that takes nothing of what is served, or wants it converted, which it never is.
pub(crate) fn accepts_discovery(headers: &HeaderMap) -> Result<(), Status> {
    accepts(headers, &Encodings::Standard.names(|_| true))?;
    super::negotiate::unconverted(headers)
}

/// 406, in the words of upstream's router.
fn nothing_for(made: &[&str]) -> Status {
    let mut status = Status::not_acceptable(&[]);
    status.message = format!("406: Not Acceptable\n\nAvailable representations: {}", made.join(", "));
    status.details = Some(Box::default());
    status
}
