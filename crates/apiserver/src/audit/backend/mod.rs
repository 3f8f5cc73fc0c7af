//! Where audit events go: a log ([`log`]), a webhook ([`webhook`]); at once, or gathered first ([`batch`]); cut to size
//! first ([`truncate`]) where that is wanted.

pub mod batch;
pub mod config;
pub mod log;
mod rotate;
pub mod truncate;
pub mod webhook;

use super::event::Event;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::task::{Context, Waker};

/// Takes events.
pub trait Backend: Send + Sync {
    /// Tells of events; false when that failed and whoever waits for it must not go on.
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool>;

    /// Tells what is still to be told.
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Brings to its end what nobody waits for.
pub(super) fn finish(mut telling: BoxFuture<'static, bool>) {
    // Most backends are done at once.
    let mut context = Context::from_waker(Waker::noop());
    if telling.as_mut().poll(&mut context).is_pending()
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        runtime.spawn(telling);
    }
}

/// A backend whose failures stop nobody (mode `blocking`).
pub struct IgnoreErrors(pub Arc<dyn Backend>);

impl Backend for IgnoreErrors {
    fn process(&self, events: Vec<Arc<Event>>) -> BoxFuture<'static, bool> {
        let telling = self.0.process(events);
        Box::pin(async move {
            telling.await;
            true
        })
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        self.0.shutdown()
    }
}
