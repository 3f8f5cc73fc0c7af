//! How the rest of the kubelet talks to a pod's worker: the newest word counts, and wakes it.

use super::status::Forced;
use crate::resize::Resizing;
use api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, watch};

/// What is wanted of the pod.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    /// With the resources that are allocated to it.
    pub pod: Arc<Pod>,
    /// As its spec has it.
    pub desired: Arc<Pod>,
    /// Nobody wants it any more: it left the API, or its manifest is gone.
    pub gone: bool,
    /// It must fail, for this reason.
    pub forced: Option<Forced>,
    /// The uid of the object in the API that shows its status, for a static pod.
    pub mirror_uid: Option<String>,
}

impl Letter {
    pub(crate) fn ends(&self) -> bool {
        self.gone || self.forced.is_some() || self.pod.metadata.deletion_timestamp.is_some()
    }
}

/// One per pod.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) notify: Arc<Notify>,
    letter: Mutex<Letter>,
    status: watch::Sender<Arc<PodStatus>>,
    volumes_changed: AtomicBool,
    admitted: AtomicBool,
    resizing: Mutex<Resizing>,
}

impl Mailbox {
    pub(crate) fn new(pod: Arc<Pod>) -> Arc<Self> {
        let status = watch::Sender::new(Arc::new(pod.status.clone()));
        let resizing = Mutex::new(Resizing::of(&pod));
        let letter = Letter { desired: pod.clone(), pod, gone: false, forced: None, mirror_uid: None };
        Arc::new(Mailbox {
            notify: Arc::new(Notify::new()),
            letter: Mutex::new(letter),
            status,
            volumes_changed: AtomicBool::new(false),
            admitted: AtomicBool::new(false),
            resizing,
        })
    }

    pub(crate) fn letter(&self) -> Letter {
        self.letter.lock().clone()
    }

    /// Changes what is wanted and wakes the worker.
    pub(crate) fn write(&self, change: impl FnOnce(&mut Letter)) {
        change(&mut self.letter.lock());
        self.notify.notify_one();
    }

    /// Takes note of a pod that asks for nothing new.
    pub(crate) fn replace(&self, desired: Arc<Pod>) {
        let pod = self.resizing.lock().allocated_pod(&desired);
        let mut letter = self.letter.lock();
        (letter.pod, letter.desired) = (pod, desired);
    }

    /// How far resizing has come.
    pub(crate) fn resizing(&self) -> Resizing {
        self.resizing.lock().clone()
    }

    /// Changes how far resizing has come; the pod follows what is allocated.
    pub(crate) fn change_resizing(&self, change: impl FnOnce(&mut Resizing)) {
        let mut resizing = self.resizing.lock();
        change(&mut resizing);
        let mut letter = self.letter.lock();
        letter.pod = resizing.allocated_pod(&letter.desired);
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Something that its volumes or environment show has changed.
    pub(crate) fn volumes_changed(&self) {
        self.volumes_changed.store(true, Ordering::Release);
        self.notify.notify_one();
    }

    pub(super) fn take_volumes_changed(&self) -> bool {
        self.volumes_changed.swap(false, Ordering::AcqRel)
    }

    pub(super) fn set_admitted(&self) {
        self.admitted.store(true, Ordering::Release);
    }

    pub(crate) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    pub(super) fn set_status(&self, status: &PodStatus) {
        self.status.send_replace(Arc::new(status.clone()));
    }

    /// Waits until the pod has ended.
    pub(crate) async fn ended(&self) {
        let mut status = self.status.subscribe();
        // The sender is here.
        drop(status.wait_for(|status| rules::pod_conditions::is_terminal(&status.phase)).await);
    }

    /// The newest status, which may not have reached the API yet.
    pub(crate) fn status(&self) -> Arc<PodStatus> {
        self.status.borrow().clone()
    }
}
