//! Events cut to size: objects are left out of one that is too large; one that is too large still is not told.

use super::Backend;
use crate::audit::Metrics;
use crate::audit::event::{Event, Level};
use futures::future::BoxFuture;
use std::sync::Arc;

/// The limits, and who is told.
pub struct Truncate {
    pub inner: Arc<dyn Backend>,
    pub max_event: usize,
    pub max_batch: usize,
    pub metrics: Metrics,
}

fn size(event: &Event) -> usize {
    event.json().map_or(usize::MAX, |json| json.len())
}

fn cut(event: &Event) -> Event {
    let mut cut = Event { request_object: None, response_object: None, ..event.clone() };
    cut.annotations.insert("audit.k8s.io/truncated".into(), "true".into());
    cut
}

impl Backend for Truncate {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        let mut telling = Vec::new();
        let (mut batch, mut batch_size) = (Vec::new(), 0);
        let mut too_large = Vec::new();
        for mut event in events {
            let mut length = size(&event);
            if length > self.max_event && event.level >= Level::Request {
                event = Arc::new(cut(&event));
                length = size(&event);
            }
            if length > self.max_event {
                too_large.push(event);
                continue;
            }
            if !batch.is_empty() && batch_size + length > self.max_batch {
                telling.push(self.inner.process(std::mem::take(&mut batch)));
                batch_size = 0;
            }
            batch_size += length;
            batch.push(event);
        }
        if !batch.is_empty() {
            telling.push(self.inner.process(batch));
        }
        if !too_large.is_empty() {
            self.metrics.failed("truncate", "event is too large even after truncating", &too_large);
        }
        Box::pin(async move {
            let mut told = true;
            for batch in telling {
                told &= batch.await;
            }
            told
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.inner.shutdown()
    }
}
