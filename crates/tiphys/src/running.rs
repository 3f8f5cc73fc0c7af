//! Which parts of the control plane run in this process, for those who ask how they are.

use apiserver::rooms::component_status::Component;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::{Health, Store};

/// Whether a part runs: how many of its runs have begun and not ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part(Arc<AtomicUsize>);

/// A run of a part; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Run(Arc<AtomicUsize>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Part {
    /// A run begins.
    pub(crate) fn begin(&self) -> Run {
        self.0.fetch_add(1, Ordering::Relaxed);
        Run(self.0.clone())
    }

    /// Well, or upstream's words for a part whose port nobody answers.
    fn check(&self, port: u16) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        Err(format!(
            "Get \"https://127.0.0.1:{port}/healthz\": dial tcp 127.0.0.1:{port}: connect: connection refused"
        ))
    }
}

/// The parts beside the API server.
#[derive(Debug, Clone, Default)]
pub(crate) struct Running {
    pub scheduler: Part,
    pub controllers: Part,
}

impl Running {
    /// The parts as `componentstatuses` names them.
    pub(crate) fn components(&self, store: &Arc<dyn Store>) -> Arc<[Component]> {
        let (scheduler, controllers) = (self.scheduler.clone(), self.controllers.clone());
        let store = store.clone();
        let kept = move || match store.health() {
            Health::Ok | Health::NoSpace => Ok(()),
            other => Err(format!("{other:?}")),
        };
        [
            Component { name: "scheduler", check: Box::new(move || scheduler.check(10259)) },
            Component { name: "controller-manager", check: Box::new(move || controllers.check(10257)) },
            Component { name: "etcd-0", check: Box::new(kept) },
        ]
        .into()
    }
}
