//! Pods.

use super::agree;
use super::pod_columns;
use super::pod_selectors::merge_label_keys;
use super::pod_spec::{default_pod, default_pod_spec, drop_old_annotations};
use super::pod_status_update;
use super::pod_update;
use super::pod_validation::validate_pod;
use super::pod_warnings;
use crate::tree::{at, int, list, text, typed, with};
use crate::{Column, Context, SelectableField, Strategy};
use api::core::v1::{Pod, ResourceRequirements};
use api::qos::{QosClass, qos_of};
use apimachinery::field::ErrorList;
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;

pub(super) struct Pods;

const FIELDS: &[SelectableField] = &[
    ("spec.nodeName", |pod| text(pod, &["spec", "nodeName"]).into()),
    ("spec.restartPolicy", |pod| text(pod, &["spec", "restartPolicy"]).into()),
    ("spec.schedulerName", |pod| text(pod, &["spec", "schedulerName"]).into()),
    ("spec.serviceAccountName", |pod| text(pod, &["spec", "serviceAccountName"]).into()),
    ("spec.hostNetwork", |pod| (pod["spec"]["hostNetwork"] == true).to_string()),
    ("status.phase", |pod| text(pod, &["status", "phase"]).into()),
    ("status.podIP", |pod| {
        list(pod, &["status", "podIPs"]).first().map(|ip| text(ip, &["ip"]).into()).unwrap_or_default()
    }),
    ("status.nominatedNodeName", |pod| text(pod, &["status", "nominatedNodeName"]).into()),
];

/// The class of a new pod, of which only the resources are read.
fn class_of(pod: &Value) -> QosClass {
    let own = at(pod, &["spec", "resources"]).map(typed::<ResourceRequirements>);
    let all = list(pod, &["spec", "containers"]).iter().chain(list(pod, &["spec", "initContainers"]));
    let all: Vec<ResourceRequirements> =
        all.map(|container| container.get("resources").map(typed).unwrap_or_default()).collect();
    qos_of(own.as_ref(), all.iter())
}

/// Leaves the typed form for all who watch pods in this process. At rest an object has neither type metadata nor selfLink.
fn leave(mut pod: Pod, context: &Context) {
    if let Some(judged) = context.judged {
        for absent in [&mut pod.kind, &mut pod.api_version, &mut pod.metadata.self_link] {
            absent.clear();
        }
        judged.leave(pod);
    }
}

impl Strategy for Pods {
    fn default(&self, pod: &mut Value) {
        with(pod, "spec", |spec| {
            default_pod_spec(spec);
            default_pod(spec);
        });
        with(pod, "status", |status| {
            agree(status, "podIP", "podIPs", |item| text(item, &["ip"]), |ip| json!({"ip": ip}));
        });
        drop_old_annotations(pod);
    }

    fn prepare_for_create(&self, pod: &mut Value, context: &Context) {
        let class = class_of(pod).as_str();
        pod["status"] = json!({"phase": "Pending", "qosClass": class});
        pod["metadata"]["generation"] = 1.into();
        merge_label_keys(pod);
        if !list(pod, &["spec", "schedulingGates"]).is_empty() {
            pod["status"]["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": null,
                "lastTransitionTime": context.now.to_string(),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
    }

    fn prepare_for_update(&self, pod: &mut Value, old: &Value, context: &Context) {
        pod_update::prepare(pod, old, context);
    }

    fn validate(&self, pod: &Value, context: &Context) -> ErrorList {
        let typed = typed(pod);
        let mut errors = validate_pod(&typed, pod);
        errors.extend(pod_update::validate_new(&typed));
        leave(typed, context);
        errors
    }

    fn validate_update(&self, pod: &Value, old: &Value, context: &Context) -> ErrorList {
        let typed = typed(pod);
        let errors = pod_update::validate((&typed, pod), old, context);
        leave(typed, context);
        errors
    }

    fn warnings(&self, pod: &Value, old: Option<&Value>, context: &Context) -> Vec<String> {
        match (old, context.subresource) {
            (None, None) => pod_warnings::of_pod(pod),
            (Some(_), Some("status")) => pod_status_update::warnings(pod),
            // People hardly ever update pods themselves.
            _ => Vec::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        pod_columns::COLUMNS
    }

    fn cells(&self, pod: &Value, now: Time) -> Vec<Value> {
        pod_columns::cells(&typed(pod), now)
    }

    fn row_conditions(&self, pod: &Value) -> Vec<Value> {
        let (reason, message) = match text(pod, &["status", "phase"]) {
            phase @ "Succeeded" => (phase, "The pod has completed successfully."),
            phase @ "Failed" => (phase, "The pod failed."),
            _ => return Vec::new(),
        };
        vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
    }

    fn selectable_fields(&self) -> &'static [SelectableField] {
        FIELDS
    }

    fn deletion_grace_period(&self, pod: &Value, asked: Option<i64>) -> Option<i64> {
        let wish = asked.unwrap_or_else(|| int(pod, &["spec", "terminationGracePeriodSeconds"]));
        let over = matches!(text(pod, &["status", "phase"]), "Succeeded" | "Failed");
        // Nothing runs that could be asked to stop.
        let idle = text(pod, &["spec", "nodeName"]).is_empty() || over;
        // A negative period is a slip of the client's; upstream takes it for the shortest one.
        Some(if idle {
            0
        } else if wish < 0 {
            1
        } else {
            wish
        })
    }

    fn has_generation(&self) -> bool {
        true
    }
}
