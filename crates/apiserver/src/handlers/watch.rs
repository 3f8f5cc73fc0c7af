//! WATCH: a stream of changes, from a revision or from the state as it is.

use super::Media;
use super::read::list_options;
use super::respond::{
    Form, Include, Version, accepted, columns, message, partial, row, table, type_meta, write,
};
use crate::body::{self, Answer};
use crate::cache::{EventType, Selection, list};
use crate::observed::WatchEvents;
use crate::registry::{self, store_error};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::json;
use apimachinery::meta::ListMeta;
use apimachinery::status::Status;
use apimachinery::value::Value;
use apimachinery::value::to_json_vec;
use bytes::{Bytes, BytesMut};
use component::metrics::Histogram;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;
use schema::encode::Body;
use schema::{cbor, protobuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::{Entry, Event, EventKind, Revision};
use streaming::messages::Framing;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

/// The media type of a stream of protobuf events.
const WATCH_PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Frames are gathered up to this size, so that small events do not become small TLS records.
const GATHER: usize = 64 << 10;

struct Watcher {
    server: Arc<Server>,
    resource: Arc<Served>,
    selection: Selection,
    form: Form,
    media: Media,
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
    counted: Option<WatchEvents>,
    /// The watch begins with a list: what tells how long that takes, and since when.
    listing: Option<(Histogram, Instant)>,
}

impl Server {
    pub(super) async fn watch(
        self: &Arc<Self>,
        resource: &Arc<Served>,
        call: Call,
    ) -> Result<Answer, Status> {
        let began = Instant::now();
        let (form, media) = accepted(resource, &call)?;
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
        let send_initial = options.send_initial_events;
        let store = &self.registry.store;
        let asked = list::parse_revision(parameter("resourceVersion"))?.unwrap_or(0);
        // Nobody writes YAML piece by piece.
        if media == Media::Yaml {
            return Err(Status::not_acceptable(&super::route::streams(call.encodings)));
        }
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
            let timing = &self.gate.timing;
            let seconds = options.timeout_seconds.and_then(|s| u64::try_from(s).ok());
            let ends = now + seconds.map_or_else(|| timing.watch(), Duration::from_secs);
            let wake = if bookmarks { ends.min(now + BOOKMARK_EVERY) } else { ends };
            let mut watcher = Watcher {
                stop: stop(self.shutdown.clone(), timing.last_of_watch(), resource.clone()).boxed(),
                alarm: Box::pin(tokio::time::sleep_until(wake)),
                server: self.clone(),
                resource: resource.clone(),
                selection,
                form,
                media,
                watch,
                first: None,
                ends,
                described: false,
                over: false,
                counted: self.gate.observed.as_ref().map(|observed| observed.watch_events(&call.info)),
                listing: None,
            };
            if let Some(snapshot) = first {
                let mut out = BytesMut::new();
                let scope = watcher.selection.scope.clone();
                let entries: Vec<Arc<Entry>> = snapshot.range(&scope, "").cloned().collect();
                for entry in &resource.present_all(entries).await? {
                    registry::body(entry)?;
                    if watcher.selection.matches(resource, entry) && !watcher.cannot_show() {
                        out.extend_from_slice(&watcher.encode("ADDED", entry, entry.mod_revision.0));
                    }
                }
                if send_initial == Some(true) && bookmarks && !watcher.cannot_show() {
                    out.extend_from_slice(&watcher.bookmark(snapshot.revision.0, true));
                    let observed = self.gate.observed.as_ref();
                    watcher.listing = observed.map(|observed| (observed.watch_list(&call.info), began));
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
        let mut answer =
            body::json(http::StatusCode::OK, Bytes::new()).map(|_| body::stream(StreamBody::new(frames)));
        let (framing, content_type) = match media {
            Media::Protobuf => (Framing::Chunks, WATCH_PROTOBUF),
            Media::Cbor => (Framing::Chunks, cbor::SEQUENCE),
            Media::Json | Media::Yaml => (Framing::Lines, body::JSON),
        };
        let content_type = http::HeaderValue::from_static(content_type);
        answer.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
        body::over_websocket(call.parts, answer, framing)
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

/// Ends when the server has been told to stop for as long as `grace`, or the resource goes.
async fn stop(shutdown: CancellationToken, grace: Duration, resource: Arc<Served>) {
    let shutdown = async {
        shutdown.cancelled().await;
        if !grace.is_zero() {
            tokio::time::sleep(grace).await;
        }
    };
    match &resource.custom {
        Some(custom) => tokio::select! {
            () = shutdown => {}
            () = custom.gone.cancelled() => {}
        },
        None => shutdown.await,
    }
}

impl Watcher {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        // Who asks for more has been given the list.
        if let Some((listing, began)) = self.listing.take() {
            listing.observe(began.elapsed().as_secs_f64());
        }
        loop {
            let stopping =
                self.server.gate.timing.watch_grace.is_zero() && self.server.shutdown.is_cancelled();
            if self.over || stopping {
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
                    if self.cannot_show() {
                        return None;
                    }
                    return Some(self.bookmark(self.watch.progress().0, false));
                }
            };
            match events {
                Ok(events) => {
                    let events = match presented(&self.resource, &self.selection.scope, events).await {
                        Ok(events) => events,
                        Err(status) => {
                            self.over = true;
                            return Some(self.event("ERROR", &to_json_vec(&status).ok()?));
                        }
                    };
                    let frame = self.frame(&events);
                    if !frame.is_empty() {
                        return Some(frame);
                    }
                }
                Err(store::Error::Closed) => return None,
                Err(error) => {
                    self.over = true;
                    if let Some(observed) = &self.server.gate.observed {
                        observed.terminated_watcher(&self.resource.row.group, &self.resource.row.resource);
                    }
                    return Some(self.event("ERROR", &to_json_vec(&expired(error)).ok()?));
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
            // Whether one that cannot be read is wanted cannot be told: it ends the watch, and hides no gap.
            let versions = [Some(&event.entry), event.previous.as_ref()];
            if let Some(status) = versions.into_iter().flatten().find_map(|entry| registry::body(entry).err())
            {
                self.over = true;
                let status = to_json_vec(&status).unwrap_or_default();
                frames.push(self.event("ERROR", &status));
                break;
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
            if self.cannot_show() {
                break;
            }
            let described = self.described;
            // A table's first event carries the column definitions: not to be shared.
            let bytes = if matches!(self.form, Form::Table(..)) && !described {
                self.encode(kind.as_str(), entry, event.revision.0)
            } else {
                let (server, resource, form) =
                    (self.server.clone(), self.resource.clone(), (self.form, self.media));
                server
                    .events
                    .get(event, &resource, kind, form, || self.encode(kind.as_str(), entry, event.revision.0))
            };
            frames.push(bytes);
        }
        if let Some(counted) = &self.counted {
            counted.count.add(frames.len() as u64);
            frames.iter().for_each(|frame| counted.sizes.observe(frame.len() as f64));
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

    /// Whether an object cannot be shown in the form that is wanted, which ends the watch: one that is no list has no
    /// list of metadata, and upstream finds that out only here.
    fn cannot_show(&mut self) -> bool {
        self.over |= matches!(self.form, Form::MetadataList(_));
        self.over
    }

    /// One event with its object.
    fn encode(&mut self, kind: &str, entry: &Entry, revision: u64) -> Bytes {
        let resource = self.resource.clone();
        if self.form == Form::Object
            && let Ok(stored) = Body::from_stored(entry.value.clone())
        {
            let meta = type_meta(&resource);
            if self.media == Media::Protobuf {
                let message = message(&resource, &stored, revision);
                let object = protobuf::wrap(&message, meta.kind(), meta.api_version());
                return protobuf::watch_frame(kind, &object).into();
            }
            if self.media == Media::Cbor {
                let mut object = BytesMut::new();
                write(&resource, &stored, Some(&meta), revision, &mut object);
                return self.event(kind, &object);
            }
            let mut out = BytesMut::with_capacity(entry.value.len() + 192);
            head(&mut out, kind);
            write(&resource, &stored, Some(&meta), revision, &mut out);
            out.extend_from_slice(b"}\n");
            return out.freeze();
        }
        match registry::decode(&resource, entry) {
            Ok(mut stored) => {
                crate::object::set_meta(&mut stored.value, "resourceVersion", revision.to_string());
                let object = self.shape(&stored.value, revision);
                self.event(kind, &object)
            }
            Err(status) => self.event("ERROR", &to_json_vec(&status).unwrap_or_default()),
        }
    }

    /// The JSON of an object in a form that is not its own.
    fn shape(&mut self, object: &Value, revision: u64) -> Vec<u8> {
        match self.form {
            Form::Table(include, version) => self.table(object, revision, (include, version)),
            Form::Metadata(version) | Form::MetadataList(version) => partial(&self.resource, object, version),
            Form::Object => partial(&self.resource, object, Version::V1),
        }
    }

    /// A table of one object. The first of a watch describes its columns.
    fn table(&mut self, object: &Value, revision: u64, (include, version): (Include, Version)) -> Vec<u8> {
        let first = !std::mem::replace(&mut self.described, true);
        let rows = vec![row(&self.resource, object, (include, version), self.server.registry.now())];
        table(first.then(|| columns(&self.resource)), &at(revision), Some(&rows), version)
    }

    fn bookmark(&mut self, revision: u64, initial_events_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial_events_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = &self.resource;
        let mut object = schema::decode::zero(&resource.table, &schema::Type::Ref(resource.ty));
        object["kind"] = resource.row.kind.as_ref().into();
        object["apiVersion"] = resource.api_version.as_str().into();
        object["metadata"] = metadata;
        let shown = match self.form {
            Form::Table(include, version) => {
                // That the list is over stands in the object, which is there for that.
                let include = match include {
                    Include::None if initial_events_end => Include::Metadata,
                    include => include,
                };
                self.table(&object, revision, (include, version))
            }
            Form::Metadata(version) | Form::MetadataList(version) => {
                partial(&self.resource, &object, version)
            }
            Form::Object => schema::encode::json(&self.resource.table, self.resource.ty, &object),
        };
        self.event("BOOKMARK", &shown)
    }

    /// An event around an object that is JSON yet.
    fn event(&self, kind: &str, object: &[u8]) -> Bytes {
        if self.media == Media::Cbor {
            let object = serde_json::from_slice(object).unwrap_or_default();
            return cbor::event(kind, &super::negotiate::cbor(&object)).into();
        }
        if self.media == Media::Protobuf
            && let Some(object) =
                serde_json::from_slice(object).ok().and_then(|o| super::negotiate::protobuf(&o))
        {
            return protobuf::watch_frame(kind, &object).into();
        }
        let mut out = BytesMut::with_capacity(object.len() + 32);
        head(&mut out, kind);
        out.extend_from_slice(object);
        out.extend_from_slice(b"}\n");
        out.freeze()
    }
}

/// The changes below a scope, as they are served.
async fn presented(
    resource: &Served,
    scope: &str,
    events: Vec<Arc<Event>>,
) -> Result<Vec<Arc<Event>>, Status> {
    let Some(custom) = &resource.custom else { return Ok(events) };
    let mut presented = Vec::with_capacity(events.len());
    for event in events {
        if event.entry.name.starts_with(scope) {
            presented.push(custom.conversion.present_event(resource, &event).await?);
        }
    }
    Ok(presented)
}

fn at(revision: u64) -> ListMeta {
    ListMeta { resource_version: revision.to_string(), ..Default::default() }
}

fn head(out: &mut BytesMut, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}
