//! The quality-of-service class of a pod. Upstream: `ComputePodQOS`.

use crate::core::v1::{Pod, ResourceRequirements};
use apimachinery::quantity::Quantity;
use std::collections::BTreeMap;

/// The three classes, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    /// As it stands in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            QosClass::Guaranteed => "Guaranteed",
            QosClass::Burstable => "Burstable",
            QosClass::BestEffort => "BestEffort",
        }
    }
}

/// The class in status when there is one, else the computed one.
pub fn pod_qos(pod: &Pod) -> QosClass {
    match pod.status.qos_class.as_str() {
        "Guaranteed" => QosClass::Guaranteed,
        "Burstable" => QosClass::Burstable,
        "BestEffort" => QosClass::BestEffort,
        _ => compute_pod_qos(pod),
    }
}

/// The class that a pod's resources put it in.
pub fn compute_pod_qos(pod: &Pod) -> QosClass {
    let all = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    qos_of(pod.spec.resources.as_ref(), all.map(|container| &container.resources))
}

/// The class of a pod by its own resources or else those of its containers. BestEffort: nobody asks for cpu or memory;
/// Guaranteed: all limit both and request as much; else Burstable.
pub fn qos_of<'a>(
    own: Option<&'a ResourceRequirements>,
    containers: impl Iterator<Item = &'a ResourceRequirements>,
) -> QosClass {
    let mut requests: BTreeMap<&str, i128> = BTreeMap::new();
    let mut limits: BTreeMap<&str, i128> = BTreeMap::new();
    let mut guaranteed = true;
    let mut add = |resources: &ResourceRequirements, needs_limits: bool| {
        for (from, to) in [(&resources.requests, &mut requests), (&resources.limits, &mut limits)] {
            for name in ["cpu", "memory"] {
                let milli = from.get(name).map_or(0, |q| q.milli_value());
                if milli > 0 {
                    *to.entry(name).or_default() += i128::from(milli);
                }
            }
        }
        let limited = |name| resources.limits.get(name).is_some_and(|q: &Quantity| q.milli_value() > 0);
        if needs_limits && !(limited("cpu") && limited("memory")) {
            guaranteed = false;
        }
    };
    match own {
        Some(own) => add(own, !own.limits.is_empty()),
        None => containers.for_each(|resources| add(resources, true)),
    }
    if requests.is_empty() && limits.is_empty() {
        return QosClass::BestEffort;
    }
    let equal = requests.iter().all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && equal && requests.len() == limits.len() {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    fn check(containers: Value, want: &str) {
        let pod: Pod =
            apimachinery::value::from_value(json!({ "spec": { "containers": containers } })).unwrap();
        assert_eq!(compute_pod_qos(&pod).as_str(), want, "{containers}");
    }

    #[test]
    fn classes() {
        let with = |requests: Value, limits: Value| json!({ "resources": { "requests": requests, "limits": limits } });
        let full = json!({ "cpu": "1", "memory": "1Gi" });
        check(json!([with(json!({}), json!({}))]), "BestEffort");
        check(json!([with(full.clone(), full.clone())]), "Guaranteed");
        check(json!([with(json!({ "cpu": "1000m", "memory": "1024Mi" }), full.clone())]), "Guaranteed");
        check(json!([with(full.clone(), full.clone()), with(json!({}), json!({}))]), "Burstable");
        check(json!([with(json!({ "cpu": "1" }), full)]), "Burstable");
        check(json!([with(json!({ "ephemeral-storage": "1Gi" }), json!({}))]), "BestEffort");
    }
}
