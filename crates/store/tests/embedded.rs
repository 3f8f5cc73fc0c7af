//! The shared suite and what only the embedded engine promises, on a real directory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use store::embedded::{Clock, Embedded, OpenError, Options};
use store::{Error, Expect, History, Key, Life, Revision, Store, Write, suite};

fn small() -> Options {
    Options { segment_bytes: 1 << 20, reserve_bytes: 64 << 10, log_bytes: 1 << 20, ..Options::default() }
}

fn open(directory: &Path) -> Arc<Embedded> {
    Embedded::open(directory, small()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn keeps_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let mut count = 0;
    suite::run(|| {
        count += 1;
        let directory = home.path().join(count.to_string());
        async move { open(&directory) as Arc<dyn Store> }
    })
    .await;
}

fn key(name: impl std::fmt::Display) -> Key {
    Key::new("/registry/pods/", format!("default/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_state_history_and_watches() {
    let home = tempfile::tempdir().unwrap();
    let store = open(home.path());
    for index in 0..100 {
        store.commit(Write::put(key(index % 10), format!("{index}"), Expect::Any)).await.unwrap();
    }
    let middle = Revision(50);
    let then = store.snapshot_at("/registry/pods/", middle).await.unwrap();
    let before = store.snapshot("/registry/pods/");
    let lease = store.grant(Duration::from_secs(60)).await.unwrap();
    store.close().await;
    drop(store);

    let store = open(home.path());
    assert_eq!(store.revision(), Revision(100));
    let after = store.snapshot("/registry/pods/");
    let rows = |snapshot: &store::Snapshot| {
        let row = |e: &Arc<store::Entry>| {
            (e.name.clone(), e.value.clone(), e.create_revision, e.mod_revision, e.version)
        };
        snapshot.range("", "").map(row).collect::<Vec<_>>()
    };
    assert_eq!(rows(&after), rows(&before));
    assert_eq!(rows(&store.snapshot_at("/registry/pods/", middle).await.unwrap()), rows(&then));
    let mut watch = store.watch("/registry/pods/", middle).unwrap();
    assert_eq!(watch.next_batch().await.unwrap().len(), 50);
    store.keep_alive(lease).await.unwrap();
    let next = store.commit(Write::put(key("new"), "x", Expect::Absent)).await.unwrap();
    assert_eq!(next.revision, Revision(101));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_stay_bounded_and_snapshots_carry_the_history() {
    let home = tempfile::tempdir().unwrap();
    let history = History { events: 200, ..History::default() };
    let options = Options { history, segment_bytes: 256 << 10, log_bytes: 512 << 10, ..small() };
    let store = Embedded::open(home.path(), options.clone()).unwrap();
    let mut largest = 0;
    for round in 0..20_u32 {
        let writes = (0..100).map(|index| {
            let store = store.clone();
            async move {
                let value = vec![round as u8; 4096];
                store.commit(Write::put(key(index), value, Expect::Any)).await.unwrap();
            }
        });
        futures::future::join_all(writes).await;
        largest = largest.max(disk_usage(home.path()));
    }
    assert!(largest < 8 << 20, "8 MiB were written, {largest} bytes are used");
    let oldest = store.oldest("/registry/pods/");
    let at = Revision(store.revision().0 - 150);
    assert!(oldest <= at);
    store.close().await;
    drop(store);
    let snapshots = || {
        let names = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("snapshot-")).count()
    };
    assert_eq!(snapshots(), 1);
    let store = Embedded::open(home.path(), options).unwrap();
    assert_eq!(store.snapshot("/registry/pods/").len(), 100);
    let mut watch = store.watch("/registry/pods/", at).unwrap();
    let events = watch.next_batch().await.unwrap();
    assert_eq!(events.len(), 150);
    assert!(events.iter().all(|event| event.previous.as_ref().unwrap().value.len() == 4096));
    assert!(matches!(store.watch("/registry/pods/", Revision(1)), Err(Error::Compacted { .. })));
}

fn disk_usage(directory: &Path) -> u64 {
    // Files come and go under us: what is gone does not count.
    let entries = std::fs::read_dir(directory).unwrap().filter_map(Result::ok);
    entries.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum()
}

#[tokio::test]
async fn one_process_at_a_time_and_no_eyes_but_the_owners() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("deep/store");
    let store = open(&directory);
    assert!(matches!(Embedded::open(&directory, small()), Err(OpenError::Locked(_))));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in std::fs::read_dir(&directory).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    drop(store);
    open(&directory);
}

#[derive(Default)]
struct ManualClock {
    now: AtomicU64,
    wake: std::sync::Mutex<Vec<Box<dyn Fn() + Send + Sync>>>,
}

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.now.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.wake.lock().unwrap().iter().for_each(|wake| wake());
    }
}

/// The store's end of the clock.
struct Hands(Arc<ManualClock>);

impl Clock for Hands {
    fn now_ms(&self) -> u64 {
        self.0.now.load(Ordering::SeqCst)
    }
    fn on_jump(&self, wake: Box<dyn Fn() + Send + Sync>) {
        self.0.wake.lock().unwrap().push(wake);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_ttl_expires_on_time_also_over_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_secs(1_000_000));
    let options = Options { clock: Arc::new(Hands(clock.clone())), ..small() };
    let seconds = Duration::from_secs;
    let store = Embedded::open(home.path(), options.clone()).unwrap();
    let ttl = |name: &str, ttl| Write::put(key(name), "", Expect::Any).living(Life::Ttl(seconds(ttl)));
    let lease = store.grant(seconds(30)).await.unwrap();
    for write in [
        ttl("a", 10),
        ttl("b", 20),
        ttl("c", 10),
        ttl("c", 40),
        ttl("d", 10),
        Write::put(key("d"), "", Expect::Any),
        Write::put(key("l"), "", Expect::Any).living(Life::Lease(lease)),
    ] {
        store.commit(write).await.unwrap();
    }
    let mut watch = store.watch("/registry/pods/", store.revision()).unwrap();
    clock.advance(Duration::from_millis(9_999));
    store.probe().await.unwrap();
    assert_eq!(store.snapshot("/registry/pods/").len(), 5);
    clock.advance(Duration::from_millis(1));
    assert_eq!(&*watch.next_batch().await.unwrap()[0].entry.name, "default/a");
    store.keep_alive(lease).await.unwrap();
    drop(store);

    let store = Embedded::open(home.path(), options.clone()).unwrap();
    let mut watch = store.watch("/registry/pods/", store.revision()).unwrap();
    for (advance, gone) in [(10, "default/b"), (20, "default/c"), (0, "default/l")] {
        clock.advance(seconds(advance));
        let events = watch.next_batch().await.unwrap();
        let names: Vec<_> = events.iter().map(|event| &*event.entry.name).collect();
        assert_eq!(names[0], gone);
        if gone == "default/c" {
            // The lease was kept alive ten seconds in: it ends with `c`, forty seconds in.
            if names.len() == 2 {
                assert_eq!(names[1], "default/l");
                break;
            }
        }
    }
    let left: Vec<_> = store.snapshot("/registry/pods/").range("", "").map(|e| e.name.to_string()).collect();
    assert_eq!(left, ["default/d"]);
    assert!(matches!(store.keep_alive(lease).await, Err(Error::LeaseNotFound(_))));
}
