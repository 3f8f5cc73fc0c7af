//! The core group: what its kinds do beyond their schema.

mod event;
mod namespace;
mod node;
mod pod;
mod pod_columns;
pub(super) mod pod_spec;
mod pod_update;
pub(super) mod pod_validation;
mod service;
mod small;
mod sysctls;

use super::{ConversionRow, Row};

pub(super) const STRATEGIES: &[Row] = &[
    ("", "ConfigMap", &small::ConfigMaps),
    ("", "Endpoints", &small::EndpointsLists),
    ("", "Event", &event::Events),
    ("", "LimitRange", &small::LimitRanges),
    ("", "Namespace", &namespace::Namespaces),
    ("", "Node", &node::Nodes),
    ("", "PersistentVolume", &small::Volumes),
    ("", "PersistentVolumeClaim", &small::Claims),
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
