//! Pods of a StatefulSet: names, ordinals, labels, and how one is made at a revision. Pure.

use super::{claims, first_ordinal};
use crate::history::REVISION_LABEL;
use crate::pods::from_template;
use api::apps::v1::StatefulSet;
use api::core::v1::{Pod, PodTemplateSpec};

const NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
const INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// A revision and its template.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Version {
    pub name: String,
    pub template: PodTemplateSpec,
}

pub(super) fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name)
}

/// Gives a pod the labels of its identity.
pub(super) fn identify(set: &StatefulSet, ordinal: i32, pod: &mut Pod) {
    pod.metadata.labels.insert(NAME_LABEL.into(), name(set, ordinal));
    pod.metadata.labels.insert(INDEX_LABEL.into(), ordinal.to_string());
}

/// Whether a pod of the right name has the label that says so.
pub(super) fn is_identified(pod_name: &str, labels: &std::collections::BTreeMap<String, String>) -> bool {
    labels.get(NAME_LABEL).is_some_and(|name| name == pod_name)
}

fn pod(set: &StatefulSet, version: &Version, ordinal: i32) -> Pod {
    let mut pod = from_template(set, &version.template);
    pod.metadata.name = name(set, ordinal);
    identify(set, ordinal, &mut pod);
    pod.spec.hostname = pod.metadata.name.clone();
    pod.spec.subdomain = set.spec.service_name.clone();
    claims::mount(set, ordinal, &mut pod);
    pod.metadata.labels.insert(REVISION_LABEL.into(), version.name.clone());
    pod
}

/// The pod of an ordinal, at the revision that a rollout has it at: what is below the partition stays at the current one.
pub(super) fn versioned_pod(set: &StatefulSet, current: &Version, update: &Version, ordinal: i32) -> Pod {
    let strategy = &set.spec.update_strategy;
    let from = first_ordinal(set);
    let stays = match &strategy.rolling_update {
        Some(rolling) => ordinal < from + rolling.partition.unwrap_or(0),
        None => strategy.type_ == "RollingUpdate" && ordinal < from + set.status.current_replicas,
    };
    pod(set, if stays { current } else { update }, ordinal)
}
