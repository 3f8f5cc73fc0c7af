//! Load: clients in a closed loop, each with a connection of its own, until enough is done or time is over.

use crate::latency::Latencies;
use crate::process::{Meter, Pid};
use crate::report::{Errors, Figure};
use crate::target::{Call, Connection, Target, message};
use anyhow::{Result, ensure};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// After this many failures a client gives up: there is something wrong with the server, not with a request.
const TOO_MANY: u64 = 1000;

/// How much load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub clients: usize,
    /// How many operations; as many as time allows when absent.
    pub total: Option<u64>,
    pub time: Duration,
}

/// Makes the call with a number; numbers count from zero.
pub(crate) type Make = Arc<dyn Fn(u64) -> Call + Send + Sync>;

/// Is shown the body of every answer that says success, with its call's number.
pub(crate) type Seen = Arc<dyn Fn(u64, &[u8]) + Send + Sync>;

#[derive(Default)]
struct Share {
    done: u64,
    latencies: Latencies,
    errors: Errors,
}

/// Runs a load. Only answers that say success count; every other outcome is an error that is shown.
pub(crate) async fn run(
    target: &Target,
    server: Option<Pid>,
    load: Load,
    make: Make,
    seen: Option<Seen>,
) -> Result<Figure> {
    let mut connections = Vec::new();
    for _ in 0..load.clients {
        connections.push(target.connect().await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let total = load.total.unwrap_or(u64::MAX);
    let meter = Meter::start(server)?;
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for connection in connections {
        let (target, next, make) = (target.clone(), next.clone(), make.clone());
        clients.spawn(client(target, connection, next, total, began + load.time, make, seen.clone()));
    }
    let mut figure = Figure::default();
    while let Some(share) = clients.join_next().await {
        let mut share = share?;
        figure.done += share.done;
        figure.latencies.append(&mut share.latencies);
        for (what, n) in share.errors {
            *figure.errors.entry(what).or_default() += n;
        }
    }
    figure.elapsed = began.elapsed();
    figure.used = meter.stop()?;
    if load.total.is_some() {
        let tried = figure.done + figure.errors.values().sum::<u64>();
        ensure!(
            tried >= total || began.elapsed() >= load.time,
            "only {tried} of {total} operations were tried"
        );
    }
    Ok(figure)
}

async fn client(
    target: Target,
    mut connection: Connection,
    next: Arc<AtomicU64>,
    total: u64,
    end: Instant,
    make: Make,
    seen: Option<Seen>,
) -> Share {
    let mut share = Share::default();
    let mut failed = 0;
    while failed < TOO_MANY {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        if n >= total || began >= end {
            break;
        }
        let answered = match &seen {
            None => connection.measure(make(n)).await.map(|(status, _)| status),
            Some(seen) => connection.answer(make(n)).await.map(|(status, body)| {
                if status.is_success() {
                    seen(n, &body);
                }
                status
            }),
        };
        let error = match answered {
            Ok(status) if status.is_success() => {
                share.latencies.push(began.elapsed());
                share.done += 1;
                continue;
            }
            // What the refusal says is asked once; after that its status is enough.
            Ok(status) => {
                let known = share.errors.keys().find(|k| k.starts_with(status.as_str())).cloned();
                match known {
                    Some(known) => known,
                    None => match connection.answer(make(n)).await {
                        Ok((_, body)) => format!("{} {}", status.as_str(), message(&body)),
                        Err(_) => status.to_string(),
                    },
                }
            }
            Err(error) => {
                // The connection may be broken: the next request gets a new one.
                match target.connect().await {
                    Ok(new) => connection = new,
                    Err(again) => {
                        *share.errors.entry(format!("{again:#}")).or_default() += 1;
                        failed += 1;
                    }
                }
                format!("{error:#}")
            }
        };
        failed += 1;
        *share.errors.entry(error).or_default() += 1;
    }
    share
}

/// Calls at a steady rate beside another load, until it is dropped; failures are counted.
pub(crate) struct Beside {
    task: tokio::task::JoinHandle<()>,
    failures: Arc<AtomicU64>,
}

impl Beside {
    pub(crate) async fn start(target: &Target, per_second: u32, make: Make) -> Result<Self> {
        let mut connection = target.connect().await?;
        let failures = Arc::new(AtomicU64::new(0));
        let failed = failures.clone();
        let task = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
            for n in 0.. {
                tick.tick().await;
                match connection.measure(make(n)).await {
                    Ok((status, _)) if status.is_success() => {}
                    _ => {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Ok(Beside { task, failures })
    }

    /// Ends it; what failed is among the figure's errors.
    pub(crate) fn end(self, figure: &mut Figure) {
        self.task.abort();
        let failures = self.failures.load(Ordering::Relaxed);
        if failures > 0 {
            figure.errors.insert("writes beside the reads failed".into(), failures);
        }
    }
}
