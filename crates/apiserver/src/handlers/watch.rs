//! WATCH: a stream of changes, from a revision or from the state as it is.

use super::read::{list_options, type_meta};
use super::respond::{Form, columns, form, partial, row, table};
use crate::body::{self, Answer};
use crate::cache::{EventType, Selection, list};
use crate::registry::{self, store_error};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use schema::encode::Body;
use serde_json::{Value, json};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::{Entry, Event, EventKind, Revision};
use streaming::messages::Framing;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Frames are gathered up to this size, so that small events do not become small TLS records.
const GATHER: usize = 64 << 10;

struct Watcher {
    server: Arc<Server>,
    resource: Arc<Served>,
    selection: Selection,
    form: Form,
    watch: store::Watch,
    /// Frames that come before any change.
    first: Option<Bytes>,
    ends: Instant,
    /// The server stops, or the resource goes. Kept from one event to the next, as is the alarm: to begin to wait anew
    /// for either takes locks that all watchers share.
    stop: BoxFuture<'static, ()>,
    /// The next bookmark or the end.
    alarm: Pin<Box<Sleep>>,
    described: bool,
    over: bool,
}

impl Server {
    pub(super) async fn watch(
        self: &Arc<Self>,
        resource: &Arc<Served>,
        call: Call,
    ) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let query = &call.info.query;
        let parameter = |name| query.get(name).unwrap_or_default();
        let options = list_options(query)?;
        let mut selection = Selection::parse(
            resource,
            &call.info.namespace,
            parameter("labelSelector"),
            parameter("fieldSelector"),
        )?;
        if !call.info.name.is_empty() && selection.name.is_none() {
            selection = Selection::parse(
                resource,
                &call.info.namespace,
                parameter("labelSelector"),
                &format!("metadata.name={}", call.info.name),
            )?;
        }
        let send_initial = query.get("sendInitialEvents").map(|_| query.flag("sendInitialEvents"));
        if send_initial.is_some() && parameter("resourceVersionMatch") != "NotOlderThan" {
            return Err(Status::invalid(
                &apimachinery::gvk::GroupKind::new("meta.k8s.io", "ListOptions"),
                "",
                &apimachinery::field::Error::forbidden(
                    &apimachinery::field::Path::new("resourceVersionMatch"),
                    "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
                )
                .into(),
            ));
        }
        let store = &self.registry.store;
        let asked = list::parse_revision(parameter("resourceVersion"))?.unwrap_or(0);
        let initial = send_initial.unwrap_or(asked == 0);
        let bookmarks = query.flag("allowWatchBookmarks");
        let mut watcher = {
            let (watch, first) = if initial {
                if asked > 0 {
                    list::wait_for(&**store, asked).await?;
                }
                let snapshot = store.consistent_snapshot(&resource.prefix).await.map_err(store_error)?;
                let watch = store.watch(&resource.prefix, snapshot.revision).map_err(store_error)?;
                (watch, Some(snapshot))
            } else {
                let after = if asked == 0 { store.revision() } else { Revision(asked) };
                (store.watch(&resource.prefix, after).map_err(expired)?, None)
            };
            let now = Instant::now();
            // Spread over half an hour, so that clients do not all return at once.
            let spread = 1800 + u64::from(uuid::Uuid::new_v4().as_u128() as u16) % 1800;
            let ends = now + Duration::from_secs(options.timeout.unwrap_or(spread));
            let wake = if bookmarks { ends.min(now + BOOKMARK_EVERY) } else { ends };
            let mut watcher = Watcher {
                stop: stop(self.shutdown.clone(), resource.clone()).boxed(),
                alarm: Box::pin(tokio::time::sleep_until(wake)),
                server: self.clone(),
                resource: resource.clone(),
                selection,
                form,
                watch,
                first: None,
                ends,
                described: false,
                over: false,
            };
            if let Some(snapshot) = first {
                let mut out = BytesMut::new();
                let scope = watcher.selection.scope.clone();
                for entry in snapshot.range(&scope, "") {
                    if watcher.selection.matches(resource, entry) {
                        out.extend_from_slice(&watcher.encode("ADDED", entry, entry.mod_revision.0));
                    }
                }
                if send_initial == Some(true) && bookmarks {
                    out.extend_from_slice(&watcher.bookmark(snapshot.revision.0, true));
                }
                watcher.first = Some(out.freeze());
            }
            watcher
        };
        if watcher.first.as_ref().is_some_and(Bytes::is_empty) {
            watcher.first = None;
        }
        let frames = stream::unfold(watcher, |mut watcher| async move {
            let bytes = watcher.next().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(bytes)), watcher))
        });
        let answer =
            body::json(http::StatusCode::OK, Bytes::new()).map(|_| body::stream(StreamBody::new(frames)));
        body::over_websocket(call.parts, answer, Framing::Lines)
    }
}

/// A watch from a revision that is gone is answered with 410 at once.
fn expired(error: store::Error) -> Status {
    match error {
        store::Error::Compacted { oldest } => {
            Status::resource_expired(format!("too old resource version: the oldest available is {oldest}"))
        }
        other => store_error(other),
    }
}

/// Ends when the server stops, or the resource goes.
async fn stop(shutdown: CancellationToken, resource: Arc<Served>) {
    match &resource.custom {
        Some(custom) => tokio::select! {
            () = shutdown.cancelled() => {}
            () = custom.gone.cancelled() => {}
        },
        None => shutdown.cancelled().await,
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        loop {
            if self.over || self.server.shutdown.is_cancelled() {
                return None;
            }
            let events = tokio::select! {
                biased;
                events = self.watch.next_batch() => events,
                () = &mut self.stop => return None,
                () = &mut self.alarm => {
                    let now = Instant::now();
                    if now >= self.ends {
                        return None;
                    }
                    self.alarm.as_mut().reset(self.ends.min(now + BOOKMARK_EVERY));
                    return Some(self.bookmark(self.watch.progress().0, false));
                }
            };
            match events {
                Ok(events) => {
                    let frame = self.frame(&events);
                    if !frame.is_empty() {
                        return Some(frame);
                    }
                }
                Err(store::Error::Closed) => return None,
                Err(error) => {
                    self.over = true;
                    let mut out =
                        apimachinery::value::to_json_vec(&json!({"type": "ERROR", "object": expired(error)}))
                            .ok()?;
                    out.push(b'\n');
                    return Some(out.into());
                }
            }
        }
    }

    fn frame(&mut self, events: &[Arc<Event>]) -> Bytes {
        let mut frames = Vec::with_capacity(events.len());
        for event in events {
            if !event.entry.name.starts_with(&self.selection.scope) {
                continue;
            }
            let is = event.kind == EventKind::Put && self.selection.matches(&self.resource, &event.entry);
            let was = event.previous.as_ref().is_some_and(|p| self.selection.matches(&self.resource, p));
            let (kind, entry) = match (was, is) {
                (false, true) => (EventType::Added, &event.entry),
                (true, true) => (EventType::Modified, &event.entry),
                // Gone, or out of the selection: its last matching state, with the revision of the change.
                (true, false) => (EventType::Deleted, event.previous.as_ref().unwrap_or(&event.entry)),
                (false, false) => continue,
            };
            let described = self.described;
            // A table's first event carries the column definitions: not to be shared.
            let bytes = if matches!(self.form, Form::Table(_)) && !described {
                self.encode(kind.as_str(), entry, event.revision.0)
            } else {
                let (server, resource, form) = (self.server.clone(), self.resource.clone(), self.form);
                server
                    .events
                    .get(event, &resource, kind, form, || self.encode(kind.as_str(), entry, event.revision.0))
            };
            frames.push(bytes);
        }
        match frames.len() {
            0 => Bytes::new(),
            1 => frames.remove(0),
            _ => {
                let mut out =
                    BytesMut::with_capacity(frames.iter().map(Bytes::len).sum::<usize>().min(GATHER * 16));
                for frame in &frames {
                    out.extend_from_slice(frame);
                }
                out.freeze()
            }
        }
    }

    /// One event: `{"type":…,"object":…}` and a newline.
    fn encode(&mut self, kind: &str, entry: &Entry, revision: u64) -> Bytes {
        if self.form == Form::Object
            && let Ok(stored) = Body::from_stored(entry.value.clone())
        {
            if self.resource.is_verbatim(&stored) {
                let mut out = BytesMut::with_capacity(entry.value.len() + 192);
                head(&mut out, kind);
                stored.write(&mut out, Some(&type_meta(&self.resource)), revision);
                out.extend_from_slice(b"}\n");
                return out.freeze();
            }
            let object = self.server.bytes(&self.resource, &stored, None, revision);
            let mut out = BytesMut::with_capacity(object.len() + 32);
            head(&mut out, kind);
            out.extend_from_slice(&object);
            out.extend_from_slice(b"}\n");
            return out.freeze();
        }
        let object = match registry::decode(&self.resource, entry) {
            Ok(mut stored) => {
                crate::object::set_meta(&mut stored.value, "resourceVersion", revision.to_string());
                self.shape(&stored.value, revision)
            }
            Err(status) => return line("ERROR", &serde_json::to_value(&status).unwrap_or_default()),
        };
        line(kind, &object)
    }

    fn shape(&mut self, object: &Value, revision: u64) -> Value {
        match self.form {
            Form::Table(include) => {
                let first = !std::mem::replace(&mut self.described, true);
                let rows = vec![row(&self.resource, object, include, self.server.registry.now())];
                table(
                    first.then(|| columns(&self.resource)),
                    json!({"resourceVersion": revision.to_string()}),
                    rows,
                )
            }
            _ => partial(object),
        }
    }

    fn bookmark(&self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = match self.form {
            Form::Table(_) => table(None, json!({"resourceVersion": revision.to_string()}), Vec::new()),
            Form::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Form::Object => {
                json!({"kind": self.resource.row.kind, "apiVersion": self.resource.api_version, "metadata": metadata})
            }
        };
        line("BOOKMARK", &object)
    }
}

fn head(out: &mut BytesMut, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut out = BytesMut::new();
    head(&mut out, kind);
    out.extend_from_slice(&apimachinery::value::to_json_vec(object).unwrap_or_default());
    out.extend_from_slice(b"}\n");
    out.freeze()
}
