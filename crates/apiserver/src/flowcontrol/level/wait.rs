//! A request that waits in a level's queues for its turn.

use super::shown::About;
use super::{Level, Request, WAITING, seats_of};
use crate::flowcontrol::metrics::{Pair, Requests};
use crate::flowcontrol::queues::Place;
use crate::flowcontrol::work::Work;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// What stands in a queue. Whoever waits is told here in which queue its turn came.
pub(super) struct Token {
    pub wake: oneshot::Sender<usize>,
    pub pair: Arc<Pair>,
    pub about: Arc<About>,
}

/// A request that waits. Given up, it leaves its queue, or gives its seats back if its turn has come meanwhile.
pub(super) struct Wait {
    level: Arc<Level>,
    pair: Arc<Pair>,
    among: Requests,
    place: Place,
    work: Work,
    pub turn: oneshot::Receiver<usize>,
    /// Its turn came, and it was there.
    pub over: bool,
}

impl Wait {
    /// Takes a place in the queues, if there is one; `hash` says in which.
    pub(super) fn new(level: &Arc<Level>, request: Request<'_>, hash: u64, about: About) -> Option<Self> {
        let Request { pair, work, among, .. } = request;
        let (wake, turn) = oneshot::channel();
        let token = Token { wake, pair: pair.clone(), about: Arc::new(about) };
        let mut queues = level.queues.lock();
        // From here on nobody passes by; who gives seats back looks for who waits.
        let word = level.word.fetch_or(WAITING, Ordering::AcqRel);
        let usage = (level.limit(), seats_of(word));
        let now = level.clock.monotonic();
        let place = queues.enqueue(now, usage, hash, work, token);
        if place.is_none() && queues.waiting == 0 {
            level.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
        let place = place?;
        let length = queues.queues.get(place.queue).map_or(0, |queue| queue.waiting.len());
        level.seats_waiting.store(queues.seats_waiting, Ordering::Relaxed);
        drop(queues);
        pair.queue_length.observe(length as f64);
        pair.waiting(1, work.max_seats());
        among.wait(now);
        level.metrics.utilization.waiting.add(now, 1.0);
        level.metrics.utilization.demand.add(now, f64::from(work.max_seats()));
        level.demand.reached(level.seats_wanted());
        let (level, pair, among) = (level.clone(), pair.clone(), among.clone());
        Some(Wait { level, pair, among, place, work, turn, over: false })
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let level = &self.level;
        let now = level.clock.monotonic();
        self.among.waited(now);
        if self.over {
            return;
        }
        let mut queues = level.queues.lock();
        if queues.cancel(self.place).is_some() {
            level.seats_waiting.store(queues.seats_waiting, Ordering::Relaxed);
            if queues.waiting == 0 {
                level.word.fetch_and(!WAITING, Ordering::AcqRel);
            }
            drop(queues);
            self.pair.waiting(-1, self.work.max_seats());
            level.metrics.utilization.waiting.add(now, -1.0);
            level.metrics.utilization.demand.add(now, -f64::from(self.work.max_seats()));
            level.counts.canceled.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if let Ok(queue) = self.turn.try_recv() {
            queues.finished(now, level.limit(), queue, self.work, Duration::ZERO);
            drop(queues);
            level.release(now, Some(queue), self.work.max_seats());
        }
    }
}
