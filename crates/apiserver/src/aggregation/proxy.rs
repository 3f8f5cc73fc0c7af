//! Hands requests on to the servers that serve them, in the name of the user who made them.

use super::{Aggregation, Redirects, Remote};
use crate::body::{self, Answer};
use crate::server::Call;
use apimachinery::status::Status;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::Full;

/// Headers that are between a client and this server only.
fn stays(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::AUTHORIZATION
            | header::HOST
            | header::CONNECTION
            | header::TRANSFER_ENCODING
            | header::CONTENT_LENGTH
            | header::TE
            | header::TRAILER
    ) || name.as_str().starts_with("impersonate-")
        || name.as_str().starts_with("x-remote-")
}

/// A key of the user's extra data as part of a header's name.
fn escape(key: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b);
    key.bytes().map(|b| if plain(b) { (b as char).to_string() } else { format!("%{b:02X}") }).collect()
}

fn headers(call: &Call) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in call.parts.headers.iter().filter(|(name, _)| !stays(name)) {
        headers.append(name.clone(), value.clone());
    }
    let mut add = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &call.user.name);
    if !call.user.uid.is_empty() {
        add("x-remote-uid", &call.user.uid);
    }
    call.user.groups.iter().for_each(|group| add("x-remote-group", group));
    for (key, values) in &call.user.extra {
        let name = format!("x-remote-extra-{}", escape(&key.to_lowercase()));
        values.iter().for_each(|value| add(&name, value));
    }
    headers
}

const REDIRECTED: &str = "the backend attempted to redirect this request, which is not permitted";

impl Aggregation {
    /// The other server that a request is for, if it is for one.
    pub(crate) fn concerns(&self, call: &Call) -> Option<Remote> {
        let mut parts = call.info.path.trim_matches('/').split('/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("apis"), Some(group), Some(version)) => self.remote(group, version),
            _ => self.publisher(call.info.path.strip_prefix("/openapi/v3/")?),
        }
    }

    /// Hands a request on.
    pub(crate) async fn serve(&self, remote: &Remote, call: Call) -> Result<Answer, Status> {
        let unavailable = |_| Status::service_unavailable("service unavailable");
        if !remote.available {
            return Err(unavailable(String::new()));
        }
        let target = self.target(remote).map_err(unavailable)?;
        let path = call.parts.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        let headers = headers(&call);
        let failed =
            |error: String| Status::service_unavailable(format!("error trying to reach service: {error}"));
        if call.parts.headers.contains_key(header::UPGRADE) {
            let mut head = Request::builder()
                .method(call.parts.method.clone())
                .uri(path)
                .body(())
                .map_err(Status::internal_error)?;
            *head.headers_mut() = headers;
            let io = self.outbound.connect(&target).await.map_err(failed)?;
            let mut client = Request::from_parts(call.parts, ());
            return match streaming::proxy::proxy_upgrade(&mut client, head, io).await {
                Ok(streaming::proxy::Proxied::Switched(response, tunnel)) => {
                    let held = crate::context::hold();
                    tokio::spawn(async move {
                        let _held = held;
                        if let Err(error) = tunnel.run().await {
                            tracing::debug!(%error, "an upgraded connection ended");
                        }
                    });
                    Ok(response.map(|()| body::full("")))
                }
                Ok(streaming::proxy::Proxied::Refused(response)) => Ok(response.map(body::stream)),
                Ok(streaming::proxy::Proxied::Redirected) => {
                    Ok(body::text(StatusCode::BAD_GATEWAY, REDIRECTED))
                }
                Err(error) => Err(failed(error.to_string())),
            };
        }
        let bytes: Bytes = call.body.read().await?;
        let mut request = Request::builder()
            .method(call.parts.method.clone())
            .uri(path)
            .body(Full::new(bytes))
            .map_err(Status::internal_error)?;
        *request.headers_mut() = headers;
        let mut response = self.outbound.send(&target, request).await.map_err(failed)?;
        let redirects =
            response.status().is_redirection() && response.headers().contains_key(header::LOCATION);
        if redirects && self.redirects == Redirects::Rejected {
            return Ok(body::text(StatusCode::BAD_GATEWAY, REDIRECTED));
        }
        response.extensions_mut().insert(body::Foreign);
        Ok(response.map(body::stream))
    }
}
