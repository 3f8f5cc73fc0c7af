//! Bringing a pod's cgroup and containers to what is allocated: limits that grow widen the pod first, limits that shrink
//! narrow it last. Upstream: `doPodResizeAction`.

use super::plan::{NAMES, Need, differs, need};
use super::{Resources, resizable};
use crate::cgroups::{PodLimits, pod_resources};
use crate::container_config::resources::container_resources;
use crate::context::Context;
use crate::runtime_pod::{RuntimeContainer, RuntimePod};
use api::core::v1::{Container, Pod};
use cri::v1;
use parking_lot::Mutex;
use rules::pod_requests::limit_of;
use std::sync::Arc;

/// What a container gets, and what it has.
struct Change<'a> {
    container: &'a Container,
    status: &'a RuntimeContainer,
}

/// Does it; what has been done is noted in `actuated` even when the rest fails.
pub(crate) async fn resize(
    context: &Context,
    pod: &Pod,
    runtime: &RuntimePod,
    actuated: &Mutex<Resources>,
) -> Result<(), String> {
    let now = actuated.lock().clone();
    let changes: Vec<Change<'_>> = resizable(pod)
        .filter_map(|container| Some(Change { container, status: runtime.container(&container.name)? }))
        .filter(|change| need(change.container, change.status, &now) == Need::Update)
        .collect();
    let before = pod_resources(&now.apply(&Arc::new(pod.clone())));
    let after = pod_resources(pod);
    check_usage(context, runtime, &changes, &now, before.memory, after.memory).await?;
    for name in NAMES {
        let (was, is) = (before.only(name), after.only(name));
        context.cgroups.update_pod(pod, was.growth_to(is)).map_err(|e| e.to_string())?;
        let mut of_name: Vec<&Change<'_>> = changes
            .iter()
            .filter(|c| {
                now.containers
                    .get(&c.container.name)
                    .is_some_and(|r| differs(&c.container.resources, r, name))
            })
            .collect();
        // What is given back can be given to others.
        of_name.sort_by_key(|c| {
            let old = now.containers.get(&c.container.name).map_or(0, |r| limit_of(r, name));
            limit_of(&c.container.resources, name) > old
        });
        for change in of_name {
            update(context, pod, change, name, actuated).await?;
        }
        context.cgroups.update_pod(pod, was.shrinkage_to(is)).map_err(|e| e.to_string())?;
    }
    actuated.lock().pod.clone_from(&pod.spec.resources);
    Ok(())
}

/// One resource of one container; the other stays as it is in force.
async fn update(
    context: &Context,
    pod: &Pod,
    change: &Change<'_>,
    name: &str,
    actuated: &Mutex<Resources>,
) -> Result<(), String> {
    let mut container = change.container.clone();
    let in_force = actuated.lock().containers.get(&container.name).cloned().unwrap_or_default();
    let mut next = in_force;
    for (list, wanted) in
        [(&mut next.limits, &container.resources.limits), (&mut next.requests, &container.resources.requests)]
    {
        match wanted.get(name) {
            Some(quantity) => drop(list.insert(name.to_owned(), quantity.clone())),
            None => drop(list.remove(name)),
        }
    }
    container.resources = next.clone();
    let mut linux = container_resources(pod, &container, context.swap());
    context.enforce(&mut linux);
    let request = v1::UpdateContainerResourcesRequest {
        container_id: change.status.id.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    context.runtime.update_container_resources(request).await.map_err(|e| e.to_string())?;
    actuated.lock().containers.insert(container.name.clone(), next);
    Ok(())
}

/// Memory that is in use is not taken away: the kernel would kill for it.
async fn check_usage(
    context: &Context,
    runtime: &RuntimePod,
    changes: &[Change<'_>],
    now: &Resources,
    pod_before: Option<i64>,
    pod_after: Option<i64>,
) -> Result<(), String> {
    let shrinks = |before: i64, after: i64| after != 0 && (before == 0 || after < before);
    let mut wrong = Vec::new();
    let pod_limit = pod_after.filter(|after| shrinks(pod_before.unwrap_or(0), *after));
    if let (Some(limit), Some(sandbox)) = (pod_limit, runtime.sandboxes.first()) {
        let request = v1::PodSandboxStatsRequest { pod_sandbox_id: sandbox.id.clone() };
        let stats = context.runtime.pod_sandbox_stats(request).await.ok().and_then(|answer| answer.stats);
        match stats.and_then(|stats| stats.linux?.memory?.usage_bytes) {
            None => wrong.push("missing pod memory usage".to_owned()),
            Some(usage) if usage.value >= u64::try_from(limit).unwrap_or(0) => wrong.push(format!(
                "attempting to set pod memory limit ({limit}) below current usage ({})",
                usage.value
            )),
            Some(_) => {}
        }
    }
    for change in changes {
        let name = &change.container.name;
        let limit = limit_of(&change.container.resources, "memory");
        let old = now.containers.get(name).map_or(0, |r| limit_of(r, "memory"));
        if !shrinks(old, limit) {
            continue;
        }
        let request = v1::ContainerStatsRequest { container_id: change.status.id.clone() };
        let stats = context.runtime.container_stats(request).await.ok().and_then(|answer| answer.stats);
        match stats.and_then(|stats| stats.memory?.usage_bytes) {
            None => wrong.push(format!("missing container {name:?} memory usage")),
            Some(usage) if usage.value >= u64::try_from(limit).unwrap_or(0) => wrong.push(format!(
                "attempting to set container {name:?} memory limit ({limit}) below current usage ({})",
                usage.value
            )),
            Some(_) => {}
        }
    }
    match wrong.as_slice() {
        [] => Ok(()),
        [only] => Err(format!("cannot decrease memory limits: {only}")),
        many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
    }
}

impl PodLimits {
    /// This resource alone.
    fn only(self, name: &str) -> Self {
        match name {
            "memory" => PodLimits { memory: self.memory, ..Default::default() },
            _ => PodLimits { memory: None, ..self },
        }
    }

    /// Those numbers of `next` that are greater, or that there were none of. No limit counts as the greatest.
    fn growth_to(self, next: Self) -> Self {
        let pick = |old: Option<i64>, new: Option<i64>| new.filter(|new| old.is_some_and(|old| *new > old));
        self.picked(next, pick)
    }

    /// Those numbers of `next` that are smaller.
    fn shrinkage_to(self, next: Self) -> Self {
        let pick = |old: Option<i64>, new: Option<i64>| new.filter(|new| old.is_none_or(|old| *new < old));
        self.picked(next, pick)
    }

    fn picked(self, next: Self, pick: impl Fn(Option<i64>, Option<i64>) -> Option<i64>) -> Self {
        PodLimits {
            cpu_shares: pick(self.cpu_shares, next.cpu_shares),
            cpu_quota: pick(self.cpu_quota, next.cpu_quota),
            memory: pick(self.memory, next.memory),
            ..Default::default()
        }
    }
}
