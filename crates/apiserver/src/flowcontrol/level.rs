//! A priority level at work. While it has seats left and nobody waits, a request takes its seats by one atomic exchange;
//! otherwise it waits in the level's queues, or is refused.

use super::demand::Demand;
use super::dropped::Dropped;
use super::metrics::{LevelMetrics, Pair, Requests};
use super::queues::{Next, Place, Queues, Queuing};
use super::work::Work;
use apimachinery::clock::Clock;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;

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

/// Whoever waits is told here in which queue its turn came.
struct Token {
    wake: oneshot::Sender<usize>,
    pair: Arc<Pair>,
    about: Arc<About>,
}

/// What is shown of a waiting request.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub schema: String,
    pub distinguisher: String,
    pub user: String,
    pub verb: String,
    pub path: String,
    pub namespace: String,
    pub name: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
}

/// A request that is served: its seats are free again when this is gone.
#[derive(Debug)]
pub(crate) struct Ticket {
    level: Arc<Level>,
    pair: Arc<Pair>,
    work: Work,
    queue: Option<usize>,
    started: Duration,
    wanted: u32,
    is_watch: bool,
    requests: Requests,
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

    /// Serves a request, now or when its turn comes. `hash` is asked for only where it has to wait.
    pub(super) async fn start(
        self: &Arc<Self>,
        pair: &Arc<Pair>,
        work: Work,
        (is_watch, requests): (bool, &Requests),
        patience: Duration,
        waits: impl FnOnce() -> (u64, About),
    ) -> Result<Ticket, Refusal> {
        pair.estimated.observe(f64::from(work.max_seats()));
        if self.take(work.max_seats(), true) {
            let ticket = self.ticket(pair, work, None, (is_watch, requests));
            self.metrics.utilization.demand.add(ticket.started, f64::from(work.max_seats()));
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
        let observe = || pair.waited.observe((self.clock.monotonic().saturating_sub(begun)).as_secs_f64());
        let observe_refused =
            || pair.refused_wait.observe((self.clock.monotonic().saturating_sub(begun)).as_secs_f64());
        let Some(mut wait) = self.enqueue((pair, requests), work, waits()) else {
            observe_refused();
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
                observe();
                let waited = self.clock.monotonic().saturating_sub(begun);
                self.demand.wanted(work.max_seats(), waited, f64::from(self.seats_wanted()));
                Ok(self.ticket(pair, work, Some(queue), (is_watch, requests)))
            }
            None => {
                drop(wait);
                observe_refused();
                Err(self.refused(pair, Refusal::TimeOut))
            }
        }
    }

    fn refused(&self, pair: &Pair, refusal: Refusal) -> Refusal {
        self.counts.rejected.fetch_add(1, Ordering::Relaxed);
        self.metrics.rejected(&pair.schema, refusal.as_str()).inc();
        refusal
    }

    /// A request whose seats are taken.
    fn ticket(
        self: &Arc<Self>,
        pair: &Arc<Pair>,
        work: Work,
        queue: Option<usize>,
        (is_watch, requests): (bool, &Requests),
    ) -> Ticket {
        let started = self.clock.monotonic();
        requests.executing.add(started, 1.0);
        self.metrics.utilization.executing.add(started, 1.0);
        self.metrics.utilization.seats.add(started, f64::from(work.max_seats()));
        let wanted = self.seats_wanted();
        self.demand.reached(wanted);
        self.counts.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        pair.dispatched.inc();
        pair.executing.fetch_add(1, Ordering::Relaxed);
        pair.seats.fetch_add(i64::from(work.max_seats()), Ordering::Relaxed);
        Ticket {
            level: self.clone(),
            pair: pair.clone(),
            work,
            queue,
            started,
            wanted,
            is_watch,
            requests: requests.clone(),
        }
    }

    fn enqueue(
        self: &Arc<Self>,
        (pair, requests): (&Arc<Pair>, &Requests),
        work: Work,
        (hash, about): (u64, About),
    ) -> Option<Wait> {
        let (wake, turn) = oneshot::channel();
        let token = Token { wake, pair: pair.clone(), about: Arc::new(about) };
        let mut queues = self.queues.lock();
        // From here on nobody passes by; who gives seats back looks for who waits.
        let word = self.word.fetch_or(WAITING, Ordering::AcqRel);
        let usage = (self.limit(), seats_of(word));
        let now = self.clock.monotonic();
        let place = queues.enqueue(now, usage, hash, work, token);
        if place.is_none() && queues.waiting == 0 {
            self.word.fetch_and(!WAITING, Ordering::AcqRel);
        }
        let place = place?;
        let length = queues.queues.get(place.queue).map_or(0, |queue| queue.waiting.len());
        self.seats_waiting.store(queues.seats_waiting, Ordering::Relaxed);
        drop(queues);
        pair.queue_length.observe(length as f64);
        pair.waiting(1, work.max_seats());
        requests.wait(now);
        self.metrics.utilization.waiting.add(now, 1.0);
        self.metrics.utilization.demand.add(now, f64::from(work.max_seats()));
        self.demand.reached(self.seats_wanted());
        let (level, pair, requests) = (self.clone(), pair.clone(), requests.clone());
        Some(Wait { level, pair, requests, place, work, turn, over: false })
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

    fn finished(self: &Arc<Self>, ticket: &Ticket) {
        let now = self.clock.monotonic();
        let service = now.saturating_sub(ticket.started);
        let (pair, work) = (&ticket.pair, ticket.work);
        let seats = work.max_seats();
        ticket.requests.executing.add(now, -1.0);
        self.metrics.utilization.executing.add(now, -1.0);
        self.executing.fetch_sub(1, Ordering::Relaxed);
        pair.executing.fetch_sub(1, Ordering::Relaxed);
        let histogram = if ticket.is_watch { &pair.watch_seconds } else { &pair.regular_seconds };
        histogram.observe(service.as_secs_f64());
        let among = f64::from(ticket.wanted + self.seats_wanted()) / 2.0;
        self.demand.wanted(seats, service, among);
        if let Some(queue) = ticket.queue {
            self.queues.lock().finished(now, self.limit(), queue, work, service);
        }
        let lingering = !self.exempt && !work.extra.is_zero() && work.last > 0;
        if lingering && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (level, pair, queue) = (self.clone(), pair.clone(), ticket.queue);
            let over = self.clock.sleep(work.extra);
            runtime.spawn(async move {
                over.await;
                level.demand.wanted(seats, work.extra, f64::from(level.seats_wanted()));
                level.leave(&pair, level.clock.monotonic(), queue, seats);
            });
            return;
        }
        self.leave(pair, now, ticket.queue, seats);
    }

    /// Gives the seats of a request back that was served.
    fn leave(&self, pair: &Pair, now: Duration, queue: Option<usize>, seats: u32) {
        pair.seats.fetch_sub(i64::from(seats), Ordering::Relaxed);
        self.metrics.utilization.seats.add(now, -f64::from(seats));
        self.release(now, queue, seats);
    }

    /// Shows the queues.
    pub(super) fn show<R>(&self, show: impl FnOnce(&Shown<'_>) -> R) -> R {
        let queues = self.queues.lock();
        show(&Shown(&queues))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let level = self.level.clone();
        level.finished(self);
    }
}

/// A request that waits. Given up, it leaves its queue, or gives its seats back if its turn has come meanwhile.
struct Wait {
    level: Arc<Level>,
    pair: Arc<Pair>,
    requests: Requests,
    place: Place,
    work: Work,
    turn: oneshot::Receiver<usize>,
    over: bool,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let level = &self.level;
        let now = level.clock.monotonic();
        self.requests.waited(now);
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

/// A level's queues, to be looked at.
pub(super) struct Shown<'a>(&'a Queues<Token>);

/// A queue as it is shown.
pub(super) struct ShownQueue<'a> {
    pub waiting: Vec<(&'a About, Duration, Work)>,
    pub executing: u32,
    pub seats: u32,
    pub next_r: String,
    pub initial_seats: u32,
    pub max_seats: u32,
    pub work: String,
}

impl Shown<'_> {
    pub(super) fn waiting(&self) -> usize {
        self.0.waiting
    }

    pub(super) fn queues(&self) -> Vec<ShownQueue<'_>> {
        let shown = self.0.queues.iter().map(|queue| ShownQueue {
            waiting: queue.waiting.iter().map(|w| (&*w.token.about, w.arrived, w.work)).collect(),
            executing: queue.executing,
            seats: queue.seats,
            next_r: queue.next_r.to_string(),
            initial_seats: queue.waiting.iter().map(|w| w.work.initial).sum(),
            max_seats: queue.waiting.iter().map(|w| w.work.max_seats()).sum(),
            work: queue.work.to_string(),
        });
        shown.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::metrics::Metrics;
    use super::*;
    use apimachinery::clock::FakeClock;
    use component::metrics::Registry;
    use expect_test::expect;
    use futures::FutureExt as _;

    fn metrics(registry: &Registry) -> (Metrics, Arc<FakeClock>) {
        let clock = Arc::new(FakeClock::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let told: Arc<dyn Clock> = clock.clone();
        (Metrics::new(registry, &told), clock)
    }

    /// Requests that nobody counts.
    fn reads() -> Requests {
        metrics(&Registry::new()).0.requests(false).clone()
    }

    fn level(kind: Kind, limit: u32) -> (Arc<Level>, Arc<Pair>, Arc<FakeClock>, Registry) {
        let registry = Registry::new();
        let (metrics, clock) = metrics(&registry);
        let level = Level::new("level", kind, metrics.level("level"), clock.clone());
        level.set_limit(limit, 1);
        (Arc::new(level), metrics.pair("level", "schema"), clock, registry)
    }

    const QUEUES: Kind = Kind::Queue(Queuing { queues: 4, hand: 2, length: 2 });

    macro_rules! start {
        ($level:expr, $pair:expr, $hash:expr) => {{
            let (level, pair) = ($level.clone(), $pair.clone());
            Box::pin(async move {
                let waits = || ($hash, About::default());
                level.start(&pair, Work::ONE, (false, &reads()), Duration::from_secs(15), waits).await
            })
        }};
    }

    #[tokio::test]
    async fn requests_wait_for_their_turn() {
        let (level, pair, clock, registry) = level(QUEUES, 2);
        let first = start!(level, &pair, 1).await.unwrap();
        let second = start!(level, &pair, 1).await.unwrap();
        let mut third = start!(level, &pair, 1);
        let mut fourth = start!(level, &pair, 2);
        assert!((&mut third).now_or_never().is_none() && (&mut fourth).now_or_never().is_none());
        assert_eq!((level.seats_in_use(), level.seats_wanted()), (2, 4));
        // Nobody passes by who waits, though seats be given back meanwhile.
        drop(first);
        let third = (&mut third).now_or_never().unwrap().unwrap();
        assert!((&mut fourth).now_or_never().is_none());
        // Who gives up leaves no trace.
        drop(fourth);
        assert_eq!((level.seats_in_use(), level.seats_wanted()), (2, 2));
        // Too late.
        let mut fifth = start!(level, &pair, 3);
        assert!((&mut fifth).now_or_never().is_none());
        clock.advance(Duration::from_secs(15));
        assert_eq!(fifth.await.unwrap_err(), Refusal::TimeOut);
        drop((second, third));
        assert!(level.is_idle());
        let text = registry.render();
        for expected in [
            "rejected_requests_total{flow_schema=\"schema\",priority_level=\"level\",reason=\"time-out\"} 1",
            "dispatched_requests_total{flow_schema=\"schema\",priority_level=\"level\"} 3",
            "current_inqueue_requests{flow_schema=\"schema\",priority_level=\"level\"} 0",
            "current_executing_seats{flow_schema=\"schema\",priority_level=\"level\"} 0",
        ] {
            assert!(text.contains(&format!("apiserver_flowcontrol_{expected}")), "{expected}\n{text}");
        }
    }

    #[tokio::test]
    async fn full_queues_refuse() {
        let (level, pair, _, _) = level(Kind::Queue(Queuing { queues: 1, hand: 1, length: 1 }), 1);
        let held = start!(level, &pair, 1).await.unwrap();
        let mut waiting = start!(level, &pair, 1);
        assert!((&mut waiting).now_or_never().is_none());
        assert_eq!(start!(level, &pair, 1).await.unwrap_err(), Refusal::QueueFull);
        // A turn that comes when nobody is there any more.
        drop(held);
        assert_eq!(level.seats_in_use(), 1);
        drop(waiting);
        assert!(level.is_idle());
    }

    #[tokio::test]
    async fn levels_without_queues() {
        let (reject, pair, _, _) = level(Kind::Reject, 1);
        let held = start!(reject, &pair, 1).await.unwrap();
        assert_eq!(start!(reject, &pair, 1).await.unwrap_err(), Refusal::ConcurrencyLimit);
        drop(held);
        assert!(start!(reject, &pair, 1).await.is_ok());
        let (exempt, pair, _, _) = level(Kind::Exempt, 0);
        let held = [start!(exempt, &pair, 1).await.unwrap(), start!(exempt, &pair, 1).await.unwrap()];
        assert_eq!(exempt.seats_in_use(), 2);
        drop(held);
    }

    #[tokio::test]
    async fn seats_are_kept_for_what_follows_a_write() {
        let (level, pair, clock, _) = level(QUEUES, 8);
        let work = Work { initial: 1, last: 4, extra: Duration::from_millis(20) };
        let (reads, waits) = (reads(), || (0, About::default()));
        let started = level.start(&pair, work, (false, &reads), Duration::from_secs(1), waits);
        drop(started.await.unwrap());
        tokio::task::yield_now().await;
        assert_eq!(level.seats_in_use(), 4);
        clock.advance(Duration::from_millis(20));
        tokio::task::yield_now().await;
        assert_eq!(level.seats_in_use(), 0);
    }

    #[tokio::test]
    async fn what_is_used_is_weighed_by_time() {
        let registry = Registry::new();
        let (metrics, clock) = metrics(&registry);
        let level = Arc::new(Level::new("level", QUEUES, metrics.level("level"), clock.clone()));
        level.set_limit(2, 1);
        metrics.limit(clock.monotonic(), 10, 100);
        let (pair, writes) = (metrics.pair("level", "schema"), metrics.requests(true));
        let start = |work| {
            let patience = Duration::from_secs(15);
            Box::pin(level.start(&pair, work, (false, writes), patience, || (1, About::default())))
        };
        let two = Work { initial: 2, last: 2, extra: Duration::from_secs(4) };
        let nanoseconds = Duration::from_nanos;
        clock.advance(nanoseconds(1));
        // Half of the seats for 10, all of them from then on, while one request waits, and then two.
        let first = start(Work::ONE).await.unwrap();
        clock.advance(nanoseconds(10));
        let second = start(Work::ONE).await.unwrap();
        let (mut third, mut fourth) = (start(two), start(Work::ONE));
        assert!((&mut third).now_or_never().is_none());
        clock.advance(nanoseconds(100));
        assert!((&mut fourth).now_or_never().is_none());
        clock.advance(nanoseconds(1_000));
        // Who gives up is no demand any more; whose turn has come waits no longer.
        drop((fourth, first, second));
        drop(third.await.unwrap());
        // The seats that are kept after it are in use, by nobody who is served.
        tokio::task::yield_now().await;
        clock.advance(nanoseconds(10_000));
        let text = registry.render();
        let shown = |line: &&str| {
            ["utilization", "demand_seats_", "mutating"].iter().any(|part| line.contains(part))
                && ["_sum", "_count", "inqueue"].iter().any(|part| line.contains(part))
                && !line.contains("readOnly")
                && !line.starts_with('#')
        };
        expect![[r#"
            apiserver_current_inqueue_requests{request_kind="mutating"} 2
            apiserver_flowcontrol_demand_seats_sum{priority_level="level"} 12705
            apiserver_flowcontrol_demand_seats_count{priority_level="level"} 11111
            apiserver_flowcontrol_priority_level_request_utilization_sum{phase="executing",priority_level="level"} 1105
            apiserver_flowcontrol_priority_level_request_utilization_count{phase="executing",priority_level="level"} 11111
            apiserver_flowcontrol_priority_level_request_utilization_sum{phase="waiting",priority_level="level"} 262.5
            apiserver_flowcontrol_priority_level_request_utilization_count{phase="waiting",priority_level="level"} 11111
            apiserver_flowcontrol_priority_level_seat_utilization_sum{phase="executing",priority_level="level"} 11105
            apiserver_flowcontrol_priority_level_seat_utilization_count{phase="executing",priority_level="level"} 11111
            apiserver_flowcontrol_read_vs_write_current_requests_sum{phase="executing",request_kind="mutating"} 221
            apiserver_flowcontrol_read_vs_write_current_requests_count{phase="executing",request_kind="mutating"} 11111
            apiserver_flowcontrol_read_vs_write_current_requests_sum{phase="waiting",request_kind="mutating"} 21
            apiserver_flowcontrol_read_vs_write_current_requests_count{phase="waiting",request_kind="mutating"} 11111
        "#]]
        .assert_eq(&text.lines().filter(shown).map(|line| format!("{line}\n")).collect::<String>());
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(level.is_idle());
        let before = registry.render();
        clock.advance(Duration::from_secs(1));
        let after = registry.render();
        let sums = |text: &str| text.lines().filter(|line| line.contains("_sum")).collect::<String>();
        assert_eq!(sums(&before), sums(&after), "idle levels and servers use nothing");
    }
}
