//! What can go wrong between a caller and the API.

use apimachinery::status::Status;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a `Status`.
    #[error("{}", .0.message)]
    Api(Box<Status>),
    /// The request did not reach the server, or its answer did not arrive.
    #[error("{action}: {message}")]
    Transport { action: &'static str, message: String },
    /// The answer is not what was asked for.
    #[error("decoding {what}: {source}")]
    Decode { what: String, source: serde_json::Error },
    /// The request could not be built from what the caller gave.
    #[error("building the request: {0}")]
    Request(String),
}

impl Error {
    pub fn transport(action: &'static str, error: impl std::fmt::Display) -> Self {
        Error::Transport { action, message: error.to_string() }
    }

    /// The HTTP code of a `Status` answer.
    pub fn code(&self) -> Option<i32> {
        match self {
            Error::Api(status) => Some(status.code),
            _ => None,
        }
    }

    /// The machine-readable reason of a `Status` answer; empty otherwise.
    pub fn reason(&self) -> &str {
        match self {
            Error::Api(status) => status.reason.as_str(),
            _ => "",
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.reason() == "NotFound"
    }

    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    pub fn is_conflict(&self) -> bool {
        self.reason() == "Conflict"
    }

    pub fn is_invalid(&self) -> bool {
        self.reason() == "Invalid"
    }

    pub fn is_forbidden(&self) -> bool {
        self.reason() == "Forbidden"
    }

    /// The revision asked for is no longer known: list again.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), "Expired" | "Gone") || self.code() == Some(410)
    }

    /// Whether a create failed because the namespace is going away; a controller then stops trying.
    pub fn is_namespace_terminating(&self) -> bool {
        matches!(self, Error::Api(s) if s.is_namespace_terminating())
    }
}
