//! Request and response bodies, and errors as `Status`: the one place where an error becomes an answer.

use apimachinery::status::Status;
use bytes::Bytes;
use client::transport::{BoxError, ResponseBody};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use streaming::messages::Framing;

pub type Answer = Response<ResponseBody>;

pub const JSON: &str = "application/json";

/// A body of bytes at hand.
pub fn full(bytes: impl Into<Bytes>) -> ResponseBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A body that streams.
pub fn stream<B>(body: B) -> ResponseBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    body.map_err(|e| Box::new(e) as BoxError).boxed_unsync()
}

/// Marks an answer that another server made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Foreign;

/// A body that keeps something for as long as it is sent.
struct Kept<T> {
    inner: ResponseBody,
    kept: Option<T>,
    /// What is kept is told how many bytes are sent.
    sent: fn(&mut T, usize),
}

/// The answer, which keeps something until its body is sent or given up.
pub(crate) fn keeping<T: Send + Unpin + 'static>(answer: Answer, kept: T) -> Answer {
    counting(answer, kept, |_, _| ())
}

/// The answer, which keeps something until its body is sent or given up, and tells it of the bytes that are sent.
pub(crate) fn counting<T: Send + Unpin + 'static>(
    answer: Answer,
    kept: T,
    sent: fn(&mut T, usize),
) -> Answer {
    answer.map(|inner| Kept { inner, kept: Some(kept), sent }.boxed_unsync())
}

impl<T: Unpin> http_body::Body for Kept<T> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        let sent = self.sent;
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(kept), Some(data)) = (&mut self.kept, frame.data_ref()) {
                    sent(kept, data.len());
                }
            }
            _ => self.kept = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

/// An answer of JSON bytes.
pub fn json(code: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// An answer of plain text.
pub fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    let mut response = Response::new(full(text.into()));
    *response.status_mut() = code;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to what failed before anybody knew how to answer, as upstream's InternalError writes it.
pub(crate) fn internal_error(uri: &http::Uri, error: &str) -> Answer {
    let uri = uri.path_and_query().map_or("/", |p| p.as_str());
    let said = format!("Internal Server Error: {uri:?}: {error}\n");
    text(StatusCode::INTERNAL_SERVER_ERROR, sanitize(&said))
}

/// Takes from what a client said the power to be HTML.
pub(crate) fn sanitize(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A serialisable document as JSON with Go's escapes, and a newline as Go's encoder writes it.
pub fn document<T: serde::Serialize>(code: StatusCode, value: &T) -> Answer {
    match apimachinery::value::to_json_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            json(code, bytes)
        }
        Err(error) => status(&Status::internal_error(error)),
    }
}

/// A `Status` as the answer it describes.
pub fn status(status: &Status) -> Answer {
    let code = u16::try_from(status.code).ok().and_then(|c| StatusCode::from_u16(c).ok());
    let mut bytes = apimachinery::value::to_json_vec(status).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = json(code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), bytes);
    if let Some(seconds) = status.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
    }
    response
}

/// Sends a good answer as messages to a client that asked for a WebSocket; other answers go as they are.
pub fn over_websocket(
    parts: http::request::Parts,
    answer: Answer,
    framing: Framing,
) -> Result<Answer, Status> {
    if !streaming::negotiate::is_websocket(&parts.headers) || answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let mut request = http::Request::from_parts(parts, ());
    let (response, messages) =
        streaming::messages::upgrade(&mut request).map_err(|refusal| Status::bad_request(refusal.message))?;
    let chunks = answer.into_body().into_data_stream();
    let held = crate::context::hold();
    tokio::spawn(async move {
        let _held = held;
        if let Err(error) = messages.send(chunks, framing).await {
            tracing::debug!(%error, "a WebSocket ended");
        }
    });
    Ok(response.map(|()| full("")))
}

/// Adds a `Warning` header (RFC 7234, code 299) per text.
pub fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let mut text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
}
