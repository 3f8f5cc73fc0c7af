//! What survives: power loss and failed syncs at every call on a simulated disk, every byte of the files flipped, a full
//! disk. `STORE_CRASHES` says how many lives; `make torture` sets it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod simulated;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::join_all;
use simulated::{Fault, Image, Random, Simulated};
use store::embedded::{Embedded, OpenError, Options};
use store::{Error, Event, EventKind, Expect, Health, Key, Revision, Store, Write};

const PREFIX: &str = "/registry/configmaps/";

fn key(name: impl std::fmt::Display) -> Key {
    Key::new(PREFIX, format!("default/{name}"))
}

fn tiny(seed: u64) -> Options {
    let salt = AtomicU64::new(seed);
    Options {
        segment_bytes: 4096,
        reserve_bytes: 4096,
        log_bytes: 6000,
        entropy: Arc::new(move || Random(salt.fetch_add(1, Ordering::Relaxed)).next()),
        ..Options::default()
    }
}

/// What a change looked like: its key and value, nothing for a delete.
type Told = (String, Option<Vec<u8>>);

fn told(event: &Event) -> Told {
    let value = match event.kind {
        EventKind::Put => Some(event.entry.value.to_vec()),
        EventKind::Delete => None,
    };
    (event.entry.name.to_string(), value)
}

/// What the clients know after some lives of the store.
#[derive(Clone, Default)]
struct Known {
    acknowledged: BTreeMap<Revision, Told>,
    /// What was attempted without an answer may be there or not.
    attempted: Vec<Told>,
}

impl Known {
    fn check(&self, store: &dyn Store, context: &str) {
        let newest = self.acknowledged.keys().next_back().copied().unwrap_or_default();
        assert!(
            store.revision() >= newest,
            "{context}: revision {} is older than {newest}",
            store.revision()
        );
        let mut state = BTreeMap::new();
        let mut last = Revision(0);
        let mut unseen = self.acknowledged.clone();
        let mut watch = store.watch(PREFIX, Revision(0)).unwrap();
        loop {
            let events = watch.try_next_batch().unwrap();
            if events.is_empty() {
                break;
            }
            for event in events {
                assert!(event.revision > last, "{context}: revisions do not increase");
                last = event.revision;
                let told = told(&event);
                match unseen.remove(&event.revision) {
                    Some(known) => assert_eq!(known, told, "{context}: revision {last} has changed"),
                    None => assert!(self.attempted.contains(&told), "{context}: nobody wrote {told:?}"),
                }
                match told {
                    (name, Some(value)) => state.insert(name, value),
                    (name, None) => state.remove(&name),
                };
            }
        }
        assert!(unseen.is_empty(), "{context}: acknowledged and lost: {unseen:?}");
        let served = store.snapshot(PREFIX);
        let served: BTreeMap<_, _> =
            served.range("", "").map(|entry| (entry.name.to_string(), entry.value.to_vec())).collect();
        assert_eq!(served, state, "{context}: the state is not what the history says");
    }
}

/// Four writers work until the disk fails or they are done.
async fn work(store: &Arc<Embedded>, known: &Mutex<Known>, seed: u64) {
    let writer = |writer: u64| async move {
        let mut random = Random(seed ^ (writer << 32));
        for round in 0..12 {
            let name = format!("{writer}-{}", random.below(3));
            let size = [10, 200, 1500][random.below(3) as usize];
            let mut value = format!("{seed}/{writer}/{round}/").into_bytes();
            value.resize(value.len() + size, b'x');
            let exists = store.pending(&key(&name)).is_some();
            let (write, told) = if exists && random.below(3) == 0 {
                (Write::delete(key(&name), Expect::Any), None)
            } else {
                (Write::put(key(&name), value.clone(), Expect::Any), Some(value))
            };
            let told = (format!("default/{name}"), told);
            match store.commit(write).await {
                Ok(event) => known.lock().unwrap().acknowledged.insert(event.revision, told),
                Err(_) => {
                    known.lock().unwrap().attempted.push(told);
                    return;
                }
            };
        }
    };
    join_all((0..4).map(writer)).await;
}

/// Lives of one store: in each a fault, then the image that the next one finds.
async fn live(seed: u64, fault: impl Fn(&mut Random) -> Fault) {
    let mut random = Random(seed);
    let mut image = Image::new();
    let known = Mutex::new(Known::default());
    for life in 0..3 {
        let fault = fault(&mut random);
        let disk = Simulated::new(&image, fault);
        let opened = Embedded::open_on(disk.clone(), tiny(random.next()));
        if let Ok(store) = opened {
            known.lock().unwrap().check(&*store, &format!("seed {seed} life {life} {fault:?}"));
            let found = store.revision();
            work(&store, &known, random.next()).await;
            if let Fault::FailedSync(_) = fault
                && let Health::ReadOnly(_) = store.health()
            {
                let refused = store.commit(Write::put(key("late"), "", Expect::Any)).await;
                assert!(matches!(refused, Err(Error::ReadOnly { .. })));
                // It still serves what was acknowledged, and nothing else.
                let newest = known.lock().unwrap().acknowledged.keys().next_back().copied();
                assert_eq!(store.revision(), found.max(newest.unwrap_or_default()));
            }
        } else if let Err(OpenError::Corrupt { .. }) = opened {
            panic!("seed {seed} life {life} {fault:?}: {opened:?}");
        }
        // Whatever the power loss leaves opens, and holds all that was acknowledged.
        for _ in 0..3 {
            image = disk.after_power_loss(&mut random);
            let reopened = Embedded::open_on(Simulated::new(&image, Fault::None), tiny(random.next()));
            let context = format!("seed {seed} life {life} {fault:?} reopened");
            match reopened {
                Ok(store) => known.lock().unwrap().check(&*store, &context),
                Err(error) => panic!("{context}: {error}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_loss_at_every_call() {
    let count = std::env::var("STORE_CRASHES").ok().and_then(|count| count.parse().ok()).unwrap_or(250);
    for seed in 0..count {
        live(seed, |random| Fault::PowerLoss(1 + random.below(120))).await;
    }
    println!("{count} lives of three faults, {} states opened", count * 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_final() {
    for seed in 0..80 {
        live(seed, |random| Fault::FailedSync(1 + random.below(100))).await;
    }
}

#[tokio::test]
async fn every_flipped_bit_is_harmless_or_found() {
    let disk = Simulated::new(&Image::new(), Fault::None);
    let known = Mutex::new(Known::default());
    let store = Embedded::open_on(disk.clone(), tiny(7)).unwrap();
    work(&store, &known, 7).await;
    store.close().await;
    drop(store);
    let image = disk.image();
    let files = |kind: &str| image.keys().filter(|name| name.starts_with(kind)).count();
    assert!(files("snapshot-") == 1 && files("log-") >= 1, "{:?}", image.keys());
    let known = known.into_inner().unwrap();
    let (mut found, mut harmless) = (0, 0);
    let mut bit = 0;
    for (name, bytes) in image.iter().filter(|(name, _)| *name != "reserve") {
        for at in 0..bytes.len() {
            bit = (bit + 3) % 8;
            let mut damaged = image.clone();
            damaged.get_mut(name).unwrap()[at] ^= 1 << bit;
            match Embedded::open_on(Simulated::new(&damaged, Fault::None), tiny(8)) {
                Ok(store) => {
                    known.check(&*store, &format!("{name} byte {at}"));
                    harmless += 1;
                }
                Err(OpenError::Corrupt { .. }) => found += 1,
                Err(other) => panic!("{name} byte {at}: {other}"),
            }
        }
    }
    assert!(found > 3000 && harmless > 0, "found {found}, harmless {harmless}");
}

#[test]
fn damage_in_the_middle_is_told_from_a_torn_end() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let disk = Simulated::new(&Image::new(), Fault::None);
    let options = || Options { segment_bytes: 1 << 16, log_bytes: 1 << 20, ..tiny(3) };
    let mut ends = Vec::new();
    runtime.block_on(async {
        let store = Embedded::open_on(disk.clone(), options()).unwrap();
        for index in 0..5 {
            store.commit(Write::put(key(index), "value", Expect::Absent)).await.unwrap();
            let image = disk.image();
            let log = image.iter().find(|(name, _)| name.starts_with("log-")).unwrap();
            ends.push(log.1.iter().rposition(|byte| *byte != 0).unwrap());
        }
        // Cut off here, as by a kill: not closed.
        let mut torn = disk.image();
        let name = torn.keys().find(|name| name.starts_with("log-")).unwrap().clone();
        torn.get_mut(&name).unwrap()[ends[4]] ^= 1;
        let open = |image: &Image, options| Embedded::open_on(Simulated::new(image, Fault::None), options);
        assert_eq!(open(&torn, options()).unwrap().revision(), Revision(4), "a torn end is cut off");
        let mut damaged = disk.image();
        damaged.get_mut(&name).unwrap()[ends[2]] ^= 1;
        match open(&damaged, options()) {
            Err(OpenError::Corrupt { file, offset, .. }) => {
                assert!(file == name && (offset as usize) < ends[2] && offset as usize > ends[1]);
            }
            other => panic!("{other:?}"),
        }
        let salvage = Options { damage: store::embedded::Damage::Salvage, ..options() };
        let store = open(&damaged, salvage).unwrap();
        assert_eq!(store.revision(), Revision(2), "what was before the damage is saved");
        store.commit(Write::put(key("after"), "", Expect::Absent)).await.unwrap();
    });
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_full_disk_takes_deletes_and_recovers_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let mount = home.path().to_str().unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", mount]);
    let outcome = tokio::spawn(full_disk(home.path().to_owned())).await;
    run("umount", &[mount]);
    outcome.unwrap();
}

async fn full_disk(mount: impl AsRef<Path>) {
    let mount = mount.as_ref();
    let options = || Options {
        segment_bytes: 256 << 10,
        reserve_bytes: 256 << 10,
        log_bytes: 256 << 10,
        ..Options::default()
    };
    let store = Embedded::open(mount.join("store"), options()).unwrap();
    // Someone else fills the disk.
    let mut filler = std::fs::File::create(mount.join("filler")).unwrap();
    while filler.write(&[1; 65536]).is_ok_and(|count| count > 0) {}
    let mut written = 0;
    let refused = loop {
        match store.commit(Write::put(key(written), vec![1; 1024], Expect::Absent)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace), "{refused}");
    assert_eq!(store.health(), Health::NoSpace);
    assert!(matches!(store.probe().await, Err(Error::NoSpace)));
    assert_eq!(store.snapshot(PREFIX).len(), written);
    for index in 0..written / 2 {
        store.commit(Write::delete(key(index), Expect::Any)).await.unwrap();
    }
    store.compact(store.revision()).await.unwrap();
    // A restart on the full disk finds everything.
    drop(store);
    let store = Embedded::open(mount.join("store"), options()).unwrap();
    assert_eq!(store.snapshot(PREFIX).len(), written - written / 2);
    store.commit(Write::delete(key(written - 1), Expect::Any)).await.unwrap();
    drop(filler);
    std::fs::remove_file(mount.join("filler")).unwrap();
    let resumed = async {
        // As a client would: a refused put is tried again.
        while let Err(error) = store.commit(Write::put(key("back"), "", Expect::Any)).await {
            assert!(matches!(error, Error::NoSpace), "{error}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), resumed).await.unwrap();
    assert_eq!(store.health(), Health::Ok);
}
