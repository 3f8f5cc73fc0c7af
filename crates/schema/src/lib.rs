//! The table, and its readers.

pub mod row;
pub mod table;

/// JSON and YAML to canonical trees, strictly.
pub mod decode;
/// The defaults that stand in rows.
pub mod defaults;
/// Trees to JSON bytes; the resident body of an object.
pub mod encode;
/// Fields of disabled features.
pub mod gates;
/// JSON, merge and strategic-merge patches.
pub mod patch;
/// Fields that no row knows.
pub mod prune;

pub use row::{Field, ResourceRow, Type, TypeId, TypeRow};
pub use table::Table;
