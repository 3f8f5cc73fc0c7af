//! Watch events as they are sent: encoded once, however many watchers there are.

use crate::handlers::{Form, Media};
use crate::resources::Served;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use store::Event;

/// What a change is to a watcher, whose selectors decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// What distinguishes two encodings. Change and resource stand by their address, which is theirs alone as long as they
/// are kept with the encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    event: usize,
    resource: usize,
    kind: EventType,
    form: (Form, Media),
}

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Keeps both addresses taken.
    of: (Arc<Event>, Arc<Served>),
}

/// How many bytes of encodings are kept; half is forgotten when it is full.
const BUDGET: usize = 8 << 20;

/// Encodings of recent changes. Two generations: what was not asked for during one is forgotten.
#[derive(Debug, Default)]
pub struct EncodedEvents(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Encoded>,
    old: HashMap<Key, Encoded>,
    size: usize,
}

impl EncodedEvents {
    /// The encoding of a change, made by `encode` if nobody asked for it lately.
    pub fn get(
        &self,
        event: &Arc<Event>,
        resource: &Arc<Served>,
        kind: EventType,
        form: (Form, Media),
        encode: impl FnOnce() -> Bytes,
    ) -> Bytes {
        let (at, of) = (Arc::as_ptr(event) as usize, Arc::as_ptr(resource) as usize);
        let key = Key { event: at, resource: of, kind, form };
        {
            let mut generations = self.0.lock();
            if let Some(encoded) = generations.young.get(&key) {
                return encoded.bytes.clone();
            }
            if let Some(encoded) = generations.old.remove(&key) {
                let bytes = encoded.bytes.clone();
                generations.put(key, encoded);
                return bytes;
            }
        }
        let bytes = encode();
        let encoded = Encoded { bytes: bytes.clone(), of: (event.clone(), resource.clone()) };
        self.0.lock().put(key, encoded);
        bytes
    }
}

impl Generations {
    fn put(&mut self, key: Key, encoded: Encoded) {
        // The change itself may live only here.
        let kept = encoded.of.0.entry.value.len();
        self.size += encoded.bytes.len() + kept + 256;
        self.young.insert(key, encoded);
        if self.size > BUDGET / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
    }
}
