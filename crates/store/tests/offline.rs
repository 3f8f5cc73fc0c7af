//! Snapshots as files, moves between directories, what `verify` finds, and values that look otherwise at rest.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use store::embedded::{Embedded, OpenError, Options, Saved, Still, verify};
use store::{Error, Expect, Identity, Key, Life, Loaded, Revision, Store, Transform, TransformError, Write};

const PODS: &str = "/registry/pods/";

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(PODS, format!("default/{name}"))
}

fn plain() -> Arc<dyn Transform> {
    Arc::new(Identity)
}

fn small() -> Options {
    Options { segment_bytes: 256 << 10, reserve_bytes: 64 << 10, log_bytes: 64 << 10, ..Options::default() }
}

async fn filled(directory: &Path, count: usize) -> Arc<Embedded> {
    let store = Embedded::open(directory, small()).unwrap();
    for index in 0..count {
        let write = Write::put(key(index % 50), format!("{index}/{}", "x".repeat(500)), Expect::Any);
        store.commit(write).await.unwrap();
    }
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_taken_beside_a_running_store_and_restored() {
    let home = tempfile::tempdir().unwrap();
    let (from, file, to) = (home.path().join("from"), home.path().join("file"), home.path().join("to"));
    let store = filled(&from, 1000).await;
    let stop = tokio_util::sync::CancellationToken::new();
    let writer = tokio::spawn({
        let (store, stop) = (store.clone(), stop.clone());
        async move {
            while !stop.is_cancelled() {
                store.commit(Write::put(key("busy"), "y".repeat(900), Expect::Any)).await.unwrap();
            }
        }
    });
    let mut last = Revision(0);
    for _ in 0..10 {
        let saved = Saved::of_directory(&from, &plain()).unwrap();
        saved.to_file(&file, &plain()).unwrap();
        let contents = Saved::of_file(&file, &plain()).unwrap().contents();
        assert_eq!(contents, saved.contents());
        assert!(contents.revision >= Revision(1000) && contents.revision >= last);
        last = contents.revision;
    }
    stop.cancel();
    writer.await.unwrap();
    Saved::of_file(&file, &plain()).unwrap().to_directory(&to, 256 << 10, &plain()).unwrap();
    let again = Saved::of_file(&file, &plain()).unwrap().to_directory(&to, 256 << 10, &plain());
    assert!(matches!(again, Err(OpenError::Io { .. })), "a store is not overwritten");
    let restored = Embedded::open(&to, small()).unwrap();
    assert_eq!(restored.revision(), last);
    let then = store.snapshot_at(PODS, last).await.unwrap();
    let rows = |snapshot: &store::Snapshot| {
        snapshot.range("", "").map(|e| (e.name.clone(), e.value.clone(), e.mod_revision)).collect::<Vec<_>>()
    };
    assert_eq!(rows(&restored.snapshot(PODS)), rows(&then));
    // History came along: a watch of the time before goes on.
    let mut watch = restored.watch(PODS, Revision(last.0 - 1)).unwrap();
    assert_eq!(watch.next_batch().await.unwrap()[0].revision, last);
    let next = restored.commit(Write::put(key("after"), "", Expect::Absent)).await.unwrap();
    assert_eq!(next.revision.0, last.0 + 1);
    drop(restored);
    assert_eq!(Embedded::open(&to, small()).unwrap().revision(), next.revision);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_is_carried_into_another_store() {
    let home = tempfile::tempdir().unwrap();
    let from = filled(&home.path().join("from"), 120).await;
    let brief = Write::put(key("brief"), "1", Expect::Any).living(Life::Ttl(Duration::from_secs(3600)));
    from.commit(brief).await.unwrap();
    let saved = Saved::of_store(&*from).await.unwrap();
    let to = Embedded::open(home.path().join("to"), small()).unwrap();
    assert_eq!(saved.into_store(&*to, 0).await.unwrap(), 51);
    let (before, after) = (from.snapshot(PODS), to.snapshot(PODS));
    assert!(before.range("", "").map(|e| &e.value).eq(after.range("", "").map(|e| &e.value)));
    assert!(to.get(&key("brief")).unwrap().expires_ms.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_says_what_is_damaged_and_what_can_be_saved() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("store");
    let store = filled(&directory, 400).await;
    store.close().await;
    drop(store);
    let report = verify(&directory).unwrap();
    assert!(report.files.iter().all(|file| file.damage.is_none() && file.frames > 0), "{report:?}");
    assert_eq!(report.opens.unwrap().revision, Revision(400));
    // A byte in the middle of the log: found, named, and what was before it can be saved.
    let log = report.files.iter().rfind(|file| file.name.starts_with("log-")).unwrap();
    let path = directory.join(&log.name);
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let report = verify(&directory).unwrap();
    let damaged: Vec<_> = report.files.iter().filter(|file| file.damage.is_some()).collect();
    assert_eq!(damaged.len(), 1);
    let (offset, detail) = damaged[0].damage.clone().unwrap();
    assert!((offset as usize) < end && detail == "a frame is damaged", "{offset} {detail}");
    assert!(matches!(report.opens, Err(OpenError::Corrupt { .. })));
    let saved = report.saves.unwrap();
    assert!(saved.revision < Revision(400) && saved.keys() > 0, "{saved:?}");
    // It only reads: the store is as it was.
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

/// Turns every byte round, refuses what names say, and is stale for others.
struct Turned;

impl Transform for Turned {
    fn save(&self, _key: &Key, value: &Bytes) -> Result<Bytes, TransformError> {
        Ok(value.iter().map(|byte| !byte).collect())
    }

    fn load(&self, key: &Key, kept: Bytes) -> Result<Loaded, TransformError> {
        match &*key.name {
            "default/damaged" => Err(TransformError("it is damaged".into())),
            name => {
                Ok(Loaded { value: kept.iter().map(|byte| !byte).collect(), stale: name == "default/old" })
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_look_otherwise_at_rest() {
    let home = tempfile::tempdir().unwrap();
    let options = || Options { transform: Arc::new(Turned), ..small() };
    let store = Embedded::open(home.path(), options()).unwrap();
    for name in ["old", "new", "damaged"] {
        store.commit(Write::put(key(name), "canary", Expect::Absent)).await.unwrap();
    }
    // Enough for a snapshot, so that both files are looked at.
    for index in 0..400 {
        store
            .commit(Write::put(key("busy"), format!("{index}{}", "canary".repeat(100)), Expect::Any))
            .await
            .unwrap();
    }
    assert_eq!(&*store.get(&key("new")).unwrap().value, b"canary");
    store.close().await;
    drop(store);
    let mut kinds = [0, 0];
    for entry in std::fs::read_dir(home.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        kinds[0] += usize::from(name.starts_with("log-"));
        kinds[1] += usize::from(name.starts_with("snapshot-"));
        let bytes = std::fs::read(entry.path()).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"canary"), "{name} holds plain values");
    }
    assert!(kinds[0] > 0 && kinds[1] > 0, "{kinds:?}");
    let store = Embedded::open(home.path(), options()).unwrap();
    let value = |name: &str| store.get(&key(name)).unwrap();
    assert_eq!((&*value("old").value, value("old").stale), (&b"canary"[..], true));
    assert_eq!((&*value("new").value, value("new").stale), (&b"canary"[..], false));
    // The damaged one spoils nobody else, and its bytes are still there.
    assert_ne!(&*value("damaged").value, b"canary");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_shrink_when_much_is_deleted() {
    let home = tempfile::tempdir().unwrap();
    let history = store::History { bytes: 1 << 20, events: 100, ..Default::default() };
    let store = Embedded::open(home.path(), Options { history, ..small() }).unwrap();
    for index in 0..40 {
        let write = Write::put(key(index), vec![7; 200 << 10], Expect::Absent);
        store.commit(write).await.unwrap();
    }
    for index in 0..40 {
        store.commit(Write::delete(key(index), Expect::Any)).await.unwrap();
    }
    store.compact(store.revision()).await.unwrap();
    let shrunk = async {
        // Deletes of nothing to speak of: only the old snapshot's size can be the reason for a new one.
        while store.stats().file_bytes > 2 << 20 {
            store.commit(Write::put(key("tick"), "", Expect::Any)).await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(20), shrunk).await.expect("the files shrink");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_looked_at_as_of_any_revision_it_knows() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    let history = store::History { events: 60, ..Default::default() };
    let store = Embedded::open(home.path().join("store"), Options { history, ..small() }).unwrap();
    let mut states = Vec::new();
    let rows = |snapshot: &store::Snapshot| {
        snapshot.range("", "").map(|e| (e.name.clone(), e.value.clone(), e.mod_revision)).collect::<Vec<_>>()
    };
    for index in 0..100_u64 {
        let name = index % 7;
        let write = match index % 5 {
            4 => Write::delete(key((index - 1) % 7), Expect::Any),
            _ => Write::put(key(name), format!("{index}"), Expect::Any),
        };
        store.commit(write).await.unwrap();
        states.push(rows(&store.snapshot(PODS)));
    }
    Saved::of_directory(&home.path().join("store"), &plain()).unwrap().to_file(&file, &plain()).unwrap();
    let look = |at| Still::new(Saved::of_file(&file, &plain()).unwrap(), at);
    let newest = look(None).unwrap();
    assert_eq!((newest.revision(), rows(&newest.snapshot(PODS))), (Revision(100), states[99].clone()));
    let horizon = newest.oldest(PODS);
    for at in horizon.0.max(1)..=100 {
        let still = look(Some(Revision(at))).unwrap();
        assert_eq!(
            (still.revision(), rows(&still.snapshot(PODS))),
            (Revision(at), states[at as usize - 1].clone())
        );
    }
    assert!(matches!(look(Some(Revision(101))), Err(Error::Future { .. })));
    if horizon.0 > 1 {
        assert!(matches!(look(Some(Revision(horizon.0 - 1))), Err(Error::Compacted { .. })));
    }
    // Nothing is written, and nothing happens.
    let refused = newest.commit(Write::put(key("new"), "", Expect::Any)).await.unwrap_err();
    assert_eq!(refused.to_string(), "the store is read-only: it shows a saved state, of revision 100");
    let mut watch = newest.watch(PODS, Revision(99)).unwrap();
    assert_eq!(watch.next_batch().await.unwrap().len(), 1);
    assert!(watch.try_next_batch().unwrap().is_empty());
}
