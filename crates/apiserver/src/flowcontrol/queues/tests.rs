//! Fairness, on virtual time: flows that send as fast as they are answered, and what each of them gets.

use super::*;
use crate::flowcontrol::shuffle::hash;
use expect_test::{Expect, expect};
use std::collections::BTreeMap;

/// A client that has so many requests under way at all times, with a pause between them.
struct Flow {
    name: &'static str,
    clients: usize,
    work: Work,
    service: u64,
    pause: u64,
}

/// Milliseconds.
fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// What happens at a time: a client sends, a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Served { flow: usize, queue: usize, since: u64 },
    Sent { flow: usize },
}

/// Runs flows against a level for a while: for each one, requests served, refused, and its longest wait.
fn run(config: Queuing, limit: u32, flows: &[Flow], until: u64) -> String {
    let mut queues: Queues<usize> = Queues::new(config, Duration::ZERO);
    let mut events: BTreeMap<(u64, u64), Event> = BTreeMap::new();
    let mut sequence = 0;
    let mut at = |events: &mut BTreeMap<(u64, u64), Event>, time: u64, event: Event| {
        sequence += 1;
        events.insert((time, sequence), event);
    };
    for (flow, spec) in flows.iter().enumerate() {
        (0..spec.clients).for_each(|_| at(&mut events, 0, Event::Sent { flow }));
    }
    let mut in_use = 0;
    let mut told = vec![(0, 0, 0); flows.len()];
    while let Some(((now, _), event)) = events.pop_first() {
        if now > until {
            break;
        }
        match event {
            Event::Sent { flow } => {
                let spec = &flows[flow];
                let key = hash("schema", spec.name);
                if queues.enqueue(ms(now), (limit, in_use), key, spec.work, flow).is_none() {
                    told[flow].1 += 1;
                    at(&mut events, now + spec.pause.max(10), Event::Sent { flow });
                }
            }
            Event::Served { flow, queue, since } => {
                let spec = &flows[flow];
                told[flow].0 += 1;
                in_use -= spec.work.max_seats();
                queues.finished(ms(now), limit, queue, spec.work, ms(now - since));
                queues.released(queue, spec.work.max_seats());
                at(&mut events, now + spec.pause, Event::Sent { flow });
            }
        }
        queues.sync(ms(now), limit);
        loop {
            let take = |seats: u32| {
                let fits = in_use + seats <= limit || seats > limit && in_use == 0;
                in_use += if fits { seats } else { 0 };
                fits
            };
            let Next::Served { waiting, queue, .. } = queues.next(take) else { break };
            let flow = waiting.token;
            let waited = ms(now).saturating_sub(waiting.arrived).as_millis() as u64;
            told[flow].2 = told[flow].2.max(waited);
            at(&mut events, now + flows[flow].service, Event::Served { flow, queue, since: now });
        }
    }
    let mut out = String::new();
    for (spec, (served, refused, waited)) in flows.iter().zip(&told) {
        out += &format!("{}: {served} served, {refused} refused, waited {waited} ms\n", spec.name);
    }
    out
}

const LEVEL: Queuing = Queuing { queues: 64, hand: 6, length: 50 };

fn check(limit: u32, flows: &[Flow], expected: Expect) {
    expected.assert_eq(&run(LEVEL, limit, flows, 10_000));
}

#[test]
fn a_trickle_is_not_drowned_by_a_flood() {
    let flood = Flow { name: "flood", clients: 400, work: Work::ONE, service: 10, pause: 0 };
    let trickle = Flow { name: "trickle", clients: 1, work: Work::ONE, service: 10, pause: 90 };
    check(
        10,
        &[flood, trickle],
        expect![[r#"
        flood: 9900 served, 90190 refused, waited 330 ms
        trickle: 100 served, 0 refused, waited 10 ms
    "#]],
    );
}

#[test]
fn equals_get_equal_shares() {
    let flow = |name, clients| Flow { name, clients, work: Work::ONE, service: 20, pause: 0 };
    check(
        8,
        &[flow("few", 20), flow("many", 200)],
        expect![[r#"
        few: 1996 served, 0 refused, waited 160 ms
        many: 2004 served, 0 refused, waited 1080 ms
    "#]],
    );
}

#[test]
fn who_asks_for_more_gets_less_often() {
    let wide = Flow { name: "wide", clients: 30, work: Work::seats(4), service: 10, pause: 0 };
    let narrow = Flow { name: "narrow", clients: 30, work: Work::ONE, service: 10, pause: 0 };
    check(
        8,
        &[wide, narrow],
        expect![[r#"
        wide: 1087 served, 0 refused, waited 330 ms
        narrow: 3266 served, 0 refused, waited 160 ms
    "#]],
    );
}

#[test]
fn who_is_slow_pays_for_it() {
    let slow = Flow { name: "slow", clients: 30, work: Work::ONE, service: 100, pause: 0 };
    let quick = Flow { name: "quick", clients: 30, work: Work::ONE, service: 10, pause: 0 };
    check(
        8,
        &[slow, quick],
        expect![[r#"
        slow: 460 served, 0 refused, waited 1490 ms
        quick: 3381 served, 0 refused, waited 720 ms
    "#]],
    );
}

#[test]
fn a_request_wider_than_the_level_is_served_alone() {
    let wide = Flow { name: "wide", clients: 1, work: Work::seats(10), service: 10, pause: 10 };
    let narrow = Flow { name: "narrow", clients: 4, work: Work::ONE, service: 10, pause: 0 };
    check(
        4,
        &[wide, narrow],
        expect![[r#"
        wide: 500 served, 0 refused, waited 0 ms
        narrow: 2000 served, 0 refused, waited 10 ms
    "#]],
    );
}

#[test]
fn a_full_queue_refuses_and_a_canceled_request_leaves() {
    let config = Queuing { queues: 1, hand: 1, length: 2 };
    let mut queues: Queues<u8> = Queues::new(config, Duration::ZERO);
    let enqueue = |queues: &mut Queues<u8>, token| queues.enqueue(ms(1), (1, 1), 0, Work::ONE, token);
    let first = enqueue(&mut queues, 1).unwrap();
    enqueue(&mut queues, 2).unwrap();
    assert_eq!(enqueue(&mut queues, 3), None);
    assert_eq!(queues.cancel(first).unwrap().token, 1);
    assert!(queues.cancel(first).is_none());
    assert!(matches!(queues.next(|_| false), Next::NoSeats(0)));
    let Next::Served { waiting, .. } = queues.next(|seats| seats == 1) else { panic!("nobody") };
    assert_eq!((waiting.token, queues.waiting, queues.seats_waiting), (2, 0, 0));
    assert!(matches!(queues.next(|_| true), Next::Nobody));
}

#[test]
fn surplus_queues_go_when_they_are_empty() {
    let mut queues: Queues<u8> = Queues::new(Queuing { queues: 8, hand: 8, length: 5 }, Duration::ZERO);
    let place = (0..8).map(|n| queues.enqueue(ms(1), (1, 0), 0, Work::ONE, n).unwrap());
    let last = place.max_by_key(|place| place.queue).unwrap();
    queues.configure(Queuing { queues: 2, hand: 1, length: 5 });
    assert_eq!(queues.queues.len(), 8);
    queues.cancel(last).unwrap();
    assert_eq!(queues.queues.len(), 7);
}
