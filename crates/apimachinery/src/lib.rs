//! The words that every room of the house uses. See each module.

/// The clock that programs read, and one that tests move.
pub mod clock;
/// When cron says that something is due.
pub mod cron;
/// How typed structs read and write JSON as upstream does.
pub mod de;
/// Typed structs out of JSON, by code that is compiled once.
pub mod decode;
/// The named constructors of `Status`.
pub mod errors;
/// Field paths, errors and their lists.
pub mod field;
/// Field selectors.
pub mod fields;
/// Groups, versions, kinds and resources.
pub mod gvk;
/// A number or text, and percentages.
pub mod int_or_string;
/// Label selectors.
pub mod labels;
/// Object and list metadata, options, tables.
pub mod meta;
/// Amounts of things, exactly.
pub mod quantity;
/// Text quoted as Go quotes it.
pub mod quote;
/// Generated names, and hashes that become part of names.
pub mod rand_name;
/// The answer that is no object.
pub mod status;
/// Points in time, and durations.
pub mod time;
/// What names and values may look like.
pub mod validation;
/// JSON trees and JSON text.
pub mod value;
