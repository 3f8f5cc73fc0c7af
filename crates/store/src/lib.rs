//! Revisioned keys and bytes: the one contract, and its engines.
//!
//! * `contract`: the [`Store`] trait every engine keeps, and its errors.
//! * `model`: keys, entries, events and writes.
//! * `view`: the in-memory ordered view with its history, fed by an engine.
//! * `watch`: a reader of that history that never skips or repeats.
//! * `suite`: what every engine must do, for tests (feature `suite`).
//! * [`embedded`]: the engine of one machine: a log, snapshots, the view.

mod contract;
pub mod embedded;
mod model;
#[cfg(feature = "suite")]
pub mod suite;
mod view;
mod watch;

pub use contract::{Error, Health, Result, Snapshot, Stats, Store};
pub use model::{Entry, Event, EventKind, Expect, Key, LeaseId, Life, Op, Projection, Revision, Write};
pub use view::{BucketStats, History};
pub use watch::Watch;
