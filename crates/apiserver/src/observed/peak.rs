//! How many requests are under way, and how many there were at most.

use component::metrics::Registry;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// Those that read, and those that write.
pub(crate) const KINDS: [&str; 2] = ["readOnly", "mutating"];

/// Requests under way, and the most there were since somebody last looked.
#[derive(Debug, Default)]
pub(crate) struct Peak {
    now: AtomicI64,
    most: AtomicI64,
}

impl Peak {
    pub(crate) fn begin(&self) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        if self.most.load(Ordering::Relaxed) < now {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
    }

    pub(crate) fn end(&self) {
        self.now.fetch_sub(1, Ordering::Relaxed);
    }

    fn take(&self) -> i64 {
        let now = self.now.load(Ordering::Relaxed);
        self.most.swap(now, Ordering::Relaxed).max(now)
    }
}

/// Shows how many requests of each kind there were at most.
pub(crate) fn collect(registry: &Registry, name: &'static str, help: &'static str, peaks: [Arc<Peak>; 2]) {
    registry.collector(move |encoder| {
        let mut family = encoder.family(name, help, "gauge", &["request_kind".to_owned()]);
        for (kind, peak) in KINDS.into_iter().zip(&peaks) {
            family.value(&[kind], peak.take() as f64);
        }
    });
}
