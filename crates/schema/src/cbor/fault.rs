//! Why an item cannot be read, in the words of the library that upstream reads CBOR with.

use super::Major;
use crate::decode::DecodeError;
use std::fmt;

#[derive(Debug)]
pub(super) enum Fault {
    /// An item of one type where Go wants another.
    Type {
        found: Major,
        wanted: String,
        /// The outermost field that it stands in.
        field: Option<String>,
        why: String,
    },
    Other(String),
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn mistyped(found: Major, wanted: impl Into<String>) -> Self {
        Self::mistyped_because(found, wanted, "")
    }

    pub(super) fn mistyped_because(found: Major, wanted: impl Into<String>, why: impl Into<String>) -> Self {
        Fault::Type { found, wanted: wanted.into(), field: None, why: why.into() }
    }

    pub(super) fn unacceptable(found: Major, what: &str) -> Self {
        let found = found.name();
        Fault::Other(format!("cbor: data item of cbor type {found} is not accepted by protocol: {what}"))
    }

    /// The same in a field of a struct; of structs in structs the outermost is named.
    pub(super) fn within(self, place: impl Fn() -> String) -> Self {
        match self {
            Fault::Type { found, wanted, why, .. } => {
                Fault::Type { found, wanted, field: Some(place()), why }
            }
            other => other,
        }
    }
}

pub(super) fn bad<T>(why: impl Into<String>) -> Result<T> {
    Err(Fault::Other(why.into()))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (found, wanted, field, why) = match self {
            Fault::Other(why) => return f.write_str(why),
            Fault::Type { found, wanted, field, why } => (found.name(), wanted, field, why),
        };
        match field {
            Some(field) => {
                write!(f, "cbor: cannot unmarshal {found} into Go struct field {field} of type {wanted}")?;
            }
            None => write!(f, "cbor: cannot unmarshal {found} into Go value of type {wanted}")?,
        }
        if why.is_empty() { Ok(()) } else { write!(f, " ({why})") }
    }
}

impl From<Fault> for DecodeError {
    fn from(fault: Fault) -> Self {
        DecodeError(fault.to_string())
    }
}
