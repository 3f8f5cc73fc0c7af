//! What can go wrong with keys and certificates; each says what was attempted, and on what.

use std::path::PathBuf;

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with keys, certificates, tokens and kubeconfigs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: std::io::Error },
    #[error("no {wanted} in the PEM data")]
    Pem { wanted: &'static str },
    #[error("private key: {0}")]
    PrivateKey(&'static str),
    #[error("public key: {0}")]
    PublicKey(&'static str),
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("certificate signing request: {0}")]
    Csr(String),
    #[error("token: {0}")]
    Token(&'static str),
    #[error("kubeconfig {}: {reason}", path.display())]
    Kubeconfig { path: PathBuf, reason: String },
    #[error("TLS settings: {0}")]
    Tls(#[from] rustls::Error),
}
