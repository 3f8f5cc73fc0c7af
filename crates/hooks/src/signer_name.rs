//! Names of those who sign certificates: `example.com/signer-name`.

use super::check::Check;
use apimachinery::field::{Error, Path};
use apimachinery::validation::{is_dns1123_label, is_dns1123_subdomain};

const MAX_DOMAIN: usize = 253;
const MAX: usize = MAX_DOMAIN + 1 + (253 + 63 + 1);

pub(super) fn validate_signer_name(check: &mut Check, path: &Path, name: &str) {
    if !check.present(path, name, "") {
        return;
    }
    let [domain, own] = name.split('/').collect::<Vec<_>>()[..] else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return check.invalid(path, name, why);
    };
    check.when(domain.len() > MAX_DOMAIN, || Error::too_long(path, MAX_DOMAIN));
    labels(check, path, domain, |label| is_dns1123_label(label).into_iter().collect());
    if !domain.contains('.') {
        check.invalid(path, domain, "should be a domain with at least two segments separated by dots");
    }
    labels(check, path, own, |label| is_dns1123_subdomain(label).into_iter().collect());
    check.when(name.len() > MAX, || Error::too_long(path, MAX));
}

/// Whether the name is of a signer of Kubernetes itself.
pub(super) fn is_of_kubernetes(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or_default();
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}

/// What is wrong with the first label that has something wrong.
fn labels(check: &mut Check, path: &Path, segment: &str, rule: fn(&str) -> Vec<String>) {
    let mut labels = segment.split('.').map(|label| (label, rule(label)));
    let Some((label, wrong)) = labels.find(|(_, wrong)| !wrong.is_empty()) else { return };
    for why in wrong {
        check.invalid(path, segment, format!("validating label {label:?}: {why}"));
    }
}
