//! Where pods come from: the API, and manifests on this node.

pub(crate) mod api;
pub(crate) mod manifests;
mod static_pod;
