//! How a request travels. The API server brings the in-process transport, [`crate::https`] the one over the network.

use crate::error::Error;
use crate::source::Source;
use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use std::sync::Arc;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// A response body that may stream (watch, logs).
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// Carries requests as one user.
pub trait Transport: Send + Sync + 'static {
    /// Sends a request; its URI is a path and query, without scheme and host.
    fn send(
        &self,
        request: http::Request<Bytes>,
    ) -> BoxFuture<'static, Result<http::Response<ResponseBody>, Error>>;

    /// A feed of objects that shares the server's own bytes, where the server is in this process. Without one,
    /// informers list and watch through [`Transport::send`].
    fn source(&self) -> Option<Arc<dyn Source>> {
        None
    }
}
