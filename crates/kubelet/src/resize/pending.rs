//! Resizes that wait to be allocated: tried when the spec changes, and again whenever room may have been made. Upstream:
//! `allocation_manager.go`.

use super::{Resources, events};
use crate::pod_worker::{Mailbox, admission};
use crate::pods::Pods;
use api::core::v1::Pod;
use rules::pod_requests::{Options, requests_as};
use rules::qos::{QosClass, pod_qos};
use std::cmp::Reverse;
use std::sync::Arc;

impl Pods {
    /// Notes that a pod asks for other resources than it has, and tries.
    pub(crate) fn resize_wanted(&self, uid: &str) {
        {
            let mut waiting = self.resizes.lock();
            if !waiting.iter().any(|known| known == uid) {
                waiting.push(uid.to_owned());
            }
        }
        self.retry_resizes();
    }

    /// Tries all that wait: those that ask for no more first, then by priority, quality of service and time.
    pub(crate) fn retry_resizes(&self) {
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
            if !self.allocate(&mailbox) {
                waiting.push(mailbox.letter().pod.metadata.uid.clone());
            }
        }
    }

    /// Whether nothing is left to allocate.
    fn allocate(&self, mailbox: &Arc<Mailbox>) -> bool {
        let letter = mailbox.letter();
        let desired = &letter.desired;
        let wanted = Resources::of(desired);
        let resizing = mailbox.resizing();
        // A pod that is not admitted yet will be admitted as it asks to be.
        let Some(allocated) = &resizing.allocated else { return true };
        if *allocated == wanted {
            if resizing.pending.is_some() {
                mailbox.change_resizing(|resizing| resizing.pending = None);
                mailbox.wake();
            }
            return true;
        }
        let generation = desired.metadata.generation;
        let node = self.context.node.borrow().clone();
        match admission::admit(desired, &node, &self.admitted_before(desired)) {
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
                mailbox.wake();
                true
            }
            Err(refused) => {
                let mut changed = false;
                mailbox
                    .change_resizing(|resizing| changed = resizing.set_pending(&refused.message, generation));
                if changed {
                    let what = format!("Pod resize {}", refused.reason);
                    let message = events::message(&what, desired, generation, &refused.message);
                    self.context.events.warning(desired, "ResizeDeferred", message);
                    mailbox.wake();
                }
                false
            }
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
