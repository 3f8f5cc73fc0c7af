//! `metav1.Status`: the answer to every request that has no object to return, and the error of the
//! whole API. The named constructors are in [`crate::errors`].

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::de::null_default;
use crate::meta::ListMeta;

/// The outcome of a request. Small enough to be the `Err` of a `Result`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Set by few: the resource version a deletion reached, the continue token after an expired list.
    #[serde(deserialize_with = "some_metadata")]
    pub metadata: Option<Box<ListMeta>>,
    /// `Success` or `Failure`.
    #[serde(deserialize_with = "null_default")]
    pub status: Cow<'static, str>,
    /// For people.
    #[serde(deserialize_with = "null_default")]
    pub message: String,
    /// For machines.
    #[serde(deserialize_with = "null_default")]
    pub reason: StatusReason,
    /// What the reason is about.
    #[serde(deserialize_with = "null_default")]
    pub details: Option<Box<StatusDetails>>,
    /// The HTTP status code.
    #[serde(deserialize_with = "null_default")]
    pub code: i32,
}

/// The `status` of a request that went well.
pub const SUCCESS: &str = "Success";
/// The `status` of a request that did not.
pub const FAILURE: &str = "Failure";

/// Upstream always writes the object, mostly empty.
fn some_metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<ListMeta>>, D::Error> {
    Ok(Option::<Box<ListMeta>>::deserialize(deserializer)?
        .filter(|metadata| **metadata != ListMeta::default()))
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Status", 8)?;
        out.serialize_field("kind", "Status")?;
        out.serialize_field("apiVersion", "v1")?;
        match &self.metadata {
            Some(metadata) => out.serialize_field("metadata", metadata)?,
            None => out.serialize_field("metadata", &ListMeta::default())?,
        }
        if !self.status.is_empty() {
            out.serialize_field("status", &self.status)?;
        }
        if !self.message.is_empty() {
            out.serialize_field("message", &self.message)?;
        }
        if self.reason != StatusReason::Unknown {
            out.serialize_field("reason", &self.reason)?;
        }
        if let Some(details) = &self.details {
            out.serialize_field("details", details)?;
        }
        if self.code != 0 {
            out.serialize_field("code", &self.code)?;
        }
        out.end()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

crate::decode!(Status);

/// What a [`StatusReason`] is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusDetails {
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub group: String,
    /// A kind, or often a resource.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub uid: String,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_default")]
    pub causes: Vec<StatusCause>,
    #[serde(skip_serializing_if = "crate::de::omit", deserialize_with = "null_default")]
    pub retry_after_seconds: i32,
}

/// One of several reasons of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusCause {
    /// A cause type: see [`cause`].
    #[serde(rename = "reason", skip_serializing_if = "str_is_empty", deserialize_with = "null_default")]
    pub reason: Cow<'static, str>,
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub message: String,
    /// The path of the field in the object, in JSON notation.
    #[serde(skip_serializing_if = "String::is_empty", deserialize_with = "null_default")]
    pub field: String,
}

fn str_is_empty(text: &str) -> bool {
    text.is_empty()
}

/// Cause types beside those of [`crate::field::ErrorType`].
pub mod cause {
    pub const UNEXPECTED_SERVER_RESPONSE: &str = "UnexpectedServerResponse";
    pub const FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";
    pub const RESOURCE_VERSION_TOO_LARGE: &str = "ResourceVersionTooLarge";
    /// A namespace that is being deleted refused a create.
    pub const NAMESPACE_TERMINATING: &str = "NamespaceTerminating";
    /// A disruption budget refused an eviction.
    pub const DISRUPTION_BUDGET: &str = "DisruptionBudget";
}

macro_rules! reasons {
    ($($variant:ident = $text:literal,)+) => {
        /// Why a request failed, for machines.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
        pub enum StatusReason {
            /// None given; absent on the wire.
            #[default]
            Unknown,
            $(#[doc = concat!("`", $text, "`")] $variant,)+
            /// A reason that this version does not know.
            Other(Box<str>),
        }

        impl StatusReason {
            /// The reason as written on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    Self::Unknown => "",
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for StatusReason {
            fn from(text: &str) -> Self {
                match text {
                    "" => Self::Unknown,
                    $($text => Self::$variant,)+
                    _ => Self::Other(text.into()),
                }
            }
        }
    };
}

reasons! {
    Unauthorized = "Unauthorized",
    Forbidden = "Forbidden",
    NotFound = "NotFound",
    AlreadyExists = "AlreadyExists",
    Conflict = "Conflict",
    Gone = "Gone",
    Invalid = "Invalid",
    ServerTimeout = "ServerTimeout",
    StoreReadError = "StorageReadError",
    Timeout = "Timeout",
    TooManyRequests = "TooManyRequests",
    BadRequest = "BadRequest",
    MethodNotAllowed = "MethodNotAllowed",
    NotAcceptable = "NotAcceptable",
    RequestEntityTooLarge = "RequestEntityTooLarge",
    UnsupportedMediaType = "UnsupportedMediaType",
    InternalError = "InternalError",
    Expired = "Expired",
    ServiceUnavailable = "ServiceUnavailable",
}

impl fmt::Display for StatusReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for StatusReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for StatusReason {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(&*Cow::<str>::deserialize(deserializer)?))
    }
}
