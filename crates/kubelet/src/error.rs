//! Why a kubelet cannot start.

/// A kubelet's failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime did not answer.
    #[error("asking the runtime for its version: {0}")]
    Runtime(#[from] cri::Error),
    /// A directory or cgroup could not be made.
    #[error("preparing {what}: {source}")]
    Prepare { what: String, source: std::io::Error },
    /// The server cannot listen.
    #[error("listening on {address}: {source}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
}
