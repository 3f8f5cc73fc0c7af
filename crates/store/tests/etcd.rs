//! The shared suite over real etcd, and what only that engine promises.

#![allow(clippy::unwrap_used, reason = "tests")]

mod histories;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use store::etcd::{Etcd, Options};
use store::suite::member;
use store::{Error, Event, Expect, Health, History, Key, Life, Revision, Store, Write, suite};

const PODS: &str = "/registry/pods/";

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(PODS, format!("default/{name}"))
}

fn options(members: &[member::Member]) -> Options {
    let servers = members.iter().map(|member| member.url.clone()).collect();
    Options {
        servers,
        split: store::etcd::split_by(vec![
            PODS.into(),
            "/registry/minions/".into(),
            histories::PREFIX.into(),
        ]),
        compaction: Duration::ZERO,
        // All that a long run writes is told at its end.
        history: History { age: Duration::from_secs(86_400), events: 100_000_000, bytes: 8 << 30 },
        ..Options::default()
    }
}

async fn open(members: &[member::Member]) -> Arc<Etcd> {
    Etcd::open(options(members)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let mut count = 0;
    suite::run(|| {
        count += 1;
        // A prefix of its own is an empty store.
        let options = Options { prefix: format!("/test-{count}"), ..options(&members) };
        async move { Etcd::open(options).await.unwrap() as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_see_each_other() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let (one, other) = (open(&members).await, open(&members).await);
    let mut watch = other.watch(PODS, other.revision()).unwrap();
    for round in 0..50 {
        let value = format!("{round}");
        let event = one.commit(Write::put(key("a"), value.clone(), Expect::Any)).await.unwrap();
        // Whatever the other's view has, a consistent read has the write.
        let read = other.consistent_get(&key("a")).await.unwrap().unwrap();
        assert_eq!((read.mod_revision, &*read.value), (event.revision, value.as_bytes()));
        let listed = other.consistent_snapshot(PODS).await.unwrap();
        assert_eq!(listed.get("default/a").unwrap().mod_revision, event.revision);
    }
    let mut seen = Vec::new();
    while seen.len() < 50 {
        seen.extend(watch.next_batch().await.unwrap());
    }
    assert!(
        seen.iter().enumerate().all(|(index, event)| *event.entry.value == *index.to_string().as_bytes())
    );
    let stale = Write::put(key("a"), "late", Expect::Revision(seen[0].revision));
    match other.commit(stale).await {
        Err(Error::Conflict { current, .. }) => assert_eq!(&*current.unwrap().value, b"49"),
        unexpected => panic!("{unexpected:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_key_holds_no_read_up() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let (ours, foreign) = (
        open(&members).await,
        Etcd::open(Options { prefix: "/foreign".into(), ..options(&members) }).await.unwrap(),
    );
    ours.commit(Write::put(key("a"), "1", Expect::Any)).await.unwrap();
    let newest = foreign.commit(Write::put(key("b"), "1", Expect::Any)).await.unwrap().revision;
    let listed = ours.consistent_snapshot(PODS).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed.revision >= newest);
    tokio::time::timeout(Duration::from_secs(5), ours.wait_for(newest)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_resumes_watches_and_old_reads() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let store =
        Etcd::open(Options { compaction: Duration::from_millis(100), ..options(&members) }).await.unwrap();
    // The compactor's first round only notes the revision; from then on there is a horizon to begin from.
    let mut last = Revision(0);
    let begun = Instant::now();
    while store.stats().compacted < Revision(3) && begun.elapsed() < Duration::from_millis(700) {
        last = store.commit(Write::put(key("a"), "old", Expect::Any)).await.unwrap().revision;
    }
    store.close().await;
    drop(store);
    let store = open(&members).await;
    let then = store.snapshot_at(PODS, last).await.unwrap();
    assert_eq!(&*then.get("default/a").unwrap().value, b"old");
    let first = store.commit(Write::put(key("a"), "1", Expect::Any)).await.unwrap().revision;
    for value in ["2", "3"] {
        store.commit(Write::put(key("a"), value, Expect::Any)).await.unwrap();
    }
    store.close().await;
    drop(store);
    let store = open(&members).await;
    let mut watch = store.watch(PODS, first).unwrap();
    let events = watch.next_batch().await.unwrap();
    let values: Vec<_> = events.iter().map(|event| event.entry.value.clone()).collect();
    assert_eq!(values, ["2", "3"], "a watch of the time before the restart goes on without a gap");
    let previous = events[0].previous.as_ref().unwrap();
    assert_eq!(previous.mod_revision, first);
    assert_eq!(&*store.snapshot_at(PODS, first).await.unwrap().get("default/a").unwrap().value, b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_expire() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let store = open(&members).await;
    let brief = |name| Write::put(key(name), "1", Expect::Any).living(Life::Ttl(Duration::from_secs(2)));
    let (a, b) = (store.commit(brief("a")).await.unwrap(), store.commit(brief("b")).await.unwrap());
    assert!(a.entry.lease.is_some() && b.entry.lease.is_some());
    let mut watch = store.watch(PODS, b.revision).unwrap();
    let mut gone = Vec::new();
    let expired = async {
        while gone.len() < 2 {
            gone.extend(watch.next_batch().await.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(10), expired).await.unwrap();
    assert!(store.snapshot(PODS).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_fell_behind_compaction_says_so() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::cluster(home.path(), 1) else { return };
    let store = open(&members).await;
    store.commit(Write::put(key("a"), "1", Expect::Any)).await.unwrap();
    store.commit(Write::put(key("gone"), "1", Expect::Any)).await.unwrap();
    let mut watch = store.watch(PODS, store.revision()).unwrap();
    members[0].kill();
    let refused = store.commit(Write::put(key("a"), "x", Expect::Absent)).await;
    // Uncertain when the connection broke with the request on its way.
    let failed = matches!(refused, Err(Error::Unavailable { .. } | Error::Uncertain { .. }));
    assert!(failed, "{refused:?}");
    assert!(matches!(store.health(), Health::Stalled(_)), "{:?}", store.health());
    // Meanwhile somebody else writes and compacts: on other ports, so that our store cannot follow.
    let data = home.path().join("m0");
    let Some(mut elsewhere) = member::on(&data) else { return };
    {
        let other = open(std::slice::from_ref(&elsewhere)).await;
        other.commit(Write::put(key("a"), "2", Expect::Any)).await.unwrap();
        other.commit(Write::delete(key("gone"), Expect::Any)).await.unwrap();
        other.commit(Write::put(key("b"), "1", Expect::Any)).await.unwrap();
        other.compact(other.revision()).await.unwrap();
        other.close().await;
    }
    elsewhere.kill();
    members[0].restart();
    let told = tokio::time::timeout(Duration::from_secs(20), watch.next_batch()).await.unwrap();
    assert!(matches!(told, Err(Error::Compacted { .. })), "{told:?}");
    let names: Vec<_> =
        store.snapshot(PODS).range("", "").map(|e| (e.name.to_string(), e.value.clone())).collect();
    assert_eq!(names, [("default/a".to_owned(), "2".into()), ("default/b".to_owned(), "1".into())]);
    let next = store.commit(Write::put(key("c"), "1", Expect::Absent)).await.unwrap();
    let mut again = store.watch(PODS, Revision(next.revision.0 - 1)).unwrap();
    assert_eq!(again.next_batch().await.unwrap().len(), 1);
    assert_eq!(store.health(), Health::Ok);
}

/// How many writes have been acknowledged.
struct Acknowledged(tokio::sync::watch::Sender<usize>);

impl Acknowledged {
    /// Waits for so many more.
    async fn more(&self, count: usize) {
        let mut now = self.0.subscribe();
        let goal = *now.borrow_and_update() + count;
        let reached = now.wait_for(|now| *now >= goal);
        tokio::time::timeout(Duration::from_secs(30), reached).await.expect("writes go on").unwrap();
    }
}

/// Writers that count what was acknowledged, while members come and go.
async fn writers_survive(
    members: &mut [member::Member],
    mut disturb: impl AsyncFnMut(&mut [member::Member], &Acknowledged),
) {
    let store = open(members).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let start = store.revision();
    let count = Arc::new(Acknowledged(tokio::sync::watch::Sender::new(0)));
    let writer = |index: usize| {
        let (store, stop, count) = (store.clone(), stop.clone(), count.clone());
        async move {
            let (mut acknowledged, mut longest) = (Vec::<Arc<Event>>::new(), Duration::ZERO);
            let mut round = 0;
            while !stop.is_cancelled() {
                let begun = Instant::now();
                let write = Write::put(key(format!("{index}-{round}")), "x", Expect::Absent);
                if let Ok(event) = store.commit(write).await {
                    acknowledged.push(event);
                    count.0.send_modify(|count| *count += 1);
                }
                longest = longest.max(begun.elapsed());
                round += 1;
            }
            (acknowledged, longest)
        }
    };
    let writers: Vec<_> = (0..4).map(|index| tokio::spawn(writer(index))).collect();
    count.more(50).await;
    disturb(members, &count).await;
    stop.cancel();
    let mut longest = Duration::ZERO;
    let mut acknowledged: Vec<Arc<Event>> = Vec::new();
    for outcome in join_all(writers).await {
        let (events, long) = outcome.unwrap();
        acknowledged.extend(events);
        longest = longest.max(long);
    }
    assert!(acknowledged.len() > 20, "only {} writes were acknowledged", acknowledged.len());
    assert!(longest < Duration::from_secs(8), "a write took {longest:?}");
    let listed = store.consistent_snapshot(PODS).await.unwrap();
    for event in &acknowledged {
        let entry = listed.get(&event.entry.name).unwrap_or_else(|| panic!("{} is lost", event.entry.name));
        assert_eq!(entry.mod_revision, event.revision);
    }
    // The watch tells every one of them once, in order.
    let mut watch = store.watch(PODS, start).unwrap();
    let mut told = Vec::new();
    while told.len() < listed.len() {
        told.extend(watch.next_batch().await.unwrap());
    }
    assert!(told.is_sorted_by(|a, b| a.revision < b.revision));
    assert_eq!(told.len(), listed.len());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::cluster(home.path(), 3) else { return };
    writers_survive(&mut members, async |members, count| {
        for _ in 0..2 * disturbances() {
            let leads = member::leader(members);
            members[leads].kill();
            count.more(200).await;
            members[leads].restart();
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_member_holds_nobody_up() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::cluster(home.path(), 3) else { return };
    writers_survive(&mut members, async |members, count| {
        for _ in 0..disturbances() {
            let leads = member::leader(members);
            members[leads].freeze();
            count.more(200).await;
            members[leads].thaw();
            count.more(50).await;
        }
    })
    .await;
}

/// How often each disturbance is made; `make torture` sets it.
fn disturbances() -> usize {
    histories::count("STORE_DISTURBANCES", 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_leader_cut_off_with_its_clients_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::separable(home.path(), 54_310) else { return };
    writers_survive(&mut members, async |members, count| {
        // Always the same one: the other two have heard each other all the time, and one of them can lead at once.
        let cut = member::leader(members);
        for _ in 0..disturbances() {
            member::lead(members, cut);
            // The minority has the leader, for a moment still, and half of the clients' connections.
            let partition = member::Partition::of(members, cut);
            count.more(200).await;
            drop(partition);
            count.more(50).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_is_replaced_under_writers() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::cluster(home.path(), 3) else { return };
    writers_survive(&mut members, async |members, count| {
        // Two of the three: the writers know the third by its address, and clients are told of new ones by restarts.
        for round in 0..2 * disturbances() {
            let through = members[2].url.clone();
            members[round % 2].replace(&through);
            count.more(100).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_can_be_explained_while_leaders_die() {
    let home = tempfile::tempdir().unwrap();
    let Some(mut members) = member::cluster(home.path(), 3) else { return };
    let (mut operations, mut unknown) = (0, 0);
    let histories = histories::count("STORE_ETCD_HISTORIES", 2);
    for seed in 0..histories as u64 {
        let prefix = format!("/history-{seed}");
        let stores = [
            Etcd::open(Options { prefix: prefix.clone(), ..options(&members) }).await.unwrap()
                as Arc<dyn Store>,
            Etcd::open(Options { prefix, ..options(&members) }).await.unwrap() as Arc<dyn Store>,
        ];
        let recording = tokio::spawn({
            let stores = stores.clone();
            async move { histories::History::record(&stores, 6, 60, seed).await }
        });
        // Some writes in, the leader dies.
        let reached = Revision(stores[0].revision().0 + 20);
        let _ = tokio::time::timeout(Duration::from_secs(5), stores[0].wait_for(reached)).await;
        let leads = member::leader(&members);
        members[leads].kill();
        let history = recording.await.unwrap();
        members[leads].restart();
        history.check(&format!("seed {seed}"));
        let size = history.size();
        (operations, unknown) = (operations + size.0, unknown + size.1);
        for store in stores {
            store.close().await;
        }
    }
    println!("{histories} histories, {operations} operations, {unknown} of them without an outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_under_compaction_miss_nothing() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let events = histories::count("STORE_ETCD_EVENTS", 1_000) as u64;
    let told = histories::watch_under_compaction(open(&members).await, 4, events).await;
    println!("{events} events, {told} told to four watchers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_conflict_storm_leaves_no_watch_silent() {
    let home = tempfile::tempdir().unwrap();
    let Some(members) = member::cluster(home.path(), 1) else { return };
    let span = Duration::from_secs(histories::count("STORE_ETCD_STORM", 2) as u64);
    let (wrote, lag, silence) = histories::conflict_storm(open(&members).await, span).await;
    println!("{wrote} writes in {span:?}, lag p99 {lag:?}, longest silence {silence:?}");
    assert!(silence < Duration::from_secs(1), "{silence:?}");
}
