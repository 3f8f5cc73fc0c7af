//! The load generator and the benchmarks: speaks only the public API, takes any kubeconfig.

fn main() {}
