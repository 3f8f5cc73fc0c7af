//! What the store does on this machine, everything synced:
//! `cargo run --release -p store --example store_bench [DIR] [PART…]`, the parts being `writers`, `watchers`, `restart`
//! and `etcd` (the same writes to the etcd that is installed, through the engine that speaks to it, and the ratios).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use store::embedded::{Embedded, Options};
use store::etcd::{self, Etcd};
use store::{Expect, Key, Revision, Store, Write};

/// As in the program.
#[global_allocator]
static ALLOCATOR: allocator::Mimalloc = allocator::Mimalloc;

const PREFIX: &str = "/registry/pods/";
/// Keys that each writer writes over and over.
const KEYS: usize = 100;
const SPAN: Duration = Duration::from_secs(5);
/// Objects of the restart, and the bytes of each.
const OBJECTS: usize = 1_000_000;
const OBJECT: usize = 1024;

fn key(prefix: &Arc<str>, writer: usize, index: usize) -> Key {
    Key::new(prefix.clone(), format!("default/pod-{writer:04}-{index:06}"))
}

/// CPU time of this process, and of another beside it.
fn cpu(other: Option<u32>) -> Duration {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::new(own.tv_sec as u64, own.tv_nsec as u32);
    let Some(pid) = other else { return own };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the server runs");
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number of ticks");
    own + Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// A rate, and what one write costs.
#[derive(Clone, Copy)]
struct Figure {
    rate: f64,
    cpu_us: f64,
}

async fn writers(store: &Arc<dyn Store>, count: usize, server: Option<u32>) -> Figure {
    let prefix: Arc<str> = PREFIX.into();
    let (start, syncs, used) = (Instant::now(), store.stats().syncs, cpu(server));
    let tasks: Vec<_> = (0..count)
        .map(|writer| {
            let (store, prefix) = (store.clone(), prefix.clone());
            tokio::spawn(async move {
                let value = vec![b'v'; 1024];
                let mut times = Vec::new();
                while start.elapsed() < SPAN {
                    let begin = Instant::now();
                    let key = key(&prefix, writer, times.len() % KEYS);
                    let write = Write::put(key, value.clone(), Expect::Any);
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
    let (took, used) = (start.elapsed().as_secs_f64(), (cpu(server) - used).as_secs_f64());
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    let writes = times.len() as f64;
    let figure = Figure { rate: writes / took, cpu_us: used * 1e6 / writes };
    let syncs = store.stats().syncs - syncs;
    print!(
        "{count:>4} writers, 1 KiB: {:>8.0} durable writes/s, p50 {} us, p99 {} us, {:.1} CPU-us a write",
        figure.rate,
        at(0.5),
        at(0.99),
        figure.cpu_us
    );
    if syncs > 0 {
        println!(", {:.1} writes a sync", writes / syncs as f64)
    } else {
        println!()
    }
    figure
}

async fn fan_out(store: &Arc<dyn Store>, watchers: usize, events: usize) {
    let prefix: Arc<str> = PREFIX.into();
    let after = store.revision();
    let used = cpu(None);
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
        let write = Write::put(key(&prefix, 0, index % KEYS), vec![b'w'; 1024], Expect::Any);
        store.commit(write).await.expect("the bench's disk works");
    }
    for reader in readers {
        reader.await.expect("a watcher does not panic");
    }
    let told = (watchers * events) as f64;
    println!(
        "{watchers:>5} watchers: {:>10.0} events/s delivered, {:.2} CPU-us each",
        told / start.elapsed().as_secs_f64(),
        (cpu(None) - used).as_secs_f64() * 1e6 / told
    );
}

/// Fills a store that the next process opens.
async fn fill(directory: &Path) {
    let prefix: Arc<str> = PREFIX.into();
    let store = Embedded::open(directory, Options::default()).expect("the bench's store opens");
    let start = Instant::now();
    for first in (0..OBJECTS).step_by(2000) {
        let writes = (first..first + 2000)
            .map(|index| Write::put(key(&prefix, 9999, index), vec![b'v'; OBJECT], Expect::Any))
            .collect();
        store.commit_many(writes).await.expect("the bench's disk works");
    }
    let files = store.stats().file_bytes;
    println!("filled in {:.1} s, {} MiB of files", start.elapsed().as_secs_f64(), files >> 20);
    store.close().await;
}

/// Resident bytes of this process.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size() as f64
}

/// Opens what was filled, in a process that has done nothing else.
fn reopen(directory: &Path) {
    let (before, used, start) = (resident(), cpu(None), Instant::now());
    let store = Embedded::open(directory, Options::default()).expect("the bench's store opens");
    let (took, used) = (start.elapsed().as_secs_f64(), (cpu(None) - used).as_secs_f64());
    let stats = store.stats();
    let (keys, bytes) = (stats.keys() as f64, stats.bytes() as f64);
    let each = (resident() - before) / keys;
    let allowed = 1.5 * bytes / keys + 512.0;
    println!("restart with {keys} objects of {OBJECT} bytes: {took:.2} s, {used:.2} s of CPU");
    println!("memory: {each:.0} bytes an object (1.5 x encoded + 512 is {allowed:.0})");
    let (start, snapshots) = (Instant::now(), 1_000_000);
    for _ in 0..snapshots {
        std::hint::black_box(store.snapshot(PREFIX));
    }
    println!("snapshot: {:.0} ns", start.elapsed().as_nanos() as f64 / f64::from(snapshots));
    let start = Instant::now();
    let listed = store.snapshot(PREFIX).range("", "").map(|entry| entry.value.len()).sum::<usize>();
    println!("walk of {} MiB: {:.0} ms", listed >> 20, start.elapsed().as_secs_f64() * 1e3);
    assert!(store.snapshot(PREFIX).revision > Revision(0));
}

/// An etcd that ends with this.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the etcd that is installed (`ETCD` names another); nothing when there is none.
fn etcd(directory: &Path) -> Option<Server> {
    let program = std::env::var("ETCD").unwrap_or_else(|_| "etcd".into());
    let version = Command::new(&program).arg("--version").output().ok()?;
    println!("{}", String::from_utf8_lossy(&version.stdout).lines().next().unwrap_or_default());
    let free = || std::net::TcpListener::bind("127.0.0.1:0")?.local_addr();
    let (client, peer) = (format!("http://{}", free().ok()?), format!("http://{}", free().ok()?));
    let child = Command::new(program)
        .args(["--name", "m0", "--quota-backend-bytes", "8589934592", "--data-dir"])
        .arg(directory)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("m0={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Server { child, url: client })
}

fn compare(count: usize, ours: Figure, theirs: Figure) {
    println!(
        "{count:>4} writers: {:.1} times etcd's rate, {:.1} times its CPU a write",
        ours.rate / theirs.rate,
        ours.cpu_us / theirs.cpu_us
    );
}

async fn run(directory: &Path, wants: impl Fn(&str) -> bool) {
    let counts = [1, 32, 256];
    let mut ours = Vec::new();
    if wants("writers") || wants("watchers") || wants("etcd") {
        let store = Embedded::open(directory.join("a"), Options::default()).expect("the bench's store opens");
        let store: Arc<dyn Store> = store;
        if wants("writers") || wants("etcd") {
            for count in counts {
                ours.push(writers(&store, count, None).await);
            }
        }
        if wants("watchers") {
            for watchers in [200, 10_000] {
                fan_out(&store, watchers, 200).await;
            }
        }
        println!("files: {} MiB", store.stats().file_bytes >> 20);
        store.close().await;
    }
    if wants("etcd")
        && let Some(server) = etcd(&directory.join("etcd"))
    {
        let options = || etcd::Options { servers: vec![server.url.clone()], ..Default::default() };
        // It answers once it listens: an opening tries for some seconds.
        let store: Arc<dyn Store> = Etcd::open(options()).await.expect("etcd answers");
        for (count, ours) in counts.into_iter().zip(ours) {
            compare(count, ours, writers(&store, count, Some(server.child.id())).await);
        }
        store.close().await;
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| "store-bench.tmp".into()));
    let parts: Vec<String> = arguments.collect();
    if parts.iter().any(|part| part == "reopen") {
        return reopen(&directory);
    }
    let wants = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    runtime.block_on(run(&directory, wants));
    if wants("restart") {
        let filled = directory.join("b");
        runtime.block_on(fill(&filled));
        let program = std::env::current_exe().expect("this program has a path");
        let ended = Command::new(program).arg(&filled).arg("reopen").status();
        assert!(ended.is_ok_and(|status| status.success()), "the store opens");
    }
    std::fs::remove_dir_all(&directory).expect("the bench's directory can be removed");
}
