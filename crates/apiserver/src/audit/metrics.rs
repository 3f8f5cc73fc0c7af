//! `apiserver_audit_*`.

use super::event::{Event, Level};
use component::metrics::{Counter, CounterVec, Opts, Registry, Stability};
use std::sync::Arc;

/// Counts events, and what went wrong with them.
#[derive(Clone)]
pub struct Metrics {
    events: Counter,
    errors: CounterVec,
    levels: [Counter; 4],
    rejected: Counter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> Self {
        let opts = |name, help| Opts { name, help, stability: Stability::Alpha };
        let levels = registry.counter_vec(
            opts("apiserver_audit_level_total", "Counter of policy levels for audit events (1 per request)."),
            &["level"],
        );
        let levels = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse]
            .map(|l| levels.with(&[l.as_str()]));
        Metrics {
            events: registry.counter(opts(
                "apiserver_audit_event_total",
                "Counter of audit events generated and sent to the audit backend.",
            )),
            errors: registry.counter_vec(
                opts(
                    "apiserver_audit_error_total",
                    "Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.",
                ),
                &["plugin"],
            ),
            levels,
            rejected: registry.counter(opts(
                "apiserver_audit_requests_rejected_total",
                "Counter of apiserver requests rejected due to an error in audit logging backend.",
            )),
        }
    }

    pub(super) fn event(&self) {
        self.events.inc();
    }

    pub(super) fn level(&self, level: Level) {
        self.levels[level as usize].inc();
    }

    pub(super) fn rejected(&self) {
        self.rejected.inc();
    }

    /// Events that were lost on their way, and why.
    pub(super) fn failed(&self, plugin: &str, why: &str, events: &[Arc<Event>]) {
        self.errors.with(&[plugin]).add(events.len() as u64);
        let lost: String = events.iter().map(|event| event.legacy() + "\n").collect();
        tracing::error!(plugin, events = events.len(), why, lost, "error in audit plugin");
    }
}
