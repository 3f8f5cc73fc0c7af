//! What upstream's router says of a request to a built-in resource before any handler sees it: its patch must be of a known
//! kind, and something of what its route makes must be named among what the client takes. Ranges are no names here,
//! but for the one of everything.

use super::Patch;
use super::negotiate::Encodings;
use crate::server::Call;
use apimachinery::status::Status;
use http::header;

/// Subresources that make whatever a node or a pod makes.
const CONNECT: [&str; 4] = ["attach", "exec", "portforward", "proxy"];

pub(super) fn check(call: &Call, verb: &str) -> Result<(), Status> {
    if verb == "patch" {
        Patch::media(call)?;
    }
    if CONNECT.contains(&call.info.subresource.as_str()) {
        return Ok(());
    }
    let accept = call.parts.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let made = made(call.encodings, &call.info.subresource, verb);
    let takes = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        media == "*/*" || made.contains(&media)
    };
    match accept.is_empty() || accept.split(',').any(takes) {
        true => Ok(()),
        false => Err(nothing_for(&made)),
    }
}

/// What a route makes.
fn made(encodings: Encodings, subresource: &str, verb: &str) -> Vec<&'static str> {
    let mut made = encodings.names(|_| true);
    if subresource == "log" {
        made.insert(0, "text/plain");
    }
    if matches!(verb, "list" | "watch") && subresource.is_empty() {
        made.extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
        if encodings == Encodings::WithCbor {
            made.push(schema::cbor::SEQUENCE);
        }
    }
    made
}

/// 406, in the words of upstream's router.
fn nothing_for(made: &[&str]) -> Status {
    let mut status = Status::not_acceptable(&[]);
    status.message = format!("406: Not Acceptable\n\nAvailable representations: {}", made.join(", "));
    status.details = Some(Box::default());
    status
}
