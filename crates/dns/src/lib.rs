//! The cluster DNS (DNS-Based Service Discovery, version 1.1.0), answered from the informers of a node.

/// From a question to an answer of the zone; pure.
pub mod answer;
/// What is kept of Services, EndpointSlices and Namespaces.
pub mod records;
/// The index of the zone, updated change by change; pure.
pub mod zone;
