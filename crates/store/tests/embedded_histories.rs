//! Histories of the embedded engine: they can be explained, also over restarts; watches under compaction; a conflict
//! storm. `STORE_HISTORIES`, `STORE_EVENTS` and `STORE_STORM` say how long; `make torture` sets them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod histories;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use histories::{History, conflict_storm, count, watch_under_compaction};
use store::embedded::{Embedded, Options};
use store::{Revision, Store};

fn open(directory: &Path) -> Arc<Embedded> {
    let options =
        Options { segment_bytes: 1 << 20, reserve_bytes: 64 << 10, log_bytes: 1 << 20, ..Options::default() };
    Embedded::open(directory, options).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn histories_can_be_explained() {
    let histories = count("STORE_HISTORIES", 20);
    let (mut operations, mut unknown) = (0, 0);
    for seed in 0..histories as u64 {
        let home = tempfile::tempdir().unwrap();
        let mut history = History::default();
        for life in 0..3 {
            let store = open(home.path());
            let (closing, then) = (store.clone(), Revision(store.revision().0 + 10 + seed % 7));
            // Every other store is closed under its clients.
            let end = tokio::spawn(async move {
                if seed % 2 == 1 && closing.wait_for(then).await.is_ok() {
                    closing.close().await;
                }
            });
            let stores = [store as Arc<dyn Store>];
            history.add(History::record(&stores, 8, 40, seed << 8 | life).await);
            end.abort();
            let _ = end.await;
        }
        history.check(&format!("seed {seed}"));
        let size = history.size();
        (operations, unknown) = (operations + size.0, unknown + size.1);
    }
    println!("{histories} histories, {operations} operations, {unknown} of them without an outcome");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_under_compaction_miss_nothing() {
    let home = tempfile::tempdir().unwrap();
    let events = count("STORE_EVENTS", 4_000) as u64;
    let told = watch_under_compaction(open(home.path()), 8, events).await;
    assert!(told > events);
    println!("{events} events, {told} told to eight watchers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_conflict_storm_leaves_no_watch_silent() {
    let home = tempfile::tempdir().unwrap();
    let span = Duration::from_secs(count("STORE_STORM", 2) as u64);
    let (wrote, lag, silence) = conflict_storm(open(home.path()), span).await;
    println!("{wrote} writes in {span:?}, lag p99 {lag:?}, longest silence {silence:?}");
    assert!(wrote > 100 && silence < Duration::from_secs(1), "{wrote} {silence:?}");
}
