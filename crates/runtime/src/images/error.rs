//! What can go wrong with images, and the CRI code each failure has.

use super::Digest;
use std::io;

/// The result of image work.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an image could not be had. The texts reach users through pod events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a name at all.
    #[error("invalid reference format: {0:?}")]
    Reference(String),
    /// Neither here nor, after a pull, there.
    #[error("{0}: not found")]
    NotFound(String),
    /// The content is not what its name says.
    #[error("{what}: expected {expected}, got {actual}")]
    DigestMismatch {
        /// What was checked.
        what: String,
        /// Its name.
        expected: Digest,
        /// Its content.
        actual: Digest,
    },
    /// Malformed or hostile content.
    #[error("{0}")]
    Invalid(String),
    /// Content above a limit.
    #[error("{what} exceeds the limit of {limit}")]
    TooLarge {
        /// What was measured.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// No variant for this machine.
    #[error("no match for platform in manifest: {0}: not found")]
    NoPlatform(String),
    /// The registry refused the credentials.
    #[error("pull access denied, repository does not exist or may require authorization: {0}")]
    Denied(String),
    /// The registry could not be reached or answered with an error.
    #[error("{0}")]
    Registry(String),
    /// The disk.
    #[error("{what}: {source}")]
    Io {
        /// What was being attempted.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: an IO failure of `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let what = what.into();
        move |source| match source.downcast::<Error>() {
            // Errors of ours that travelled through a `Read` come out as they went in.
            Ok(inner) => inner,
            Err(source) => Error::Io { what, source },
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        io::Error::other(error)
    }
}

impl From<Error> for cri::Error {
    fn from(error: Error) -> cri::Error {
        let message = error.to_string();
        match error {
            Error::Reference(_) => cri::Error::invalid_argument(message),
            Error::NotFound(_) | Error::NoPlatform(_) => cri::Error::not_found(message),
            Error::Registry(_) => cri::Error::unavailable(message),
            _ => cri::Error::unknown(message),
        }
    }
}
