//! Pure knowledge that two rooms need: pod requests and QoS, quota usage, taints, affinity, template hash, ready conditions.

/// What a pod asks of its node, and what it may use at most.
pub mod pod_requests;

/// Guaranteed, Burstable or BestEffort.
pub use api::qos;

/// Which tolerations bear which taints.
pub mod taints;

/// Whether a node's labels and name satisfy node selectors and terms.
pub mod node_affinity;

/// Reading and writing pod conditions, readiness and availability.
pub mod pod_conditions;

/// Looking up and judging container statuses and restart policies.
pub mod container_status;

/// The `pod-template-hash` and other names derived from content.
pub mod template_hash;

/// The claims of generic ephemeral volumes.
pub mod ephemeral_volume;

/// What objects use of a quota, and which of its scopes they are in.
pub mod quota;

/// Which volume is whose, and which would do for a claim.
pub mod volumes;

/// What of newer versions a pod needs of its node.
pub mod declared_features;

/// The claims of pods to devices, and the taints of devices.
pub mod resource_claim;

/// The taints that devices have by rules.
pub mod device_taint_rules;
