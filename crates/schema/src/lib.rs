//! The table, and its readers.

pub mod row;
pub mod table;

pub use row::{Field, ResourceRow, Type, TypeId, TypeRow};
pub use table::Table;
