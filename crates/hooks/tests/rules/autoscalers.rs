//! What autoscalers must be, and what their versions make of them.

use crate::check;
use apimachinery::json;
use expect_test::expect;

#[test]
fn autoscalers() {
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {
            "minReplicas": 0, "maxReplicas": -1, "scaleTargetRef": {"kind": "Deployment", "apiVersion": "v1"},
            "metrics": [{"type": "Pods", "object": {}}, {"type": "Foo"}],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000, "policies": [{"type": "X"}]}},
        }}),
        expect![[r#"
            spec.minReplicas: Invalid value: 0: must be greater than or equal to 1
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to 1
            spec.maxReplicas: Invalid value: -1: must be greater than or equal to `minReplicas`
            spec.scaleTargetRef.name: Required value
            spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group
            spec.metrics[0].object.describedObject.kind: Required value
            spec.metrics[0].object.describedObject.name: Required value
            spec.metrics[0].object.metric.name: Required value: must specify a metric name
            spec.metrics[0].object.target.type: Required value: must specify a metric target type
            spec.metrics[0].object.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue
            spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue
            spec.metrics[0].pods: Required value: must populate information for the given metric source
            spec.metrics[1].type: Unsupported value: "Foo": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
            spec.metrics[1].type: Unsupported value: "Foo": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"
            spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas
            spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600
            spec.behavior.scaleUp.policies[0].type: Unsupported value: "X": supported values: "Percent", "Pods"
            spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero
            spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 0: must be greater than zero"#]],
    );
}

#[test]
fn conversions_of_autoscalers_lose_nothing() {
    let object = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "a"},
        "spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "D", "name": "d"}, "metrics": [
            {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "3"}}},
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}},
        ]},
    });
    let (v1, v2) = ("autoscaling/v1", "autoscaling/v2");
    let one = hooks::convert("autoscaling", "HorizontalPodAutoscaler", v2, v1, object.clone());
    assert_eq!(one["spec"]["targetCPUUtilizationPercentage"], 50);
    assert_eq!(hooks::convert("autoscaling", "HorizontalPodAutoscaler", v1, v2, one), object);
}
