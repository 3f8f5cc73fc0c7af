//! The named constructors of [`Status`], with upstream's codes, reasons and messages
//! (`k8s.io/apimachinery/pkg/api/errors` and the negotiation errors of the API server), and the
//! questions a client asks of one.

use std::fmt::Display;

use crate::field::ErrorList;
use crate::gvk::{GroupKind, GroupResource};
use crate::meta::ListMeta;
use crate::quote::quote;
use crate::status::{FAILURE, SUCCESS, Status, StatusCause, StatusDetails, StatusReason, cause};

/// The text of an optimistic-lock failure, for [`Status::conflict`].
pub const OBJECT_MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

fn failure(code: i32, reason: StatusReason, message: impl Into<String>) -> Status {
    Status { status: FAILURE.into(), code, reason, message: message.into(), ..Status::default() }
}

fn about(resource: &GroupResource, name: &str) -> Option<Box<StatusDetails>> {
    Some(Box::new(StatusDetails {
        name: name.to_owned(),
        group: resource.group.clone().into_owned(),
        kind: resource.resource.clone().into_owned(),
        ..StatusDetails::default()
    }))
}

fn retry_after(seconds: i32) -> Option<Box<StatusDetails>> {
    Some(Box::new(StatusDetails { retry_after_seconds: seconds, ..StatusDetails::default() }))
}

impl Status {
    /// 200, with nothing else to say.
    pub fn success() -> Self {
        Self { status: SUCCESS.into(), code: 200, ..Self::default() }
    }

    /// 404: `pods "web-0" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} not found", quote(name));
        Self { details: about(resource, name), ..failure(404, StatusReason::NotFound, message) }
    }

    /// 404 for a path that no resource answers.
    pub fn path_not_found() -> Self {
        Self {
            details: Some(Box::default()),
            ..failure(404, StatusReason::NotFound, "the server could not find the requested resource")
        }
    }

    /// 409: `pods "web-0" already exists`.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        let message = format!("{resource} {} already exists", quote(name));
        Self { details: about(resource, name), ..failure(409, StatusReason::AlreadyExists, message) }
    }

    /// 409: every generated name was taken.
    pub fn generate_name_conflict(resource: &GroupResource, name: &str, retry_after_seconds: i32) -> Self {
        let mut status = Self::already_exists(resource, name);
        status.message += ", the server was not able to generate a unique name for the object";
        status.with_retry_after(retry_after_seconds)
    }

    /// 401; an empty reason reads `not authorized`.
    pub fn unauthorized(reason: &str) -> Self {
        let message = if reason.is_empty() { "not authorized" } else { reason };
        failure(401, StatusReason::Unauthorized, message)
    }

    /// 403: `pods "web-0" is forbidden: why`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: impl Display) -> Self {
        let message = if resource.is_empty() {
            format!("forbidden: {why}")
        } else if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} {} is forbidden: {why}", quote(name))
        };
        Self { details: about(resource, name), ..failure(403, StatusReason::Forbidden, message) }
    }

    /// 409: `Operation cannot be fulfilled on pods "web-0": why`; see [`OBJECT_MODIFIED`].
    pub fn conflict(resource: &GroupResource, name: &str, why: impl Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {}: {why}", quote(name));
        Self { details: about(resource, name), ..failure(409, StatusReason::Conflict, message) }
    }

    /// 409 of a server-side apply, a cause for every field that another manager owns.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        Self {
            details: Some(Box::new(StatusDetails { causes, ..StatusDetails::default() })),
            ..failure(409, StatusReason::Conflict, message)
        }
    }

    /// 410 for something that will not come back. For lists and watches use [`Status::resource_expired`].
    pub fn gone(message: impl Into<String>) -> Self {
        failure(410, StatusReason::Gone, message)
    }

    /// 410: the revision asked for has been compacted away.
    pub fn resource_expired(message: impl Into<String>) -> Self {
        failure(410, StatusReason::Expired, message)
    }

    /// 422: `Pod "web-0" is invalid: spec.containers: Required value`, a cause for every error.
    pub fn invalid(kind: &GroupKind, name: &str, errors: &ErrorList) -> Self {
        let causes = errors.iter().map(|error| StatusCause {
            reason: error.kind.as_str().into(),
            message: error.body(),
            field: error.field.clone(),
        });
        let details = StatusDetails {
            name: name.to_owned(),
            group: kind.group.clone().into_owned(),
            kind: kind.kind.clone().into_owned(),
            causes: causes.collect(),
            ..StatusDetails::default()
        };
        let message = match errors.aggregate() {
            None => format!("{kind} {} is invalid", quote(name)),
            Some(text) => format!("{kind} {} is invalid: {text}", quote(name)),
        };
        Self { details: Some(Box::new(details)), ..failure(422, StatusReason::Invalid, message) }
    }

    /// 400: the request could not be understood.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        failure(400, StatusReason::BadRequest, reason)
    }

    /// 429 with a delay, in the caller's words.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        Self {
            details: retry_after(retry_after_seconds),
            ..failure(429, StatusReason::TooManyRequests, message)
        }
    }

    /// 429 without a delay: `Too many requests: why`. Upstream's `NewTooManyRequestsError`.
    pub fn too_many_requests_error(why: impl Display) -> Self {
        failure(429, StatusReason::TooManyRequests, format!("Too many requests: {why}"))
    }

    /// 503.
    pub fn service_unavailable(reason: impl Into<String>) -> Self {
        failure(503, StatusReason::ServiceUnavailable, reason)
    }

    /// 405: `patch is not supported on resources of kind "pods"`.
    pub fn method_not_supported(resource: &GroupResource, action: &str) -> Self {
        let message =
            format!("{action} is not supported on resources of kind {}", quote(&resource.to_string()));
        Self { details: about(resource, ""), ..failure(405, StatusReason::MethodNotAllowed, message) }
    }

    /// 500, for now: the client should try again.
    pub fn server_timeout(resource: &GroupResource, operation: &str, retry_after_seconds: i32) -> Self {
        let message = format!(
            "The {operation} operation against {resource} could not be completed at this time, please try again."
        );
        Self { details: about(resource, operation), ..failure(500, StatusReason::ServerTimeout, message) }
            .with_retry_after(retry_after_seconds)
    }

    /// 500: `Internal error occurred: why`.
    pub fn internal_error(why: impl Display) -> Self {
        let why = why.to_string();
        let message = format!("Internal error occurred: {why}");
        let causes = vec![StatusCause { message: why, ..StatusCause::default() }];
        Self {
            details: Some(Box::new(StatusDetails { causes, ..StatusDetails::default() })),
            ..failure(500, StatusReason::InternalError, message)
        }
    }

    /// 500 without a reason: what upstream answers where an error is no status.
    pub fn plain_error(why: impl Into<String>) -> Self {
        failure(500, StatusReason::Unknown, why)
    }

    /// 504: `Timeout: why`; the operation may still complete.
    pub fn timeout(why: impl Display, retry_after_seconds: i32) -> Self {
        Self {
            details: retry_after(retry_after_seconds),
            ..failure(504, StatusReason::Timeout, format!("Timeout: {why}"))
        }
    }

    /// 504: a resource version that the server has not reached yet.
    pub fn too_large_resource_version(wanted: u64, current: u64, retry_after_seconds: i32) -> Self {
        let why = format!("Too large resource version: {wanted}, current: {current}");
        let mut status = Self::timeout(why, retry_after_seconds);
        if let Some(details) = &mut status.details {
            details.causes = vec![StatusCause {
                reason: cause::RESOURCE_VERSION_TOO_LARGE.into(),
                message: "Too large resource version".into(),
                field: String::new(),
            }];
        }
        status
    }

    /// 413: `Request entity too large: why`.
    pub fn request_entity_too_large(why: impl Display) -> Self {
        failure(413, StatusReason::RequestEntityTooLarge, format!("Request entity too large: {why}"))
    }

    /// 406: none of the types in `Accept` is served.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!("only the following media types are accepted: {}", accepted.join(", "));
        failure(406, StatusReason::NotAcceptable, message)
    }

    /// 406 for a conversion, such as to a Table, that the wanted encoding cannot carry.
    pub fn not_acceptable_conversion(target: &str, accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted when converting to {target}: {}",
            accepted.join(", ")
        );
        failure(406, StatusReason::NotAcceptable, message)
    }

    /// 406: metadata of one object is wanted of a list, or of a list of what is none; `ty` is the type as Go names it.
    pub fn not_acceptable_form(form: &str, is_list: bool, ty: &str) -> Self {
        let is = if is_list { "is a list" } else { "is not a list" };
        let message = format!("you requested {form}, but the requested object {is} ({ty})");
        failure(406, StatusReason::NotAcceptable, message)
    }

    /// 415: the body's `Content-Type` is not read.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        failure(415, StatusReason::UnsupportedMediaType, message)
    }

    /// What a client makes of an answer that is no `Status`; `resource` may be empty.
    pub fn generic_server_response(
        code: u16,
        verb: &str,
        resource: &GroupResource,
        name: &str,
        server_message: &str,
        retry_after_seconds: i32,
        body: ResponseBody,
    ) -> Self {
        let (reason, message) = generic_reason(code, verb, server_message);
        let verb = verb.to_ascii_lowercase();
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => message,
            (false, true) => format!("{message} ({verb} {resource})"),
            (false, false) => format!("{message} ({verb} {resource} {name})"),
        };
        let causes = match body {
            ResponseBody::Expected => Vec::new(),
            ResponseBody::Unexpected => vec![StatusCause {
                reason: cause::UNEXPECTED_SERVER_RESPONSE.into(),
                message: server_message.to_owned(),
                field: String::new(),
            }],
        };
        let mut status = Self { details: about(resource, name), ..failure(i32::from(code), reason, message) };
        if let Some(details) = &mut status.details {
            details.causes = causes;
            details.retry_after_seconds = retry_after_seconds;
        }
        status
    }

    /// The same, telling the client when to come back.
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The same, with list metadata (a continue token, a resource version).
    pub fn with_metadata(mut self, metadata: ListMeta) -> Self {
        self.metadata = Some(Box::new(metadata));
        self
    }

    /// The same, with one more cause.
    pub fn with_cause(mut self, cause: StatusCause) -> Self {
        self.details.get_or_insert_default().causes.push(cause);
        self
    }

    /// Whether a cause of this type is among the details.
    pub fn has_cause(&self, reason: &str) -> bool {
        self.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    }

    /// Seconds after which the client was told to come back.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.details.as_ref().map(|details| details.retry_after_seconds).filter(|seconds| *seconds > 0)
    }

    fn is(&self, reason: StatusReason, code: i32) -> bool {
        match &self.reason {
            // An unknown reason leaves the code to decide.
            StatusReason::Unknown | StatusReason::Other(_) => self.code == code,
            known => *known == reason,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.is(StatusReason::NotFound, 404)
    }

    /// The name is taken. Upstream asks for the reason here, a bare 409 is a conflict.
    pub fn is_already_exists(&self) -> bool {
        self.reason == StatusReason::AlreadyExists
    }

    /// The object changed meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.is(StatusReason::Conflict, 409)
    }

    /// The object is not valid.
    pub fn is_invalid(&self) -> bool {
        self.is(StatusReason::Invalid, 422)
    }

    /// Not to return.
    pub fn is_gone(&self) -> bool {
        self.is(StatusReason::Gone, 410)
    }

    /// The resource version was compacted.
    pub fn is_resource_expired(&self) -> bool {
        self.reason == StatusReason::Expired
    }

    /// Not allowed.
    pub fn is_forbidden(&self) -> bool {
        self.is(StatusReason::Forbidden, 403)
    }

    /// Not authenticated.
    pub fn is_unauthorized(&self) -> bool {
        self.is(StatusReason::Unauthorized, 401)
    }

    /// The client timed out or the server did.
    pub fn is_timeout(&self) -> bool {
        self.is(StatusReason::Timeout, 504)
    }

    /// The server could not finish in time and asks for a retry.
    pub fn is_server_timeout(&self) -> bool {
        self.reason == StatusReason::ServerTimeout
    }

    /// The server is busy.
    pub fn is_too_many_requests(&self) -> bool {
        self.is(StatusReason::TooManyRequests, 429)
    }

    /// Something broke.
    pub fn is_internal_error(&self) -> bool {
        self.is(StatusReason::InternalError, 500)
    }

    /// The server is away.
    pub fn is_service_unavailable(&self) -> bool {
        self.is(StatusReason::ServiceUnavailable, 503)
    }

    /// The namespace of the object is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        self.has_cause(cause::NAMESPACE_TERMINATING)
    }
}

/// Whether an answer without a `Status` was to be expected of that server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseBody {
    Expected,
    Unexpected,
}

fn generic_reason(code: u16, verb: &str, server_message: &str) -> (StatusReason, String) {
    use StatusReason as R;
    let (reason, message) = match code {
        409 if verb == "POST" => (R::AlreadyExists, "the server reported a conflict"),
        409 => (R::Conflict, "the server reported a conflict"),
        404 => (R::NotFound, "the server could not find the requested resource"),
        400 => (R::BadRequest, "the server rejected our request for an unknown reason"),
        401 => (R::Unauthorized, "the server has asked for the client to provide credentials"),
        403 => (R::Forbidden, server_message),
        406 if server_message.is_empty() || server_message == "unknown" => (
            R::NotAcceptable,
            "the server was unable to respond with a content type that the client supports",
        ),
        406 => (R::NotAcceptable, server_message),
        415 => (R::UnsupportedMediaType, server_message),
        405 => (R::MethodNotAllowed, "the server does not allow this method on the requested resource"),
        422 => (R::Invalid, "the server rejected our request due to an error in our request"),
        503 => (R::ServiceUnavailable, "the server is currently unable to handle the request"),
        504 => (
            R::Timeout,
            "the server was unable to return a response in the time allotted, but may still be processing the request",
        ),
        429 => (
            R::TooManyRequests,
            "the server has received too many requests and has asked us to try again later",
        ),
        500.. => {
            let server_message = quote(server_message);
            return (
                R::InternalError,
                format!(
                    "an error on the server ({server_message}) has prevented the request from succeeding"
                ),
            );
        }
        _ => {
            return (
                R::Unknown,
                format!(
                    "the server responded with the status code {code} but did not return more information"
                ),
            );
        }
    };
    (reason, message.to_owned())
}

#[cfg(test)]
mod tests;
