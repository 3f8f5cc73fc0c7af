//! The store alone, in this process: durable writes a second, how long one takes, and the CPU of each. With `--etcd` the
//! same writes go to an etcd, through the engine that speaks to it.

use anyhow::{Context as _, Result};
use clap::Parser;
use rustix::time::{ClockId, clock_gettime};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::embedded::Embedded;
use store::etcd::{self, Etcd};
use store::{Expect, Key, Store, Write};

#[derive(Debug, Parser)]
struct Cli {
    /// Where the embedded store is made; it must not be there yet.
    #[arg(long, required_unless_present = "etcd")]
    directory: Option<PathBuf>,
    /// An etcd's endpoints instead, comma separated.
    #[arg(long, value_delimiter = ',', conflicts_with = "directory")]
    etcd: Vec<String>,
    /// A process whose CPU counts beside this one's: etcd's.
    #[arg(long)]
    server_pid: Option<i32>,
    /// Writers at once, one figure each.
    #[arg(long, value_delimiter = ',', default_value = "1,32,256")]
    writers: Vec<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 1024)]
    size: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// CPU time of this process, and of another.
fn cpu(other: Option<i32>) -> Result<Duration> {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = Duration::new(u64::try_from(own.tv_sec)?, u32::try_from(own.tv_nsec)?);
    let Some(pid) = other else { return Ok(own) };
    let stat =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("reading the server's CPU time")?;
    // Behind the name, which may hold anything: utime and stime are the 12th and 13th.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).context("no CPU time");
    Ok(own + Duration::from_millis(10 * (ticks(11)? + ticks(12)?)))
}

async fn figure(store: &Arc<dyn Store>, cli: &Cli, writers: usize) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(cli.seconds);
    let (begun, before) = (Instant::now(), cpu(cli.server_pid)?);
    let writer = |writer: usize| {
        let (store, size) = (store.clone(), cli.size);
        tokio::spawn(async move {
            let (mut times, mut round) = (Vec::new(), 0_u64);
            while Instant::now() < end {
                let key = Key::new("/registry/pods/", format!("default/{writer}-{}", round % 100));
                let at = Instant::now();
                store.commit(Write::put(key, vec![b'x'; size], Expect::Any)).await?;
                times.push(at.elapsed());
                round += 1;
            }
            Ok::<_, store::Error>(times)
        })
    };
    let mut times = Vec::new();
    for outcome in futures::future::join_all((0..writers).map(writer)).await {
        times.extend(outcome??);
    }
    let (took, used) = (begun.elapsed(), cpu(cli.server_pid)? - before);
    times.sort();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_micros();
    println!(
        "{writers:>4} writers  {:>8.0} writes/s  p50 {:>6} µs  p99 {:>6} µs  {:>6.1} CPU-µs a write",
        times.len() as f64 / took.as_secs_f64(),
        at(50),
        at(99),
        used.as_secs_f64() * 1e6 / times.len() as f64,
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let store: Arc<dyn Store> = match &cli.directory {
        Some(directory) => {
            anyhow::ensure!(!directory.exists(), "{} is there already", directory.display());
            Embedded::open(directory, Default::default())?
        }
        None => {
            let options =
                etcd::Options { servers: cli.etcd.clone(), prefix: "/bench".into(), ..Default::default() };
            Etcd::open(options).await?
        }
    };
    for writers in &cli.writers {
        figure(&store, &cli, *writers).await?;
    }
    store.close().await;
    Ok(())
}
