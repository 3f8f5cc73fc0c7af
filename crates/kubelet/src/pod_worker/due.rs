//! What of a plan can be done now, and when to look again for the rest.

use super::plan::{self, Action};
use super::{SECOND, Worker, act};
use api::core::v1::Pod;
use std::time::Duration;

const BACKING_OFF: &str = "CrashLoopBackOff";

/// What can be done now.
#[derive(Debug, Default)]
pub(super) struct Due {
    pub actions: Vec<Action>,
    pub wake_at: Option<i64>,
}

impl Due {
    fn wake(&mut self, at: i64) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

impl Worker {
    /// When `activeDeadlineSeconds` have passed.
    pub(super) fn deadline(&self) -> Option<i64> {
        let seconds = self.mailbox.letter().pod.spec.active_deadline_seconds?;
        let start = self.status.start_time?.unix();
        Some(start.saturating_add(seconds).saturating_mul(SECOND))
    }

    /// What of a plan can be done now, and when to look again for the rest.
    pub(super) fn due(&self, pod: &Pod, planned: Vec<Action>, now: i64) -> Due {
        let mut due = Due::default();
        for action in planned {
            let name = match &action {
                Action::BackOff { place, delay, until } => {
                    let failed = until.saturating_sub(i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX));
                    due.wake(match self.back_off(pod, *place, *delay, now < failed + SECOND) {
                        true => *until,
                        false => failed + SECOND,
                    });
                    continue;
                }
                Action::StartContainer(place) => plan::container_at(pod, *place).map(|c| c.name.clone()),
                Action::CreateSandbox { .. } => Some(String::new()),
                Action::Resize => Some(act::RESIZE.to_owned()),
                _ => None,
            };
            match name.and_then(|name| self.shared.held(&name, now)) {
                Some(until) => {
                    due.wake(until);
                    // Without a sandbox nothing that follows can be done.
                    if matches!(action, Action::CreateSandbox { .. }) {
                        due.actions.clear();
                        return due;
                    }
                }
                None => due.actions.push(action),
            }
        }
        due
    }

    /// Says that a container backs off. Not yet when its start failed for a reason of its own that is `fresh`: the status
    /// tells that first, for as long as upstream's kubelet takes to its next look. Returns whether it is said.
    fn back_off(&self, pod: &Pod, place: plan::Place, delay: Duration, fresh: bool) -> bool {
        let Some(container) = plan::container_at(pod, place) else { return true };
        let whole = apimachinery::time::Duration::from(delay);
        let message = format!(
            "back-off {whole} restarting failed container={} pod={}",
            container.name,
            crate::labels::format_pod(pod)
        );
        let reason = (BACKING_OFF.to_owned(), message);
        let mut reasons = self.shared.reasons.lock();
        match reasons.get(&container.name) {
            Some(known) if *known == reason => return true,
            Some((known, _)) if fresh && known != BACKING_OFF => return false,
            _ => {}
        }
        reasons.insert(container.name.clone(), reason);
        drop(reasons);
        self.context.events.container_warning(
            pod,
            &container.name,
            "BackOff",
            format!(
                "Back-off restarting failed container {} in pod {}",
                container.name,
                crate::labels::format_pod(pod)
            ),
        );
        // The status must say so.
        self.mailbox.notify.notify_one();
        true
    }
}
