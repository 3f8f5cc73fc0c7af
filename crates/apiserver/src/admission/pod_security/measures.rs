//! `pod_security_evaluations_total`: what was judged, and how. Nobody is exempt here.

use super::policy::{Level, LevelVersion, Version};
use crate::admission::{Attributes, Operation};
use component::metrics::{CounterVec, Opts, Registry, Stability};

/// The newest version whose standards are known.
const NEWEST: u32 = 36;

/// See the module.
pub(in crate::admission) struct Measures(CounterVec);

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
        Measures(registry.counter_vec(opts, &labels))
    }

    /// A policy was asked about a request.
    pub(super) fn judged(&self, allowed: bool, policy: LevelVersion, mode: &str, a: &Attributes<'_>) {
        let (level, version) = match policy.version {
            _ if policy.level == Level::Privileged => ("privileged", "latest".to_owned()),
            Version::Latest => (policy.level.name(), "latest".to_owned()),
            Version::Minor(minor) if minor > NEWEST => (policy.level.name(), "future".to_owned()),
            Version::Minor(minor) => (policy.level.name(), format!("v1.{minor}")),
        };
        let operation = if a.operation == Operation::Create { "create" } else { "update" };
        let resource = match &*a.resource.row.resource {
            "pods" => "pod",
            "namespaces" => "namespace",
            _ => "controller",
        };
        let decision = if allowed { "allow" } else { "deny" };
        self.0.with(&[decision, level, &version, mode, operation, resource, a.subresource]).inc();
    }
}
