//! The scheduler: a queue of pods, the nodes and what is on them, plugins that filter and score, and a binder.
//!
//! - [`facts`], [`terms`]: what is kept of pods and nodes; [`cache`]: nodes with what runs, or is about to run, on them;
//!   [`surroundings`]: what else is read, of claims and volumes in [`storage`],
//!   of claims and devices in [`devices`].
//! - [`queue`]: pods that wait, and what may help them.
//! - [`framework`] and [`plugins`]: one file per plugin, one line in the list.
//! - [`decide`]: pure: a pod and the cache in, a node or the reasons against all of them out; [`preempt`]: who would have
//!   to go.
//! - [`scheduler`]: the loop; `act`, `bind_volumes` and `bind_devices`: the only writes, of which
//!   a [`reservation`] is made.
//! - `metrics`: what is counted; [`stopwatch`]: what of a decision takes how long.

mod act;
mod bind_devices;
mod bind_volumes;
pub mod cache;
pub mod decide;
pub mod devices;
pub mod facts;
pub mod framework;
mod metrics;
pub mod plugins;
pub mod preempt;
pub mod queue;
pub mod reservation;
pub mod scheduler;
pub mod stopwatch;
pub mod storage;
pub mod surroundings;
pub mod terms;

pub use scheduler::{Scheduler, run};
