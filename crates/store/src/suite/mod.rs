//! The behaviours that every engine must have, in the spirit of upstream's shared storage tests.
//!
//! An engine's test calls [`run`] with a factory that gives an empty store. Every behaviour gets a store of its own.

#![allow(clippy::unwrap_used, reason = "a suite of tests, compiled for tests only")]

pub mod link;
pub mod member;
mod races;

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};

use races::{racing_creators_have_one_winner, racing_writers_lose_nothing, what_has_settled_can_be_seen};

use crate::{Error, Event, EventKind, Expect, Key, Life, Op, Pin, Revision, Store, Watch, Write};

/// An engine under test.
type Subject = Arc<dyn Store>;
type Behaviour = (&'static str, fn(Subject) -> BoxFuture<'static, ()>);

const PODS: &str = "/registry/pods/";
const NODES: &str = "/registry/minions/";

macro_rules! behaviours {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |store| Box::pin($name(store)))),*] };
}

const ALL: &[Behaviour] = behaviours![
    create_get_delete,
    what_has_settled_can_be_seen,
    refuses_what_was_not_expected,
    keeps_revisions_and_versions,
    delete_and_recreate,
    reads_pages_of_one_snapshot,
    separates_buckets,
    reads_older_revisions,
    snapshots_do_not_change,
    watches_from_a_revision,
    watches_across_deletes,
    watch_of_an_unborn_bucket,
    watch_from_a_revision_to_come,
    watch_reports_progress,
    many_watchers_see_one_history,
    writes_together_at_one_revision,
    atomic_or_not_at_all,
    writes_while_a_pin_holds,
    compaction,
    waits_for_a_revision,
    racing_writers_lose_nothing,
    racing_creators_have_one_winner,
    leases_keep_and_revoke,
    large_and_empty_values,
    refuses_too_large,
    projections_are_made_once,
    counts,
    probes,
    closes,
];

/// Runs every behaviour on a store of its own.
pub async fn run<F: Future<Output = Subject>>(mut factory: impl FnMut() -> F) {
    for (name, behaviour) in ALL {
        let store = factory().await;
        let bounded = tokio::time::timeout(Duration::from_secs(60), tokio::spawn(behaviour(store))).await;
        match bounded {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => std::panic::resume_unwind(Box::new(format!("{name}: {panic}"))),
            Err(_) => panic!("{name}: did not end"),
        }
    }
}

/// A pod's key.
pub fn pod(name: &str) -> Key {
    Key::new(PODS, format!("default/{name}"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

async fn put(store: &Subject, name: &str, value: &str) -> Revision {
    put_if(store, name, value, Expect::Any).await.unwrap().revision
}

async fn put_if(store: &Subject, name: &str, value: &str, expect: Expect) -> Result<Arc<Event>, Error> {
    store.commit(Write::put(pod(name), value.to_owned(), expect)).await
}

async fn delete(store: &Subject, name: &str) -> Revision {
    store.commit(Write::delete(pod(name), Expect::Any)).await.unwrap().revision
}

/// `name=value@mod_revision` of each, relative to `base`.
fn show<'a>(base: Revision, entries: impl IntoIterator<Item = &'a Arc<crate::Entry>>) -> String {
    let line = |entry: &Arc<crate::Entry>| {
        let name = entry.name.strip_prefix("default/").unwrap_or(&entry.name);
        format!("{name}={}@{}", text(&entry.value), entry.mod_revision.0 - base.0)
    };
    entries.into_iter().map(line).collect::<Vec<_>>().join(" ")
}

/// Takes events until there are `count`, and checks that none is split, repeated or out of order.
async fn take(watch: &mut Watch, count: usize) -> Vec<Arc<Event>> {
    let mut events: Vec<Arc<Event>> = Vec::new();
    while events.len() < count {
        let batch = watch.next_batch().await.unwrap();
        assert!(!batch.is_empty());
        if let (Some(last), Some(first)) = (events.last(), batch.first()) {
            assert!(last.revision < first.revision, "a revision split or repeated");
        }
        assert!(batch.is_sorted_by_key(|event| event.revision));
        events.extend(batch);
    }
    assert_eq!(events.len(), count);
    events
}

/// `+name=value` for a create, `~` for an update, `-` for a delete.
fn tell(events: &[Arc<Event>]) -> String {
    let line = |event: &Arc<Event>| {
        let sign = match (event.kind, event.is_create()) {
            (EventKind::Put, true) => '+',
            (EventKind::Put, false) => '~',
            (EventKind::Delete, _) => '-',
        };
        format!("{sign}{}={}", event.entry.name.trim_start_matches("default/"), text(&event.entry.value))
    };
    events.iter().map(line).collect::<Vec<_>>().join(" ")
}

async fn create_get_delete(store: Subject) {
    assert!(store.get(&pod("a")).is_none());
    let event = put_if(&store, "a", "1", Expect::Absent).await.unwrap();
    assert!(event.is_create());
    assert_eq!(event.key(), pod("a"));
    let entry = store.get(&pod("a")).unwrap();
    assert!(Arc::ptr_eq(&entry, &event.entry), "one copy");
    assert_eq!((text(&entry.value), entry.version), ("1", 1));
    assert_eq!(entry.create_revision, event.revision);
    assert_eq!(store.revision(), event.revision);
    for read in [store.consistent_get(&pod("a")).await, store.newest(&pod("a")).await] {
        assert!(Arc::ptr_eq(&read.unwrap().unwrap(), &entry), "what is read from elsewhere is the same copy");
    }
    let consistent = store.consistent_snapshot(PODS).await.unwrap();
    assert!(Arc::ptr_eq(consistent.get("default/a").unwrap(), &entry));
    let gone = store.commit(Write::delete(pod("a"), Expect::Revision(event.revision))).await.unwrap();
    assert!(gone.revision > event.revision);
    assert!(Arc::ptr_eq(&gone.entry, &entry));
    assert!(gone.current().is_none());
    assert!(store.get(&pod("a")).is_none() && store.pending(&pod("a")).is_none());
}

async fn refuses_what_was_not_expected(store: Subject) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let before = store.revision();
    let conflict = |result: Result<Arc<Event>, Error>| match result.unwrap_err() {
        Error::Conflict { current, .. } => current.map(|entry| entry.mod_revision),
        other => panic!("{other}"),
    };
    assert_eq!(conflict(put_if(&store, "a", "x", Expect::Absent).await), Some(second));
    assert_eq!(conflict(put_if(&store, "a", "x", Expect::Revision(first)).await), Some(second));
    assert_eq!(conflict(put_if(&store, "b", "x", Expect::Revision(first)).await), None);
    let stale = Write::delete(pod("a"), Expect::Revision(first));
    assert_eq!(conflict(store.commit(stale).await), Some(second));
    assert_eq!(conflict(store.commit(Write::delete(pod("b"), Expect::Any)).await), None);
    assert_eq!(store.revision(), before, "a refused write has no revision");
}

async fn keeps_revisions_and_versions(store: Subject) {
    let first = put(&store, "a", "1").await;
    put(&store, "b", "1").await;
    let last = put(&store, "a", "2").await;
    let entry = store.get(&pod("a")).unwrap();
    assert_eq!((entry.create_revision, entry.mod_revision, entry.version), (first, last, 2));
    assert_eq!(last.0, first.0 + 2, "one sequence for all keys");
}

async fn delete_and_recreate(store: Subject) {
    put(&store, "a", "1").await;
    put(&store, "a", "2").await;
    delete(&store, "a").await;
    let event = put_if(&store, "a", "3", Expect::Absent).await.unwrap();
    assert!(event.is_create());
    assert_eq!((event.entry.create_revision, event.entry.version), (event.revision, 1));
}

async fn reads_pages_of_one_snapshot(store: Subject) {
    for namespace in ["a", "ab", "b"] {
        for index in 0..5 {
            let key = Key::new(PODS, format!("{namespace}/{index}"));
            store.commit(Write::put(key, "", Expect::Absent)).await.unwrap();
        }
    }
    let check = |scope: &str, start: &str, limit: usize, names: &str| {
        let snapshot = store.snapshot(PODS);
        let page: Vec<_> =
            snapshot.range(scope, start).take(limit).map(|entry| entry.name.to_string()).collect();
        assert_eq!(page.join(" "), names, "scope {scope:?} start {start:?}");
    };
    check("", "", 2, "a/0 a/1");
    check("", "a/4", 3, "a/4 ab/0 ab/1");
    check("a/", "", 9, "a/0 a/1 a/2 a/3 a/4");
    check("a/", "a/2\0", 9, "a/3 a/4");
    check("ab/", "a/", 2, "ab/0 ab/1");
    check("b/", "b/4\0", 9, "");
    check("c/", "", 9, "");
    assert_eq!(store.consistent_snapshot(PODS).await.unwrap().len(), 15);
}

async fn separates_buckets(store: Subject) {
    let start = store.revision();
    let node = Key::new(NODES, "n");
    put(&store, "a", "1").await;
    store.commit(Write::put(node.clone(), "n", Expect::Absent)).await.unwrap();
    let revision = store.revision();
    assert_eq!((store.snapshot(PODS).len(), store.snapshot(NODES).len()), (1, 1));
    assert_eq!(store.snapshot("/registry/none/").len(), 0);
    assert_eq!(
        store.snapshot(PODS).revision,
        revision,
        "a snapshot has the store's revision, not the bucket's"
    );
    let mut watch = store.watch(NODES, start).unwrap();
    put(&store, "b", "1").await;
    store.commit(Write::delete(node, Expect::Any)).await.unwrap();
    assert_eq!(tell(&take(&mut watch, 2).await), "+n=n -n=n");
}

async fn reads_older_revisions(store: Subject) {
    let base = store.revision();
    let mut states = vec![(base, String::new())];
    for (name, value) in [("a", "1"), ("b", "1"), ("a", "2"), ("b", ""), ("c", "1"), ("b", "2"), ("a", "")] {
        let revision = match value {
            "" => delete(&store, name).await,
            value => put(&store, name, value).await,
        };
        states.push((revision, show(base, store.snapshot(PODS).range("", ""))));
    }
    for (revision, state) in states {
        let then = store.snapshot_at(PODS, revision).await.unwrap();
        assert_eq!(then.revision, revision);
        assert_eq!(show(base, then.range("", "")), state, "at {revision}");
    }
    let future = Revision(store.revision().0 + 1);
    assert!(matches!(store.snapshot_at(PODS, future).await, Err(Error::Future { .. })));
    assert!(store.snapshot_at(NODES, base).await.unwrap().is_empty());
}

async fn snapshots_do_not_change(store: Subject) {
    put(&store, "a", "1").await;
    let before = store.snapshot(PODS);
    let shown = show(Revision(0), before.range("", ""));
    put(&store, "a", "2").await;
    put(&store, "b", "1").await;
    delete(&store, "a").await;
    assert_eq!(show(Revision(0), before.range("", "")), shown);
}

async fn watches_from_a_revision(store: Subject) {
    put(&store, "a", "1").await;
    let after = put(&store, "a", "2").await;
    put(&store, "b", "1").await;
    let mut watch = store.watch(PODS, after).unwrap();
    put(&store, "a", "3").await;
    let events = take(&mut watch, 2).await;
    assert_eq!(tell(&events), "+b=1 ~a=3");
    let previous = events[1].previous.as_ref().unwrap();
    assert_eq!((text(&previous.value), previous.mod_revision), ("2", after));
    // What is not there yet is waited for, and the wait can be dropped without loss.
    assert!(tokio::time::timeout(Duration::from_millis(5), watch.next_batch()).await.is_err());
    put(&store, "c", "1").await;
    assert_eq!(tell(&take(&mut watch, 1).await), "+c=1");
}

async fn watches_across_deletes(store: Subject) {
    let start = store.revision();
    put(&store, "a", "1").await;
    let gone = delete(&store, "a").await;
    put(&store, "a", "2").await;
    let mut watch = store.watch(PODS, start).unwrap();
    let events = take(&mut watch, 3).await;
    assert_eq!(tell(&events), "+a=1 -a=1 +a=2");
    assert_eq!(events[1].revision, gone);
    assert_eq!(events[1].entry.mod_revision, Revision(gone.0 - 1), "a delete carries the last version");
}

async fn watch_of_an_unborn_bucket(store: Subject) {
    put(&store, "a", "1").await;
    let prefix = "/registry/example.com/widgets/";
    let mut watch = store.watch(prefix, store.revision()).unwrap();
    let write = Write::put(Key::new(prefix, "default/w"), "w", Expect::Absent);
    let (events, written) = tokio::join!(take(&mut watch, 1), store.commit(write));
    assert!(Arc::ptr_eq(&events[0], &written.unwrap()), "watchers share the event");
}

async fn watch_from_a_revision_to_come(store: Subject) {
    let now = put(&store, "a", "1").await;
    let mut watch = store.watch(PODS, Revision(now.0 + 1)).unwrap();
    put(&store, "a", "2").await;
    put(&store, "a", "3").await;
    assert_eq!(tell(&take(&mut watch, 1).await), "~a=3");
}

async fn watch_reports_progress(store: Subject) {
    let start = store.revision();
    let mut watch = store.watch(PODS, start).unwrap();
    assert_eq!(watch.progress(), start);
    let other = Write::put(Key::new(NODES, "n"), "n", Expect::Absent);
    let elsewhere = store.commit(other).await.unwrap().revision;
    assert_eq!(watch.progress(), elsewhere, "nothing of this bucket is pending");
    let here = put(&store, "a", "1").await;
    assert_eq!(watch.progress(), start, "an event is pending");
    take(&mut watch, 1).await;
    assert_eq!(watch.progress(), here);
}

async fn many_watchers_see_one_history(store: Subject) {
    let start = store.revision();
    let watchers = (0..200).map(|_| {
        let mut watch = store.watch(PODS, start).unwrap();
        tokio::spawn(async move { take(&mut watch, 50).await })
    });
    let watchers: Vec<_> = watchers.collect();
    for index in 0..50 {
        put(&store, &format!("p{index}"), "1").await;
    }
    let histories: Vec<_> = join_all(watchers).await.into_iter().map(Result::unwrap).collect();
    for history in &histories {
        assert!(history.iter().zip(&histories[0]).all(|(a, b)| Arc::ptr_eq(a, b)));
    }
}

async fn writes_together_at_one_revision(store: Subject) {
    let first = put(&store, "a", "1").await;
    let writes = vec![
        Write::put(pod("a"), "2", Expect::Revision(first)),
        Write::put(pod("b"), "1", Expect::Absent),
        Write::put(Key::new(NODES, "n"), "n", Expect::Absent),
    ];
    let events = store.commit_many(writes).await.unwrap();
    assert!(events.iter().all(|event| event.revision.0 == first.0 + 1));
    assert_eq!(store.revision().0, first.0 + 1);
    let mut watch = store.watch(PODS, first).unwrap();
    assert_eq!(tell(&watch.next_batch().await.unwrap()), "~a=2 +b=1");
    let then = store.snapshot_at(PODS, first).await.unwrap();
    assert_eq!(show(Revision(0), then.range("", "")), format!("a=1@{first}"));
    assert!(store.commit_many(Vec::new()).await.unwrap().is_empty());
}

async fn atomic_or_not_at_all(store: Subject) {
    let first = put(&store, "a", "1").await;
    let writes = vec![Write::put(pod("b"), "1", Expect::Absent), Write::put(pod("a"), "2", Expect::Absent)];
    match store.commit_many(writes).await {
        Err(Error::Conflict { key, current }) => assert_eq!((key, current.is_some()), (pod("a"), true)),
        other => panic!("{other:?}"),
    }
    assert_eq!(store.revision(), first);
    assert!(store.get(&pod("b")).is_none() && store.pending(&pod("b")).is_none());
    let twice = vec![Write::put(pod("c"), "1", Expect::Any), Write::delete(pod("c"), Expect::Any)];
    assert!(matches!(store.commit_many(twice).await, Err(Error::DuplicateKey(_))));
}

async fn writes_while_a_pin_holds(store: Subject) {
    let term = Key::new(NODES, "term");
    let begun = store.commit(Write::put(term.clone(), "1", Expect::Absent)).await.unwrap().revision;
    let pin = Pin { key: term.clone(), revision: begun };
    let write = |name: &str, expect| vec![Write::put(pod(name), "1", expect)];
    let events = store.commit_pinned(write("a", Expect::Absent), Some(&pin)).await.unwrap();
    assert_eq!((events.len(), events[0].revision.0), (1, begun.0 + 1));
    // Of two things that do not hold the pin is told.
    let next = store.commit(Write::put(term.clone(), "2", Expect::Revision(begun))).await.unwrap().revision;
    for expect in [Expect::Absent, Expect::Any] {
        match store.commit_pinned(write("a", expect), Some(&pin)).await {
            Err(Error::Conflict { key, current }) => {
                assert_eq!((key, current.unwrap().mod_revision), (term.clone(), next));
            }
            other => panic!("{other:?}"),
        }
    }
    let pin = Pin { key: term.clone(), revision: next };
    match store.commit_pinned(write("a", Expect::Absent), Some(&pin)).await {
        Err(Error::Conflict { key, current }) => assert_eq!((key, current.is_some()), (pod("a"), true)),
        other => panic!("{other:?}"),
    }
    store.commit(Write::delete(term.clone(), Expect::Any)).await.unwrap();
    match store.commit_pinned(write("b", Expect::Absent), Some(&pin)).await {
        Err(Error::Conflict { key, current }) => assert_eq!((key, current.is_none()), (term, true)),
        other => panic!("{other:?}"),
    }
    assert!(store.get(&pod("b")).is_none() && store.pending(&pod("b")).is_none());
}

async fn compaction(store: Subject) {
    let first = put(&store, "a", "1").await;
    let second = put(&store, "a", "2").await;
    let third = put(&store, "a", "3").await;
    let mut slow = store.watch(PODS, Revision(first.0 - 1)).unwrap();
    store.compact(second).await.unwrap();
    assert!(
        matches!(store.snapshot_at(PODS, first).await, Err(Error::Compacted { oldest }) if oldest == second)
    );
    assert!(matches!(store.watch(PODS, first), Err(Error::Compacted { .. })));
    assert!(
        matches!(slow.next_batch().await, Err(Error::Compacted { .. })),
        "a gap is an error, never silent"
    );
    let then = store.snapshot_at(PODS, second).await.unwrap();
    assert_eq!(text(&then.get("default/a").unwrap().value), "2", "the compacted revision stays readable");
    let mut watch = store.watch(PODS, second).unwrap();
    assert_eq!(tell(&take(&mut watch, 1).await), "~a=3");
    assert_eq!(text(&store.get(&pod("a")).unwrap().value), "3");
    assert!(matches!(store.compact(first).await, Err(Error::Compacted { .. })));
    assert!(matches!(store.compact(Revision(third.0 + 1)).await, Err(Error::Future { .. })));
    assert_eq!(store.oldest(PODS), second);
    assert_eq!(store.stats().compacted, second);
}

async fn waits_for_a_revision(store: Subject) {
    let now = put(&store, "a", "1").await;
    store.wait_for(now).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move {
            store.wait_for(Revision(now.0 + 2)).await.unwrap();
            store.snapshot(PODS).revision
        }
    });
    put(&store, "a", "2").await;
    put(&store, "a", "3").await;
    assert!(waiting.await.unwrap().0 >= now.0 + 2);
}

async fn leases_keep_and_revoke(store: Subject) {
    let lease = store.grant(Duration::from_secs(3600)).await.unwrap();
    let other = store.grant(Duration::from_secs(3600)).await.unwrap();
    assert_ne!(lease, other);
    let leased = |name: &str, life| Write::put(pod(name), "1", Expect::Any).living(life);
    for name in ["a", "b", "c"] {
        store.commit(leased(name, Life::Lease(lease))).await.unwrap();
    }
    // `b` moves to another lease and `c` to none: they no longer end with the first.
    store.commit(leased("b", Life::Lease(other))).await.unwrap();
    store.commit(leased("c", Life::Forever)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    let before = store.revision();
    let mut watch = store.watch(PODS, before).unwrap();
    store.revoke(lease).await.unwrap();
    assert_eq!(tell(&take(&mut watch, 1).await), "-a=1");
    let left: Vec<_> = store.snapshot(PODS).range("", "").map(|entry| entry.name.to_string()).collect();
    assert_eq!(left, ["default/b", "default/c"]);
    assert!(matches!(store.keep_alive(lease).await, Err(Error::LeaseNotFound(id)) if id == lease));
    assert!(matches!(store.revoke(lease).await, Err(Error::LeaseNotFound(_))));
    let orphan = store.commit(leased("d", Life::Lease(lease))).await;
    assert!(matches!(orphan, Err(Error::LeaseNotFound(_))));
}

async fn large_and_empty_values(store: Subject) {
    put(&store, "empty", "").await;
    assert!(store.get(&pod("empty")).unwrap().value.is_empty());
    let large = vec![7; 1_500_000];
    store.commit(Write::put(pod("large"), large.clone(), Expect::Absent)).await.unwrap();
    assert_eq!(store.get(&pod("large")).unwrap().value, large);
}

async fn refuses_too_large(store: Subject) {
    let before = store.revision();
    let huge = Write::put(pod("huge"), vec![0; 64 << 20], Expect::Absent);
    assert!(matches!(store.commit(huge).await, Err(Error::TooLarge { .. })));
    assert_eq!(store.revision(), before);
    assert!(store.get(&pod("huge")).is_none());
}

async fn projections_are_made_once(store: Subject) {
    put(&store, "a", "label").await;
    let entry = store.get(&pod("a")).unwrap();
    let first = entry.project(|entry| text(&entry.value).to_owned());
    let again = store.get(&pod("a")).unwrap().project::<String>(|_| panic!("made twice"));
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(*entry.project(|entry| entry.value.len()), 5, "another type is made, not kept");
}

async fn counts(store: Subject) {
    for name in ["a", "b", "c"] {
        put(&store, name, "12345").await;
    }
    put(&store, "a", "1").await;
    delete(&store, "b").await;
    let stats = store.stats();
    let pods = stats.buckets.iter().find(|bucket| &*bucket.prefix == PODS).unwrap();
    assert_eq!((pods.keys, stats.keys()), (2, 2));
    assert_eq!(pods.bytes as usize, 2 * "default/a".len() + 6);
    assert_eq!(stats.revision, store.revision());
}

async fn probes(store: Subject) {
    let before = put(&store, "a", "1").await;
    store.probe().await.unwrap();
    assert_eq!(store.health(), crate::Health::Ok);
    assert_eq!(store.revision(), before, "a probe changes nothing");
}

async fn closes(store: Subject) {
    let last = put(&store, "a", "1").await;
    let mut watch = store.watch(PODS, Revision(last.0 - 1)).unwrap();
    store.close().await;
    let refused = store.commit(Write { key: pod("b"), op: Op::Delete, expect: Expect::Any }).await;
    assert!(matches!(refused, Err(Error::Closed)));
    assert_eq!(tell(&take(&mut watch, 1).await), "+a=1", "what was committed is still told");
    assert!(matches!(watch.next_batch().await, Err(Error::Closed)));
    assert!(matches!(store.wait_for(Revision(last.0 + 1)).await, Err(Error::Closed)));
    assert_eq!(store.health(), crate::Health::Closed);
    store.close().await;
}
