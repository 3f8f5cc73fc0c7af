//! A request that is served: from when its seats are taken until they are free again.

use super::Level;
use crate::flowcontrol::metrics::{Pair, Requests};
use crate::flowcontrol::work::Work;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A request as a level sees it.
#[derive(Clone, Copy)]
pub(in crate::flowcontrol) struct Request<'a> {
    pub pair: &'a Arc<Pair>,
    pub work: Work,
    pub is_watch: bool,
    /// Those that read, or those that write: it is counted among them.
    pub among: &'a Requests,
}

/// A request that is served: its seats are free again when this is gone.
#[derive(Debug)]
pub(crate) struct Ticket {
    level: Arc<Level>,
    pair: Arc<Pair>,
    work: Work,
    queue: Option<usize>,
    pub(super) started: Duration,
    wanted: u32,
    is_watch: bool,
    among: Requests,
}

impl Ticket {
    /// A request whose seats are taken; if it had to wait, in which queue.
    pub(super) fn new(level: &Arc<Level>, request: Request<'_>, queue: Option<usize>) -> Self {
        let Request { pair, work, is_watch, among } = request;
        let started = level.clock.monotonic();
        among.executing.add(started, 1.0);
        level.metrics.utilization.executing.add(started, 1.0);
        level.metrics.utilization.seats.add(started, f64::from(work.max_seats()));
        let wanted = level.seats_wanted();
        level.demand.reached(wanted);
        level.counts.dispatched.fetch_add(1, Ordering::Relaxed);
        level.executing.fetch_add(1, Ordering::Relaxed);
        pair.dispatched.inc();
        pair.executing.fetch_add(1, Ordering::Relaxed);
        pair.seats.fetch_add(i64::from(work.max_seats()), Ordering::Relaxed);
        let (level, pair, among) = (level.clone(), pair.clone(), among.clone());
        Ticket { level, pair, work, queue, started, wanted, is_watch, among }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let (level, pair, work, queue) = (&self.level, &self.pair, self.work, self.queue);
        let now = level.clock.monotonic();
        let service = now.saturating_sub(self.started);
        let seats = work.max_seats();
        self.among.executing.add(now, -1.0);
        level.metrics.utilization.executing.add(now, -1.0);
        level.executing.fetch_sub(1, Ordering::Relaxed);
        pair.executing.fetch_sub(1, Ordering::Relaxed);
        let histogram = if self.is_watch { &pair.watch_seconds } else { &pair.regular_seconds };
        histogram.observe(service.as_secs_f64());
        let among = f64::from(self.wanted + level.seats_wanted()) / 2.0;
        level.demand.wanted(seats, service, among);
        if let Some(queue) = queue {
            level.queues.lock().finished(now, level.limit(), queue, work, service);
        }
        let lingering = !level.exempt && !work.extra.is_zero() && work.last > 0;
        if lingering && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (level, pair) = (level.clone(), pair.clone());
            let over = level.clock.sleep(work.extra);
            runtime.spawn(async move {
                over.await;
                level.demand.wanted(seats, work.extra, f64::from(level.seats_wanted()));
                leave(&level, &pair, level.clock.monotonic(), queue, seats);
            });
            return;
        }
        leave(level, pair, now, queue, seats);
    }
}

/// Gives the seats of a request back that was served.
fn leave(level: &Level, pair: &Pair, now: Duration, queue: Option<usize>, seats: u32) {
    pair.seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
    level.metrics.utilization.seats.add(now, -f64::from(seats));
    level.release(now, queue, seats);
}
