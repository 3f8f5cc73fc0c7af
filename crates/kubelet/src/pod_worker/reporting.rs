//! What a pod's worker tells: its status, how far a resize has come, and what is counted when it has started.

use super::phase::Finality;
use super::status::{self, Forced};
use super::{Letter, SECOND, Worker};
use crate::resize::{self, Resources, Trigger};
use crate::runtime_pod::RuntimePod;
use api::core::v1::{ContainerStatus, Pod, PodStatus};
use std::time::Duration;

impl Worker {
    pub(super) fn make_status(
        &self,
        letter: &Letter,
        runtime: &RuntimePod,
        finality: Finality,
        forced: Option<&Forced>,
    ) -> PodStatus {
        let results = self.probes.results();
        let reasons = self.shared.reasons.lock().clone();
        let mut resizing = self.mailbox.resizing();
        resizing.actuated = self.shared.actuated.lock().clone();
        let mut status = status::status(&status::Inputs {
            pod: &letter.pod,
            old: &self.status,
            runtime,
            runtime_name: &self.context.runtime_info.name,
            results: &results,
            reasons: &reasons,
            resizing: &resizing,
            host_ips: &self.context.config.node_ips,
            finality,
            forced,
            recursive_read_only: self.context.runtime_info.recursive_read_only,
            now: crate::clock::time(),
        });
        if self.context.config.feature("ResourceHealthStatus") {
            let pod = &letter.pod;
            for one in &mut status.container_statuses {
                let shown = &mut one.allocated_resources_status;
                *shown = self.context.devices.health(&pod.metadata.uid, &one.name);
                if let Some(container) = pod.spec.containers.iter().find(|c| c.name == one.name) {
                    shown.extend(self.context.claims.health(pod, container));
                }
            }
        }
        status
    }

    /// Notes what was actuated, and tells when a resize begins, fails and is done. Upstream: the head of `SyncPod`.
    pub(super) fn follow_resize(&mut self, pod: &Pod, runtime: &RuntimePod) {
        let before = self.mailbox.resizing();
        let actuated = self.shared.actuated.lock().clone();
        if before.actuated != actuated {
            self.mailbox.change_resizing(|resizing| resizing.actuated = actuated.clone());
            resize::pending::save(&self.context.config, &self.mailbox);
        }
        let generation = pod.metadata.generation;
        if resize::plan::in_progress(pod, runtime, &actuated) {
            let error = self.shared.resize_error.lock().take();
            let reason = if error.is_some() { "Error" } else { "" };
            let message = error.unwrap_or_default();
            let (mut of, mut changed) = (generation, false);
            self.mailbox.change_resizing(|resizing| {
                (of, changed) = resizing.set_in_progress(reason, &message, generation);
            });
            if changed && !message.is_empty() {
                let told = resize::event_message("Pod resize error", pod, of, &message);
                self.context.events.warning(pod, "ResizeError", told);
            }
        } else if before.in_progress.is_some() {
            let (reached, mut ended) = (Resources::of(pod), None);
            self.mailbox.change_resizing(|resizing| ended = resizing.end(&reached));
            let Some(condition) = ended else { return };
            let told = resize::event_message("Pod resize completed", pod, condition.observed_generation, "");
            self.context.events.normal(pod, "ResizeCompleted", told);
            if let Some(pods) = self.pods.upgrade() {
                // What was given back may be what others wait for.
                pods.retry_resizes(Trigger::PodResized);
            }
        }
    }

    pub(super) fn publish(&mut self, status: PodStatus) {
        if status.phase == "Running" && self.status.phase == "Pending" {
            self.context.metrics.pod_start.observe_since(self.seen);
        }
        self.writer.set(&self.mailbox.letter(), status.clone());
        self.mailbox.set_status(&status);
        let before = std::mem::replace(&mut self.status, status.clone());
        self.count(&before, &status);
    }

    /// Counts what has changed between two statuses.
    fn count(&mut self, old: &PodStatus, new: &PodStatus) {
        let metrics = &self.context.metrics;
        for (kind, old, new) in [
            ("container", &old.container_statuses, &new.container_statuses),
            ("init_container", &old.init_container_statuses, &new.init_container_statuses),
            ("ephemeral_container", &old.ephemeral_container_statuses, &new.ephemeral_container_statuses),
        ] {
            let known: Vec<_> = old.iter().flat_map(ended).map(|ended| &ended.container_id).collect();
            for ended in new.iter().flat_map(ended).filter(|ended| !known.contains(&&ended.container_id)) {
                let code = ended.exit_code.to_string();
                metrics.terminated_containers.with(&[kind, &code, &ended.reason]).inc();
            }
        }
        let runs = |status: &ContainerStatus| status.state.running.is_some();
        if self.starting && new.phase == "Running" && new.container_statuses.iter().all(runs) {
            self.starting = false;
            self.count_start(new);
        }
    }

    /// How long the pod took from its creation. Upstream: `pod_startup_latency_tracker.go`.
    fn count_start(&self, status: &PodStatus) {
        let pod = self.mailbox.letter().pod;
        let created = pod.metadata.creation_timestamp.unix();
        if pod.metadata.creation_timestamp.is_zero() {
            return;
        }
        let nanos = crate::clock::now().saturating_sub(created.saturating_mul(SECOND)).max(0);
        let total = Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        self.context.metrics.pod_start_total.observe(total.as_secs_f64());
        // The objective is about pods that need no volume of the cluster's.
        let usual = |volume: &api::core::v1::Volume| {
            volume.secret.is_some()
                || volume.config_map.is_some()
                || volume.downward_api.is_some()
                || volume.empty_dir.is_some()
                || volume.projected.is_some()
        };
        if !pod.spec.volumes.iter().all(usual) {
            return;
        }
        let ended = status.init_container_statuses.iter().filter_map(|one| one.state.terminated.as_ref());
        let times = ended.filter_map(|ended| Some((ended.started_at?.unix(), ended.finished_at?.unix())));
        let (first, last) = times.fold((i64::MAX, i64::MIN), |(first, last), (began, finished)| {
            (first.min(began), last.max(finished))
        });
        let beginning = u64::try_from(last.saturating_sub(first)).unwrap_or(0);
        let beginning = Duration::from_secs(if first > last { 0 } else { beginning });
        let own = total.saturating_sub(self.shared.pulling_took()).saturating_sub(beginning);
        let metrics = &self.context.metrics;
        metrics.pod_start_sli.observe(own.as_secs_f64());
        if !pod.spec.host_network && metrics.first_network_pod.get() == 0.0 {
            metrics.first_network_pod.set(own.as_secs_f64());
        }
    }
}

/// How a container's runs ended that its status tells of.
fn ended(status: &ContainerStatus) -> impl Iterator<Item = &api::core::v1::ContainerStateTerminated> {
    status.state.terminated.iter().chain(&status.last_state.terminated)
}
