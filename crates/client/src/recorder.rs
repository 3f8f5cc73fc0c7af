//! Events about objects, counted and aggregated as upstream's correlator does: equal events raise a count, similar ones
//! beyond ten in ten minutes become one "(combined from similar events)", and a source may burst 25 per object, then one
//! per five minutes.

use crate::client::Client;
use crate::params::{Patch, PatchParams};
use api::Kind;
use api::core::v1::{Event, EventSource, ObjectReference};
use apimachinery::clock::{Clock as _, SystemClock};
use apimachinery::json;
use apimachinery::time::Time;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

const BURST: f64 = 25.0;
const REFILL_PER_SECOND: f64 = 1.0 / 300.0;
const SIMILAR_LIMIT: usize = 10;
const SIMILAR_WINDOW: Duration = Duration::from_secs(600);
/// Remembered sources and messages; the oldest half goes when it is full.
const MEMORY: usize = 4096;
/// Events waiting to be written; more are dropped, for a recorder never slows its caller.
const WAITING: usize = 1000;

/// `Normal` or `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    Normal,
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            EventType::Normal => "Normal",
            EventType::Warning => "Warning",
        }
    }
}

/// A reference to a typed object.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.metadata();
    ObjectReference {
        kind: K::KIND.into(),
        api_version: K::api_version(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..Default::default()
    }
}

/// Records events of one component. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    component: Arc<str>,
    host: Arc<str>,
    waiting: mpsc::Sender<Event>,
}

impl Recorder {
    /// Starts the writing task; it ends when the last clone is dropped.
    pub fn new(client: Client, component: &str, host: &str) -> Self {
        let (waiting, events) = mpsc::channel(WAITING);
        tokio::spawn(write(client, events));
        Recorder { component: component.into(), host: host.into(), waiting }
    }

    /// Records that something happened to the referenced object. Never waits.
    pub fn event(&self, about: &ObjectReference, kind: EventType, reason: &str, message: impl Into<String>) {
        let now = Time::from(SystemClock::default().now());
        let namespace = if about.namespace.is_empty() { "default" } else { &about.namespace };
        let mut message: String = message.into();
        if message.len() > 1024 {
            let mut end = 1024;
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
        }
        let mut event = Event::new();
        event.metadata.namespace = namespace.into();
        event.involved_object = about.clone();
        event.reason = reason.into();
        event.message = message;
        event.type_ = kind.as_str().into();
        event.source = EventSource { component: self.component.to_string(), host: self.host.to_string() };
        event.reporting_component = self.component.to_string();
        event.reporting_instance = self.host.to_string();
        event.first_timestamp = Some(now);
        event.last_timestamp = Some(now);
        event.count = 1;
        if self.waiting.try_send(event).is_err() {
            tracing::debug!(reason, "too many events are waiting; one was dropped");
        }
    }

    pub fn normal<K: Kind>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.event(&reference(object), EventType::Normal, reason, message);
    }

    pub fn warning<K: Kind>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.event(&reference(object), EventType::Warning, reason, message);
    }
}

/// What identifies events of one kind about one object, without and with the message.
type Group = (String, String, String, String);
type Exact = (Group, String);

#[derive(Default)]
struct Memory {
    buckets: HashMap<(String, String), (f64, Instant)>,
    similar: HashMap<Group, (HashSet<String>, Instant)>,
    /// Name and count of the event that stands for each exact one.
    seen: HashMap<Exact, (String, i32, Option<Time>)>,
}

impl Memory {
    /// Whether the source may say something about the object now.
    fn allowed(&mut self, event: &Event, now: Instant) -> bool {
        let key =
            (event.source.component.clone(), event.involved_object.uid.clone() + &event.involved_object.name);
        let (tokens, at) = self.buckets.entry(key).or_insert((BURST, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() * REFILL_PER_SECOND).min(BURST);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }

    /// Folds an event into the one that stands for it; returns its key.
    fn aggregate(&mut self, event: &mut Event, now: Instant) -> Exact {
        let about = &event.involved_object;
        let group: Group = (
            event.source.component.clone(),
            format!("{}/{}/{}/{}", about.kind, about.namespace, about.name, about.uid),
            about.field_path.clone(),
            format!("{}/{}", event.type_, event.reason),
        );
        let (messages, last) = self.similar.entry(group.clone()).or_insert_with(|| (HashSet::new(), now));
        if now.duration_since(*last) > SIMILAR_WINDOW {
            messages.clear();
        }
        *last = now;
        messages.insert(event.message.clone());
        if messages.len() > SIMILAR_LIMIT {
            messages.retain(|m| *m == event.message);
            messages.extend((0..SIMILAR_LIMIT).map(|i| i.to_string()));
            event.message = format!("(combined from similar events): {}", event.message);
            return (group, "(combined)".to_owned());
        }
        (group, event.message.clone())
    }

    fn forget_some(&mut self) {
        if self.buckets.len() > MEMORY {
            self.buckets.clear();
        }
        if self.similar.len() > MEMORY {
            self.similar.clear();
        }
        if self.seen.len() > MEMORY {
            self.seen.clear();
        }
    }
}

async fn write(client: Client, mut events: mpsc::Receiver<Event>) {
    let memory = Mutex::new(Memory::default());
    while let Some(mut event) = events.recv().await {
        let now = Instant::now();
        let (key, known) = {
            let mut memory = memory.lock();
            memory.forget_some();
            let key = memory.aggregate(&mut event, now);
            if !memory.allowed(&event, now) {
                continue;
            }
            let known = memory.seen.get(&key).cloned();
            (key, known)
        };
        let api = client.namespaced::<Event>(&event.metadata.namespace);
        if let Some((name, count, first)) = known {
            let patch = Patch::Strategic(json!({
                "count": count + 1, "lastTimestamp": event.last_timestamp, "message": event.message,
            }));
            match api.patch(&name, &patch, &PatchParams::default()).await {
                Ok(_) => {
                    memory.lock().seen.insert(key, (name, count + 1, first));
                    continue;
                }
                // It expired: the count goes on in a new one.
                Err(e) if e.is_not_found() => {
                    event.count = count + 1;
                    event.first_timestamp = first;
                }
                Err(error) => {
                    tracing::debug!(%error, "an event could not be updated");
                    continue;
                }
            }
        }
        event.metadata.name = format!("{}.{:x}", event.involved_object.name, unique());
        match api.create(&event).await {
            Ok(_) => {
                let entry = (event.metadata.name.clone(), event.count, event.first_timestamp);
                memory.lock().seen.insert(key, entry);
            }
            Err(error) => tracing::debug!(%error, reason = event.reason, "an event could not be written"),
        }
    }
}

/// Nanoseconds since the epoch, as upstream names events; never twice the same in a process.
fn unique() -> u64 {
    static LAST: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let now = std::time::SystemTime::from(SystemClock::default().now())
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos() as u64);
    let last = LAST.fetch_update(
        std::sync::atomic::Ordering::Relaxed,
        std::sync::atomic::Ordering::Relaxed,
        |last| Some(now.max(last + 1)),
    );
    last.map_or(now, |last| now.max(last + 1))
}
