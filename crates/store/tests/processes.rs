//! A process that writes is killed, or its disk loses power: nothing acknowledged is lost, no revision is given twice.
//! `STORE_KILLS` and `STORE_POWER_LOSSES` say how often; `make torture` sets them.
//!
//! The power is cut by ext4's shutdown call, and the machine goes on behind it, as no machine without power does. From
//! the moment the call has marked the file system, `fdatasync` may succeed without having written anything: a
//! conversion of unwritten extents that fails then is not reported to the pages that wait for it, and a transaction that
//! the aborted journal threw away counts as complete (`jbd2_complete_transaction` finds it neither running nor
//! committing and returns 0). So each acknowledgement carries the time at which its writer had it, and those count that
//! are older than the call, however late they are read.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use store::embedded::{Embedded, Options};
use store::{Expect, Key, Store, Write};

const PREFIX: &str = "/registry/configmaps/";
const CHILD: &str = "STORE_KILLED_CHILD";

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|count| count.parse().ok()).unwrap_or(default)
}

fn options() -> Options {
    Options { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, log_bytes: 256 << 10, ..Options::default() }
}

/// Nanoseconds on the clock that all processes of the machine share.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Not a test by itself: the process that the others kill.
#[tokio::test(flavor = "multi_thread")]
async fn killed_child() {
    let Ok(directory) = std::env::var(CHILD) else { return };
    let store = Embedded::open(directory, options()).unwrap();
    let writer = |writer: u32| {
        let store = store.clone();
        async move {
            for round in 0_u32.. {
                let value = format!("{}/{writer}/{round}", std::process::id());
                let key = Key::new(PREFIX, format!("default/{writer}-{}", round % 20));
                let Ok(event) = store.commit(Write::put(key, value.clone(), Expect::Any)).await else {
                    return;
                };
                let at = now();
                writeln!(std::io::stderr(), "ack {at} {} {} {value}", event.revision, event.entry.name)
                    .unwrap();
            }
        }
    };
    join_all((0..8).map(|index| tokio::spawn(writer(index)))).await;
}

/// What was acknowledged, over all lives of one store.
#[derive(Default)]
struct Acknowledged {
    /// By revision: what must be there.
    certain: HashMap<u64, (String, String)>,
    /// Of the last life: what was acknowledged by a kernel that had no disk any more.
    late: HashMap<u64, (String, String)>,
    /// How many of those there were, and how many of them were not there.
    late_and_lost: (usize, usize),
}

impl Acknowledged {
    /// Lets a process write until `enough` writes are acknowledged, then ends it with `end` and reads the rest. `end`
    /// says from when on an acknowledgement proves nothing.
    fn live(&mut self, directory: &Path, enough: usize, end: impl FnOnce(&mut Child) -> u64) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed_child", "--nocapture"])
            .env(CHILD, directory)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (mut seen, mut end, mut ended) = (0, Some(end), u64::MAX);
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split_whitespace();
            let (Some("ack"), Some(at), Some(revision), Some(name), Some(value)) =
                (words.next(), words.next(), words.next(), words.next(), words.next())
            else {
                // The last line may be cut short, and a store without a disk says so.
                assert!(end.is_none(), "{line}");
                continue;
            };
            let (at, revision): (u64, u64) = (at.parse().unwrap(), revision.parse().unwrap());
            let known = (name.to_owned(), value.to_owned());
            if at >= ended {
                self.late.insert(revision, known);
                continue;
            }
            let before = self.certain.insert(revision, known);
            assert!(before.is_none(), "revision {revision} was given twice");
            seen += 1;
            if seen == enough {
                ended = end.take().unwrap()(&mut child);
            }
        }
        child.wait().unwrap();
        assert!(end.is_none(), "the process ended by itself after {seen} writes");
    }

    /// Opens the store and finds everything that its history reaches; returns how long opening took.
    fn check(&mut self, directory: &Path) -> Duration {
        let begun = Instant::now();
        let store = Embedded::open(directory, options()).unwrap();
        let took = begun.elapsed();
        let oldest = store.oldest(PREFIX);
        let mut watch = store.watch(PREFIX, oldest).unwrap();
        let mut unseen: HashMap<_, _> =
            self.certain.iter().filter(|(revision, _)| **revision > oldest.0).collect();
        self.late_and_lost.0 += self.late.len();
        loop {
            let events = watch.try_next_batch().unwrap();
            if events.is_empty() {
                break;
            }
            for event in events {
                if let Some((name, value)) = unseen.remove(&event.revision.0) {
                    assert_eq!((&*event.entry.name, &*event.entry.value), (&**name, value.as_bytes()));
                }
                self.late.remove(&event.revision.0);
            }
        }
        assert!(unseen.is_empty(), "lost {unseen:?}");
        self.late_and_lost.1 += self.late.len();
        self.late.clear();
        assert!(store.revision().0 >= self.certain.keys().copied().max().unwrap_or_default());
        took
    }
}

/// The slowest of a hundred, and the slowest.
fn slowest(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() * 99 / 100], times[times.len() - 1])
}

#[test]
fn kill_nine_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    let mut times = Vec::new();
    for cycle in 0..count("STORE_KILLS", 5) {
        acknowledged.live(home.path(), 300 + cycle * 337 % 2000, |child| {
            child.kill().unwrap();
            // The disk is whole: what was acknowledged was written.
            u64::MAX
        });
        times.push(acknowledged.check(home.path()));
    }
    let cycles = times.len();
    let acknowledged = acknowledged.certain.len();
    println!("{cycles} kills, {acknowledged} writes acknowledged, opened in {:?}", slowest(times));
}

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
}

/// The kernel's way to make a file system lose what it has not written: `FS_IOC_SHUTDOWN`, without flushing its log.
fn cut_power(mount: &Path) {
    const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587D;
    const WITHOUT_FLUSH: u32 = 2;
    let root = std::fs::File::open(mount).unwrap();
    // SAFETY: the opcode takes a pointer to a 32-bit flag, which the setter passes.
    let ioctl = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH) };
    // SAFETY: as above; the call only shuts the file system down, which is ours.
    unsafe { rustix::ioctl::ioctl(root, ioctl) }.unwrap();
}

#[test]
fn root_power_loss_on_ext4_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (image, mount) = (home.path().join("image"), home.path().join("mount"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::File::create(&image).unwrap().set_len(128 << 20).unwrap();
    let (image, mounted) = (image.to_str().unwrap(), mount.to_str().unwrap());
    run("mkfs.ext4", &["-q", "-F", image]);
    let mut acknowledged = Acknowledged::default();
    let mut times = Vec::new();
    for cycle in 0..count("STORE_POWER_LOSSES", 3) {
        run("mount", &["-o", "loop", image, mounted]);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let store = mount.join("store");
            if cycle > 0 {
                times.push(acknowledged.check(&store));
            }
            acknowledged.live(&store, 200 + cycle * 337 % 1500, |child| {
                let cut = now();
                cut_power(&mount);
                // Without a disk its writers end, or wait for ever.
                child.kill().unwrap();
                cut
            });
        }));
        run("umount", &[mounted]);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    run("mount", &["-o", "loop", image, mounted]);
    times.push(acknowledged.check(&mount.join("store")));
    run("umount", &[mounted]);
    let (cycles, (late, lost)) = (times.len(), acknowledged.late_and_lost);
    let acknowledged = acknowledged.certain.len();
    println!("{cycles} losses, {acknowledged} writes acknowledged, opened in {:?}", slowest(times));
    println!("{late} acknowledged behind the cut, {lost} of them not written");
}
