//! The ServiceCIDR `kubernetes`, which every cluster has: made of the server's flag, made anew when it is gone, and ready
//! when it says what the flag says. Upstream: `kubernetes-service-cidr-controller`.

use apimachinery::json;
use apimachinery::value::Value;

/// Its name.
pub(super) const NAME: &str = "kubernetes";
/// Who says that it is ready.
pub(super) const MANAGER: &str = "kubernetes-service-cidr-controller";

/// What is to be done about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Create(Value),
    /// Write this, which has a second range.
    Widen(Value),
    /// Apply this status.
    Apply(Value),
    /// Tell people, once: reason and message.
    Warn(String, String),
}

/// `current` is the object as it is; `cidrs` what the flag says.
pub(super) fn step(current: Option<&Value>, cidrs: &[String], now: &str) -> Step {
    let Some(current) = current else {
        return Step::Create(object(cidrs));
    };
    let is = &current["spec"]["cidrs"];
    if cidrs.len() == 2 && *is == json!(cidrs[..1]) {
        let mut wider = current.clone();
        wider["spec"]["cidrs"] = json!(cidrs);
        return Step::Widen(wider);
    }
    if crate::object::is_being_deleted(current) {
        return Step::Nothing;
    }
    if *is != json!(cidrs) {
        let shown: Vec<&str> = is.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let message = format!(
            "The default ServiceCIDR [{}] does not match the controller flag configurations [{}]",
            shown.join(" "),
            cidrs.join(" ")
        );
        return Step::Warn("KubernetesDefaultServiceCIDRInconsistent".into(), message);
    }
    let conditions = current["status"]["conditions"].as_array();
    let ready = conditions.into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let text = |field: &str| ready.and_then(|ready| ready[field].as_str()).unwrap_or_default();
    match text("status") {
        "True" => Step::Nothing,
        "False" => {
            Step::Warn(text("reason").into(), format!("Configuration matches, but {}", text("message")))
        }
        _ => Step::Apply(json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": NAME},
            "status": {"conditions": [{
                "type": "Ready",
                "status": "True",
                "lastTransitionTime": now,
                "reason": "",
                "message": "Kubernetes default Service CIDR is ready",
            }]},
        })),
    }
}

/// The object of a new cluster.
pub(super) fn object(cidrs: &[String]) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": NAME},
        "spec": {"cidrs": cidrs},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_when_it_says_what_the_flag_says() {
        let cidrs = ["10.96.0.0/16".to_owned()];
        let next = |current: Option<&Value>| step(current, &cidrs, "2026-01-01T00:00:00Z");
        assert!(matches!(next(None), Step::Create(_)));
        let mut range = object(&cidrs);
        let Step::Apply(applied) = next(Some(&range)) else { panic!("it is made ready") };
        range["status"] = applied["status"].clone();
        assert_eq!(next(Some(&range)), Step::Nothing);
        range["status"]["conditions"][0]["status"] = "False".into();
        assert!(matches!(next(Some(&range)), Step::Warn(..)), "somebody else's word is not taken back");
        range["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(next(Some(&range)), Step::Nothing);
        let other = object(&["10.0.0.0/16".to_owned()]);
        let expected = "The default ServiceCIDR [10.0.0.0/16] does not match the controller flag configurations [10.96.0.0/16]";
        assert_eq!(
            next(Some(&other)),
            Step::Warn("KubernetesDefaultServiceCIDRInconsistent".into(), expected.into())
        );
        let both = ["10.0.0.0/16".to_owned(), "fd00::/108".to_owned()];
        assert_eq!(step(Some(&other), &both, ""), Step::Widen(object(&both)), "it gets a second range");
    }
}
