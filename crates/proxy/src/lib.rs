//! Services on the node: plans a rule set and applies the difference over netlink.

/// UDP flows that lead nowhere.
pub mod conntrack;
/// Which endpoints may be used, and their order.
pub mod endpoints;
/// What is kept of the API's objects.
pub mod facts;
/// What load balancers and probes may ask.
mod health;
/// Answers to HTTP requests.
mod http;
/// What changed since the last pass.
mod marked;
/// What is counted.
pub mod metrics;
/// From plans to the kernel.
pub mod nft;
/// From objects to plans.
pub mod plan;
/// The loop.
mod proxy;
/// The half that talks to the kernel.
mod worker;

pub use proxy::{Config, Error, cleanup, run};
