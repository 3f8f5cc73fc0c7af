//! The core group: what its kinds do beyond their schema.

mod claim_validation;
mod component_status;
mod endpoints_validation;
mod event;
mod event_validation;
mod image_names;
mod namespace;
mod node;
mod node_validation;
mod node_warnings;
mod persistent_volume;
pub(super) mod persistent_volume_claim;
mod pod;
mod pod_certificate_volume;
mod pod_columns;
mod pod_containers;
mod pod_env;
mod pod_resize;
mod pod_resources;
mod pod_security;
mod pod_selectors;
pub(super) mod pod_spec;
mod pod_spec_update;
mod pod_status_update;
mod pod_totals;
mod pod_update;
pub(super) mod pod_validation;
mod pod_volumes;
pub(super) mod pod_warnings;
mod quota_validation;
mod resource_names;
mod service;
mod service_families;
mod service_validation;
mod service_warnings;
mod small;
mod sysctls;
mod volume_overlaps;
mod volume_sources;
mod volume_validation;

pub(super) use endpoints_validation::validate_endpoint_ip;

use super::tree::{list, text, typed};
use super::{Context, ConversionRow, Row};
use apimachinery::field::ErrorList;
use apimachinery::value::Value;

pub(super) const STRATEGIES: &[Row] = &[
    ("", "ComponentStatus", &component_status::COMPONENT_STATUS),
    ("", "ConfigMap", &small::ConfigMaps),
    ("", "Endpoints", &small::EndpointsLists),
    ("", "Event", &event::Events),
    ("", "LimitRange", &small::LimitRanges),
    ("", "Namespace", &namespace::Namespaces),
    ("", "Node", &node::Nodes),
    ("", "PersistentVolume", &persistent_volume::Volumes),
    ("", "PersistentVolumeClaim", &persistent_volume_claim::Claims),
    ("", "Pod", &pod::Pods),
    ("", "Secret", &small::Secrets),
    ("", "Service", &service::Services),
    ("", "ServiceAccount", &small::ServiceAccounts),
];

/// Events of both groups are stored as core/v1.
pub(super) const CONVERSIONS: &[ConversionRow] = &[
    ("events.k8s.io", "Event", "v1", "events.k8s.io/v1", event::to_events_k8s_io),
    ("events.k8s.io", "Event", "events.k8s.io/v1", "v1", event::from_events_k8s_io),
];

pub(super) use claim_validation::validate_spec as validate_claim;
pub use pod_validation::toleration_errors;
pub(super) use volume_sources::validate_driver_name;

/// An older field of one text and a newer list of several: the list begins with the one, which wins where the two differ.
fn agree(object: &mut Value, one: &str, many: &str, text_of: fn(&Value) -> &str, item: fn(&str) -> Value) {
    let said = text(object, &[one]).to_owned();
    match list(object, &[many]).first().map(|first| text_of(first).to_owned()) {
        Some(first) if said.is_empty() => object[one] = first.into(),
        first if !said.is_empty() && first.as_ref() != Some(&said) => {
            object[many] = [item(&said)].into_iter().collect()
        }
        _ => {}
    }
}

/// The rules of a new ResourceQuota.
pub(super) fn validate_quota(quota: &Value) -> ErrorList {
    quota_validation::validate_quota(&typed(quota))
}

/// What a change of a ResourceQuota must keep beside them.
pub(super) fn validate_quota_update(quota: &Value, old: &Value, context: &Context) -> ErrorList {
    match context.subresource {
        Some("status") => quota_validation::validate_quota_status(&typed(quota)),
        _ => quota_validation::validate_scopes(&typed(quota), &typed(old)),
    }
}
