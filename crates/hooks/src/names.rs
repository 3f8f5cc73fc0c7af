//! What names of a kind must keep, as upstream's strategies say.

use apimachinery::field::Path;
use apimachinery::validation::{self, NameUse};

/// Whether generated names end in something of chance: what is named after an address does not.
pub fn randomizes(group: &str, kind: &str) -> bool {
    (group, kind) != ("networking.k8s.io", "IPAddress")
}

/// What is wrong with a name, which is a DNS subdomain for most kinds.
pub fn name_errors(group: &str, kind: &str, name: &str, used: NameUse) -> Vec<String> {
    match (group, kind) {
        ("apiregistration.k8s.io" | "rbac.authorization.k8s.io", _)
        | ("certificates.k8s.io", "CertificateSigningRequest" | "ClusterTrustBundle")
        | ("", "Event")
        | ("policy", "PodDisruptionBudget") => match used {
            NameUse::Whole => validation::is_path_segment_name(name),
            NameUse::Prefix => validation::is_path_segment_prefix(name),
        },
        ("", "Namespace" | "Service") | ("apps", "StatefulSet") => validation::name_is_dns_label(name, used),
        ("networking.k8s.io", "IPAddress") => {
            validation::is_valid_ip(&Path::none(), name).iter().map(|error| error.detail.clone()).collect()
        }
        _ => validation::name_is_dns_subdomain(name, used),
    }
}

/// What is wrong with the name of a bundle of this signer, or of none. Upstream: `ValidateClusterTrustBundleName`.
pub(super) fn trust_bundle_name_errors(signer: &str, name: &str, used: NameUse) -> Vec<String> {
    if signer.is_empty() {
        return match name.contains(':') {
            true => vec!["ClusterTrustBundle without signer name must not have \":\" in its name".into()],
            false => validation::name_is_dns_subdomain(name, used),
        };
    }
    let prefix = format!("{}:", signer.replace('/', ":"));
    match name.strip_prefix(&prefix) {
        Some(own) => validation::name_is_dns_subdomain(own, used),
        None => {
            vec![format!("ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}")]
        }
    }
}
