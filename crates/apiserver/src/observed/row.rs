//! The counts of requests that have the same labels.

use super::labels::Labels;
use component::metrics::{Counter, CounterVec, Gauge, Histogram};
use parking_lot::RwLock;

/// The counts of requests of one kind.
#[derive(Debug)]
pub(super) struct Row {
    pub labels: [String; 8],
    pub total: CounterVec8,
    pub codes: RwLock<Vec<(u16, Counter)>>,
    pub seconds: Histogram,
    pub sli: Option<Histogram>,
    pub sizes: Option<Histogram>,
    /// Of requests whose bodies are objects, patches or options.
    pub bodies: Option<Histogram>,
    /// Of those that go on for as long as they like.
    pub running: Option<Gauge>,
    pub terminations: CounterVec8,
}

/// A family of counters whose last label is a code.
#[derive(Clone)]
pub(super) struct CounterVec8(pub CounterVec);

impl std::fmt::Debug for CounterVec8 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CounterVec8")
    }
}

impl Row {
    pub(super) fn is(&self, labels: &Labels<'_>) -> bool {
        let known = self.labels.iter().map(String::as_str);
        known.eq(labels.list())
    }

    pub(super) fn count(&self, code: u16) {
        if let Some((_, counter)) = self.codes.read().iter().find(|(known, _)| *known == code) {
            return counter.inc();
        }
        let text = code.to_string();
        let [verb, dry_run, group, version, resource, subresource, scope, component] = &self.labels;
        let counter = self.total.0.with(&[
            verb,
            dry_run,
            group,
            version,
            resource,
            subresource,
            scope,
            component,
            &text,
        ]);
        counter.inc();
        self.codes.write().push((code, counter));
        if matches!(code, 429 | 504) {
            self.terminated(&text);
        }
    }

    fn terminated(&self, code: &str) {
        let [verb, _, group, version, resource, subresource, scope, component] = &self.labels;
        self.terminations
            .0
            .with(&[verb, group, version, resource, subresource, scope, component, code])
            .inc();
    }
}
