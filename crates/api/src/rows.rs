//! The table of the built-in kinds: static rows made by `build.rs`, indexed once.

use schema::Table;
use schema::protobuf::Codec;
use schema::row::ProtoField;
use std::borrow::Cow;
use std::sync::LazyLock;

#[allow(unused_imports)]
mod generated {
    use schema::row::{
        Field, Go, Inlined, ListType, MapType, PatchStrategy, Presence, ProtoField, Ptr, Published,
        ResourceRow, Shape, Type, TypeId, TypeRow,
    };
    use std::borrow::Cow;
    include!(concat!(env!("OUT_DIR"), "/rows.rs"));
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::new(Cow::Borrowed(&generated::TYPES), Cow::Borrowed(&generated::RESOURCES)));

/// The table of Kubernetes v1.36.
pub fn table() -> &'static Table {
    &TABLE
}

static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new(table(), proto_only));

/// The protobuf codec of the built-in kinds.
pub fn protobuf() -> &'static Codec {
    &CODEC
}

/// The fields of a protobuf message that has no JSON schema of its own.
pub fn proto_only(message: &str) -> Option<&'static [ProtoField]> {
    generated::PROTO_ONLY.iter().find(|(name, _)| *name == message).map(|(_, fields)| *fields)
}
