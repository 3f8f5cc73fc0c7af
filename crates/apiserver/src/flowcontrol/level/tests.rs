//! A level on virtual time: who is served, who waits, who is refused, and what is counted meanwhile.

use super::*;
use crate::flowcontrol::metrics::{Metrics, Requests};
use crate::flowcontrol::work::Work;
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

fn request<'a>(pair: &'a Arc<Pair>, work: Work, among: &'a Requests) -> Request<'a> {
    Request { pair, work, is_watch: false, among }
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
            level.start(request(&pair, Work::ONE, &reads()), Duration::from_secs(15), waits).await
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
    let started = level.start(request(&pair, work, &reads), Duration::from_secs(1), waits);
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
        Box::pin(level.start(request(&pair, work, writes), patience, || (1, About::default())))
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
