//! Remembers for a while whose a token is, so that a provider or webhook is not asked with every request; who asks for
//! the same token at the same time waits for one answer. Upstream: `authentication/token/cache`.

use super::recent::{Recent, digest};
use super::tokens::{Answer, Known, TokenAuthenticator};
use apimachinery::clock::Clock;
use component::metrics::{CounterVec, GaugeVec, HistogramVec, Opts, Registry, Stability};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a shared look-up may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Upstream's metrics of these caches.
#[derive(Clone)]
pub struct CacheMetrics {
    latency: HistogramVec,
    requests: CounterVec,
    fetches: CounterVec,
    active: GaugeVec,
}

impl CacheMetrics {
    pub fn new(registry: &Registry) -> Self {
        let name = |what: &str| format!("authentication_token_cache_{what}");
        let opts = |name| Opts { name, help: "", stability: Stability::Alpha };
        let buckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
        CacheMetrics {
            latency: registry.histogram_vec(opts(&name("request_duration_seconds")), &["status"], &buckets),
            requests: registry.counter_vec(opts(&name("request_total")), &["status"]),
            fetches: registry.counter_vec(opts(&name("fetch_total")), &["status"]),
            active: registry.gauge_vec(opts(&name("active_fetch_count")), &["status"]),
        }
    }
}

type Fetch = Shared<BoxFuture<'static, Answer>>;

/// See the module.
pub struct Cached {
    inner: Arc<dyn TokenAuthenticator>,
    clock: Arc<dyn Clock>,
    /// For how long a token that somebody knows is not asked for again; zero: it always is.
    success: Duration,
    /// And one that nobody knows.
    failure: Duration,
    recent: Recent<Option<Known>>,
    fetches: Mutex<HashMap<[u8; 32], Fetch>>,
    metrics: CacheMetrics,
    /// Nobody outside can tell which tokens share a digest.
    secret: [u8; 16],
}

impl Cached {
    pub fn new(
        inner: Arc<dyn TokenAuthenticator>,
        clock: Arc<dyn Clock>,
        success: Duration,
        failure: Duration,
        metrics: CacheMetrics,
    ) -> Self {
        Cached {
            inner,
            clock,
            success,
            failure,
            recent: Recent::default(),
            fetches: Mutex::default(),
            metrics,
            secret: *uuid::Uuid::new_v4().as_bytes(),
        }
    }

    fn key(&self, token: &str, audiences: &[String]) -> [u8; 32] {
        let mut text = (token.len() as u64).to_be_bytes().to_vec();
        for part in std::iter::once(token).chain(audiences.iter().map(String::as_str)) {
            text.extend_from_slice(&(part.len() as u64).to_be_bytes());
            text.extend_from_slice(part.as_bytes());
        }
        digest([self.secret.as_slice(), &text])
    }

    /// The look-up under way for a token, or a new one.
    fn fetch(&self, key: [u8; 32], token: &str, audiences: &[String]) -> Fetch {
        let mut fetches = self.fetches.lock();
        if let Some(fetch) = fetches.get(&key) {
            return fetch.clone();
        }
        let (inner, metrics) = (self.inner.clone(), self.metrics.clone());
        let (token, audiences) = (token.to_owned(), audiences.to_vec());
        // A task of its own: who asked first may go away while others wait.
        let task = tokio::spawn(async move {
            let active = metrics.active.with(&["in_flight"]);
            active.inc();
            let asked = inner.authenticate(&token, &audiences);
            let answer = match tokio::time::timeout(PATIENCE, asked).await {
                Ok(answer) => answer,
                Err(_) => Err(vec!["context deadline exceeded".into()]),
            };
            active.dec();
            metrics.fetches.with(&[if answer.is_err() { "error" } else { "ok" }]).inc();
            answer
        });
        let fetch =
            task.map(|done| done.unwrap_or_else(|_| Err(vec!["authentication failed unexpectedly".into()])));
        let fetch = fetch.boxed().shared();
        fetches.insert(key, fetch.clone());
        fetch
    }

    async fn find(&self, token: &str, audiences: &[String]) -> Answer {
        let start = Instant::now();
        let key = self.key(token, audiences);
        // In milliseconds: what is remembered may be shorter than a second.
        let now = self.clock.now().as_millisecond();
        let seen = |tag: &str| {
            self.metrics.requests.with(&[tag]).inc();
            self.metrics.latency.with(&[tag]).observe_since(start);
        };
        if let Some(known) = self.recent.get(&key, now) {
            seen("hit");
            return Ok(known);
        }
        let blocked = self.metrics.active.with(&["blocked"]);
        blocked.inc();
        let answer = self.fetch(key, token, audiences).await;
        blocked.dec();
        if self.fetches.lock().remove(&key).is_some()
            && let Ok(found) = &answer
        {
            let ttl = if found.is_some() { self.success } else { self.failure };
            if !ttl.is_zero() {
                let until = now.saturating_add(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
                self.recent.put(key, found.clone(), until);
            }
        }
        seen("miss");
        answer
    }
}

impl TokenAuthenticator for Cached {
    fn authenticate<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> BoxFuture<'a, Answer> {
        Box::pin(self.find(token, audiences))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user::User;
    use apimachinery::clock::FakeClock;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Counting(AtomicUsize);

    impl TokenAuthenticator for Counting {
        fn authenticate<'a>(&'a self, token: &'a str, _: &'a [String]) -> BoxFuture<'a, Answer> {
            let call = self.0.fetch_add(1, Ordering::SeqCst);
            let answer = match token {
                "bad" => Err(vec!["bad".into()]),
                "none" => Ok(None),
                _ => Ok(Some(Known { user: User::new(&format!("{token}{call}"), &[]), audiences: vec![] })),
            };
            Box::pin(async move {
                tokio::task::yield_now().await;
                answer
            })
        }
    }

    #[tokio::test]
    async fn answers_are_shared_and_remembered_for_their_time() {
        let counting = Arc::new(Counting(AtomicUsize::new(0)));
        let clock = Arc::new(FakeClock::new(jiff::Timestamp::UNIX_EPOCH));
        let metrics = CacheMetrics::new(&Registry::new());
        let (success, failure) = (Duration::from_secs(10), Duration::from_secs(2));
        let cached = Cached::new(counting.clone(), clock.clone(), success, failure, metrics);
        let asked = |token: &'static str| cached.authenticate(token, &[]);
        let name = |answer: Answer| answer.unwrap().unwrap().user.name;
        let (first, second) = futures::join!(asked("a"), asked("a"));
        assert_eq!((name(first), name(second)), ("a0".into(), "a0".into()));
        clock.advance(Duration::from_secs(9));
        assert_eq!(name(asked("a").await), "a0");
        let other = ["other".to_owned()];
        assert_eq!(name(cached.authenticate("a", &other).await), "a1");
        clock.advance(Duration::from_secs(1));
        assert_eq!(name(asked("a").await), "a2");
        // Errors are asked for again, unknown tokens after their own time.
        for (token, calls) in [("bad", 4), ("bad", 5), ("none", 6), ("none", 6)] {
            let _ = asked(token).await;
            assert_eq!(counting.0.load(Ordering::SeqCst), calls, "{token}");
        }
        clock.advance(Duration::from_secs(2));
        assert!(asked("none").await.unwrap().is_none());
        assert_eq!(counting.0.load(Ordering::SeqCst), 7);
    }
}
