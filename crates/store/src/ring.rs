//! The recent events of a bucket, and how far back they reach.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::contract::{Error, Result};
use crate::model::{Event, Revision};

/// What one event costs beside the version that it superseded.
const EVENT_COST: usize = 256;

fn cost(event: &Event) -> usize {
    EVENT_COST + event.previous.as_ref().map_or(0, |previous| previous.value.len())
}

/// The recent events of a bucket. Events have sequence numbers so that a watcher's position is one number.
#[derive(Default)]
pub(crate) struct Ring {
    pub(crate) events: VecDeque<Arc<Event>>,
    /// Sequence number of the front.
    pub(crate) first: u64,
    /// Events up to and including this revision may be gone.
    pub(crate) horizon: Revision,
    pub(crate) bytes: usize,
    /// Events that were there from the start.
    pub(crate) restored: u64,
    /// How often it was broken off and begun anew.
    pub(crate) breaks: u64,
}

impl Ring {
    /// How many events came in since the start.
    pub(crate) fn received(&self) -> u64 {
        // A break takes a position without an event.
        (self.first + self.events.len() as u64).saturating_sub(self.restored + self.breaks)
    }

    /// The position after `after`, or `Compacted`.
    pub(crate) fn position_after(&self, after: Revision) -> Result<u64> {
        if after < self.horizon {
            return Err(Error::Compacted { oldest: self.horizon });
        }
        Ok(self.first + self.events.partition_point(|event| event.revision <= after) as u64)
    }

    /// Appends to `into` at most `limit` events (and the rest of the last one's revision) from position `next`,
    /// leaving out those not after `after`; returns the new position.
    pub(crate) fn collect(
        &self,
        next: u64,
        after: Revision,
        limit: usize,
        into: &mut Vec<Arc<Event>>,
    ) -> Result<u64> {
        let Some(offset) = next.checked_sub(self.first) else {
            return Err(Error::Compacted { oldest: self.horizon });
        };
        let mut position = next;
        for event in self.events.range(offset as usize..) {
            if into.len() >= limit && into.last().is_some_and(|last| last.revision != event.revision) {
                break;
            }
            position += 1;
            if event.revision > after {
                into.push(event.clone());
            }
        }
        Ok(position)
    }

    /// The next event at or after position `next` and after revision `after`, if it is there (or lost).
    pub(crate) fn peek(&self, next: u64, after: Revision) -> Option<Revision> {
        let offset = match next.checked_sub(self.first) {
            Some(offset) => offset as usize,
            None => return Some(self.horizon),
        };
        self.events.range(offset..).map(|event| event.revision).find(|revision| *revision > after)
    }

    pub(crate) fn push(&mut self, event: Arc<Event>) -> usize {
        let bytes = cost(&event);
        self.bytes += bytes;
        self.events.push_back(event);
        bytes
    }

    /// Drops the oldest event and moves the horizon; the rest of its revision goes with it.
    pub(crate) fn pop(&mut self, gone: &mut Vec<Arc<Event>>) -> usize {
        let mut freed = 0;
        while let Some(front) = self.events.front() {
            if freed > 0 && front.revision > self.horizon {
                break;
            }
            self.horizon = front.revision;
            freed += cost(front);
            self.first += 1;
            gone.extend(self.events.pop_front());
        }
        self.bytes -= freed;
        freed
    }

    /// Drops everything, also for those who had seen all of it: something between is missing.
    pub(crate) fn break_off(&mut self, revision: Revision, gone: &mut Vec<Arc<Event>>) -> usize {
        // One more than there were events: every position handed out lies before the front now.
        self.first += self.events.len() as u64 + 1;
        self.breaks += 1;
        self.horizon = revision;
        gone.extend(self.events.drain(..));
        std::mem::take(&mut self.bytes)
    }

    pub(crate) fn trim_to(&mut self, revision: Revision, gone: &mut Vec<Arc<Event>>) -> usize {
        let mut freed = 0;
        while self.events.front().is_some_and(|front| front.revision <= revision) {
            freed += self.pop(gone);
        }
        self.horizon = self.horizon.max(revision);
        freed
    }
}
