//! What a manifest must be to be run as a static pod. Upstream: `tryDecodeSinglePod` of `pkg/kubelet/config/common.go`,
//! `HasAPIObjectReference` of `pkg/api/pod`.

use crate::config::Config;
use crate::objects::References;
use api::core::v1::{Pod, VolumeProjection};
use apimachinery::decode::Decode as _;
use apimachinery::validation::{NameUse, is_dns1123_label, name_is_dns_subdomain};

/// A manifest's text as a pod, and as nothing else.
pub(super) fn parse(text: &str) -> Result<Pod, String> {
    let no_pod = |why: &str| format!("couldn't parse as pod({why}), please check config file");
    let decoded = schema::decode::free_yaml(text, schema::decode::FieldValidation::Ignore)
        .map_err(|error| no_pod(&error.to_string()))?;
    let said = |what: &str| decoded.value.get(what).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    match (said("apiVersion").as_str(), said("kind").as_str()) {
        ("v1", "Pod") => {}
        (_, "") => return Err(no_pod("Object 'Kind' is missing")),
        (version, kind) => return Err(no_pod(&format!("it is a {kind:?} of version {version:?}"))),
    }
    Pod::from_value(&decoded.value).map_err(|error| no_pod(&error.to_string()))
}

/// What of the API server's rules would make no sense to run, and what only the API could give.
pub(super) fn check(config: &Config, pod: &Pod) -> Result<(), String> {
    let invalid = |field: &str, why: &str| Err(format!("invalid pod: {field}: {why}"));
    if let Some(problem) = name_is_dns_subdomain(&pod.metadata.name, NameUse::Whole).first() {
        return invalid("metadata.name", &format!("Invalid value: {:?}: {problem}", pod.metadata.name));
    }
    let spec = &pod.spec;
    if spec.containers.is_empty() {
        return invalid("spec.containers", "Required value");
    }
    for (list, containers) in [("containers", &spec.containers), ("initContainers", &spec.init_containers)] {
        for (i, container) in containers.iter().enumerate() {
            let field = |name: &str| format!("spec.{list}[{i}].{name}");
            if container.name.is_empty() {
                return invalid(&field("name"), "Required value");
            }
            if let Some(problem) = is_dns1123_label(&container.name).first() {
                return invalid(&field("name"), &format!("Invalid value: {:?}: {problem}", container.name));
            }
            if container.image.is_empty() {
                return invalid(&field("image"), "Required value");
            }
        }
    }
    match reference(pod) {
        Some(resource) if config.feature("PreventStaticPodAPIReferences") => {
            Err(format!("static pods may not reference {resource}"))
        }
        _ => Ok(()),
    }
}

/// The first kind of API object that the pod cannot do without.
fn reference(pod: &Pod) -> Option<&'static str> {
    let spec = &pod.spec;
    let names = References::of(pod);
    if !spec.service_account_name.is_empty() || !spec.service_account.is_empty() {
        return Some("serviceaccounts");
    }
    if !names.secrets.is_empty() {
        return Some("secrets");
    }
    if !names.config_maps.is_empty() {
        return Some("configmaps");
    }
    if !spec.resource_claims.is_empty() {
        return Some("resourceclaims");
    }
    spec.volumes.iter().find_map(|volume| {
        let held = [
            (volume.csi.is_some(), "csidrivers (via CSI volumes)"),
            (volume.glusterfs.is_some(), "endpoints (via glusterFS volumes)"),
            (volume.persistent_volume_claim.is_some(), "persistentvolumeclaims"),
            (volume.ephemeral.is_some(), "persistentvolumeclaims (via ephemeral volumes)"),
            (volume.azure_file.is_some(), "secrets (via azureFile volumes)"),
        ];
        let own = held.into_iter().find_map(|(is, what)| is.then_some(what));
        own.or_else(|| volume.projected.iter().flat_map(|p| &p.sources).find_map(projected))
    })
}

fn projected(source: &VolumeProjection) -> Option<&'static str> {
    if source.service_account_token.is_some() {
        Some("serviceaccounts (via projected volumes)")
    } else if source.cluster_trust_bundle.is_some() {
        Some("clustertrustbundles")
    } else {
        source.pod_certificate.as_ref().map(|_| "podcertificates")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> String {
        let config = Config::new("n1", "10.0.0.1");
        parse(text).and_then(|pod| check(&config, &pod)).err().unwrap_or_default()
    }

    #[test]
    fn takes_whole_pods_only() {
        let with = |rest: &str| {
            judge(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {{containers: [{{name: c, image: i}}], {rest}}}"
            ))
        };
        assert_eq!(with(""), "");
        assert_eq!(with("volumes: [{name: v, emptyDir: {}}, {name: h, hostPath: {path: /}}]"), "");
        let refused = [
            ("serviceAccountName: s", "serviceaccounts"),
            ("volumes: [{name: v, secret: {secretName: s}}]", "secrets"),
            ("initContainers: [{name: i, image: i, envFrom: [{configMapRef: {name: m}}]}]", "configmaps"),
            ("resourceClaims: [{name: r, resourceClaimName: c}]", "resourceclaims"),
            ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
            (
                "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]",
                "serviceaccounts (via projected volumes)",
            ),
        ];
        for (rest, what) in refused {
            assert_eq!(with(rest), format!("static pods may not reference {what}"), "{rest}");
        }
        let wrong = [
            ("", "couldn't parse as pod(Object 'Kind' is missing), please check config file"),
            (
                "apiVersion: v1\nkind: Service\nmetadata: {name: a}",
                r#"couldn't parse as pod(it is a "Service" of version "v1"), please check config file"#,
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}",
                "invalid pod: spec.containers: Required value",
            ),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c}]}",
                "invalid pod: spec.containers[0].image: Required value",
            ),
        ];
        for (text, why) in wrong {
            assert_eq!(judge(text), why, "{text}");
        }
        let named =
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a_b}\nspec: {containers: [{name: c, image: i}]}";
        assert!(
            judge(named)
                .starts_with("invalid pod: metadata.name: Invalid value: \"a_b\": a lowercase RFC 1123")
        );
        let cut = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"cut"},"spec":{"cont"#;
        assert!(judge(cut).starts_with("couldn't parse as pod("), "{}", judge(cut));
    }
}
