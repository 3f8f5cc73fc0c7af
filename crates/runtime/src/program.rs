//! The small static program of the node, as bytes (see build.rs): started from a sealed memfd by `shim::spawn`.

/// `tiphys-shim`.
pub static SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tiphys-shim"));
