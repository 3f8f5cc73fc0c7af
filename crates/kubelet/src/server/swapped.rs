//! What pods and their containers have swapped out, by the kernel's own account: CRI has no figure for a pod, and not every
//! runtime one for a container. Upstream: `cadvisorInfoToSwapStats`.

use super::Inner;
use crate::labels::POD_UID;
use cri::v1::{ContainerStats, SwapUsage, UInt64Value};
use linux::cgroup::Cgroups;
use std::collections::HashMap;

/// Of a group; nothing where the kernel does not account for swap.
fn of_group(cgroups: &Cgroups, path: &str) -> Option<SwapUsage> {
    let memory = cgroups.group(path).ok()?.stats().memory?;
    let used = memory.swap?;
    let value = |value| Some(UInt64Value { value });
    Some(SwapUsage {
        timestamp: crate::clock::now(),
        swap_available_bytes: memory.swap_limit.and_then(|limit| value(limit.saturating_sub(used))),
        swap_usage_bytes: value(used),
    })
}

/// By pod uid. Containers whose runtime does not tell are told of.
pub(super) async fn tell(inner: &Inner, containers: &mut [ContainerStats]) -> HashMap<String, SwapUsage> {
    let groups = inner.pods.list().into_iter().map(|mailbox| {
        let pod = mailbox.letter().pod;
        (pod.metadata.uid.clone(), inner.context.cgroups.pod_parent(&pod))
    });
    let groups: HashMap<String, String> = groups.collect();
    let untold: Vec<(usize, String)> = containers
        .iter()
        .enumerate()
        .filter(|(_, one)| one.swap.is_none())
        .filter_map(|(at, one)| {
            let attributes = one.attributes.as_ref()?;
            let group = groups.get(attributes.labels.get(POD_UID)?)?;
            Some((at, format!("{group}/{}", attributes.id)))
        })
        .collect();
    let read = move || {
        let Ok(cgroups) = Cgroups::detect() else { return Default::default() };
        let pods = groups.into_iter().filter_map(|(uid, group)| Some((uid, of_group(&cgroups, &group)?)));
        let told = untold.into_iter().filter_map(|(at, group)| Some((at, of_group(&cgroups, &group)?)));
        (pods.collect(), told.collect::<Vec<_>>())
    };
    let (pods, told) = tokio::task::spawn_blocking(read).await.unwrap_or_default();
    for (at, usage) in told {
        containers[at].swap = Some(usage);
    }
    pods
}
