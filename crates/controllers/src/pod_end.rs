//! Ends pods from outside: marks them as failed or as disrupted, then deletes them.

use api::core::v1::{Pod, PodCondition};
use apimachinery::meta::options::DeleteOptions;
use client::{Client, ObjectKey, Patch, PatchParams, Result};
use rules::pod_conditions::{self, DISRUPTION_TARGET};
use serde_json::json;

/// Why a pod is disrupted.
pub(crate) type Disruption = (&'static str, &'static str);

fn disruption(pod: &Pod, (reason, message): Disruption) -> PodCondition {
    PodCondition {
        type_: DISRUPTION_TARGET.into(),
        observed_generation: pod.metadata.generation,
        status: "True".into(),
        reason: reason.into(),
        message: message.into(),
        ..Default::default()
    }
}

/// Whether the pod may be killed, or must be given its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// Nobody runs it any more: it has failed, and is gone at once.
    AtOnce,
    /// Its node ends it.
    Gracefully,
}

/// Writes into the status why the pod goes, and deletes it. An absent pod is no error.
pub(crate) async fn end(
    client: &Client,
    key: &ObjectKey,
    how: How,
    why: Option<Disruption>,
    wanted: impl Fn(&Pod) -> bool,
) -> Result<bool> {
    let api = client.namespaced::<Pod>(&key.namespace);
    let Some(pod) = api.get_opt(&key.name).await? else { return Ok(false) };
    if !wanted(&pod) {
        return Ok(false);
    }
    let mut status = pod.status.clone();
    let terminal = pod_conditions::is_terminal(&status.phase);
    if how == How::AtOnce && !terminal {
        status.phase = "Failed".into();
        status.observed_generation = pod.metadata.generation;
    }
    if let Some(why) = why
        && (how == How::Gracefully || !terminal)
    {
        pod_conditions::set(&mut status.conditions, disruption(&pod, why), crate::support::now());
    }
    if status != pod.status {
        let changed = status.conditions.iter().filter(|condition| !pod.status.conditions.contains(condition));
        let patch = json!({
            "metadata": {"uid": pod.metadata.uid},
            "status": {
                "phase": status.phase,
                "observedGeneration": status.observed_generation,
                "conditions": changed.collect::<Vec<_>>(),
            },
        });
        match api.patch_status(&key.name, &Patch::Strategic(patch), &PatchParams::default()).await {
            Err(error) if error.is_not_found() => return Ok(false),
            done => drop(done?),
        }
    }
    let grace_period_seconds = (how == How::AtOnce).then_some(0);
    match api.delete(&key.name, &DeleteOptions { grace_period_seconds, ..Default::default() }).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(true),
    }
}
