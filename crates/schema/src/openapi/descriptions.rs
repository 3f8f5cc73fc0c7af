//! What types and fields are for, in words.

use parking_lot::Mutex;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

/// Descriptions by type, and in it by field; the type's own has no name.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct Descriptions(BTreeMap<String, BTreeMap<String, String>>);

/// Begins the part of a description that the enumeration brought.
const VALUES: &str = "Possible enum values:";

impl Descriptions {
    pub(super) fn ty(&self, name: &str) -> Option<&str> {
        self.field(name, "")
    }

    pub(super) fn field(&self, ty: &str, field: &str) -> Option<&str> {
        self.0.get(ty)?.get(field).map(String::as_str)
    }
}

/// The values that a description says there are; none unless it is one of an enumeration.
pub(super) fn values(text: &str) -> impl Iterator<Item = &str> {
    let listed = text.find(VALUES).map_or("", |at| &text[at..]);
    listed.lines().filter_map(|line| line.strip_prefix(" - `\"")?.split_once("\"`").map(|(value, _)| value))
}

/// Where descriptions come from. They are read when a document is written, and shared by those written at the time.
#[derive(Debug)]
pub(super) struct Words {
    read: fn() -> Descriptions,
    held: Mutex<Weak<Descriptions>>,
}

impl Words {
    pub(super) fn new(read: fn() -> Descriptions) -> Self {
        Words { read, held: Mutex::default() }
    }

    pub(super) fn get(&self) -> Arc<Descriptions> {
        let mut held = self.held.lock();
        held.upgrade().unwrap_or_else(|| {
            let read = Arc::new((self.read)());
            *held = Arc::downgrade(&read);
            read
        })
    }
}
