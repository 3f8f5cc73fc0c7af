//! A saved state to look at: served from memory as the store was at one revision, and never written to.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::offline::Saved;
use crate::contract::{Error, Health, Result, Snapshot, Stats, Store};
use crate::model::{Entry, Event, EventKind, Key, LeaseId, Pin, Revision, Write};
use crate::view::{BucketImage, History, Image, View};
use crate::watch::Watch;

/// See the module. Nothing expires in it, and nothing happens: its watches tell what the history has, and wait.
pub struct Still {
    view: Arc<View>,
}

impl fmt::Debug for Still {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Still").field("revision", &self.view.visible()).finish_non_exhaustive()
    }
}

impl Still {
    /// The newest state, or an older one, if the history that was saved with it reaches back so far.
    pub fn new(saved: Saved, at: Option<Revision>) -> Result<Arc<Self>> {
        let mut image = saved.image();
        if let Some(at) = at {
            go_back(&mut image, at)?;
        }
        // The history has the age that it had.
        let now_ms = image.marks.last().map_or(0, |mark| mark.at_ms);
        Ok(Arc::new(Still { view: Arc::new(View::new(image, History::default(), now_ms)) }))
    }

    fn refuse<T>(&self) -> Result<T> {
        let cause = format!("it shows a saved state, of revision {}", self.view.visible());
        Err(Error::ReadOnly { cause: cause.into() })
    }
}

/// Takes back what came after a revision.
fn go_back(image: &mut Image, at: Revision) -> Result<()> {
    if at > image.revision {
        return Err(Error::Future { asked: at, current: image.revision });
    }
    let oldest = image.buckets.iter().map(|bucket| bucket.horizon).max().unwrap_or_default();
    if at < oldest {
        return Err(Error::Compacted { oldest });
    }
    image.buckets.iter_mut().for_each(|bucket| undo(bucket, at));
    image.marks.retain(|mark| mark.revision <= at);
    image.revision = at;
    Ok(())
}

fn undo(bucket: &mut BucketImage, at: Revision) {
    while let Some(event) = bucket.events.pop_if(|event| event.revision > at) {
        match (&event.previous, event.kind) {
            (Some(before), _) => bucket.map.insert(before.name.clone(), before.clone()),
            (None, EventKind::Delete) => bucket.map.insert(event.entry.name.clone(), event.entry.clone()),
            (None, EventKind::Put) => bucket.map.remove(&*event.entry.name),
        };
    }
}

#[async_trait]
impl Store for Still {
    fn revision(&self) -> Revision {
        self.view.visible()
    }

    fn snapshot(&self, prefix: &str) -> Snapshot {
        self.view.snapshot(prefix)
    }

    async fn consistent_snapshot(&self, prefix: &str) -> Result<Snapshot> {
        Ok(self.view.snapshot(prefix))
    }

    async fn snapshot_at(&self, prefix: &str, revision: Revision) -> Result<Snapshot> {
        self.view.snapshot_at(prefix, revision)
    }

    async fn wait_for(&self, revision: Revision) -> Result<()> {
        self.view.wait_for(revision).await
    }

    fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.view.get(&key.prefix, &key.name)
    }

    async fn consistent_get(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        Ok(self.get(key))
    }

    fn pending(&self, key: &Key) -> Option<Arc<Entry>> {
        self.get(key)
    }

    async fn settled(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    async fn newest(&self, key: &Key) -> Result<Option<Arc<Entry>>> {
        Ok(self.get(key))
    }

    async fn commit(&self, _write: Write) -> Result<Arc<Event>> {
        self.refuse()
    }

    async fn commit_pinned(&self, writes: Vec<Write>, _pin: Option<&Pin>) -> Result<Vec<Arc<Event>>> {
        if writes.is_empty() { Ok(Vec::new()) } else { self.refuse() }
    }

    fn watch(&self, prefix: &str, after: Revision) -> Result<Watch> {
        Watch::new(self.view.clone(), self.view.bucket(prefix), after)
    }

    fn oldest(&self, prefix: &str) -> Revision {
        self.view.oldest(prefix)
    }

    async fn compact(&self, _revision: Revision) -> Result<()> {
        self.refuse()
    }

    async fn grant(&self, _ttl: Duration) -> Result<LeaseId> {
        self.refuse()
    }

    async fn keep_alive(&self, _lease: LeaseId) -> Result<()> {
        self.refuse()
    }

    async fn revoke(&self, _lease: LeaseId) -> Result<()> {
        self.refuse()
    }

    fn stats(&self) -> Stats {
        let (revision, compacted, buckets) = self.view.stats();
        Stats { revision, compacted, buckets, ..Stats::default() }
    }

    fn health(&self) -> Health {
        // It does all that it is for.
        if self.view.is_closed() { Health::Closed } else { Health::Ok }
    }

    async fn probe(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) {
        self.view.close();
    }
}
