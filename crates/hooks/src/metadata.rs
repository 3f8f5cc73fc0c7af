//! How the rules of a kind judge the metadata of its objects: upstream's own rules come after those that all kinds share,
//! and say the same again.

/// One judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement {
    /// All that is wrong with metadata.
    Whole(Finalizers),
    /// All that is wrong with its change.
    Change(Finalizers),
}

/// Whether finalizers must have a domain or be upstream's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finalizers {
    Any,
    Known,
}

impl Judgement {
    fn finalizers(self) -> Finalizers {
        match self {
            Judgement::Whole(finalizers) | Judgement::Change(finalizers) => finalizers,
        }
    }
}

/// Whether the rules of a kind say nothing of the metadata of a new object.
pub fn judges_metadata_last(group: &str, kind: &str) -> bool {
    (group, kind) == ("", "Event")
}

type Judgements = &'static [Judgement];

const WHOLE: Judgement = Judgement::Whole(Finalizers::Known);
const CHANGE: Judgement = Judgement::Change(Finalizers::Known);
const ANY_WHOLE: Judgement = Judgement::Whole(Finalizers::Any);
const ANY_CHANGE: Judgement = Judgement::Change(Finalizers::Any);

/// Group, kind, and what is judged of an update, where that is not the change alone; of whole groups where the kind is
/// empty.
const EXCEPTIONS: &[(&str, &str, Judgements)] = &[
    ("", "ConfigMap", &[CHANGE, WHOLE]),
    ("", "Endpoints", &[CHANGE, WHOLE]),
    ("", "Event", &[]),
    ("", "LimitRange", &[WHOLE]),
    ("", "Namespace", &[WHOLE, CHANGE]),
    ("", "Node", &[WHOLE, CHANGE, WHOLE]),
    ("", "PersistentVolume", &[WHOLE, WHOLE]),
    ("", "PersistentVolumeClaim", &[CHANGE, WHOLE]),
    ("", "Pod", &[CHANGE, WHOLE]),
    ("", "Secret", &[CHANGE, WHOLE]),
    ("", "ServiceAccount", &[CHANGE, WHOLE]),
    ("admissionregistration.k8s.io", "", &[ANY_WHOLE]),
    ("apiextensions.k8s.io", "", &[ANY_CHANGE]),
    ("apiregistration.k8s.io", "", &[ANY_CHANGE, ANY_WHOLE]),
    ("apps", "ControllerRevision", &[CHANGE, WHOLE]),
    ("apps", "StatefulSet", &[WHOLE, CHANGE]),
    ("batch", "Job", &[WHOLE, CHANGE]),
    ("certificates.k8s.io", "CertificateSigningRequest", &[WHOLE, CHANGE]),
    ("certificates.k8s.io", "ClusterTrustBundle", &[WHOLE, CHANGE]),
    ("coordination.k8s.io", "", &[ANY_CHANGE]),
    ("discovery.k8s.io", "EndpointSlice", &[WHOLE]),
    ("events.k8s.io", "Event", &[CHANGE]),
    ("flowcontrol.apiserver.k8s.io", "", &[WHOLE]),
    ("networking.k8s.io", "IPAddress", &[WHOLE, CHANGE]),
    ("networking.k8s.io", "Ingress", &[CHANGE, WHOLE]),
    ("networking.k8s.io", "IngressClass", &[CHANGE, WHOLE]),
    ("node.k8s.io", "RuntimeClass", &[WHOLE, CHANGE]),
    ("policy", "PodDisruptionBudget", &[]),
    ("rbac.authorization.k8s.io", "", &[WHOLE, CHANGE]),
    ("resource.k8s.io", "DeviceClass", &[WHOLE, CHANGE]),
    ("resource.k8s.io", "ResourceClaim", &[WHOLE, CHANGE]),
    ("resource.k8s.io", "ResourceClaimTemplate", &[WHOLE, CHANGE]),
    ("storage.k8s.io", "CSINode", &[WHOLE]),
    ("storage.k8s.io", "CSIStorageCapacity", &[WHOLE, CHANGE]),
    ("storage.k8s.io", "StorageClass", &[WHOLE, CHANGE]),
    ("storage.k8s.io", "VolumeAttachment", &[WHOLE]),
    ("storage.k8s.io", "VolumeAttributesClass", &[CHANGE, WHOLE]),
    ("storagemigration.k8s.io", "", &[WHOLE, CHANGE]),
];

/// The same of updates through a subresource.
const SUBRESOURCE_EXCEPTIONS: &[(&str, &str, &str, Judgements)] = &[
    ("", "Node", "status", &[CHANGE, WHOLE]),
    ("", "Pod", "ephemeralcontainers", &[CHANGE, WHOLE]),
    ("", "Pod", "resize", &[CHANGE, WHOLE]),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "status", &[]),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "status", &[ANY_CHANGE]),
    ("apiregistration.k8s.io", "APIService", "status", &[ANY_CHANGE]),
    ("batch", "CronJob", "status", &[]),
    ("certificates.k8s.io", "CertificateSigningRequest", "approval", &[WHOLE, CHANGE]),
    ("certificates.k8s.io", "CertificateSigningRequest", "status", &[WHOLE, CHANGE]),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema", "status", &[]),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration", "status", &[]),
    ("policy", "PodDisruptionBudget", "status", &[]),
];

fn of_object(group: &str, kind: &str) -> Judgements {
    let found = EXCEPTIONS.iter().find(|(g, k, _)| *g == group && (k.is_empty() || *k == kind));
    found.map_or(&[CHANGE], |(.., judgements)| judgements)
}

/// How a kind's own rules judge the metadata of an update.
pub fn metadata_judgements(group: &str, kind: &str, subresource: &str) -> Judgements {
    if subresource.is_empty() {
        return of_object(group, kind);
    }
    let wanted = (group, kind, subresource);
    let found = SUBRESOURCE_EXCEPTIONS.iter().find(|(g, k, s, _)| (*g, *k, *s) == wanted);
    found.map_or(&[CHANGE], |(.., judgements)| judgements)
}

/// What finalizers a new object of a kind may have.
pub fn finalizers(group: &str, kind: &str) -> Finalizers {
    of_object(group, kind).first().map_or(Finalizers::Known, |judgement| judgement.finalizers())
}
