//! The scheduler: a queue of pods, a snapshot of nodes, plugins that filter and score, and a binder.
//!
//! - [`facts`]: what is kept of pods and nodes; [`cache`]: nodes with what runs, or is about to run, on them.
//! - [`queue`]: pods that wait, and why they may be tried again.
//! - [`framework`] and [`plugins`]: one file per plugin, one line in its list.
//! - [`decide`]: pure: a pod and a snapshot in, a node or the reasons against all of them out.
//! - [`scheduler`]: the loop, and the only writes.

pub mod cache;
pub mod decide;
pub mod facts;
pub mod framework;
pub mod plugins;
pub mod queue;
pub mod scheduler;

pub use scheduler::{Scheduler, run};
