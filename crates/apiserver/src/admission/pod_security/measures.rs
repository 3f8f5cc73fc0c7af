//! `pod_security_*_total`: what was judged, and how, and what was exempt.

use super::policy::{Level, LevelVersion, Version};
use crate::admission::{Attributes, Operation};
use component::metrics::{CounterVec, Opts, Registry, Stability};

/// The newest version whose standards are known.
const NEWEST: u32 = 36;

/// See the module.
pub(in crate::admission) struct Measures {
    evaluations: CounterVec,
    exemptions: CounterVec,
}

fn operation(a: &Attributes<'_>) -> &'static str {
    if a.operation == Operation::Create { "create" } else { "update" }
}

fn resource(a: &Attributes<'_>) -> &'static str {
    match &*a.resource.row.resource {
        "pods" => "pod",
        "namespaces" => "namespace",
        _ => "controller",
    }
}

impl Measures {
    pub(in crate::admission) fn new(registry: &Registry) -> Self {
        let opts = Opts {
            name: "pod_security_evaluations_total",
            help: "Number of policy evaluations that occurred, not counting ignored or exempt requests.",
            stability: Stability::Alpha,
        };
        let labels = [
            "decision",
            "policy_level",
            "policy_version",
            "mode",
            "request_operation",
            "resource",
            "subresource",
        ];
        let exempt = Opts {
            name: "pod_security_exemptions_total",
            help: "Number of exempt requests, not counting ignored or out of scope requests.",
            stability: Stability::Alpha,
        };
        let exemptions = registry.counter_vec(exempt, &["request_operation", "resource", "subresource"]);
        // Those of objects themselves are shown from the start, as upstream's.
        for operation in ["create", "update"] {
            for resource in ["pod", "controller"] {
                exemptions.with(&[operation, resource, ""]);
            }
        }
        Measures { evaluations: registry.counter_vec(opts, &labels), exemptions }
    }

    /// A request was judged by nobody.
    pub(super) fn exempt(&self, a: &Attributes<'_>) {
        self.exemptions.with(&[operation(a), resource(a), a.subresource]).inc();
    }

    /// A policy was asked about a request.
    pub(super) fn judged(&self, allowed: bool, policy: LevelVersion, mode: &str, a: &Attributes<'_>) {
        let (level, version) = match policy.version {
            _ if policy.level == Level::Privileged => ("privileged", "latest".to_owned()),
            Version::Latest => (policy.level.name(), "latest".to_owned()),
            Version::Minor(minor) if minor > NEWEST => (policy.level.name(), "future".to_owned()),
            Version::Minor(minor) => (policy.level.name(), format!("v1.{minor}")),
        };
        let decision = if allowed { "allow" } else { "deny" };
        let labels = [decision, level, &version, mode, operation(a), resource(a), a.subresource];
        self.evaluations.with(&labels).inc();
    }
}
