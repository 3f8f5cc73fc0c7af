//! The one door to the API: in-process or HTTPS, typed and dynamic; informers, work queue, leases, events.
//!
//! - [`Client`] and [`Api`]: requests, typed by [`api::Kind`] or by resource name.
//! - [`transport`]: how a request travels; [`https`] is the one over the network, the API server brings the in-process one.
//! - [`source`]: a feed of one resource's objects, whatever carries it.
//! - [`discovery`]: which resources there are; [`metadata`]: objects of whatever kind, by their metadata alone.
//! - [`informer`]: a local view of a resource, holding bytes and a declared projection.
//! - [`recent`]: what one informer decoded, for the others of the process.
//! - [`queue`] and [`controller`]: keys that wait to be reconciled, and the loop that reads its own writes.
//! - [`measures`]: what is counted of queues and requests.
//! - [`recorder`]: events, aggregated as upstream does. [`leader`]: leader election by Lease.

pub mod client;
pub mod controller;
pub mod discovery;
pub mod error;
pub mod https;
pub mod informer;
pub mod key;
pub mod leader;
pub mod measures;
pub mod metadata;
pub mod params;
pub mod queue;
pub mod recent;
pub mod recorder;
pub mod source;
pub mod transport;
mod watch;

pub use client::{Api, Client, Dynamic};
pub use error::{Error, Result};
pub use informer::{Cached, Change, Informer, Informers, Projection};
pub use key::{ObjectKey, Resource};
pub use params::{ListParams, ListResult, Patch, PatchParams};
pub use queue::Queue;
pub use recorder::Recorder;
pub use transport::Transport;
