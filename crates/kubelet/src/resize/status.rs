//! What a status tells of a container's resources: pure. Upstream: `convertContainerStatusResources`.

use super::Resources;
use crate::runtime_pod::{RuntimeContainer, State};
use api::core::v1::{Container, ResourceRequirements};
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;

/// Below these the kernel's numbers say less than the spec's.
const MIN_CPU_LIMIT: i64 = 10;
const MIN_SHARES: i64 = 2;

/// What is in force in a container; of one that does not run, what is allocated to it.
pub(crate) fn resources(
    container: &Container,
    from: &RuntimeContainer,
    actuated: &Resources,
) -> ResourceRequirements {
    let mut out = container.resources.clone();
    if from.state != State::Running {
        return out;
    }
    let runtime = from.resources.as_ref();
    let cpu_limit = runtime
        .filter(|r| r.cpu_quota > 0 && r.cpu_period > 0)
        .map(|r| r.cpu_quota.saturating_mul(1000) / r.cpu_period);
    let memory_limit = runtime.map(|r| r.memory_limit_in_bytes).filter(|limit| *limit > 0);
    // Rounded up, as the way there rounds down.
    let cpu_request =
        runtime.filter(|r| r.cpu_shares > 0).map(|r| (r.cpu_shares.saturating_mul(1000) + 1023) / 1024);
    let told = actuated.containers.get(&container.name);
    let memory_request = told.and_then(|told| told.requests.get("memory")).map(Quantity::value);
    set(&mut out.limits, "cpu", cpu_limit, MIN_CPU_LIMIT);
    set(&mut out.limits, "memory", memory_limit, 0);
    set(&mut out.requests, "cpu", cpu_request, MIN_SHARES);
    set(&mut out.requests, "memory", memory_request, 0);
    out
}

/// Replaces a number that the kernel contradicts; one that says the same keeps its words, and what is not there is not
/// added to an empty list.
fn set(list: &mut BTreeMap<String, Quantity>, name: &str, actual: Option<i64>, least: i64) {
    let (Some(actual), false) = (actual, list.is_empty()) else { return };
    let known = list.get(name).map_or(0, |q| rules::pod_requests::amount(name, q));
    if known == actual || known <= least && actual <= least {
        return;
    }
    // What the conversion to the kernel's unit lost is no difference.
    if name == "cpu"
        && crate::container_config::resources::shares(known)
            == crate::container_config::resources::shares(actual)
    {
        return;
    }
    let text = if name == "cpu" { format!("{actual}m") } else { actual.to_string() };
    if let Ok(quantity) = text.parse() {
        list.insert(name.to_owned(), quantity);
    }
}
