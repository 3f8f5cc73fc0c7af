//! Which kinds judge the metadata of their objects themselves.

/// Kinds whose own rules say nothing of their metadata: it is judged once.
const WITHOUT_METADATA: &[(&str, &str)] = &[
    ("", "Event"),
    ("", "LimitRange"),
    ("", "PersistentVolume"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
    ("discovery.k8s.io", "EndpointSlice"),
    ("events.k8s.io", "Event"),
    ("policy", "PodDisruptionBudget"),
    ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "VolumeAttachment"),
];

/// Whether a kind's rules judge the change of its metadata again.
pub fn judges_metadata(group: &str, kind: &str) -> bool {
    !WITHOUT_METADATA.contains(&(group, kind))
}
