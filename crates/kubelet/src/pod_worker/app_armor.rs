//! Whether what a pod wants of AppArmor can be enforced on this node: pure. Upstream: `pkg/security/apparmor`.

use super::status::Forced;
use api::core::v1::{AppArmorProfile, Pod};

const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// What a pod wants to be confined by, for itself and for each of its containers.
fn profiles(pod: &Pod) -> impl Iterator<Item = &AppArmorProfile> {
    let spec = &pod.spec;
    let ephemeral = spec.ephemeral_containers.iter().filter_map(|c| c.security_context.as_ref());
    let contexts =
        spec.init_containers.iter().chain(&spec.containers).filter_map(|c| c.security_context.as_ref());
    let own = contexts.chain(ephemeral).filter_map(|context| context.app_armor_profile.as_ref());
    let whole = spec.security_context.iter().filter_map(|context| context.app_armor_profile.as_ref());
    whole.chain(own).filter(|profile| profile.type_ != "Unconfined")
}

/// Refuses a pod that would run without the confinement it wants.
pub(crate) fn admit(pod: &Pod, enabled: bool) -> Result<(), Forced> {
    let annotations = &pod.metadata.annotations;
    let is_annotated =
        annotations.iter().any(|(key, value)| key.starts_with(ANNOTATION) && value != "unconfined");
    let nameless = |profile: &AppArmorProfile| {
        let name = profile.localhost_profile.as_deref().unwrap_or_default();
        profile.type_ == "Localhost" && name.trim().is_empty()
    };
    let why = match enabled {
        false if is_annotated || profiles(pod).next().is_some() => "AppArmor is not enabled on the host",
        true if profiles(pod).any(nameless) => "invalid empty AppArmor profile name",
        _ => return Ok(()),
    };
    let message = format!("Cannot enforce AppArmor: {why}");
    Err(Forced { reason: "AppArmor".into(), message, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(pod: Value, enabled: bool, expected: Expect) {
        let pod: Pod = apimachinery::value::from_value(pod).unwrap();
        let refused =
            admit(&pod, enabled).err().map(|refused| format!("{}: {}", refused.reason, refused.message));
        expected.assert_eq(&refused.unwrap_or_default());
    }

    #[test]
    fn nobody_runs_without_the_confinement_he_wants() {
        let of_pod = |profile: Value| json!({"spec": {"securityContext": {"appArmorProfile": profile}}});
        let none = || expect!["AppArmor: Cannot enforce AppArmor: AppArmor is not enabled on the host"];
        check(json!({}), false, expect![""]);
        check(of_pod(json!({"type": "Unconfined"})), false, expect![""]);
        check(of_pod(json!({"type": "RuntimeDefault"})), false, none());
        check(of_pod(json!({"type": "RuntimeDefault"})), true, expect![""]);
        check(of_pod(json!({"type": "Localhost", "localhostProfile": "x"})), true, expect![""]);
        check(
            of_pod(json!({"type": "Localhost", "localhostProfile": " "})),
            true,
            expect!["AppArmor: Cannot enforce AppArmor: invalid empty AppArmor profile name"],
        );
        let container =
            json!({"name": "c", "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}});
        for containers in ["containers", "initContainers", "ephemeralContainers"] {
            check(json!({"spec": {containers: [container]}}), false, none());
        }
        let annotated =
            |profile: &str| json!({"metadata": {"annotations": {(format!("{ANNOTATION}c")): profile}}});
        check(annotated("unconfined"), false, expect![""]);
        check(annotated("runtime/default"), false, none());
    }
}
