//! The words that every room of the house uses. See each module.

/// How typed structs read and write JSON as upstream does.
pub mod de;
/// The named constructors of `Status`.
pub mod errors;
/// Field paths, errors and their lists.
pub mod field;
/// Groups, versions, kinds and resources.
pub mod gvk;
/// Object and list metadata, options, tables.
pub mod meta;
/// Amounts of things, exactly.
pub mod quantity;
/// Text quoted as Go quotes it.
pub mod quote;
/// The answer that is no object.
pub mod status;
/// Points in time, and durations.
pub mod time;
/// JSON trees and JSON text.
pub mod value;
