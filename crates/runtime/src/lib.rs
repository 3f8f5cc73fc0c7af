//! The embedded container runtime: images, snapshots, sandboxes, containers.

/// What it must be told.
mod config;
/// Whole files.
mod disk;
/// Images, their layers, archives and registries.
pub mod images;
/// A lock for each name.
mod keyed;
/// The embedded small program.
mod program;
/// Terminals.
mod pty;
/// What is remembered of sandboxes and containers.
mod record;
/// CRI: sandboxes, containers, exec, events.
mod service;
/// Connections to shims.
mod shims;
/// From CRI's configuration to the shim's.
mod spec;

pub use config::{Config, Network, NetworkSandbox};
pub use program::SHIM;
pub use service::Runtime;
