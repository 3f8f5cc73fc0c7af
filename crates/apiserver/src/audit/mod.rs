//! Audit: who asked for what, and what became of it, as a policy wants it, told to a log and to a webhook.
//!
//! A request has a [`Record`]; [`policy`] says how much is recorded, [`event`] how it is written, [`backend`] where it goes.

pub mod backend;
pub mod event;
mod metrics;
mod omit;
pub mod policy;
mod record;

pub use metrics::Metrics;
pub use record::{Asked, Record};

use apimachinery::clock::Clock;
use apimachinery::time::MicroTime;
use backend::Backend;
use event::Event;
use policy::Policy;
use std::sync::Arc;

/// The policy, and where events go.
pub struct Audit {
    policy: Policy,
    backends: Vec<Arc<dyn Backend>>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audit").field("backends", &self.backends.len()).finish_non_exhaustive()
    }
}

impl Audit {
    pub fn new(
        policy: Policy,
        backends: Vec<Arc<dyn Backend>>,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Audit { policy, backends, metrics, clock }
    }

    /// The record of a request that has just come.
    pub fn begin(self: &Arc<Self>, id: &str) -> Arc<Record> {
        Arc::new(Record::new(self.clone(), id.to_owned()))
    }

    /// The time, as events have it.
    pub fn now(&self) -> MicroTime {
        self.clock.now().into()
    }

    /// Tells every backend; false when one failed that must not.
    async fn process(&self, event: Arc<Event>) -> bool {
        let mut processed = true;
        for backend in &self.backends {
            processed &= backend.process(vec![event.clone()]).await;
        }
        processed
    }

    /// Tells every backend, behind the caller's back where one takes its time.
    fn process_behind(&self, event: Arc<Event>) {
        for backend in &self.backends {
            let telling = backend.process(vec![event.clone()]);
            backend::finish(telling);
        }
    }

    /// A request that is refused because it cannot be recorded.
    pub(crate) fn refused(&self) {
        self.metrics.rejected();
    }

    /// Tells what is still to be told, and waits until it is.
    pub async fn shutdown(&self) {
        for backend in &self.backends {
            backend.shutdown().await;
        }
    }
}

/// What keeps a request from being over: its answer's body, or the tunnel that its connection became. When the last one
/// is gone, the request is complete.
#[derive(Debug)]
pub struct Completion {
    record: Arc<Record>,
    long: bool,
}

impl Completion {
    pub fn new(record: Arc<Record>, long: bool) -> Self {
        Completion { record, long }
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        self.record.complete_behind(self.long);
    }
}
