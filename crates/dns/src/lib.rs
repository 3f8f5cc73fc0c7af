//! The cluster DNS (DNS-Based Service Discovery, version 1.1.0), answered from the informers of a node.

/// From a question to an answer of the zone; pure.
pub mod answer;
/// What upstreams said, for a while.
mod cache;
/// Questions for the name servers in resolv.conf.
mod forward;
/// From a request to an answer, in bytes.
mod handle;
/// CoreDNS' metrics.
mod metrics;
/// What is kept of Services, EndpointSlices and Namespaces.
pub mod records;
/// The name servers in resolv.conf.
mod resolv_conf;
/// The sockets and the informers.
mod serve;
/// Messages as bytes.
mod wire;
/// The index of the zone, updated change by change; pure.
pub mod zone;

pub use serve::{Config, Error, Server, run};
