//! Many who write the same at once.

use super::{PODS, Subject, pod, put, put_if, take, text};
use crate::{Error, Expect};
use futures::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Many write one key; whoever knows its newest state, and waits for it, finds it or a newer one.
pub(super) async fn what_has_settled_can_be_seen(store: Subject) {
    store.settled(&pod("a")).await.unwrap();
    put(&store, "a", "0").await;
    let writer = |store: Subject| async move {
        for index in 0..50 {
            put(&store, "a", &index.to_string()).await;
        }
    };
    let writers: Vec<_> = (0..4).map(|_| tokio::spawn(writer(store.clone()))).collect();
    for _ in 0..100 {
        let newest = store.newest(&pod("a")).await.unwrap().unwrap();
        store.settled(&pod("a")).await.unwrap();
        let seen = store.consistent_get(&pod("a")).await.unwrap().unwrap();
        assert!(seen.mod_revision >= newest.mod_revision);
    }
    join_all(writers).await.into_iter().for_each(Result::unwrap);
}

/// Sixteen writers add one to four counters; no increment may be lost, and the watch must tell all of them.
pub(super) async fn racing_writers_lose_nothing(store: Subject) {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 25;
    let start = store.revision();
    let mut watch = store.watch(PODS, start).unwrap();
    let writer = |writer: usize| {
        let store = store.clone();
        async move {
            let mut round = 0;
            while round < ROUNDS {
                let name = format!("counter{}", (writer + round) % 4);
                let current = store.get(&pod(&name));
                let (count, expect) = match &current {
                    Some(entry) => {
                        (text(&entry.value).parse::<u32>().unwrap(), Expect::Revision(entry.mod_revision))
                    }
                    None => (0, Expect::Absent),
                };
                match put_if(&store, &name, &(count + 1).to_string(), expect).await {
                    Ok(_) => round += 1,
                    Err(Error::Conflict { current: now, .. }) => {
                        let seen = current.map(|entry| entry.mod_revision);
                        assert!(
                            now.map(|entry| entry.mod_revision) > seen,
                            "a conflict shows something newer"
                        );
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    join_all((0..WRITERS).map(|index| tokio::spawn(writer(index))))
        .await
        .into_iter()
        .for_each(Result::unwrap);
    let total: u32 =
        store.snapshot(PODS).range("", "").map(|entry| text(&entry.value).parse::<u32>().unwrap()).sum();
    assert_eq!(total as usize, WRITERS * ROUNDS);
    let events = take(&mut watch, WRITERS * ROUNDS).await;
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.revision.0, start.0 + 1 + index as u64, "no revision is skipped");
    }
    // A watch replayed is the state.
    let mut replayed = BTreeMap::new();
    for event in &events {
        let before = replayed.insert(event.entry.name.clone(), event.entry.clone());
        assert_eq!(before.map(|e| e.mod_revision), event.previous.as_ref().map(|e| e.mod_revision));
    }
    assert!(replayed.values().zip(store.snapshot(PODS).range("", "")).all(|(a, b)| Arc::ptr_eq(a, b)));
}

pub(super) async fn racing_creators_have_one_winner(store: Subject) {
    let create = |value: usize| {
        let store = store.clone();
        tokio::spawn(async move { put_if(&store, "a", &value.to_string(), Expect::Absent).await })
    };
    let outcomes = join_all((0..32).map(create)).await;
    let won: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().unwrap().as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    for outcome in &outcomes {
        if let Err(Error::Conflict { current, .. }) = outcome.as_ref().unwrap() {
            assert_eq!(current.as_ref().unwrap().mod_revision, won[0].revision);
        }
    }
}
