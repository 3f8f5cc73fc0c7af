//! What ends a session before its time.

/// What ends a session before its time.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("streaming connection")]
    Io(#[from] std::io::Error),
    #[error("upgrading the connection")]
    Upgrade(#[from] hyper::Error),
    #[error("the server answered {status} instead of switching protocols: {body}")]
    NotUpgraded { status: http::StatusCode, body: String },
    #[error("the peer broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("the connection is gone")]
    Gone,
    /// Upstream's words.
    #[error("timed out waiting for client to create streams")]
    NoStreams,
    #[error("the peer sent no usable status: {0}")]
    Status(String),
}
