//! Revisioned keys and bytes: the one contract, and its engines.
//!
//! * `contract`: the [`Store`] trait every engine keeps, and its errors.
//! * `model`: keys, entries, events and writes.
//! * `ring`: the recent events of a bucket.
//! * `view`: the in-memory ordered view with its history, fed by an engine.
//! * `watch`: a reader of that history that never skips or repeats.
//! * `suite`: what every engine must do, for tests (feature `suite`).
//! * `transform`: what values look like at rest.
//! * [`embedded`]: the engine of one machine: a log, snapshots, the view.
//! * [`etcd`]: the engine of many: etcd v3, and the view fed by its watch.

mod contract;
pub mod embedded;
pub mod etcd;
mod model;
mod ring;
#[cfg(feature = "suite")]
pub mod suite;
mod transform;
mod view;
mod watch;

pub use contract::{Error, Health, Result, Snapshot, Stats, Store};
pub use model::{Entry, Event, EventKind, Expect, Key, LeaseId, Life, Op, Pin, Projection, Revision, Write};
pub use transform::{Identity, Loaded, Transform, TransformError};
pub use view::{BucketStats, History};
pub use watch::Watch;
