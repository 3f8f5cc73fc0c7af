//! What pods, nodes, events, limits and quotas must be.

use crate::{check, check_status, check_update};
use apimachinery::json;
use expect_test::expect;

#[test]
fn limits_and_quotas() {
    check(
        "",
        "LimitRange",
        json!({"spec": {"limits": [
            {"type": "Pod", "min": {"cpu": "2"}, "max": {"cpu": "1"}, "default": {"cpu": "1"}},
            {"type": "PersistentVolumeClaim"}, {"type": "Foo"},
        ]}}),
        expect![[r#"
            spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[1].limits: Required value: either minimum or maximum storage value is required, but neither was provided
            spec.limits[2].type: Invalid value: "Foo": must be a standard limit type or fully qualified"#]],
    );
    check(
        "",
        "ResourceQuota",
        json!({"spec": {
            "hard": {"pods": "1500m", "foo": "1", "services": "-1"},
            "scopes": ["BestEffort", "NotBestEffort", "Bar"],
        }}),
        expect![[r#"
            spec.hard[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.hard[foo]: Invalid value: "foo": must be a standard resource for quota
            spec.hard[pods]: Invalid value: "1500m": must be an integer
            spec.hard[services]: Invalid value: "-1": must be greater than or equal to 0
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope applied to resource
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: unsupported scope
            spec.scopes: Invalid value: ["BestEffort","NotBestEffort","Bar"]: conflicting scopes"#]],
    );
}

/// The names by which devices are counted: those of classes are whole, those of requests may be anything.
#[test]
fn quotas_of_devices() {
    check(
        "",
        "ResourceQuota",
        json!({"spec": {"hard": {
            "gpu.deviceclass.resource.k8s.io/devices": "1", "big.gpu.deviceclass.resource.k8s.io/devices": "1500m",
            "requests.deviceclass.resource.kubernetes.io/gpu": "1500m", "requests.example.com/gpu": "1500m",
            "requests.deviceclass.resource.kubernetes.io/": "1", "count/resourceclaims.resource.k8s.io": "1",
        }, "scopes": ["NotBestEffort"]}}),
        expect![[r#"
            spec.hard[big.gpu.deviceclass.resource.k8s.io/devices]: Invalid value: "1500m": must be an integer
            spec.hard[requests.deviceclass.resource.kubernetes.io/]: Invalid value: "requests.deviceclass.resource.kubernetes.io/": name part must be non-empty
            spec.hard[requests.deviceclass.resource.kubernetes.io/]: Invalid value: "requests.deviceclass.resource.kubernetes.io/": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#]],
    );
}

#[test]
fn nodes() {
    let node = json!({
        "metadata": {"name": "n"},
        "spec": {
            "podCIDRs": ["10.0.0.0/24", "10.0.1.0/24", "x"],
            "taints": [
                {"key": "a b", "value": "c d", "effect": "Never"}, {"key": "k"},
                {"key": "k", "effect": "NoSchedule"}, {"key": "k", "effect": "NoSchedule"},
            ],
        },
        "status": {
            "capacity": {"cpu": "-1", "pods": "1500m"},
            "declaredFeatures": ["lower", "B", "B", "A/b"],
            "nodeInfo": {"swap": {"capacity": 0}},
        },
    });
    check(
        "",
        "Node",
        node,
        expect![[r#"
            metadata.taints[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            metadata.taints[0].value: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            metadata.taints[0].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            metadata.taints[1].effect: Required value
            metadata.taints[3]: Duplicate value: {"Key":"k","Value":"","Effect":"NoSchedule","TimeAdded":null}: taints must be unique by key and effect pair
            status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.capacity.pods: Invalid value: "1500m": must be an integer
            status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable.pods: Invalid value: "1500m": must be an integer
            metadata.nodeSwapStatus.capacity: Invalid value: 0: must be greater than zero
            status.declaredFeatures[0]: Invalid value: "lower": invalid feature name "lower": must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or MyFeature/mySubFeature), and contain only alphanumeric characters and slashes
            status.declaredFeatures[1]: Invalid value: "B": list must be sorted alphabetically
            status.declaredFeatures[2]: Duplicate value: "B"
            status.declaredFeatures[3]: Invalid value: "A/b": list must be sorted alphabetically
            spec.podCIDRs[2]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)
            spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24","x"]: may specify no more than one CIDR for each IP family"#]],
    );
    let old = json!({"spec": {"podCIDRs": ["10.0.0.0/24"], "providerID": "a"}});
    let mut new = json!({"spec": {"podCIDRs": ["10.0.1.0/24"], "providerID": "b"}});
    let address = json!({"type": "InternalIP", "address": "1.2.3.4"});
    new["status"]["addresses"] = json!([address, address]);
    check_update(
        "",
        "Node",
        old,
        new,
        expect![[r#"
            status.addresses[1]: Duplicate value: {"Type":"InternalIP","Address":"1.2.3.4"}
            spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid
            spec.providerID: Forbidden: node updates may not change providerID except from "" to valid"#]],
    );
}

#[test]
fn events() {
    let mut event = json!({
        "metadata": {"namespace": "ns", "name": "e"}, "involvedObject": {"namespace": "other"},
        "count": 1, "type": "Odd", "series": {"count": 1},
    });
    check(
        "",
        "Event",
        event.clone(),
        expect![[r#"
        involvedObject.namespace: Invalid value: "other": does not match event.namespace
        series.count: Invalid value: "": should be at least 2
        series.lastObservedTime: Required value
        eventTime: Required value
        type: Invalid value: "": has invalid value: Odd
        count: Invalid value: "": needs to be unset"#]],
    );
    event["eventTime"] = json!("2026-01-01T00:00:00.000000Z");
    event["reason"] = json!("r".repeat(129));
    check(
        "",
        "Event",
        event.clone(),
        expect![[r#"
        reportingController: Required value
        reportingController: Invalid value: "": name part must be non-empty
        reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        reportingInstance: Required value
        action: Required value
        reason: Invalid value: "": can have at most 128 characters
        series.count: Invalid value: "": should be at least 2
        series.lastObservedTime: Required value
        type: Invalid value: "": has invalid value: Odd
        count: Invalid value: "": needs to be unset"#]],
    );
    let mut new = event.clone();
    new["message"] = json!("other");
    check_update(
        "",
        "Event",
        event,
        new,
        expect![[r#"
        reportingController: Required value
        reportingController: Invalid value: "": name part must be non-empty
        reportingController: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
        reportingInstance: Required value
        action: Required value
        reason: Invalid value: "": can have at most 128 characters
        message: Invalid value: "other": field is immutable"#]],
    );
}

#[test]
fn pods_ask_for_what_there_is() {
    let file =
        json!({"name": "A", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "p", "key": "K"}}});
    let container =
        json!({"name": "c", "image": "i", "env": [file], "resources": {"requests": {"cpu": "2"}}});
    let token = json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    check(
        "",
        "Pod",
        json!({"metadata": {"name": "p"}, "spec": {
            "containers": [container],
            "resources": {"requests": {"cpu": "1"}},
            "volumes": [token],
        }}),
        expect![[r#"
            spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container requests of 2
            spec.containers[0].env[0].valueFrom.fileKeyRef.volumeName: Not found: "v"
            spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set"#]],
    );
}

#[test]
fn statuses() {
    check_status(
        "",
        "Pod",
        json!({"status": {"phase": "Running", "qosClass": "Burstable"}}),
        json!({"status": {"phase": "Running", "qosClass": "Guaranteed", "podIPs": [{"ip": "1.2.3.4"}, {"ip": "x"}]}}),
        expect![[r#"
            status.qosClass: Invalid value: "Guaranteed": field is immutable
            status.podIPs[1]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            status.podIPs: Invalid value: [{"IP":"1.2.3.4"},{"IP":"x"}]: may specify no more than one IP for each IP family"#]],
    );
    check_status(
        "apps",
        "ReplicaSet",
        json!({"status": {"replicas": 1}}),
        json!({"status": {"replicas": 1, "readyReplicas": 3, "availableReplicas": 2, "fullyLabeledReplicas": -1}}),
        expect![[r#"
            status.fullyLabeledReplicas: Invalid value: -1: must be greater than or equal to 0
            status.readyReplicas: Invalid value: 3: cannot be greater than status.replicas
            status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas"#]],
    );
    check_status(
        "batch",
        "Job",
        json!({"spec": {"completions": 2}, "status": {"succeeded": 2, "startTime": "2030-01-02T03:04:05Z"}}),
        json!({"spec": {"completions": 2}, "status": {"succeeded": 1, "ready": 1, "completedIndexes": "x"}}),
        expect![[r#"
            status.completedIndexes: Invalid value: "x": error parsing completedIndexes: cannot convert string to integer for index: "x"
            status.completedIndexes: Invalid value: "x": cannot set non-empty completedIndexes when non-indexed completion mode
            status.ready: Invalid value: 1: cannot set more ready pods than active
            status.succeeded: Invalid value: 1: cannot decrease the succeeded counter
            status.startTime: Invalid value: null: field is immutable for unsuspended job once set"#]],
    );
    check_status(
        "policy",
        "PodDisruptionBudget",
        json!({}),
        json!({"status": {"expectedPods": -1, "conditions": [{"type": "a b", "status": "Odd"}]}}),
        expect![[r#"
            status.conditions[0].type: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            status.conditions[0].status: Unsupported value: "Odd": supported values: "False", "True", "Unknown"
            status.conditions[0].lastTransitionTime: Required value
            status.conditions[0].reason: Required value
            status.expectedPods: Invalid value: -1: must be greater than or equal to 0"#]],
    );
}
