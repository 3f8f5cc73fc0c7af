//! What of newer versions a pod needs of its node, which nodes declare in their status, so that clusters of several
//! versions put no pod where it is misunderstood. Upstream: component-helpers `nodedeclaredfeatures`.

use api::core::v1::{Container, PodSpec};

const RESIZE_OF_PODS: &str = "InPlacePodLevelResourcesVerticalScaling";
const RESIZE_OF_INIT_CONTAINERS: &str = "InPlacePodVerticalScalingInitContainers";
const RESTART_OF_ALL: &str = "RestartAllContainersOnContainerExits";
const USERS_ON_THE_HOSTS_NETWORK: &str = "UserNamespacesHostNetworkSupport";

/// What a pod needs to run at all, ordered by name.
pub fn to_run(spec: &PodSpec) -> Vec<&'static str> {
    let mut needed = Vec::new();
    let restarts =
        |c: &Container| c.restart_policy_rules.iter().any(|rule| rule.action == "RestartAllContainers");
    if spec.containers.iter().chain(&spec.init_containers).any(restarts) {
        needed.push(RESTART_OF_ALL);
    }
    if spec.host_network && spec.host_users == Some(false) {
        needed.push(USERS_ON_THE_HOSTS_NETWORK);
    }
    needed
}

/// What a pod needs for a change of it, ordered by name.
pub fn to_change(old: &PodSpec, new: &PodSpec) -> Vec<&'static str> {
    let mut needed = Vec::new();
    if old.resources != new.resources {
        needed.push(RESIZE_OF_PODS);
    }
    // Those that go on beside the others were resized before.
    let ends = |c: &Container| c.restart_policy.as_deref() != Some("Always");
    let mut pairs = old.init_containers.iter().zip(&new.init_containers);
    if pairs.any(|(old, new)| ends(old) && old.resources != new.resources) {
        needed.push(RESIZE_OF_INIT_CONTAINERS);
    }
    needed
}

/// Of what is needed, what is not declared.
pub fn missing<'a>(needed: &[&'a str], declared: &[String]) -> Vec<&'a str> {
    needed.iter().copied().filter(|name| declared.iter().all(|known| known != name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;

    fn spec(value: Value) -> PodSpec {
        apimachinery::value::from_value(value).unwrap()
    }

    #[test]
    fn what_pods_need_to_run() {
        assert_eq!(to_run(&spec(json!({"hostNetwork": true}))), [""; 0]);
        let both = json!({"hostNetwork": true, "hostUsers": false, "initContainers": [{"name": "c",
            "restartPolicyRules": [{"action": "RestartAllContainers"}]}]});
        assert_eq!(to_run(&spec(both)), [RESTART_OF_ALL, USERS_ON_THE_HOSTS_NETWORK]);
        let declared = [RESTART_OF_ALL.to_owned()];
        assert_eq!(missing(&[RESTART_OF_ALL, RESIZE_OF_PODS], &declared), [RESIZE_OF_PODS]);
    }

    #[test]
    fn what_changes_need() {
        let check = |old: Value, new: Value, needed: &[&str]| {
            assert_eq!(to_change(&spec(old), &spec(new)), needed);
        };
        let init = |cpu: &str, policy: Value| json!({"initContainers": [{"name": "i", "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}}]});
        check(init("1", Value::Null), init("1", Value::Null), &[]);
        check(init("1", Value::Null), init("2", Value::Null), &[RESIZE_OF_INIT_CONTAINERS]);
        check(init("1", json!("Always")), init("2", json!("Always")), &[]);
        let pod = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        check(pod("1000m"), pod("1"), &[]);
        check(pod("1"), pod("2"), &[RESIZE_OF_PODS]);
    }
}
