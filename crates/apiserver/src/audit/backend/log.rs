//! Events as lines of a file (`--audit-log-path`), or of standard output.

use super::Backend;
use super::rotate::Rotating;
use crate::audit::Metrics;
use crate::audit::event::Event;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::io::Write;
use std::sync::Arc;

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Legacy,
}

/// Writes lines.
pub struct Log {
    out: Mutex<Box<dyn Write + Send>>,
    format: Format,
    metrics: Metrics,
}

impl Log {
    pub fn new(out: Box<dyn Write + Send>, format: Format, metrics: Metrics) -> Self {
        Log { out: Mutex::new(out), format, metrics }
    }

    pub(super) fn rotating(file: Rotating, format: Format, metrics: Metrics) -> Self {
        Log::new(Box::new(file), format, metrics)
    }

    fn write(&self, event: &Event) -> Result<(), String> {
        let line = match self.format {
            Format::Json => event.json().map_err(|error| error.to_string())?,
            Format::Legacy => (event.legacy() + "\n").into_bytes(),
        };
        // One write a line: lines of several servers in one file do not mix.
        self.out.lock().write_all(&line).map_err(|error| error.to_string())
    }
}

impl Backend for Log {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        let mut written = true;
        for event in events {
            if let Err(why) = self.write(&event) {
                self.metrics.failed("log", &why, &[event]);
                written = false;
            }
        }
        Box::pin(std::future::ready(written))
    }
}
