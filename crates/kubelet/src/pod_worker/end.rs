//! The end of a pod: stop what runs, report the last status, take down volumes and cgroup, let the API object go, and
//! when that is gone, remove what is left in the runtime and on disk.

use super::phase::Finality;
use super::status::{Forced, finish};
use super::{SECOND, Worker, stop};
use crate::resize::Trigger;
use api::core::v1::Pod;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use cri::v1;
use std::time::Duration;

/// Upstream's message when a runtime does not do what it was told in time.
const RETRY: i64 = SECOND;

impl Worker {
    pub(super) async fn end(&mut self, forced: Option<Forced>) {
        self.stop(forced.as_ref()).await;
        self.probes.stop();
        self.unprepare().await;
        self.give_back();
        self.report_end(forced.as_ref()).await;
        self.release_resources().await;
        self.wait_until_gone().await;
        self.clean_up().await;
    }

    /// Kills until nothing can run; a shorter grace period takes over from a longer one.
    async fn stop(&mut self, forced: Option<&Forced>) {
        self.probes.stop_liveness_and_startup();
        loop {
            let letter = self.mailbox.letter();
            let Some(runtime) = self.look().await else {
                self.sleep_until(crate::clock::now() + RETRY).await;
                continue;
            };
            if !runtime.could_run() {
                return;
            }
            if forced.is_none() {
                self.publish_going(&letter, &runtime);
            }
            let context = self.context.clone();
            let pod = letter.pod.clone();
            let grace = pod.metadata.deletion_grace_period_seconds;
            let given = forced.and_then(|forced| forced.grace);
            let killing = stop::kill_pod(&context, Some(&pod), &runtime, given);
            tokio::pin!(killing);
            let failed = loop {
                let notify = self.mailbox.notify.clone();
                tokio::select! {
                    killed = &mut killing => break killed.err(),
                    () = notify.notified() => {
                        let newest = self.mailbox.letter();
                        let wanted = newest.pod.metadata.deletion_grace_period_seconds;
                        if wanted.is_some_and(|wanted| grace.is_none_or(|grace| wanted < grace)) {
                            break None;
                        }
                        if forced.is_none() && let Some(now) = self.look().await {
                            self.publish_going(&newest, &now);
                        }
                    }
                }
            };
            if let Some(error) = failed {
                self.context.events.warning(
                    &letter.pod,
                    "FailedKillPod",
                    format!("error killing pod: {error}"),
                );
                self.sleep_until(crate::clock::now() + RETRY).await;
            }
        }
    }

    /// Shows how stopping proceeds; a terminal phase is shown only when everything has stopped.
    fn publish_going(&mut self, letter: &super::Letter, runtime: &crate::runtime_pod::RuntimePod) {
        let before = self.status.phase.clone();
        let mut status = self.make_status(letter, runtime, Finality::Going, None);
        if rules::pod_conditions::is_terminal(&status.phase) && !rules::pod_conditions::is_terminal(&before) {
            status.phase = before;
        }
        self.publish(status);
    }

    /// Tells drivers that the pod is done with its devices, before anybody hears of its end: they may be another's then.
    async fn unprepare(&self) {
        loop {
            let pod = self.mailbox.letter().pod;
            let Err(error) = self.context.claims.unprepare(&pod).await else { return };
            tracing::warn!(pod = %crate::labels::format_pod(&pod), error, "dynamic resources were not unprepared");
            self.sleep_until(crate::clock::now() + RETRY).await;
        }
    }

    /// Devices, processors and memory are free, too, when somebody hears of the pod's end.
    fn give_back(&self) {
        let uid = &self.mailbox.letter().pod.metadata.uid;
        let context = &self.context;
        context.devices.retain(|known| known != uid);
        if let Some(cpus) = &context.cpus {
            cpus.retain(|known| known != uid);
        }
        if let Some(memory) = &context.memory {
            memory.retain(|known| known != uid);
        }
    }

    async fn report_end(&mut self, forced: Option<&Forced>) {
        let letter = self.mailbox.letter();
        let runtime = self.look().await.unwrap_or_default();
        let mut status = self.make_status(&letter, &runtime, Finality::Terminal, forced);
        finish(&letter.pod, &mut status, forced.is_some() && runtime.containers.is_empty());
        self.publish(status);
        if let Some(pods) = self.pods.upgrade() {
            pods.retry_resizes(Trigger::PodTerminated);
        }
    }

    async fn release_resources(&self) {
        let pod = self.mailbox.letter().pod;
        let context = self.context.clone();
        let uid = pod.metadata.uid.clone();
        for attempt in 0..6u32 {
            let (context, uid, pod) = (context.clone(), uid.clone(), pod.clone());
            let released = tokio::task::spawn_blocking(move || {
                context.volumes.unmount(&context.config, &uid)?;
                let began = std::time::Instant::now();
                let removed = context.cgroups.remove_pod(&pod);
                context.metrics.cgroup_operations.with(&["destroy"]).observe_since(began);
                removed
            });
            match released.await {
                Ok(Err(error)) => {
                    tracing::debug!(pod = %crate::labels::format_pod(&self.mailbox.letter().pod), %error, "not released yet");
                    // A killed process leaves its cgroup a moment after the runtime has seen it die.
                    tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
                }
                _ => return,
            }
        }
    }

    /// Lets the object go once its deletion was asked for, and waits until it is gone.
    async fn wait_until_gone(&mut self) {
        self.context.objects.release(&self.mailbox.letter().pod.metadata.uid);
        let mut deleted = false;
        loop {
            let letter = self.mailbox.letter();
            if letter.gone {
                return;
            }
            if letter.pod.metadata.deletion_timestamp.is_some() && !deleted {
                self.writer.written().await;
                deleted = self.delete(&letter.pod).await;
                if !deleted {
                    self.sleep_until(crate::clock::now() + RETRY).await;
                    continue;
                }
            }
            self.mailbox.notify.notified().await;
        }
    }

    async fn delete(&self, pod: &Pod) -> bool {
        let meta = &pod.metadata;
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(meta.uid.clone()), ..Default::default() }),
            ..Default::default()
        };
        match self.context.client.namespaced::<Pod>(&meta.namespace).delete(&meta.name, &options).await {
            Ok(_) => true,
            // Gone already, or another pod has the name.
            Err(error) if error.is_not_found() || error.is_conflict() => true,
            Err(error) => {
                tracing::warn!(pod = %crate::labels::format_pod(pod), %error, "a pod that has ended could not be deleted");
                false
            }
        }
    }

    async fn clean_up(&mut self) {
        let pod = self.mailbox.letter().pod;
        let meta = &pod.metadata;
        if let Some(runtime) = self.look().await {
            for container in &runtime.containers {
                let request = v1::RemoveContainerRequest { container_id: container.id.clone() };
                let _ = self.context.runtime.remove_container(request).await;
                let link =
                    format!("{}_{}_{}-{}.log", meta.name, meta.namespace, container.name, container.id);
                let _ = std::fs::remove_file(self.context.config.container_logs_dir.join(link));
            }
            for sandbox in &runtime.sandboxes {
                let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
                if let Err(error) = self.context.runtime.remove_pod_sandbox(request).await {
                    tracing::warn!(sandbox = %sandbox.id, %error, "a sandbox could not be removed");
                }
            }
        }
        self.context.images.forget(&meta.uid);
        self.context.user_namespaces.release(&meta.uid);
        let context = self.context.clone();
        let logs = context.config.pod_log_dir(&meta.namespace, &meta.name, &meta.uid);
        let uid = meta.uid.clone();
        let removed = tokio::task::spawn_blocking(move || {
            let _ = std::fs::remove_dir_all(logs);
            context.volumes.tear_down(&context.config, &uid)
        });
        if let Ok(Err(error)) = removed.await {
            tracing::warn!(pod = %crate::labels::format_pod(&pod), %error, "the directory of a pod could not be removed");
        }
    }
}
