//! Events gathered in a buffer and told many at a time, behind the requests' backs (mode `batch`).

use super::Backend;
use crate::audit::Metrics;
use crate::audit::event::Event;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

/// Upstream's `--audit-*-batch-*`.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    pub buffer_size: usize,
    pub max_size: usize,
    pub max_wait: Duration,
    /// Batches a second, and how many at once when there were few before.
    pub throttle: Option<(f32, u32)>,
    /// Whether the next batch is gathered while one is told.
    pub together: bool,
}

/// See the module.
pub struct Batch {
    buffer: Mutex<Option<mpsc::Sender<Arc<Event>>>>,
    telling: TaskTracker,
    metrics: Metrics,
}

impl Batch {
    /// Begins to gather; to be called inside the runtime.
    pub fn new(inner: Arc<dyn Backend>, options: Options, metrics: Metrics) -> Self {
        let (sender, receiver) = mpsc::channel(options.buffer_size);
        let telling = TaskTracker::new();
        telling.spawn(run(inner, options, receiver, telling.clone()));
        Batch { buffer: Mutex::new(Some(sender)), telling, metrics }
    }
}

impl Backend for Batch {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        let buffer = self.buffer.lock();
        for (i, event) in events.iter().enumerate() {
            let why = match buffer.as_ref().map(|buffer| buffer.try_send(event.clone())) {
                Some(Ok(())) => continue,
                Some(Err(mpsc::error::TrySendError::Full(_))) => "audit buffer queue blocked",
                Some(Err(mpsc::error::TrySendError::Closed(_))) | None => "audit backend shut down",
            };
            self.metrics.failed("buffered", why, &events[i..]);
            break;
        }
        // Nobody is stopped by what happens behind its back.
        Box::pin(std::future::ready(true))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.buffer.lock().take();
        self.telling.close();
        Box::pin(self.telling.wait())
    }
}

async fn run(
    inner: Arc<dyn Backend>,
    options: Options,
    mut receiver: mpsc::Receiver<Arc<Event>>,
    telling: TaskTracker,
) {
    let mut bucket = options.throttle.map(|(rate, burst)| Bucket::new(rate, burst));
    let mut open = true;
    while open {
        let mut events = Vec::new();
        // The time runs from the first event: nobody is woken while there is nothing to tell.
        match receiver.recv().await {
            Some(event) => events.push(event),
            None => return,
        }
        let late = Instant::now() + options.max_wait;
        while open && events.len() < options.max_size {
            tokio::select! {
                biased;
                event = receiver.recv() => match event {
                    Some(event) => events.push(event),
                    None => open = false,
                },
                () = sleep_until(late) => break,
            }
        }
        if let Some(bucket) = &mut bucket {
            sleep_until(bucket.take(Instant::now())).await;
        }
        let batch = inner.process(events);
        if options.together {
            telling.spawn(batch);
        } else {
            batch.await;
        }
    }
}

/// A token bucket.
struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn new(rate: f32, burst: u32) -> Self {
        let (rate, burst) = (f64::from(rate), f64::from(burst));
        Bucket { rate, burst, tokens: burst, at: Instant::now() }
    }

    /// Takes a token; when it may be used.
    fn take(&mut self, now: Instant) -> Instant {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + since * self.rate).min(self.burst) - 1.0;
        self.at = now;
        match self.tokens < 0.0 {
            true => now + Duration::from_secs_f64(-self.tokens / self.rate),
            false => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component::metrics::Registry;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(u64, usize)>>);

    impl Backend for Arc<Heard> {
        fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
            let heard = self.clone();
            Box::pin(async move {
                let mut heard = heard.0.lock();
                let at = tokio::time::Instant::now().elapsed().as_secs();
                heard.push((at, events.len()));
                true
            })
        }
    }

    fn events(count: usize) -> Vec<Arc<Event>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn batches() {
        let registry = Registry::new();
        let heard = Arc::new(Heard::default());
        let options = Options {
            buffer_size: 5,
            max_size: 3,
            max_wait: Duration::from_secs(30),
            throttle: Some((10.0, 15)),
            together: false,
        };
        let batch = Batch::new(Arc::new(heard.clone()), options, Metrics::new(&registry));
        // Full at once, the rest when its time has come.
        batch.process(events(4)).await;
        tokio::time::sleep(Duration::from_secs(29)).await;
        assert_eq!(heard.0.lock().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3]);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(heard.0.lock().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 1]);
        // More than the buffer takes is lost, and counted.
        batch.process(events(7)).await;
        assert!(registry.render().contains("apiserver_audit_error_total{plugin=\"buffered\"} 2"));
        batch.shutdown().await;
        assert_eq!(heard.0.lock().iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 1, 3, 2]);
        batch.process(events(1)).await;
        assert!(registry.render().contains("apiserver_audit_error_total{plugin=\"buffered\"} 3"));
    }

    #[tokio::test(start_paused = true)]
    async fn throttle() {
        let mut bucket = Bucket::new(10.0, 2);
        let now = Instant::now();
        let waits: Vec<_> = (0..4).map(|_| (bucket.take(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200]);
    }
}
