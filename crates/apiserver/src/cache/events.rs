//! Watch events as they are sent: encoded once, however many watchers there are.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;

/// What distinguishes two encodings of one change.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EventForm {
    pub prefix: std::sync::Arc<str>,
    pub name: std::sync::Arc<str>,
    pub revision: u64,
    /// `ADDED`, `MODIFIED`, `DELETED`.
    pub kind: &'static str,
    /// The served version.
    pub api_version: String,
    pub form: crate::handlers::Form,
}

/// How many bytes of encodings are kept; half is forgotten when it is full.
const BUDGET: usize = 8 << 20;

/// Encodings of recent changes. Two generations: what was not asked for during one is forgotten.
#[derive(Debug, Default)]
pub struct EncodedEvents(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<EventForm, Bytes>,
    old: HashMap<EventForm, Bytes>,
    size: usize,
}

impl EncodedEvents {
    /// The encoding of a change, made by `encode` if nobody asked for it lately.
    pub fn get(&self, form: EventForm, encode: impl FnOnce() -> Bytes) -> Bytes {
        {
            let mut generations = self.0.lock();
            if let Some(bytes) = generations.young.get(&form) {
                return bytes.clone();
            }
            if let Some(bytes) = generations.old.remove(&form) {
                generations.put(form, bytes.clone());
                return bytes;
            }
        }
        let bytes = encode();
        self.0.lock().put(form, bytes.clone());
        bytes
    }
}

impl Generations {
    fn put(&mut self, form: EventForm, bytes: Bytes) {
        self.size += bytes.len() + 128;
        self.young.insert(form, bytes);
        if self.size > BUDGET / 2 {
            self.old = std::mem::take(&mut self.young);
            self.size = 0;
        }
    }
}
