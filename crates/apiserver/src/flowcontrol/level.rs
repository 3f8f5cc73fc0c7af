//! A priority level at work. While it has seats left and nobody waits, a request takes its seats by one atomic exchange;
//! otherwise it waits in the level's queues, or is refused.
//!
//! [`wait`] is a request that waits, [`ticket`] one that is served; [`shown`] is what is seen of the queues from outside.

mod shown;
mod ticket;
mod wait;

use super::demand::Demand;
use super::dropped::Dropped;
use super::metrics::{LevelMetrics, Pair};
use super::queues::{Next, Queues, Queuing};
use apimachinery::clock::Clock;
use parking_lot::Mutex;
pub(super) use shown::About;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
pub(super) use ticket::Request;
pub(crate) use ticket::Ticket;
use wait::{Token, Wait};

/// How a level answers who finds no seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There are always seats.
    Exempt,
    Reject,
    Queue(Queuing),
}

impl Kind {
    /// How many may wait.
    pub(super) fn places(self) -> usize {
        match self {
            Kind::Queue(queuing) => queuing.queues * queuing.length,
            Kind::Exempt | Kind::Reject => 0,
        }
    }
}

/// Somebody waits: nobody passes by.
const WAITING: u64 = 1 << 63;

/// See the module.
pub(super) struct Level {
    pub name: String,
    pub kind: Mutex<Kind>,
    exempt: bool,
    /// The seats in use, in the lower half, and [`WAITING`].
    word: AtomicU64,
    limit: AtomicU32,
    seats_waiting: AtomicU32,
    pub executing: AtomicU32,
    queues: Mutex<Queues<Token>>,
    pub demand: Demand,
    pub dropped: Dropped,
    /// The most seats that an estimate may come to; zero: any.
    pub max_seats: AtomicU32,
    pub counts: Counts,
    metrics: LevelMetrics,
    clock: Arc<dyn Clock>,
}

/// What became of requests, for those who look.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub dispatched: AtomicU64,
    pub rejected: AtomicU64,
    pub canceled: AtomicU64,
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Level").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    ConcurrencyLimit,
    QueueFull,
    TimeOut,
}

impl Refusal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Refusal::ConcurrencyLimit => "concurrency-limit",
            Refusal::QueueFull => "queue-full",
            Refusal::TimeOut => "time-out",
        }
    }
}

fn seats_of(word: u64) -> u32 {
    word as u32
}

impl Level {
    pub(super) fn new(name: &str, kind: Kind, metrics: LevelMetrics, clock: Arc<dyn Clock>) -> Self {
        let queuing = match kind {
            Kind::Queue(queuing) => queuing,
            _ => Queuing { queues: 0, hand: 0, length: 0 },
        };
        metrics.utilization.places(clock.monotonic(), kind);
        Level {
            name: name.to_owned(),
            kind: Mutex::new(kind),
            exempt: kind == Kind::Exempt,
            word: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            seats_waiting: AtomicU32::new(0),
            executing: AtomicU32::new(0),
            queues: Mutex::new(Queues::new(queuing, clock.monotonic())),
            demand: Demand::default(),
            dropped: Dropped::default(),
            max_seats: AtomicU32::new(0),
            counts: Counts::default(),
            metrics,
            clock,
        }
    }

    /// Another way to answer from now on.
    pub(super) fn configure(&self, kind: Kind) {
        let mut known = self.kind.lock();
        if *known == kind {
            return;
        }
        *known = kind;
        self.metrics.utilization.places(self.clock.monotonic(), kind);
        if let Kind::Queue(queuing) = kind {
            self.queues.lock().configure(queuing);
        }
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// More seats may let somebody in. Of a level without any, `instead` is what those that it takes are measured by.
    pub(super) fn set_limit(&self, limit: u32, instead: u32) {
        self.limit.store(limit, Ordering::Relaxed);
        let measure = if limit > 0 { limit } else { instead };
        self.metrics.utilization.limit(self.clock.monotonic(), measure);
        self.metrics.current_limit.set(f64::from(limit));
        if self.word.load(Ordering::Acquire) & WAITING != 0 {
            self.dispatch();
        }
    }

    pub(super) fn seats_in_use(&self) -> u32 {
        seats_of(self.word.load(Ordering::Relaxed))
    }

    pub(super) fn seats_wanted(&self) -> u32 {
        self.seats_in_use() + self.seats_waiting.load(Ordering::Relaxed)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.word.load(Ordering::Acquire) == 0
    }

    /// Takes seats. Who passes by those who wait has to find nobody waiting.
    fn take(&self, seats: u32, passing: bool) -> bool {
        if self.exempt {
            self.word.fetch_add(u64::from(seats), Ordering::AcqRel);
            return true;
        }
        let limit = self.limit();
        let taken = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            let used = seats_of(word);
            // Who needs more than there are is served alone.
            let fits = used.saturating_add(seats) <= limit || seats > limit && used == 0;
            (fits && !(passing && word & WAITING != 0)).then_some(word + u64::from(seats))
        });
        taken.is_ok()
    }

    /// Serves a request, now or when its turn comes. `waits` is asked for only where it has to wait: for what says in which
    /// queues, and what is shown of it there.
    pub(super) async fn start(
        self: &Arc<Self>,
        request: Request<'_>,
        patience: Duration,
        waits: impl FnOnce() -> (u64, About),
    ) -> Result<Ticket, Refusal> {
        let (pair, seats) = (request.pair, request.work.max_seats());
        pair.estimated.observe(f64::from(seats));
        if self.take(seats, true) {
            let ticket = Ticket::new(self, request, None);
            self.metrics.utilization.demand.add(ticket.started, f64::from(seats));
            if !self.exempt {
                pair.waited.observe(0.0);
            }
            return Ok(ticket);
        }
        if !matches!(*self.kind.lock(), Kind::Queue(_)) {
            pair.waited.observe(0.0);
            return Err(self.refused(pair, Refusal::ConcurrencyLimit));
        }
        let begun = self.clock.monotonic();
        let waited = || self.clock.monotonic().saturating_sub(begun);
        let (hash, about) = waits();
        let Some(mut wait) = Wait::new(self, request, hash, about) else {
            pair.refused_wait.observe(waited().as_secs_f64());
            return Err(self.refused(pair, Refusal::QueueFull));
        };
        self.dispatch();
        let late = self.clock.sleep(patience);
        let turn = tokio::select! {
            biased;
            turn = &mut wait.turn => turn.ok(),
            () = late => None,
        };
        match turn {
            Some(queue) => {
                wait.over = true;
                let waited = waited();
                pair.waited.observe(waited.as_secs_f64());
                self.demand.wanted(seats, waited, f64::from(self.seats_wanted()));
                Ok(Ticket::new(self, request, Some(queue)))
            }
            None => {
                drop(wait);
                pair.refused_wait.observe(waited().as_secs_f64());
                Err(self.refused(pair, Refusal::TimeOut))
            }
        }
    }

    fn refused(&self, pair: &Pair, refusal: Refusal) -> Refusal {
        self.counts.rejected.fetch_add(1, Ordering::Relaxed);
        self.metrics.rejected(&pair.schema, refusal.as_str()).inc();
        refusal
    }

    /// Serves whose turn it is, as long as there are seats.
    fn dispatch(&self) {
        let mut queues = self.queues.lock();
        let now = self.clock.monotonic();
        queues.sync(now, self.limit());
        while queues.waiting > 0 && self.seats_in_use() < self.limit() {
            match queues.next(|seats| self.take(seats, false)) {
                Next::Nobody => break,
                Next::NoSeats(queue) => {
                    if let Some(oldest) = queues.queues.get(queue).and_then(|queue| queue.waiting.front()) {
                        oldest.token.pair.no_accommodation.inc();
                    }
                    break;
                }
                Next::Served { waiting, queue, seen } => {
                    self.metrics.seen(queues.current_r, &seen);
                    waiting.token.pair.waiting(-1, waiting.work.max_seats());
                    self.metrics.utilization.waiting.add(now, -1.0);
                    // Who gives up takes itself out of the queue first: there is always somebody to hear it.
                    let _ = waiting.token.wake.send(queue);
                }
            }
        }
        self.seats_waiting.store(queues.seats_waiting, Ordering::Relaxed);
        if queues.waiting == 0 {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
    }

    /// Gives seats back.
    fn release(&self, now: Duration, queue: Option<usize>, seats: u32) {
        self.metrics.utilization.demand.add(now, -f64::from(seats));
        if let Some(queue) = queue {
            self.queues.lock().released(queue, seats);
        }
        let word = self.word.fetch_sub(u64::from(seats), Ordering::AcqRel);
        if word & WAITING != 0 {
            self.dispatch();
        }
    }
}

#[cfg(test)]
mod tests;
