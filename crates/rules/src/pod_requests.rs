//! What a pod asks of its node (`PodRequests`) and may use at most (`PodLimits`): containers add up, restartable init
//! containers stay beside them, the largest init step is the floor, pod-level resources replace, overhead comes on top.
//! Upstream: component-helpers/resource. Works on [`Quantity`] (for status and quota) and on plain `i64` (for speed).

use crate::container_status::is_restartable_init_container;
use api::core::v1::{Container, ContainerStatus, Pod, ResourceRequirements};
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;

/// Resource names and quantities, as in the API.
pub type ResourceList = BTreeMap<String, Quantity>;

/// A number that requests can be added up in.
pub trait Amount: Clone {
    /// The amount of a named resource: thousandths of a core for `cpu`, whole units for the rest when it is an integer.
    fn of(name: &str, quantity: &Quantity) -> Self;
    fn add(&mut self, other: &Self);
    fn less_than(&self, other: &Self) -> bool;
    fn is_zero(&self) -> bool;
}

impl Amount for i64 {
    fn of(name: &str, quantity: &Quantity) -> Self {
        amount(name, quantity)
    }
    fn add(&mut self, other: &Self) {
        *self = self.saturating_add(*other);
    }
    fn less_than(&self, other: &Self) -> bool {
        self < other
    }
    fn is_zero(&self) -> bool {
        *self == 0
    }
}

impl Amount for Quantity {
    fn of(_: &str, quantity: &Quantity) -> Self {
        quantity.clone()
    }
    fn add(&mut self, other: &Self) {
        Quantity::add(self, other);
    }
    fn less_than(&self, other: &Self) -> bool {
        Quantity::cmp(self, other).is_lt()
    }
    fn is_zero(&self) -> bool {
        Quantity::is_zero(self)
    }
}

/// Thousandths of a core for `cpu`, whole units, rounded up, for everything else.
pub fn amount(name: &str, quantity: &Quantity) -> i64 {
    if name == "cpu" { quantity.milli_value() } else { quantity.value() }
}

/// How to count; the default counts the spec with overhead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Also consider what status says was allocated and actuated (in-place resize).
    pub use_status: bool,
    /// Leave `spec.overhead` out.
    pub exclude_overhead: bool,
    /// Ignore `spec.resources`.
    pub skip_pod_level: bool,
}

/// Whether pod-level resources may name this resource.
pub fn is_pod_level_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// Whether the pod states requests of its own, above its containers'.
pub fn has_pod_level_requests(pod: &Pod) -> bool {
    pod.spec.resources.as_ref().is_some_and(|r| r.requests.keys().any(|n| is_pod_level_resource(n)))
}

/// Whether the pod states limits of its own, above its containers'.
pub fn has_pod_level_limits(pod: &Pod) -> bool {
    pod.spec.resources.as_ref().is_some_and(|r| r.limits.keys().any(|n| is_pod_level_resource(n)))
}

/// The requests of the whole pod, as quantities.
pub fn pod_requests(pod: &Pod, options: Options) -> ResourceList {
    requests_as(pod, options)
}

/// The limits of the whole pod, as quantities; a resource that some container leaves unlimited still shows the others' sum.
pub fn pod_limits(pod: &Pod, options: Options) -> ResourceList {
    limits_as(pod, options)
}

/// [`pod_requests`] in any [`Amount`].
pub fn requests_as<A: Amount>(pod: &Pod, options: Options) -> BTreeMap<String, A> {
    let infeasible = resize_infeasible(pod);
    let mut total = aggregate(pod, |container, restartable| {
        let spec = to_amounts(&container.resources.requests);
        match status_of(pod, container)
            .filter(|_| options.use_status && restartable)
            .map(|s| (s, s.resources.as_ref()))
        {
            Some((status, Some(actual))) => {
                let mut effective = to_amounts(&actual.requests);
                max_into(&mut effective, &to_amounts(&status.allocated_resources));
                if !infeasible {
                    max_into(&mut effective, &spec);
                }
                effective
            }
            _ => spec,
        }
    });
    if !options.skip_pod_level {
        replace_pod_level(&mut total, pod.spec.resources.as_ref().map(|r| &r.requests));
    }
    if !options.exclude_overhead {
        add_into(&mut total, &to_amounts(&pod.spec.overhead));
    }
    total
}

/// [`pod_limits`] in any [`Amount`].
pub fn limits_as<A: Amount>(pod: &Pod, options: Options) -> BTreeMap<String, A> {
    let infeasible = resize_infeasible(pod);
    let mut total = aggregate(pod, |container, restartable| {
        let spec = to_amounts(&container.resources.limits);
        match status_of(pod, container)
            .filter(|_| options.use_status && restartable)
            .and_then(|s| s.resources.as_ref())
        {
            Some(actual) => {
                let mut effective = to_amounts(&actual.limits);
                if !infeasible {
                    max_into(&mut effective, &spec);
                }
                effective
            }
            None => spec,
        }
    });
    if !options.skip_pod_level {
        replace_pod_level(&mut total, pod.spec.resources.as_ref().map(|r| &r.limits));
    }
    if !options.exclude_overhead {
        for (name, overhead) in &pod.spec.overhead {
            if let Some(limit) = total.get_mut(name).filter(|l: &&mut A| !l.is_zero()) {
                limit.add(&A::of(name, overhead));
            }
        }
    }
    total
}

/// The floor that init containers set, and the sum of what runs together. `resources` also learns whether a container
/// can be resized in place (ordinary and restartable init containers).
fn aggregate<A: Amount>(
    pod: &Pod,
    resources: impl Fn(&Container, bool) -> BTreeMap<String, A>,
) -> BTreeMap<String, A> {
    let mut total = BTreeMap::new();
    for container in &pod.spec.containers {
        add_into(&mut total, &resources(container, true));
    }
    let mut sidecars = BTreeMap::new();
    let mut floor = BTreeMap::new();
    for container in &pod.spec.init_containers {
        if is_restartable_init_container(container) {
            let own = resources(container, true);
            add_into(&mut total, &own);
            add_into(&mut sidecars, &own);
            max_into(&mut floor, &sidecars);
        } else {
            let mut step = resources(container, false);
            add_into(&mut step, &sidecars);
            max_into(&mut floor, &step);
        }
    }
    max_into(&mut total, &floor);
    total
}

fn replace_pod_level<A: Amount>(total: &mut BTreeMap<String, A>, pod_level: Option<&ResourceList>) {
    for (name, quantity) in pod_level.into_iter().flatten().filter(|(n, _)| is_pod_level_resource(n)) {
        total.insert(name.clone(), A::of(name, quantity));
    }
}

fn to_amounts<A: Amount>(list: &ResourceList) -> BTreeMap<String, A> {
    list.iter().map(|(name, quantity)| (name.clone(), A::of(name, quantity))).collect()
}

fn add_into<A: Amount>(total: &mut BTreeMap<String, A>, more: &BTreeMap<String, A>) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(amount),
            None => {
                total.insert(name.clone(), amount.clone());
            }
        }
    }
}

fn max_into<A: Amount>(total: &mut BTreeMap<String, A>, other: &BTreeMap<String, A>) {
    for (name, amount) in other {
        if total.get(name).is_none_or(|known| known.less_than(amount)) {
            total.insert(name.clone(), amount.clone());
        }
    }
}

fn status_of<'a>(pod: &'a Pod, container: &Container) -> Option<&'a ContainerStatus> {
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    statuses.into_iter().find(|s| s.name == container.name)
}

fn resize_infeasible(pod: &Pod) -> bool {
    pod.status
        .conditions
        .iter()
        .find(|c| c.type_ == "PodResizePending")
        .is_some_and(|c| c.reason == "Infeasible")
}

/// One resource of a requirement's requests, as an [`amount`]; zero when absent.
pub fn request_of(resources: &ResourceRequirements, name: &str) -> i64 {
    resources.requests.get(name).map_or(0, |q| amount(name, q))
}

/// One resource of a requirement's limits, as an [`amount`]; zero when absent.
pub fn limit_of(resources: &ResourceRequirements, name: &str) -> i64 {
    resources.limits.get(name).map_or(0, |q| amount(name, q))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(spec: apimachinery::value::Value, want: apimachinery::value::Value) {
        let pod: Pod = apimachinery::value::from_value(apimachinery::json!({ "spec": spec })).unwrap();
        let requests = pod_requests(&pod, Options::default());
        assert_eq!(apimachinery::value::to_value(&requests).unwrap(), want);
        let amounts = requests_as::<i64>(&pod, Options::default());
        for (name, quantity) in &requests {
            assert_eq!(amounts[name], amount(name, quantity));
        }
    }

    fn container(cpu: &str, restart: Option<&str>) -> apimachinery::value::Value {
        apimachinery::json!({ "name": "c", "restartPolicy": restart, "resources": { "requests": { "cpu": cpu } } })
    }

    #[test]
    fn adds_up_as_kep_753_says() {
        let always = Some("Always");
        check(
            apimachinery::json!({ "containers": [container("1", None), container("500m", None)] }),
            apimachinery::json!({ "cpu": "1500m" }),
        );
        check(
            apimachinery::json!({ "containers": [container("1", None)], "initContainers": [container("3", None)] }),
            apimachinery::json!({ "cpu": "3" }),
        );
        check(
            apimachinery::json!({
                "containers": [container("1", None)],
                "initContainers": [container("1", always), container("3", None), container("1", always)],
            }),
            apimachinery::json!({ "cpu": "4" }),
        );
        check(
            apimachinery::json!({
                "containers": [container("1", None)], "overhead": { "cpu": "100m", "memory": "1Mi" },
                "resources": { "requests": { "cpu": "2" } },
            }),
            apimachinery::json!({ "cpu": "2100m", "memory": "1Mi" }),
        );
    }
}
