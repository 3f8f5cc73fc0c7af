//! The rows of the built-in kinds and their typed structs.
//!
//! [`table`] is the table of Kubernetes v1.36; the modules named after groups (`core::v1::Pod`, `apps::v1::Deployment`)
//! hold the structs of each kind's hub version. Both are made at build time from `data/api-facts-v1.36.json`.

mod byte_string;
mod descriptions;
mod kind;
pub mod qos;
mod rows;

pub use byte_string::ByteString;
pub use descriptions::descriptions;
pub use kind::Kind;
pub use rows::{proto_only, protobuf, table};

/// What the generated structs are made of.
mod prelude {
    pub(crate) use crate::byte_string::ByteString;
    pub(crate) use apimachinery::de::null_default;
    pub(crate) use apimachinery::int_or_string::IntOrString;
    pub(crate) use apimachinery::meta;
    pub(crate) use apimachinery::quantity::Quantity;
    pub(crate) use apimachinery::time::{MicroTime, Time};
    pub(crate) use apimachinery::value::Value;
    pub(crate) use serde::{Deserialize, Serialize};
    pub(crate) use std::collections::BTreeMap;

    pub(crate) fn is_false(value: &bool) -> bool {
        !*value
    }
    pub(crate) fn is_zero<N: PartialEq + Default>(value: &N) -> bool {
        *value == N::default()
    }
}

#[allow(unused_imports, clippy::all)]
mod types {
    use crate::prelude;
    include!(concat!(env!("OUT_DIR"), "/types.rs"));
}
pub use types::*;
