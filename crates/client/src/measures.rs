//! What upstream's client library counts: `workqueue_*`, by the name of a queue, and `rest_client_*`.

use crate::error::Error;
use crate::source::Source;
use crate::transport::{ResponseBody, Transport};
use bytes::Bytes;
use component::metrics::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramVec, Opts, Registry, Stability,
    exponential_buckets,
};
use futures::future::BoxFuture;
use http::{Method, Request, Response};
use hyper::body::Body as _;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How long each key that is being worked on has been so; none once the queue is gone.
type Running = Box<dyn Fn() -> Option<Vec<Duration>> + Send + Sync>;

/// The metrics of work queues. Cheap to clone.
#[derive(Clone)]
pub struct Queues(Arc<QueuesInner>);

struct QueuesInner {
    depth: GaugeVec,
    adds: CounterVec,
    waited: HistogramVec,
    worked: HistogramVec,
    retries: CounterVec,
    running: Mutex<Vec<(&'static str, Running)>>,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").field("queues", &self.0.running.lock().len()).finish_non_exhaustive()
    }
}

/// Those of one queue.
pub(crate) struct Queue {
    pub depth: Gauge,
    pub adds: Counter,
    pub waited: Histogram,
    pub worked: Histogram,
    pub retries: Counter,
}

const fn beta<'a>(name: &'a str, help: &'a str) -> Opts<'a> {
    Opts { name, help, stability: Stability::Beta }
}

const UNFINISHED: Opts<'_> = beta(
    "workqueue_unfinished_work_seconds",
    "How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.",
);
const LONGEST: Opts<'_> = beta(
    "workqueue_longest_running_processor_seconds",
    "How many seconds has the longest running processor for workqueue been running.",
);

impl Queues {
    /// Tells of queues under `/metrics` as long as it is used.
    pub fn new(registry: &Registry) -> Self {
        let bounds = exponential_buckets(10e-9, 10.0, 10);
        let queues = Arc::new(QueuesInner {
            depth: registry.gauge_vec(beta("workqueue_depth", "Current depth of workqueue"), &["name"]),
            adds: registry.counter_vec(
                beta("workqueue_adds_total", "Total number of adds handled by workqueue"),
                &["name"],
            ),
            waited: registry.histogram_vec(
                beta(
                    "workqueue_queue_duration_seconds",
                    "How long in seconds an item stays in workqueue before being requested.",
                ),
                &["name"],
                &bounds,
            ),
            worked: registry.histogram_vec(
                beta(
                    "workqueue_work_duration_seconds",
                    "How long in seconds processing an item from workqueue takes.",
                ),
                &["name"],
                &bounds,
            ),
            retries: registry.counter_vec(
                beta("workqueue_retries_total", "Total number of retries handled by workqueue"),
                &["name"],
            ),
            running: Mutex::default(),
        });
        let weak = Arc::downgrade(&queues);
        let labels = ["name".to_owned()];
        registry.collector(move |encoder| {
            let Some(queues) = weak.upgrade() else { return };
            let mut found: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
            queues.running.lock().retain(|(name, running)| {
                let Some(running) = running() else { return false };
                let (sum, longest) = found.entry(name).or_default();
                for seconds in running.iter().map(Duration::as_secs_f64) {
                    *sum += seconds;
                    *longest = longest.max(seconds);
                }
                true
            });
            for (opts, of) in [(UNFINISHED, 0), (LONGEST, 1)] {
                let mut family = encoder.family(opts.name, &opts.help(), "gauge", &labels);
                for (name, (sum, longest)) in &found {
                    family.value(&[*name], if of == 0 { *sum } else { *longest });
                }
            }
        });
        Queues(queues)
    }

    /// Those of a queue. `running` tells of its keys.
    pub(crate) fn queue(
        &self,
        name: &'static str,
        running: impl Fn() -> Option<Vec<Duration>> + Send + Sync + 'static,
    ) -> Queue {
        let mut all = self.0.running.lock();
        // Those of a term that is over.
        all.retain(|(_, running)| running().is_some());
        all.push((name, Box::new(running)));
        drop(all);
        Queue {
            depth: self.0.depth.with(&[name]),
            adds: self.0.adds.with(&[name]),
            waited: self.0.waited.with(&[name]),
            worked: self.0.worked.with(&[name]),
            retries: self.0.retries.with(&[name]),
        }
    }
}

/// The metrics of requests.
#[derive(Clone)]
pub struct Requests {
    total: CounterVec,
    durations: HistogramVec,
    sent: HistogramVec,
    received: HistogramVec,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

const DURATIONS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
const SIZES: [f64; 11] =
    [64.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

impl Requests {
    pub fn new(registry: &Registry) -> Self {
        let alpha = |name, help| Opts { name, help, stability: Stability::Alpha };
        let by_verb = ["verb", "host"];
        Requests {
            total: registry.counter_vec(
                alpha(
                    "rest_client_requests_total",
                    "Number of HTTP requests, partitioned by status code, method, and host.",
                ),
                &["code", "method", "host"],
            ),
            durations: registry.histogram_vec(
                alpha(
                    "rest_client_request_duration_seconds",
                    "Request latency in seconds. Broken down by verb, and host.",
                ),
                &by_verb,
                &DURATIONS,
            ),
            sent: registry.histogram_vec(
                alpha(
                    "rest_client_request_size_bytes",
                    "Request size in bytes. Broken down by verb and host.",
                ),
                &by_verb,
                &SIZES,
            ),
            received: registry.histogram_vec(
                alpha(
                    "rest_client_response_size_bytes",
                    "Response size in bytes. Broken down by verb and host.",
                ),
                &by_verb,
                &SIZES,
            ),
        }
    }

    /// A transport whose requests are counted, to this host.
    pub fn counting(&self, transport: Arc<dyn Transport>, host: &str) -> Arc<dyn Transport> {
        let verbs = Default::default();
        Arc::new(Counting(Arc::new(Counted { transport, requests: self.clone(), host: host.into(), verbs })))
    }
}

struct Counting(Arc<Counted>);

struct Counted {
    transport: Arc<dyn Transport>,
    requests: Requests,
    host: Box<str>,
    /// Looked up once: requests are many.
    verbs: [OnceLock<Verb>; 6],
}

/// The metrics of one verb.
struct Verb {
    durations: Histogram,
    sent: Histogram,
    received: Histogram,
}

impl Counted {
    fn verb(&self, method: &Method) -> &Verb {
        let index = match method.as_str() {
            "GET" => 0,
            "POST" => 1,
            "PUT" => 2,
            "PATCH" => 3,
            "DELETE" => 4,
            _ => 5,
        };
        self.verbs[index].get_or_init(|| {
            let labels = [method.as_str(), &self.host];
            Verb {
                durations: self.requests.durations.with(&labels),
                sent: self.requests.sent.with(&labels),
                received: self.requests.received.with(&labels),
            }
        })
    }
}

impl Transport for Counting {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>, Error>> {
        let (counted, method, start) = (self.0.clone(), request.method().clone(), Instant::now());
        counted.verb(&method).sent.observe(request.body().len() as f64);
        let sent = counted.transport.send(request);
        Box::pin(async move {
            let answer = sent.await;
            let verb = counted.verb(&method);
            verb.durations.observe_since(start);
            let code = answer.as_ref().map(Response::status);
            let code = code.as_ref().map_or("<error>", |code| code.as_str());
            counted.requests.total.with(&[code, method.as_str(), &counted.host]).inc();
            // Of what streams nobody knows how long it will be.
            if let Some(size) = answer.as_ref().ok().and_then(|answer| answer.body().size_hint().exact()) {
                verb.received.observe(size as f64);
            }
            answer
        })
    }

    fn source(&self) -> Option<Arc<dyn Source>> {
        self.0.transport.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue;
    use expect_test::expect;
    use http_body_util::{BodyExt as _, Full};

    /// What is rendered, without buckets and durations.
    fn shown(registry: &Registry) -> String {
        let text = registry.render();
        let counted =
            |line: &&str| !line.starts_with('#') && !line.contains("_bucket") && !line.contains("_sum");
        text.lines().filter(counted).map(|line| format!("{line}\n")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_counted() {
        let registry = Registry::new();
        let queues = Queues::new(&registry);
        let queue = queue::Queue::default();
        queue.add("early");
        queue.observe(&queues, "things");
        queue.add("a");
        queue.add("a");
        queue.add_after("later", Duration::from_secs(5));
        assert_eq!(queue.get().await, Some("early"));
        tokio::time::advance(Duration::from_secs(3)).await;
        expect![[r#"
            workqueue_adds_total{name="things"} 2
            workqueue_depth{name="things"} 1
            workqueue_longest_running_processor_seconds{name="things"} 3
            workqueue_queue_duration_seconds_count{name="things"} 1
            workqueue_retries_total{name="things"} 1
            workqueue_unfinished_work_seconds{name="things"} 3
            workqueue_work_duration_seconds_count{name="things"} 0
        "#]]
        .assert_eq(&shown(&registry));
        queue.done(&"early");
        assert!(shown(&registry).contains("workqueue_work_duration_seconds_count{name=\"things\"} 1\n"));
        drop((queue, queues));
        assert!(!shown(&registry).contains("unfinished"));
    }

    struct Answers;

    impl Transport for Answers {
        fn send(&self, _: Request<Bytes>) -> BoxFuture<'static, Result<Response<ResponseBody>, Error>> {
            let body = Full::new(Bytes::from("0123456789")).map_err(|never| match never {}).boxed_unsync();
            Box::pin(std::future::ready(Ok(Response::new(body))))
        }

        fn source(&self) -> Option<Arc<dyn Source>> {
            Some(Arc::new(Nothing))
        }
    }

    struct Nothing;

    impl Source for Nothing {
        fn open(
            &self,
            _: crate::source::Query,
        ) -> futures::stream::BoxStream<'static, crate::Result<Vec<crate::source::Feed>>> {
            Box::pin(futures::stream::pending())
        }
    }

    #[tokio::test]
    async fn requests_are_counted() {
        let registry = Registry::new();
        let transport = Requests::new(&registry).counting(Arc::new(Answers), "[::1]:6443");
        // Or informers of the server's own process would read what is theirs already as a client far away.
        assert!(transport.source().is_some());
        let request = Request::post("/api").body(Bytes::from("abc")).unwrap();
        transport.send(request).await.unwrap();
        expect![[r#"
            rest_client_request_duration_seconds_count{host="[::1]:6443",verb="POST"} 1
            rest_client_request_size_bytes_count{host="[::1]:6443",verb="POST"} 1
            rest_client_requests_total{code="200",host="[::1]:6443",method="POST"} 1
            rest_client_response_size_bytes_count{host="[::1]:6443",verb="POST"} 1
        "#]]
        .assert_eq(&shown(&registry));
    }
}
