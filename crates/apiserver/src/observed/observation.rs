//! A request while it is answered, and while its answer goes on.

use super::peak::Peak;
use super::row::Row;
use crate::body::Answer;
use crate::context::Said;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request while it is answered.
#[derive(Debug)]
pub(crate) struct Observation {
    pub(super) row: Option<Arc<Row>>,
    pub(super) began: Instant,
    pub(super) in_flight: Option<Arc<Peak>>,
    pub(super) long: bool,
}

/// A request whose answer goes on.
#[derive(Debug)]
pub(crate) struct Running {
    row: Arc<Row>,
    began: Instant,
    excluded: Duration,
    long: bool,
    /// The bytes of the answer that are sent.
    sent: usize,
}

impl Running {
    /// More of the answer is sent.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(sizes) = &self.row.sizes {
            sizes.observe(self.sent as f64);
        }
        if let Some(running) = self.row.running.as_ref().filter(|_| self.long) {
            running.dec();
        }
        observe(&self.row, self.began, self.excluded);
    }
}

fn observe(row: &Row, began: Instant, excluded: Duration) {
    let took = began.elapsed();
    row.seconds.observe(took.as_secs_f64());
    if let Some(sli) = &row.sli {
        sli.observe(took.saturating_sub(excluded).as_secs_f64());
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.end();
        }
    }
}

impl Observation {
    /// The request is answered. Gives what observes the rest of it, where the answer goes on.
    pub(crate) fn answered(self, answer: &Answer, said: &Said) -> Option<Running> {
        if let Some((bodies, size)) = self.row.as_ref().and_then(|row| row.bodies.as_ref()).zip(said.body) {
            bodies.observe(size as f64);
        }
        let excluded = said.excluded;
        let size = http_body::Body::size_hint(answer.body()).exact();
        self.ended(answer.status().as_u16(), size, excluded)
    }

    pub(super) fn ended(self, code: u16, size: Option<u64>, excluded: Duration) -> Option<Running> {
        let row = self.row.clone()?;
        row.count(code);
        let goes_on = size.is_none();
        if let (Some(sizes), Some(size)) = (&row.sizes, size) {
            sizes.observe(size as f64);
        }
        if goes_on {
            if let Some(running) = row.running.as_ref().filter(|_| self.long) {
                running.inc();
            }
            return Some(Running { row, began: self.began, excluded, long: self.long, sent: 0 });
        }
        observe(&row, self.began, excluded);
        None
    }
}
