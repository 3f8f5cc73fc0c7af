//! What the containers of a pod ask for together, and what the pod asks for itself. Upstream: `AggregateContainerRequests`, `AggregateContainerLimits`.

use super::resource_names::is_overcommit_allowed;
use crate::check::Check;
use crate::tree::{at, typed};
use api::core::v1::{Container, PodSpec, ResourceRequirements};
use apimachinery::field::Path;
use apimachinery::json;
use apimachinery::quantity::Quantity;
use apimachinery::value::Value;
use std::collections::BTreeMap;

type Quantities = BTreeMap<String, Quantity>;

fn add(sum: &mut Quantities, more: &Quantities) {
    for (name, quantity) in more {
        sum.entry(name.clone()).or_default().add(quantity);
    }
}

fn at_least(most: &mut Quantities, other: &Quantities) {
    for (name, quantity) in other {
        let known = most.entry(name.clone()).or_insert_with(|| quantity.clone());
        if *known < *quantity {
            *known = quantity.clone();
        }
    }
}

/// Containers run together; each init container runs beside the sidecars before it, and sidecars run on.
fn together(spec: &PodSpec, of: fn(&ResourceRequirements) -> &Quantities) -> Quantities {
    let (mut sum, mut sidecars, mut most) = (Quantities::new(), Quantities::new(), Quantities::new());
    let own = |container: &Container| of(&container.resources).clone();
    spec.containers.iter().for_each(|container| add(&mut sum, &own(container)));
    for container in &spec.init_containers {
        let mut needs = own(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, &needs);
            add(&mut sidecars, &needs);
            needs = sidecars.clone();
        } else {
            add(&mut needs, &sidecars);
        }
        at_least(&mut most, &needs);
    }
    at_least(&mut sum, &most);
    sum
}

fn is_huge_pages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_pages(name)
}

/// Resources of the whole pod, partly said: limits of huge pages, and requests, are what its containers add up to.
pub(super) fn default_pod_resources(spec: &mut Value) {
    // Few pods say any, and to read a whole spec is not free.
    let says =
        |member| at(spec, &["resources", member]).and_then(Value::as_object).is_some_and(|m| !m.is_empty());
    if !says("limits") && !says("requests") {
        return;
    }
    let said = typed::<PodSpec>(spec);
    let Some(mut resources) = said.resources.clone() else { return };
    for (name, quantity) in together(&said, |resources| &resources.limits) {
        if is_huge_pages(&name) && !resources.requests.contains_key(&name) {
            resources.limits.entry(name).or_insert(quantity);
        }
    }
    if !resources.limits.is_empty() {
        for (name, quantity) in together(&said, |resources| &resources.requests) {
            if is_of_pods(&name) && is_overcommit_allowed(&name) {
                resources.requests.entry(name).or_insert(quantity);
            }
        }
        for (name, quantity) in resources.limits.iter().filter(|(name, _)| is_of_pods(name)) {
            resources.requests.entry(name.clone()).or_insert_with(|| quantity.clone());
        }
    }
    for (member, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        if !amounts.is_empty() {
            spec["resources"][member] = json!(amounts);
        }
    }
}

/// A pod's own resources are at least what its containers ask for together, and no container has a higher limit.
pub(super) fn within_the_pod(
    check: &mut Check,
    spec: &PodSpec,
    resources: &ResourceRequirements,
    path: &Path,
) {
    let at = |member: &'static str, name: &str| path.child(member).key(name);
    for (name, total) in together(spec, |resources| &resources.requests) {
        if let Some(asked) = resources.requests.get(&name).filter(|asked| total > **asked) {
            let why = format!("must be greater than or equal to aggregate container requests of {total}");
            check.invalid(&at("requests", &name), asked.to_string().as_str(), why);
        }
    }
    let limits = together(spec, |resources| &resources.limits);
    for (name, total) in limits.iter().filter(|(name, _)| is_huge_pages(name)) {
        if let Some(most) = resources.limits.get(name).filter(|most| total > *most) {
            let why = format!("must be greater than or equal to aggregate container limits of {total}");
            check.invalid(&at("limits", name), most.to_string().as_str(), why);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (name, limit) in &container.resources.limits {
            if let Some(most) = resources.limits.get(name).filter(|most| limit > most) {
                let why = format!("must be less than or equal to pod limits of {most}");
                let at = path.child("containers").index(i).key(name.as_str()).child("limits");
                check.invalid(&at, limit.to_string().as_str(), why);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_asks_for_what_its_containers_add_up_to() {
        let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = "Always".into();
        let mut spec = json!({
            "containers": [container("200m"), container("100m")],
            "initContainers": [sidecar, container("1")],
            "resources": {"limits": {"memory": "1Gi", "cpu": "2", "odd.io/x": "1"}},
        });
        default_pod_resources(&mut spec);
        assert_eq!(spec["resources"]["requests"], json!({"cpu": "1100m", "memory": "1Gi"}));
    }
}
