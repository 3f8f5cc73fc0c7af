//! Prints what the embedded store does on this machine: `cargo run --release -p store --example store_bench [DIR]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use store::embedded::{Embedded, Options};
use store::{Expect, Key, Revision, Store, Write};

const PREFIX: &str = "/registry/pods/";

fn key(writer: usize, index: usize) -> Key {
    Key::new(PREFIX, format!("default/pod-{writer:04}-{index:06}"))
}

async fn writers(store: &Arc<Embedded>, count: usize, span: Duration) {
    let (start, syncs) = (Instant::now(), store.stats().syncs);
    let tasks: Vec<_> = (0..count)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                let value = bytes::Bytes::from(vec![b'v'; 1024]);
                let mut times = Vec::new();
                while start.elapsed() < span {
                    let begin = Instant::now();
                    let write = Write::put(key(writer, times.len() % 100), value.clone(), Expect::Any);
                    store.commit(write).await.expect("the bench's disk works");
                    times.push(begin.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a writer does not panic"));
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    println!(
        "{count:>4} writers, 1 KiB: {:>8.0} durable writes/s, p50 {} us, p99 {} us, {:.1} writes a sync",
        times.len() as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        times.len() as f64 / (store.stats().syncs - syncs) as f64,
    );
}

async fn fan_out(store: &Arc<Embedded>, watchers: usize, events: usize) {
    let after = store.revision();
    let readers: Vec<_> = (0..watchers)
        .map(|_| {
            let mut watch = store.watch(PREFIX, after).expect("the revision is the newest");
            tokio::spawn(async move {
                let mut seen = 0;
                while seen < events {
                    seen += watch.next_batch().await.expect("the history is long enough").len();
                }
            })
        })
        .collect();
    let start = Instant::now();
    for index in 0..events {
        let write = Write::put(key(0, index % 100), vec![b'w'; 1024], Expect::Any);
        store.commit(write).await.expect("the bench's disk works");
    }
    for reader in readers {
        reader.await.expect("a watcher does not panic");
    }
    let rate = (watchers * events) as f64 / start.elapsed().as_secs_f64();
    println!("{watchers:>5} watchers: {rate:>10.0} events/s delivered");
}

async fn restart(directory: &std::path::Path, count: usize) {
    let store = Embedded::open(directory, Options::default()).expect("the bench's store opens");
    let value = bytes::Bytes::from(vec![b'v'; 256]);
    for chunk in (0..count).collect::<Vec<_>>().chunks(2000) {
        let writes =
            chunk.iter().map(|index| Write::put(key(9999, *index), value.clone(), Expect::Any)).collect();
        store.commit_many(writes).await.expect("the bench's disk works");
    }
    store.close().await;
    drop(store);
    let start = Instant::now();
    let store = Embedded::open(directory, Options::default()).expect("the bench's store opens");
    println!("restart with {} objects: {:.2} s", store.stats().keys(), start.elapsed().as_secs_f64());
    let start = Instant::now();
    let snapshots = 1_000_000;
    for _ in 0..snapshots {
        std::hint::black_box(store.snapshot(PREFIX));
    }
    println!("snapshot: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(snapshots));
    let before = Revision(store.revision().0 - 1);
    std::hint::black_box(store.snapshot_at(PREFIX, before).await.ok());
}

#[tokio::main]
async fn main() {
    let directory = std::env::args().nth(1).unwrap_or_else(|| "store-bench.tmp".into());
    let directory = std::path::PathBuf::from(directory);
    let store = Embedded::open(directory.join("a"), Options::default()).expect("the bench's store opens");
    for count in [1, 32, 256] {
        writers(&store, count, Duration::from_secs(3)).await;
    }
    for watchers in [200, 10_000] {
        fan_out(&store, watchers, 200).await;
    }
    println!("files: {} MiB", store.stats().file_bytes >> 20);
    drop(store);
    restart(&directory.join("b"), 200_000).await;
    std::fs::remove_dir_all(&directory).expect("the bench's directory can be removed");
}
