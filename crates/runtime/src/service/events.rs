//! What happens, told to whoever listens: from the shims to the state of containers, and from there to CRI's events.

use super::{Container, Inner, Sandbox, blocking, io_error, sandbox, status};
use crate::record::now;
use crate::shims::Listener;
use cri::v1::{ContainerEventResponse, ContainerEventType};
use cri::{Error, EventStream};
use futures::StreamExt;
use shim::protocol::{Event, EventKind, Exit};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::broadcast;

/// Listeners that fall behind by more than this are told so.
pub(crate) const BACKLOG: usize = 1024;

/// Passes on what the shim of one sandbox tells.
pub(crate) struct PodListener {
    pub(crate) inner: Weak<Inner>,
    pub(crate) sandbox: String,
}

impl Listener for PodListener {
    fn event(&self, event: Event) {
        let Some(inner) = self.inner.upgrade() else { return };
        match event.what {
            EventKind::Started => {
                if let Ok(container) = inner.container(&event.container) {
                    inner.started(&container, 0, event.at);
                }
            }
            EventKind::Exited(exit) => {
                if let Ok(container) = inner.container(&event.container) {
                    inner.exited(&container, exit);
                }
            }
            EventKind::SandboxExited => {
                if let Ok(sandbox) = inner.sandbox(&self.sandbox) {
                    tokio::spawn(async move { sandbox::died(inner, sandbox).await });
                }
            }
            // The last is in the exit; the others follow calls of ours.
            EventKind::Oom | EventKind::Created | EventKind::Deleted => {}
        }
    }

    fn gone(&self) {
        let Some(inner) = self.inner.upgrade() else { return };
        if let Ok(sandbox) = inner.sandbox(&self.sandbox)
            && sandbox.is_ready()
        {
            tracing::error!(sandbox = %sandbox.id, "the shim of a pod has died: killing what is left of the pod");
            tokio::spawn(async move { sandbox::died(inner, sandbox).await });
        }
    }
}

impl Inner {
    /// A container's program runs. Told once, whoever notices first.
    pub(crate) fn started(&self, container: &Container, pid: i32, at: i64) {
        if container.set_started(pid, at) {
            self.tell(&container.id, &container.sandbox, ContainerEventType::ContainerStartedEvent, at);
        } else if pid != 0 {
            container.live.lock().pid = pid;
        }
    }

    /// A container has exited; what is left in its cgroup is killed, and the cgroup removed.
    pub(crate) fn exited(&self, container: &Arc<Container>, exit: Exit) {
        let at = exit.finished_at;
        if !container.set_exited(exit) {
            return;
        }
        self.tell(&container.id, &container.sandbox, ContainerEventType::ContainerStoppedEvent, at);
        let group = self.cgroups.group(&container.record().cgroup);
        let id = container.id.clone();
        tokio::spawn(blocking(move || {
            let group = group.map_err(io_error("cgroup"))?;
            if let Err(error) = group.kill(Duration::from_secs(10)).and_then(|_| group.remove()) {
                // Tried again when the container is removed.
                tracing::debug!(container = %id, %error, "the cgroup of an exited container is still busy");
            }
            Ok(())
        }));
    }

    pub(crate) fn tell_sandbox(&self, sandbox: &Sandbox, kind: ContainerEventType) {
        self.tell(&sandbox.id, &sandbox.id, kind, now());
    }

    pub(crate) fn tell(&self, id: &str, sandbox: &str, kind: ContainerEventType, at: i64) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let of_sandbox = self.sandbox(sandbox).ok();
        let containers = self.containers_of(sandbox);
        // The last listener may just have left.
        let _ = self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: at,
            pod_sandbox_status: of_sandbox.map(|sandbox| status::sandbox_status(&sandbox)),
            containers_statuses: containers.iter().map(|container| status::of_container(container)).collect(),
        });
    }
}

pub(super) fn stream(receiver: broadcast::Receiver<ContainerEventResponse>) -> EventStream {
    futures::stream::unfold(receiver, |mut receiver| async move {
        match receiver.recv().await {
            Ok(event) => Some((Ok(event), receiver)),
            Err(broadcast::error::RecvError::Lagged(count)) => {
                let error = Error::resource_exhausted(format!("{count} container events were dropped"));
                Some((Err(error), receiver))
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    })
    .boxed()
}
