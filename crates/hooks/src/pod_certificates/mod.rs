//! Hooks of PodCertificateRequest: what a node asks of a signer for a pod, and what the signer answers, once and for good.

mod ask;
mod issue;
mod key;

use super::Row;
use super::check::Check;
use super::plain::Plain;
use super::signer_name::is_of_kubernetes;
use super::templates::NAME;
use super::tree::{column, labels, list, name, text};
use apimachinery::field::{Error, Path};
use apimachinery::meta::validation::TOTAL_ANNOTATION_SIZE;
use apimachinery::validation::is_domain_prefixed_key;
use std::collections::BTreeMap;

pub(super) const STRATEGIES: &[Row] = &[("certificates.k8s.io", "PodCertificateRequest", &REQUESTS)];

/// An hour, and how long certificates of signers of Kubernetes and of all others may be good for at most.
pub(super) const SHORTEST: i32 = 3600;
const LONGEST_OF_KUBERNETES: i32 = 24 * 3600;
const LONGEST: i32 = 91 * 24 * 3600;

const SIGNER: &[&str] = &["spec", "signerName"];
const POD: &[&str] = &["spec", "podName"];
const NODE: &[&str] = &["spec", "nodeName"];

static REQUESTS: Plain = Plain {
    validate_create: |request, _| ask::validate(request),
    validate_update: |request, old, context| match context.subresource {
        Some("status") => issue::validate(request, old, context.now),
        _ => Default::default(),
    },
    immutable: &[&["spec"]],
    columns: &[
        NAME,
        column(
            "PodName",
            "string",
            0,
            "podName is the name of the pod into which the certificate will be mounted.",
        ),
        column(
            "ServiceAccountName",
            "string",
            0,
            "serviceAccountName is the name of the service account the pod is running as.",
        ),
        column("NodeName", "string", 0, "nodeName is the name of the node the pod is assigned to."),
        column(
            "SignerName",
            "string",
            0,
            "signerName indicates the requested signer.\n\nAll signer names beginning with `kubernetes.io` are reserved for use by the Kubernetes project.  There is currently one well-known signer documented by the Kubernetes project, `kubernetes.io/kube-apiserver-client-pod`, which will issue client certificates understood by kube-apiserver.  It is currently unimplemented.",
        ),
        column("State", "string", 0, "Is the request Pending, Issued, Denied, or Failed?"),
        column(
            "UnverifiedUserAnnotations",
            "string",
            0,
            "unverifiedUserAnnotations allow pod authors to pass additional information to the signer implementation.  Kubernetes does not restrict or validate this metadata in any way.\n\nEntries are subject to the same validation as object metadata annotations, with the addition that all keys must be domain-prefixed. No restrictions are placed on values, except an overall size limitation on the entire field.\n\nSigners should document the keys and values they support.  Signers should deny requests that contain keys they do not recognize.",
        ),
    ],
    cells: |request, _| {
        let conditions = list(request, &["status", "conditions"]).iter();
        let mut states =
            conditions.map(|one| text(one, &["type"])).filter(|kind| issue::FINAL.contains(kind));
        let state = states.next_back().unwrap_or("Pending");
        let of = |path| text(request, path).into();
        vec![
            name(request),
            of(POD),
            of(&["spec", "serviceAccountName"]),
            of(NODE),
            of(SIGNER),
            state.into(),
            labels(request["spec"].get("unverifiedUserAnnotations")).into(),
        ]
    },
    fields: &[
        ("spec.signerName", |request| text(request, SIGNER).to_owned()),
        ("spec.podName", |request| text(request, POD).to_owned()),
        ("spec.nodeName", |request| text(request, NODE).to_owned()),
    ],
    ..Plain::NEW
};

/// How long a certificate of this signer may be good for.
pub(super) fn longest(signer: &str) -> i32 {
    if is_of_kubernetes(signer) { LONGEST_OF_KUBERNETES } else { LONGEST }
}

/// What a pod tells the signer: as annotations, but with a domain before each key.
pub(super) fn user_annotations(check: &mut Check, annotations: &BTreeMap<String, String>, path: &Path) {
    for key in annotations.keys() {
        check.extend(is_domain_prefixed_key(path, &key.to_lowercase()));
    }
    let size = annotations.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    check.when(size > TOTAL_ANNOTATION_SIZE, || Error::too_long(path, TOTAL_ANNOTATION_SIZE));
}
