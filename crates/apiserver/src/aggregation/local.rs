//! The APIServices of what this server serves itself, with upstream's priorities.

use crate::metrics_api;
use crate::resources::Resources;
use apimachinery::json;
use apimachinery::value::Value;
use std::collections::BTreeMap;

/// Group, version, and the priorities of both.
const PRIORITIES: [(&str, &str, i64, i64); 24] = [
    ("", "v1", 18_000, 1),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("apps", "v1", 17_800, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("internal.apiserver.k8s.io", "v1alpha1", 16_000, 9),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("resource.k8s.io", "v1", 15_900, 20),
    ("resource.k8s.io", "v1alpha3", 15_900, 9),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("storagemigration.k8s.io", "v1beta1", 15_800, 9),
];

/// The label by which APIServices that the server keeps itself are known.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// An APIService of the server's own.
fn service(group: &str, version: &str, managed: &str, priorities: (i64, i64)) -> (String, Value) {
    let name = format!("{version}.{group}");
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {MANAGED: managed}},
        "spec": {
            "group": group, "version": version,
            "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1,
        },
    });
    (name, object)
}

/// The APIServices there should be for what is served now, by name.
pub(super) fn wanted(resources: &Resources, metrics: bool) -> BTreeMap<String, Value> {
    let mut wanted = BTreeMap::new();
    if metrics {
        // With metrics-server's priorities, whose manifest may take its place.
        wanted.extend([service(metrics_api::GROUP, metrics_api::VERSION, "onstart", (100, 100))]);
    }
    for served in resources.all() {
        let (group, version) = (&*served.row.group, &*served.row.version);
        if group == "apiregistration.k8s.io" {
            continue;
        }
        let (name, object) = if served.custom.is_some() {
            service(group, version, "true", (1_000, 100))
        } else {
            let known = PRIORITIES.iter().find(|(g, v, ..)| *g == group && *v == version);
            let priorities = known.map_or((100, 1), |(_, _, of_group, of_version)| (*of_group, *of_version));
            service(group, version, "onstart", priorities)
        };
        wanted.insert(name, object);
    }
    wanted
}
