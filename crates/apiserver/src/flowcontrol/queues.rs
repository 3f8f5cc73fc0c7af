//! Fair queuing (upstream's queueset): requests wait in queues, and the queue whose oldest request would be the first to
//! finish in a world where all queues are served at once is the next to be served. Time is told, seats are taken by the
//! caller: this room is pure.

use super::shuffle;
use super::work::{SERVICE, SeatSeconds, Work};
use std::collections::VecDeque;
use std::time::Duration;

/// A priority level's `queuing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queuing {
    pub queues: usize,
    pub hand: usize,
    pub length: usize,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub id: u64,
    pub token: T,
    pub work: Work,
    pub arrived: Duration,
    arrival_r: SeatSeconds,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    pub waiting: VecDeque<Waiting<T>>,
    /// The meter's reading at which the next request is served in the other world.
    pub next_r: SeatSeconds,
    pub executing: u32,
    pub seats: u32,
    /// Of those that wait.
    pub work: SeatSeconds,
}

impl<T> Queue<T> {
    fn new() -> Self {
        Queue {
            waiting: VecDeque::new(),
            next_r: SeatSeconds::default(),
            executing: 0,
            seats: 0,
            work: SeatSeconds::default(),
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// Nobody is served before it came: a queue that did not use its share does not save it up.
    fn bound(&mut self) {
        if let Some(oldest) = self.waiting.front() {
            self.next_r = self.next_r.max(oldest.arrival_r);
        }
    }
}

/// The queues of a priority level.
#[derive(Debug)]
pub(super) struct Queues<T> {
    pub queues: Vec<Queue<T>>,
    config: Queuing,
    /// The progress meter: the work given to each queue since the beginning.
    pub current_r: SeatSeconds,
    last: Duration,
    robin: usize,
    enqueued: usize,
    pub waiting: usize,
    pub seats_waiting: u32,
    ids: u64,
}

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub queue: usize,
    pub id: u64,
}

/// What was seen when a request was chosen, for metrics.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub latest_s: SeatSeconds,
    pub next_s: [SeatSeconds; 2],
    pub discounted_s: [SeatSeconds; 2],
}

/// What became of an attempt to serve the next request.
pub(super) enum Next<T> {
    Nobody,
    /// There are not enough seats for whose turn it is, in this queue.
    NoSeats(usize),
    Served {
        waiting: Waiting<T>,
        queue: usize,
        seen: Seen,
    },
}

impl<T> Queues<T> {
    pub(super) fn new(config: Queuing, now: Duration) -> Self {
        let mut queues = Queues {
            queues: Vec::new(),
            config,
            current_r: SeatSeconds::default(),
            last: now,
            robin: 0,
            enqueued: 0,
            waiting: 0,
            seats_waiting: 0,
            ids: 0,
        };
        queues.configure(config);
        queues
    }

    /// Other queues from now on. Surplus ones go when they are empty.
    pub(super) fn configure(&mut self, config: Queuing) {
        self.config = config;
        while self.queues.len() < config.queues {
            self.queues.push(Queue::new());
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.queues.len() > self.config.queues && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    /// Moves the meter on.
    pub(super) fn sync(&mut self, now: Duration, limit: u32) {
        let since = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let (mut active, mut requested) = (0u32, 0u32);
        for queue in &self.queues {
            if !queue.is_idle() {
                active += 1;
                requested += queue.seats;
            }
        }
        if active > 0 {
            let served = f64::from((requested + self.seats_waiting).min(limit));
            self.current_r += SeatSeconds::of(served / f64::from(active), since);
        }
    }

    /// Of the queues that the flow is dealt, the one with the least work waiting.
    fn choose(&mut self, hash: u64) -> usize {
        let mut hand = [0; 16];
        let mut cards = 0;
        for card in shuffle::deal(hash, self.config.queues, self.config.hand) {
            hand[cards] = card;
            cards += 1;
        }
        // Not always in the order of the deal: flows whose hands overlap shall not all begin with the same.
        let offset = self.enqueued % cards.max(1);
        self.enqueued = self.enqueued.wrapping_add(1);
        let order = (0..cards).map(|i| hand[(offset + i) % cards]);
        order.min_by_key(|card| self.queues[*card].work).unwrap_or(0)
    }

    /// Puts a request into a queue, unless that is full and all seats are taken.
    pub(super) fn enqueue(
        &mut self,
        now: Duration,
        (limit, in_use): (u32, u32),
        hash: u64,
        work: Work,
        token: T,
    ) -> Option<Place> {
        self.sync(now, limit);
        let index = self.choose(hash);
        let (current_r, longest) = (self.current_r, self.config.length);
        let queue = &mut self.queues[index];
        if in_use >= limit && queue.waiting.len() >= longest {
            queue.bound();
            return None;
        }
        if queue.is_idle() {
            queue.next_r = current_r;
        }
        self.ids += 1;
        let id = self.ids;
        queue.work += work.total();
        queue.waiting.push_back(Waiting { id, token, work, arrived: now, arrival_r: current_r });
        queue.bound();
        self.waiting += 1;
        self.seats_waiting += work.max_seats();
        Some(Place { queue: index, id })
    }

    /// Serves the request whose turn it is, if `take` finds seats for it.
    pub(super) fn next(&mut self, take: impl FnOnce(u32) -> bool) -> Next<T> {
        let count = self.queues.len();
        let mut chosen: Option<(SeatSeconds, usize)> = None;
        let mut bounds: Option<([SeatSeconds; 2], [SeatSeconds; 2])> = None;
        for step in 1..=count {
            let index = (self.robin + step) % count;
            let queue = &self.queues[index];
            let Some(oldest) = queue.waiting.front() else { continue };
            let s = queue.next_r;
            let discounted = s - SeatSeconds::of(f64::from(queue.seats), SERVICE);
            bounds = Some(match bounds {
                None => ([s; 2], [discounted; 2]),
                Some((a, b)) => ([a[0].min(s), a[1].max(s)], [b[0].min(discounted), b[1].max(discounted)]),
            });
            let finish = s + oldest.work.total();
            if chosen.is_none_or(|(first, _)| finish < first) {
                chosen = Some((finish, index));
            }
        }
        let (Some((_, index)), Some((next_s, discounted_s))) = (chosen, bounds) else { return Next::Nobody };
        let queue = &mut self.queues[index];
        let Some(seats) = queue.waiting.front().map(|oldest| oldest.work.max_seats()) else {
            return Next::Nobody;
        };
        if !take(seats) {
            return Next::NoSeats(index);
        }
        let Some(waiting) = queue.waiting.pop_front() else { return Next::Nobody };
        let seen = Seen { latest_s: queue.next_r, next_s, discounted_s };
        queue.work -= waiting.work.total();
        queue.next_r += waiting.work.total();
        queue.executing += 1;
        queue.seats += seats;
        queue.bound();
        // Equals are served in turn.
        self.robin = index;
        self.waiting -= 1;
        self.seats_waiting -= seats;
        Next::Served { waiting, queue: index, seen }
    }

    /// Takes out a request that waits no longer.
    pub(super) fn cancel(&mut self, place: Place) -> Option<Waiting<T>> {
        let queue = self.queues.get_mut(place.queue)?;
        let at = queue.waiting.iter().position(|waiting| waiting.id == place.id)?;
        let waiting = queue.waiting.remove(at)?;
        queue.work -= waiting.work.total();
        queue.bound();
        self.waiting -= 1;
        self.seats_waiting -= waiting.work.max_seats();
        self.trim();
        Some(waiting)
    }

    /// A request was served, and took `service` for it rather than what it was thought to.
    pub(super) fn finished(
        &mut self,
        now: Duration,
        limit: u32,
        queue: usize,
        work: Work,
        service: Duration,
    ) {
        self.sync(now, limit);
        let Some(queue) = self.queues.get_mut(queue) else { return };
        queue.executing = queue.executing.saturating_sub(1);
        let initial = f64::from(work.initial);
        let correction = SeatSeconds::of(initial, SERVICE) - SeatSeconds::of(initial, service);
        queue.next_r += correction.negative();
        queue.bound();
    }

    /// A request's seats are free.
    pub(super) fn released(&mut self, queue: usize, seats: u32) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.seats = queue.seats.saturating_sub(seats);
        }
        self.trim();
    }
}

#[cfg(test)]
mod tests;
