//! What the built-in types and their fields are for, in words: `kubectl explain` shows them.

use schema::openapi::Descriptions;
use std::io::Read as _;

/// Reads the descriptions of all types. A megabyte: nobody keeps it longer than documents take to be written.
pub fn descriptions() -> Descriptions {
    let bytes: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.z"));
    let mut text = Vec::new();
    let read = flate2::read::ZlibDecoder::new(bytes).read_to_end(&mut text);
    debug_assert!(read.is_ok(), "made by build.rs");
    let read = serde_json::from_slice(&text);
    debug_assert!(read.is_ok(), "made by build.rs");
    read.unwrap_or_default()
}
