//! How long the node took to begin, counted once, and only where it was new. Upstream: `node_startup_latency_tracker.go`.

use super::families::Families;
use component::metrics::{Gauge, Registry};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
struct Times {
    attempted: Option<Instant>,
    registered: Option<Instant>,
    ready: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Startup {
    began: Instant,
    times: Arc<Mutex<Times>>,
    pre_kubelet: Gauge,
    pre_registration: Gauge,
    registration: Gauge,
    post_registration: Gauge,
    total: Gauge,
}

impl Startup {
    pub(super) fn new(registry: &Registry) -> Self {
        let of = Families(registry);
        let gauge = |what: &str, when: &str| {
            let name = format!("kubelet_node_startup_{what}duration_seconds");
            of.gauge(&name, &format!("Duration in seconds of node startup {when}."))
        };
        Startup {
            began: Instant::now(),
            times: Arc::default(),
            pre_kubelet: gauge("pre_kubelet_", "before kubelet starts"),
            pre_registration: gauge("pre_registration_", "before registration"),
            registration: gauge("registration_", "during registration"),
            post_registration: gauge("post_registration_", "after registration"),
            total: gauge("", "in total"),
        }
    }

    /// Registering is tried.
    pub(crate) fn attempted(&self) {
        self.times.lock().attempted.get_or_insert_with(Instant::now);
    }

    /// The node was made. `up` is how long the machine runs.
    pub(crate) fn registered(&self, up: Duration) {
        let mut times = self.times.lock();
        let (Some(attempted), None) = (times.attempted, times.registered) else { return };
        let now = Instant::now();
        times.registered = Some(now);
        self.pre_kubelet.set(up.saturating_sub(self.began.elapsed()).as_secs_f64());
        self.pre_registration.set(attempted.duration_since(self.began).as_secs_f64());
        self.registration.set(now.duration_since(attempted).as_secs_f64());
    }

    /// The node is ready.
    pub(crate) fn ready(&self, up: Duration) {
        let mut times = self.times.lock();
        let (Some(registered), false) = (times.registered, times.ready) else { return };
        times.ready = true;
        self.post_registration.set(registered.elapsed().as_secs_f64());
        self.total.set(up.as_secs_f64());
    }
}

/// How long the machine runs.
pub(crate) fn up() -> Duration {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = text.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok());
    Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_new_node_is_counted() {
        let registry = Registry::new();
        let startup = Startup::new(&registry);
        startup.attempted();
        startup.ready(Duration::from_secs(90));
        let total = "kubelet_node_startup_duration_seconds ";
        assert!(registry.render().contains(&format!("{total}0\n")));
        startup.registered(Duration::from_secs(60));
        startup.ready(Duration::from_secs(90));
        // Once is enough.
        startup.ready(Duration::from_secs(100));
        assert!(registry.render().contains(&format!("{total}90\n")), "{}", registry.render());
        assert!(up() > Duration::ZERO);
    }
}
