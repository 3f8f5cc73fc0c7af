//! The in-process feed for informers: the store's own bytes, straight from the commit path.

use super::select::Selection;
use crate::resources::{Resources, Served};
use client::error::{Error, Result};
use client::key::ObjectKey;
use client::recent::Recent;
use client::source::{Feed, Query, Raw, Source};
use futures::stream::{self, BoxStream, StreamExt as _};
use schema::encode::Body;
use std::sync::Arc;
use store::{Entry, EventKind, Store, Watch};

/// Feeds of any resource, without authorization: for the server's own rooms. Other users of the process get one behind
/// [`crate::inprocess`], which authorizes them first.
#[derive(Clone)]
pub struct StoreSource {
    pub store: Arc<dyn Store>,
    pub resources: Arc<Resources>,
}

impl std::fmt::Debug for StoreSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreSource").finish_non_exhaustive()
    }
}

/// What a feed says of an entry. Objects of one namespace share its name with the one before, as far as they follow it.
fn raw(last: &mut Arc<str>, entry: &Entry, revision: u64) -> Option<Raw> {
    let body = Body::from_stored(entry.value.clone()).ok()?;
    let (namespace, name) = entry.name.split_once('/').unwrap_or(("", &entry.name));
    if **last != *namespace {
        *last = namespace.into();
    }
    let key = ObjectKey { namespace: last.clone(), name: name.into() };
    Some(Raw { key, revision, bytes: body.json_bytes() })
}

struct Follow {
    source: StoreSource,
    resource: Arc<Served>,
    selection: Selection,
    watch: Option<Watch>,
    /// The namespace of the object that was told of last.
    namespace: Arc<str>,
}

impl Follow {
    fn snapshot(&mut self) -> Result<Vec<Feed>> {
        let snapshot = self.source.store.snapshot(&self.resource.prefix);
        self.watch = Some(
            self.source
                .store
                .watch(&self.resource.prefix, snapshot.revision)
                .map_err(|e| Error::transport("opening a watch", e))?,
        );
        let objects = snapshot
            .range(&self.selection.scope, "")
            .filter(|e| self.selection.matches(&self.resource, e))
            .filter_map(|e| raw(&mut self.namespace, e, e.mod_revision.0))
            .collect();
        Ok(vec![Feed::Snapshot { objects, revision: snapshot.revision.0 }])
    }

    async fn next(&mut self) -> Result<Vec<Feed>> {
        loop {
            let Some(watch) = &mut self.watch else { return self.snapshot() };
            let events = match watch.next_batch().await {
                Ok(events) => events,
                // Fell behind the history: start over from the state as it is.
                Err(store::Error::Compacted { .. }) => {
                    self.watch = None;
                    continue;
                }
                Err(error) => return Err(Error::transport("watching the store", error)),
            };
            let mut feeds = Vec::with_capacity(events.len());
            let last = events.last().map_or(0, |e| e.revision.0);
            for event in &events {
                let is = event.kind == EventKind::Put && self.selection.matches(&self.resource, &event.entry);
                let was = event.previous.as_ref().is_some_and(|p| self.selection.matches(&self.resource, p));
                let revision = event.revision.0;
                match (was, is) {
                    (_, true) => {
                        feeds.extend(raw(&mut self.namespace, &event.entry, revision).map(Feed::Put))
                    }
                    (true, false) => {
                        let gone = event.previous.as_ref().unwrap_or(&event.entry);
                        feeds.extend(raw(&mut self.namespace, gone, revision).map(Feed::Delete));
                    }
                    (false, false) => {}
                }
            }
            feeds.push(Feed::Progress(last));
            return Ok(feeds);
        }
    }
}

impl Source for StoreSource {
    fn recent(&self) -> Option<Arc<Recent>> {
        Some(self.resources.recent.clone())
    }

    fn open(&self, query: Query) -> BoxStream<'static, Result<Vec<Feed>>> {
        let r = &query.resource;
        let Some(resource) = self.resources.get(&r.group, &r.version, &r.resource) else {
            let message = format!("the server does not serve {r}");
            return stream::once(async move { Err(Error::Request(message)) }).boxed();
        };
        let namespace = query.namespace.as_deref().unwrap_or_default();
        let selection =
            match Selection::parse(&resource, namespace, &query.label_selector, &query.field_selector) {
                Ok(selection) => selection,
                Err(status) => return stream::once(async move { Err(Error::Api(Box::new(status))) }).boxed(),
            };
        let follow =
            Follow { source: self.clone(), resource, selection, watch: None, namespace: Arc::default() };
        stream::unfold(follow, |mut follow| async move {
            let item = follow.next().await;
            Some((item, follow))
        })
        .boxed()
    }
}
