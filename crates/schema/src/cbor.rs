//! CBOR (KEP-4222): trees to bytes by the rows, and bytes to free trees, as upstream restricts RFC 8949.
//!
//! Every document begins with the tag that says it is CBOR. Text is written as byte strings, what is base64 in JSON as
//! its bytes behind the tag "expected base64", floats in the smallest width that holds them; keys are sorted by their
//! encoding and lengths are definite, so that equal objects are equal bytes. What is read may be less strict: text
//! strings, lengths without end, tags that mean nothing here.

mod fault;
mod notation;
mod read;
mod strict;
mod typed;
mod wellformed;
mod write;

pub use notation::notation;
pub use read::{document, object};
pub use strict::unknown_field;
pub use typed::{type_meta, typed};
pub use write::{encode, encode_free, event};

/// The content type of one document.
pub const CONTENT_TYPE: &str = "application/cbor";

/// The content type of a stream of documents (RFC 8742).
pub const SEQUENCE: &str = "application/cbor-seq";

/// The head of the tag "this is CBOR" (55799): also how stored values tell that they are.
pub const PREFIX: &[u8; 3] = &[0xd9, 0xd9, 0xf7];

/// What a data item is: the first three bits of its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Major {
    Unsigned,
    Negative,
    Bytes,
    Text,
    Array,
    Map,
    Tag,
    Simple,
}

impl Major {
    /// What an item is that begins with this byte.
    fn of(first: u8) -> Self {
        match first >> 5 {
            0 => Major::Unsigned,
            1 => Major::Negative,
            2 => Major::Bytes,
            3 => Major::Text,
            4 => Major::Array,
            5 => Major::Map,
            6 => Major::Tag,
            _ => Major::Simple,
        }
    }

    /// As messages name it.
    fn name(self) -> &'static str {
        match self {
            Major::Unsigned => "positive integer",
            Major::Negative => "negative integer",
            Major::Bytes => "byte string",
            Major::Text => "UTF-8 text string",
            Major::Array => "array",
            Major::Map => "map",
            Major::Tag => "tag",
            Major::Simple => "primitives",
        }
    }
}

/// Tags of byte strings that are to be text one day, in an encoding of their own.
const BASE64_URL: u64 = 21;
const BASE64: u64 = 22;
const BASE16: u64 = 23;
