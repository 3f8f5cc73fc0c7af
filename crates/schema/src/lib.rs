//! The table, and its readers.

pub mod row;
pub mod table;

/// Server-side apply and managed fields.
pub mod apply;
/// CBOR.
pub mod cbor;
/// Custom resources: a definition's schema to rows and checks.
pub mod custom;
/// JSON and YAML to canonical trees, strictly.
pub mod decode;
/// The defaults that stand in rows.
pub mod defaults;
/// Discovery documents, classic and aggregated.
pub mod discovery;
/// Trees to JSON bytes; the resident body of an object.
pub mod encode;
/// Fields of disabled features.
pub mod gates;
/// OpenAPI v2 and v3.
pub mod openapi;
/// JSON, merge and strategic-merge patches.
pub mod patch;
/// Kubernetes' protobuf.
pub mod protobuf;
/// Fields that no row knows.
pub mod prune;

pub use row::{Field, ResourceRow, Type, TypeId, TypeRow};
pub use table::Table;
