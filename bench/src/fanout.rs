//! Watch fan-out: many watchers, each on a connection of its own, while pods are patched as fast as the server takes it.
//! What counts is events that reached a watcher.

use crate::latency::Latencies;
use crate::load::{Load, Make, run};
use crate::pods;
use crate::process::Meter;
use crate::report::{Errors, Figure};
use crate::target::Call;
use crate::verbs::{MERGE, Setting, fresh};
use crate::watching::Watching;
use anyhow::Result;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Patchers. Enough to keep the server's commits busy.
const PATCHERS: usize = 16;
/// One watcher in so many measures how late its events are.
const SAMPLED: usize = 20;
/// How long events may be outstanding after the last patch.
const PATIENCE: Duration = Duration::from_secs(30);
/// Stands before the microsecond of the patch in every event.
const MARK: &[u8] = b"bench/at\":\"";

/// Runs `watchers` for a time.
pub(crate) async fn fan_out(setting: &Setting, watchers: usize, time: Duration) -> Result<Figure> {
    let names = setting.names().await?;
    let path = pods::path(&setting.namespace, "");
    let (_, revision) = pods::list(&mut setting.target.connect().await?, &setting.namespace).await?;
    let counts: Arc<[AtomicU64]> = (0..watchers).map(|_| AtomicU64::new(0)).collect();
    let late = Arc::new(Mutex::new(Latencies::default()));
    let mut reading = JoinSet::new();
    for watcher in 0..watchers {
        let watching = Watching::open(&setting.target, &path, Some(&revision)).await?;
        let late = (watcher % SAMPLED == 0).then(|| late.clone());
        reading.spawn(read(watching, counts.clone(), watcher, late));
    }
    let namespace = setting.namespace.clone();
    let make: Make = Arc::new(move |n| {
        let name = &names[n as usize % names.len()];
        let body = json!({"metadata": {"annotations": {"bench/at": fresh().to_string()}}});
        Call::patch(pods::path(&namespace, name), MERGE, body.to_string())
    });
    let meter = Meter::start(setting.server)?;
    let began = Instant::now();
    let patches =
        run(&setting.target, None, Load { clients: PATCHERS, total: None, time }, make, None).await?;
    let end = Instant::now() + PATIENCE;
    let reached = || counts.iter().all(|c| c.load(Ordering::Relaxed) >= patches.done);
    while !reached() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let elapsed = began.elapsed();
    let used = meter.stop()?;
    let mut errors: Errors = patches.errors.clone();
    let done: u64 = counts.iter().map(|c| c.load(Ordering::Relaxed)).sum();
    let missing = (patches.done * watchers as u64).saturating_sub(done);
    if missing > 0 {
        errors.insert("events did not arrive".into(), missing);
    }
    while let Some(read) = reading.try_join_next() {
        *errors.entry(format!("a watch ended: {}", read?)).or_default() += 1;
    }
    reading.abort_all();
    let latencies = late.lock().map(|mut late| std::mem::take(&mut *late)).unwrap_or_default();
    Ok(Figure {
        name: "watch".into(),
        work: format!(
            "deliveries to {watchers} watchers of {:.0} patches/s, {}; times are from patch to watcher",
            patches.rate(),
            setting.target.http
        ),
        done,
        elapsed,
        latencies,
        used,
        errors,
    })
}

/// Counts events until the watch ends; then says why it did.
async fn read(
    watching: Watching,
    counts: Arc<[AtomicU64]>,
    watcher: usize,
    late: Option<Arc<Mutex<Latencies>>>,
) -> String {
    let (_connection, mut body, buffer) = watching.into_frames();
    let mut frame = Some(Ok::<_, hyper::Error>(buffer.freeze()));
    loop {
        match frame {
            Some(Ok(data)) => {
                counts[watcher].fetch_add(events(&data), Ordering::Relaxed);
                if let Some(late) = &late
                    && let Some(at) = last_mark(&data)
                    && let Ok(mut late) = late.lock()
                {
                    late.push(Duration::from_micros(fresh().saturating_sub(at) as u64));
                }
            }
            Some(Err(error)) => return error.to_string(),
            None => return "by the server".into(),
        }
        frame = body.frame().await.map(|f| f.map(|f| f.into_data().unwrap_or_default()));
    }
}

/// Events that end in a piece of the stream: lines.
fn events(data: &[u8]) -> u64 {
    data.iter().filter(|b| **b == b'\n').count() as u64
}

/// The microsecond at which the last patch in this piece was made; none if the piece ends within it.
fn last_mark(data: &[u8]) -> Option<u128> {
    let at = data.windows(MARK.len()).rposition(|w| w == MARK)? + MARK.len();
    let digits = data[at..].iter().position(|b| *b == b'"')?;
    std::str::from_utf8(&data[at..at + digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(data: &str, expected: Expect) {
        expected.assert_eq(&format!("{} {:?}", events(data.as_bytes()), last_mark(data.as_bytes())));
    }

    #[test]
    fn pieces_of_a_stream() {
        check("", expect!["0 None"]);
        check("{\"a\":1}\n{\"b", expect!["1 None"]);
        check("x \"bench/at\":\"12\" y\n \"bench/at\":\"34\"\n", expect!["2 Some(34)"]);
        check("\"bench/at\":\"12", expect!["0 None"]);
    }
}
