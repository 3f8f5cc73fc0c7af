//! A reader of one bucket's history: ordered, without gaps or repeats, until the history no longer reaches it.
//!
//! Watchers share the events: ten thousand of them hold ten thousand positions and no copy.

use std::sync::Arc;

use crate::contract::{Error, Result};
use crate::model::{Event, Revision};
use crate::view::{Bucket, View};

/// How many events one batch carries, give or take those of its last revision.
const BATCH: usize = 1024;

/// A position in a bucket's history.
pub struct Watch {
    view: Arc<View>,
    bucket: Arc<Bucket>,
    /// The ring's sequence number of the next event to look at.
    next: u64,
    /// Everything up to here has been delivered, or was not asked for.
    after: Revision,
}

impl Watch {
    pub(crate) fn new(view: Arc<View>, bucket: Arc<Bucket>, after: Revision) -> Result<Self> {
        let next = bucket.ring.read().position_after(after)?;
        Ok(Self { view, bucket, next, after })
    }

    /// Waits for the next events and returns as many as there are, at least one. The events of one revision are never
    /// split over two batches. Dropping the future loses nothing.
    pub async fn next_batch(&mut self) -> Result<Vec<Arc<Event>>> {
        let bucket = self.bucket.clone();
        loop {
            let woken = bucket.notify.notified();
            tokio::pin!(woken);
            // Listen first, look second: an event between the two wakes us.
            woken.as_mut().enable();
            // Closed is asked first: what was published before it is in the ring by then.
            let closed = self.view.is_closed();
            let batch = self.try_next_batch()?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            if closed {
                return Err(Error::Closed);
            }
            woken.await;
        }
    }

    /// The events that are there already; empty when there are none.
    pub fn try_next_batch(&mut self) -> Result<Vec<Arc<Event>>> {
        let mut batch = Vec::new();
        {
            let ring = self.bucket.ring.read();
            self.next = ring.collect(self.next, self.after, BATCH, &mut batch)?;
        }
        if let Some(last) = batch.last() {
            self.after = last.revision;
        }
        Ok(batch)
    }

    /// The revision up to which every event of the bucket has been delivered: what a bookmark may carry.
    pub fn progress(&self) -> Revision {
        // Read before looking at the ring: what is visible at this revision is in the ring already.
        let visible = self.view.visible();
        match self.bucket.ring.read().peek(self.next, self.after) {
            Some(_) => self.after,
            None => visible.max(self.after),
        }
    }

    /// The prefix that is watched.
    pub fn prefix(&self) -> &Arc<str> {
        &self.bucket.prefix
    }
}
