//! Large answers, compressed for clients that take it (upstream's APIResponseCompression): a level that costs little,
//! piece by piece, so that a list is compressed as it is written.

use crate::body::{self, Answer};
use bytes::Bytes;
use client::transport::{BoxError, ResponseBody};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, header};
use http_body::{Body, Frame};
use std::io::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// Smaller answers are not worth it.
const THRESHOLD: u64 = 128 << 10;

/// Whether a client takes gzip.
pub(crate) fn accepts(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|token| token.trim() == "gzip")
}

/// The answer as it is sent to a client that takes gzip. Streams, and what was written by somebody else, stay as they are.
pub(crate) fn compress(mut answer: Answer) -> Answer {
    let large = answer.body().size_hint().exact().is_some_and(|size| size > THRESHOLD);
    let headers = answer.headers_mut();
    let ours = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(|media| {
        matches!(media, body::JSON | "application/yaml" | schema::protobuf::CONTENT_TYPE)
    });
    if !large || !ours || headers.contains_key(header::CONTENT_ENCODING) {
        return answer;
    }
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(header::CONTENT_LENGTH);
    answer.map(|inner| {
        body::stream(Gzip { inner, encoder: Some(GzEncoder::new(Vec::new(), Compression::fast())) })
    })
}

/// A body while it is compressed.
struct Gzip {
    inner: ResponseBody,
    /// Gone when the end is written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
#[error("compressing an answer: {0}")]
struct Failed(BoxError);

impl Body for Gzip {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let this = &mut *self;
        loop {
            let Some(encoder) = &mut this.encoder else { return Poll::Ready(None) };
            let data = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None => {
                    let Some(encoder) = this.encoder.take() else { return Poll::Ready(None) };
                    let end = encoder.finish().map_err(|e| Failed(Box::new(e)));
                    return Poll::Ready(Some(end.map(|bytes| Frame::data(bytes.into()))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(Failed(error)))),
                Some(Ok(frame)) => frame.into_data(),
            };
            // Trailers would have no place behind compressed bytes.
            let Ok(data) = data else { continue };
            if let Err(error) = encoder.write_all(&data) {
                return Poll::Ready(Some(Err(Failed(Box::new(error)))));
            }
            let written = std::mem::take(encoder.get_mut());
            if !written.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(written.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use std::io::Read as _;

    #[tokio::test]
    async fn large_answers_are_compressed() {
        let small = compress(body::json(StatusCode::OK, vec![b' '; 1000]));
        assert!(!small.headers().contains_key(header::CONTENT_ENCODING));
        let text: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_string().into_bytes()).collect();
        let large = compress(body::json(StatusCode::OK, text.clone()));
        assert_eq!(large.headers()[header::CONTENT_ENCODING], "gzip");
        let bytes = large.into_body().collect().await.unwrap().to_bytes();
        let mut read = Vec::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut read).unwrap();
        assert_eq!(read, text);
        let headers = |text: &str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, text.parse().unwrap())]);
        assert!(
            accepts(&headers("deflate, gzip")) && !accepts(&headers("br")) && !accepts(&HeaderMap::new())
        );
    }
}
