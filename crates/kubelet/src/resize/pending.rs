//! Resizes that wait to be allocated: tried when the spec changes, and again whenever room may have been made. Upstream:
//! `allocation_manager.go`.

use super::{DEFERRED, INFEASIBLE, Resources, events, infeasible};
use crate::pod_worker::{Mailbox, admission};
use crate::pods::Pods;
use api::core::v1::Pod;
use rules::pod_requests::{Options, requests_as};
use rules::qos::{QosClass, pod_qos};
use std::cmp::Reverse;
use std::sync::Arc;

/// What may have made room for those that wait, as metrics call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    PodResized,
    PodUpdated,
    PodsRemoved,
    PodTerminated,
}

impl Trigger {
    fn as_str(self) -> &'static str {
        match self {
            Trigger::PodResized => "pod_resized",
            Trigger::PodUpdated => "pod_updated",
            Trigger::PodsRemoved => "pods_removed",
            Trigger::PodTerminated => "pod_terminated",
        }
    }
}

/// What became of a resize that was tried.
enum Tried {
    /// Nothing is left to allocate.
    Done,
    Deferred,
}

impl Pods {
    /// Notes that a pod asks for other resources than it has, and tries.
    pub(crate) fn resize_wanted(&self, uid: &str) {
        {
            let mut waiting = self.resizes.lock();
            if !waiting.iter().any(|known| known == uid) {
                waiting.push(uid.to_owned());
            }
        }
        self.retry_resizes(Trigger::PodUpdated);
    }

    /// Tries all that wait: those that ask for no more first, then by priority, quality of service and time.
    pub(crate) fn retry_resizes(&self, trigger: Trigger) {
        let mut waiting = self.resizes.lock();
        if waiting.is_empty() {
            return;
        }
        let mut mailboxes: Vec<Arc<Mailbox>> = waiting.iter().filter_map(|uid| self.get(uid)).collect();
        mailboxes.retain(|mailbox| !mailbox.letter().ends());
        mailboxes.sort_by_key(|mailbox| {
            let letter = mailbox.letter();
            let since = mailbox.resizing().pending.and_then(|c| c.last_transition_time);
            (
                grows(&letter.pod, &letter.desired),
                Reverse(letter.desired.spec.priority.unwrap_or(0)),
                pod_qos(&letter.desired) != QosClass::Guaranteed,
                since.map_or(i64::MAX, |time| time.unix()),
            )
        });
        waiting.clear();
        for mailbox in mailboxes {
            match self.allocate(&mailbox, trigger) {
                Tried::Done => {}
                Tried::Deferred => waiting.push(mailbox.letter().pod.metadata.uid.clone()),
            }
        }
    }

    fn allocate(&self, mailbox: &Arc<Mailbox>, trigger: Trigger) -> Tried {
        let letter = mailbox.letter();
        let desired = &letter.desired;
        let wanted = Resources::of(desired);
        let resizing = mailbox.resizing();
        // A pod that is not admitted yet will be admitted as it asks to be.
        let Some(allocated) = &resizing.allocated else { return Tried::Done };
        if *allocated == wanted {
            if resizing.pending.is_some() {
                mailbox.change_resizing(|resizing| resizing.pending = None);
                mailbox.wake();
            }
            return Tried::Done;
        }
        if let Some(never) = infeasible::why(&self.context, allocated, desired) {
            self.context.metrics.resizes.infeasible.with(&[never.detail]).inc();
            self.wait(mailbox, INFEASIBLE, &never.message);
            return Tried::Done;
        }
        let generation = desired.metadata.generation;
        let node = self.context.node.borrow().clone();
        match admission::admit(&self.context.config, desired, &node, &self.admitted_before(desired)) {
            Ok(()) => {
                mailbox.change_resizing(|resizing| {
                    resizing.allocated = Some(wanted);
                    resizing.pending = None;
                    resizing.in_progress = None;
                    resizing.set_in_progress("", "", generation);
                });
                self.save_resources(mailbox);
                let message = events::message("Pod resize started", desired, generation, "");
                self.context.events.normal(desired, "ResizeStarted", message);
                if resizing.pending.is_some_and(|pending| pending.reason == DEFERRED) {
                    self.context.metrics.resizes.accepted.with(&[trigger.as_str()]).inc();
                }
                mailbox.wake();
                Tried::Done
            }
            Err(refused) => {
                self.wait(mailbox, &refused.reason, &refused.message);
                Tried::Deferred
            }
        }
    }

    /// Tells that a resize cannot be done, or not now.
    fn wait(&self, mailbox: &Mailbox, why: &str, message: &str) {
        let desired = mailbox.letter().desired;
        let generation = desired.metadata.generation;
        let (reason, event) = match why {
            INFEASIBLE => (INFEASIBLE, "ResizeInfeasible"),
            _ => (DEFERRED, "ResizeDeferred"),
        };
        let mut changed = false;
        mailbox.change_resizing(|resizing| changed = resizing.set_pending(reason, message, generation));
        if changed {
            let told = events::message(&format!("Pod resize {why}"), &desired, generation, message);
            self.context.events.warning(&desired, event, told);
            mailbox.wake();
        }
    }

    /// Writes down what is allocated and actuated.
    pub(crate) fn save_resources(&self, mailbox: &Mailbox) {
        save(&self.context.config, mailbox);
    }
}

/// Writes down what is allocated to a pod and actuated in it.
pub(crate) fn save(config: &crate::config::Config, mailbox: &Mailbox) {
    let resizing = mailbox.resizing();
    let record = super::record::Record {
        allocated: resizing.allocated.unwrap_or_default(),
        actuated: resizing.actuated,
    };
    let uid = mailbox.letter().pod.metadata.uid.clone();
    if let Err(error) = super::record::save(config, &uid, &record) {
        tracing::warn!(%uid, %error, "what is allocated to a pod could not be written down");
    }
}

/// Whether the pod would request more of anything than it has.
fn grows(now: &Pod, desired: &Pod) -> bool {
    let before = requests_as::<i64>(now, Options::default());
    let after = requests_as::<i64>(desired, Options::default());
    let more = |name: &str| after.get(name).unwrap_or(&0) > before.get(name).unwrap_or(&0);
    super::plan::NAMES.into_iter().any(more)
}
