//! The one binary: flags, wiring, PKI bootstrap.

fn main() {}
