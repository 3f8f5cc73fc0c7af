//! What a pod is called from within, and its domain. Pure. Upstream: `GeneratePodHostNameAndDomain`.

use api::core::v1::Pod;

const MAX_LABEL: usize = 63;
const MAX_FQDN: usize = 64;

/// Hostname, and the domain when the pod has one.
pub(crate) fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    if let Some(name) = pod.spec.hostname_override.as_deref().filter(|n| !n.is_empty()) {
        return (name.to_owned(), String::new());
    }
    let mut hostname =
        if pod.spec.hostname.is_empty() { pod.metadata.name.clone() } else { pod.spec.hostname.clone() };
    if hostname.len() > MAX_LABEL {
        hostname.truncate(MAX_LABEL);
        hostname.truncate(hostname.trim_end_matches(['-', '.']).len());
    }
    let domain = match pod.spec.subdomain.as_str() {
        "" => String::new(),
        subdomain => format!("{subdomain}.{}.svc.{cluster_domain}", pod.metadata.namespace),
    };
    (hostname, domain)
}

/// What `uname -n` says in the sandbox.
pub(crate) fn kernel_hostname(pod: &Pod, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if pod.spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname);
    }
    let fqdn = format!("{hostname}.{domain}");
    if fqdn.len() > MAX_FQDN {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {fqdn} is too long ({MAX_FQDN} characters is the max, {} characters requested)",
            fqdn.len()
        ));
    }
    Ok(fqdn)
}
