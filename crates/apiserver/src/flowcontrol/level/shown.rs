//! A level's queues as the debugging tables show them.

use super::Level;
use super::wait::Token;
use crate::flowcontrol::queues::Queues;
use crate::flowcontrol::work::Work;
use std::time::Duration;

/// What is shown of a waiting request.
#[derive(Debug, Clone, Default)]
pub(in crate::flowcontrol) struct About {
    pub schema: String,
    pub distinguisher: String,
    pub user: String,
    pub verb: String,
    pub path: String,
    pub namespace: String,
    pub name: String,
    pub api_version: String,
    pub resource: String,
    pub subresource: String,
}

/// A level's queues, to be looked at.
pub(in crate::flowcontrol) struct Shown<'a>(&'a Queues<Token>);

/// A queue as it is shown.
pub(in crate::flowcontrol) struct ShownQueue<'a> {
    pub waiting: Vec<(&'a About, Duration, Work)>,
    pub executing: u32,
    pub seats: u32,
    pub next_r: String,
    pub initial_seats: u32,
    pub max_seats: u32,
    pub work: String,
}

impl Level {
    /// Shows the queues.
    pub(in crate::flowcontrol) fn show<R>(&self, show: impl FnOnce(&Shown<'_>) -> R) -> R {
        let queues = self.queues.lock();
        show(&Shown(&queues))
    }
}

impl Shown<'_> {
    pub(in crate::flowcontrol) fn waiting(&self) -> usize {
        self.0.waiting
    }

    pub(in crate::flowcontrol) fn queues(&self) -> Vec<ShownQueue<'_>> {
        let shown = self.0.queues.iter().map(|queue| ShownQueue {
            waiting: queue.waiting.iter().map(|w| (&*w.token.about, w.arrived, w.work)).collect(),
            executing: queue.executing,
            seats: queue.seats,
            next_r: queue.next_r.to_string(),
            initial_seats: queue.waiting.iter().map(|w| w.work.initial).sum(),
            max_seats: queue.waiting.iter().map(|w| w.work.max_seats()).sum(),
            work: queue.work.to_string(),
        });
        shown.collect()
    }
}
