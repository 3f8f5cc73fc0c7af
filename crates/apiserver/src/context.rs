//! What is known of the request under way, for those who are deep inside it: warnings to its client, its audit record.
//! Work of the server's own has nobody to tell: what is said there is lost.

use crate::audit::event::Level;
use crate::audit::{Completion, Record};
use crate::spans::Current;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

tokio::task_local! {
    static CONTEXT: Context;
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Context {
    warnings: RefCell<Vec<String>>,
    record: Option<Arc<Record>>,
    completion: RefCell<Option<Arc<Completion>>>,
    excluded: Cell<Duration>,
    body: Cell<Option<usize>>,
    /// Where in a trace it is.
    current: RefCell<Option<Current>>,
}

/// What was said of a request while it was served.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub warnings: Vec<String>,
    /// The time that others took for it.
    pub excluded: Duration,
    /// The size of its body, if that was read.
    pub body: Option<usize>,
}

impl Context {
    pub(crate) fn new(record: Option<Arc<Record>>) -> Self {
        Context { record, ..Context::default() }
    }

    /// Runs a request within this context; its result, and what was said of it.
    pub(crate) async fn around<T>(self, request: impl Future<Output = T>) -> (T, Said) {
        let within = async {
            let result = request.await;
            let said = CONTEXT.with(|context| Said {
                warnings: context.warnings.take(),
                excluded: context.excluded.get(),
                body: context.body.get(),
            });
            (result, said)
        };
        CONTEXT.scope(self, within).await
    }
}

/// Adds a `Warning` header to the answer of the request under way; once, however often it is said.
pub fn warn(text: String) {
    let _ = CONTEXT.try_with(|context| {
        let mut warnings = context.warnings.borrow_mut();
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    });
}

/// So much of the request's time is not this server's to answer for: it waited for its turn, or for a webhook.
pub(crate) fn exclude(time: Duration) {
    let _ = CONTEXT.try_with(|context| context.excluded.set(context.excluded.get() + time));
}

/// The request's body was read: so many bytes.
pub(crate) fn body_read(size: usize) {
    let _ = CONTEXT.try_with(|context| context.body.set(Some(size)));
}

/// How much of the request's body was read, if it was.
pub(crate) fn has_read() -> Option<usize> {
    CONTEXT.try_with(|context| context.body.get()).ok().flatten()
}

/// The audit record of the request under way, if anything is recorded of it.
pub(crate) fn record() -> Option<Arc<Record>> {
    CONTEXT.try_with(|context| context.record.clone()).ok().flatten().filter(|record| record.is_on())
}

/// Says something of the request under way to whoever follows what is done here.
pub fn annotate(key: String, value: String) {
    annotate_from(Level::None, || (key, value));
}

/// Like [`annotate`], where at least so much is recorded.
pub(crate) fn annotate_from(level: Level, annotation: impl FnOnce() -> (String, String)) {
    let _ = CONTEXT.try_with(|context| {
        if let Some(record) = context.record.as_ref().filter(|record| record.is_on())
            && (level == Level::None || record.level() >= level)
        {
            let (key, value) = annotation();
            record.annotate(key, value);
        }
    });
}

/// From now on the request is not complete before what is held here is gone.
pub(crate) fn begin(completion: Arc<Completion>) {
    let _ = CONTEXT.try_with(|context| context.completion.replace(Some(completion)));
}

/// Keeps the request under way from being complete, for work that outlives its answer: a tunnel.
pub(crate) fn hold() -> Option<Arc<Completion>> {
    CONTEXT.try_with(|context| context.completion.borrow().clone()).ok().flatten()
}

/// Where in a trace the request under way is, if it is in one.
pub(crate) fn stands() -> Option<Current> {
    CONTEXT.try_with(|context| context.current.borrow().clone()).ok().flatten()
}

/// From now on it is there; where it was before.
pub(crate) fn stand(current: Option<Current>) -> Option<Current> {
    CONTEXT.try_with(|context| context.current.replace(current)).ok().flatten()
}
