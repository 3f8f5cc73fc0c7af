//! Code generation, tidy, and what CI runs.

fn main() {}
