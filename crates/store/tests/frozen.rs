//! A disk that stops answering: the store says so within five seconds, goes on reading, and goes on writing when the
//! disk does. Nothing expires for want of a renewal that the disk held up. `STORE_FREEZES` says how often; `make torture`
//! sets it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::ioctl::{Opcode, Setter, ioctl};
use store::embedded::{Embedded, Options};
use store::{Expect, Health, Key, Life, Store, Write};

const PREFIX: &str = "/registry/configmaps/";
/// How soon a stalled disk must show.
const SHOWS: Duration = Duration::from_secs(5);

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// `FIFREEZE`: every write to the file system waits until it is thawed.
fn freeze(mount: &Path) {
    const FREEZE: Opcode = 0xC004_5877;
    // SAFETY: the opcode takes a pointer to an int that the kernel ignores, which the setter passes.
    let call = unsafe { Setter::<FREEZE, i32>::new(0) };
    // SAFETY: as above; the file system is ours.
    unsafe { ioctl(File::open(mount).unwrap(), call) }.unwrap();
}

/// `FITHAW`.
fn thaw(mount: &Path) {
    const THAW: Opcode = 0xC004_5878;
    // SAFETY: as for `freeze`.
    let call = unsafe { Setter::<THAW, i32>::new(0) };
    // SAFETY: as for `freeze`.
    unsafe { ioctl(File::open(mount).unwrap(), call) }.unwrap();
}

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(PREFIX, format!("default/{name}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_frozen_disk_shows_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (image, mount) = (home.path().join("image"), home.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let (image, mounted) = (image.to_str().unwrap(), mount.to_str().unwrap());
    run("mkfs.ext4", &["-q", "-F", image]);
    run("mount", &["-o", "loop", image, mounted]);
    let count = std::env::var("STORE_FREEZES").ok().and_then(|count| count.parse().ok()).unwrap_or(1);
    let directory = mount.clone();
    let outcome = tokio::spawn(async move { cycles(&directory, count).await }).await;
    if outcome.is_err() {
        // Thawed already, most often: then there is nothing to do.
        let _ = Command::new("fsfreeze").args(["-u", mounted]).status();
    }
    run("umount", &[mounted]);
    outcome.unwrap();
}

async fn cycles(mount: &Path, count: usize) {
    let options = Options { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..Options::default() };
    let store = Embedded::open(mount.join("store"), options.clone()).unwrap();
    let mut slowest = Duration::ZERO;
    for cycle in 0..count {
        slowest = slowest.max(freeze_once(&store, mount, cycle).await);
    }
    println!("{count} freezes, the slowest showed after {slowest:?}");
    let (revision, keys) = (store.revision(), store.snapshot(PREFIX).len());
    store.close().await;
    drop(store);
    let store = Embedded::open(mount.join("store"), options).unwrap();
    assert_eq!((store.revision(), store.snapshot(PREFIX).len()), (revision, keys));
}

/// Freezes the disk for longer than a lease lasts; returns how long the store took to say that it is stalled.
async fn freeze_once(store: &Arc<Embedded>, mount: &Path, cycle: usize) -> Duration {
    let lease = store.grant(Duration::from_secs(4)).await.unwrap();
    let kept = Write::put(key("kept"), "x", Expect::Any).living(Life::Lease(lease));
    let kept = store.commit(kept).await.unwrap().revision;
    let brief = Write::put(key("brief"), "x", Expect::Any).living(Life::Ttl(Duration::from_secs(4)));
    store.commit(brief).await.unwrap();
    let frozen = Instant::now();
    freeze(mount);
    let write = |name: String, expect| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(Write::put(key(name), "x", expect)).await })
    };
    let waiting = write(format!("waiting-{cycle}"), Expect::Absent);
    // Whoever asks in time learns nothing yet; whoever waits for as long as a probe may take finds it stalled.
    let mut shown = None;
    while frozen.elapsed() < SHOWS {
        let asked = tokio::time::timeout(Duration::from_millis(100), store.probe());
        assert!(asked.await.is_err(), "a write went through a frozen disk");
        if let Health::Stalled(_) = store.health() {
            shown.get_or_insert(frozen.elapsed());
        }
    }
    let shown = shown.expect("a stalled disk shows within five seconds");
    // Reads go on, and see only what is durable.
    assert!(store.get(&key("kept")).is_some());
    assert!(store.get(&key(format!("waiting-{cycle}"))).is_none());
    thaw(mount);
    waiting.await.unwrap().unwrap();
    // What would have been renewed in time, had the disk taken it, is still there to be renewed.
    store.keep_alive(lease).await.unwrap();
    assert_eq!(store.get(&key("kept")).unwrap().mod_revision, kept);
    let renewed = Write::put(key("brief"), "y", Expect::Any).living(Life::Ttl(Duration::from_secs(4)));
    let renewed = store.commit(renewed).await.unwrap();
    assert_eq!(renewed.entry.version as usize, 2 + 2 * cycle, "it was renewed, not made anew");
    store.probe().await.unwrap();
    assert_eq!(store.health(), Health::Ok);
    shown
}
