//! The embedded container runtime: images, snapshots, sandboxes, containers.

/// Whole files.
mod disk;
/// Images, their layers, archives and registries.
pub mod images;
/// A lock for each name.
mod keyed;
/// The embedded small program.
mod program;

pub use program::SHIM;
