//! What a pod's status may become. Upstream: `ValidatePodStatusUpdate`.

use crate::check::{Check, NOT_NEGATIVE_INTEGER, qualified_name, subdomain};
use crate::shown::shown_list;
use crate::tree::{or, text};
use api::core::v1::*;
use apimachinery::field::{Error, Path};
use apimachinery::validation::{
    Strictness, is_dns1123_label, is_valid_group_id, is_valid_ip_for_legacy_field, is_valid_user_id,
    parse_ip_sloppy, warnings_for_ip,
};
use apimachinery::value::Value;
use std::collections::{HashMap, HashSet, VecDeque};

/// Conditions of the system's own, whose names keep no rule.
const SYSTEM: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// What a writer of the status leaves as it is.
pub(super) fn prepare(pod: &mut Value, old: &Value) {
    super::pod_update::set(&mut pod["metadata"], "ownerReferences", old["metadata"].get("ownerReferences"));
    let class = text(old, &["status", "qosClass"]).to_owned();
    let Some(status) = pod.get_mut("status") else { return };
    if !class.is_empty() {
        or(status, "qosClass", class);
    }
    keep_generation(status, &old["status"]);
    // Conditions of a type may repeat: the first that has none gets the first one's, and so on.
    let mut known: HashMap<&str, VecDeque<&Value>> = HashMap::new();
    for condition in old["status"]["conditions"].as_array().into_iter().flatten() {
        known.entry(text(condition, &["type"])).or_default().push_back(condition);
    }
    crate::tree::each(status, "conditions", |condition| {
        let before = known.get_mut(text(condition, &["type"])).and_then(VecDeque::pop_front);
        if let Some(before) = before {
            keep_generation(condition, before);
        }
    });
}

fn keep_generation(new: &mut Value, old: &Value) {
    if let Some(generation) = old["observedGeneration"].as_i64().filter(|g| *g != 0) {
        or(new, "observedGeneration", generation);
    }
}

/// Addresses in forms that are read no longer than necessary.
pub(super) fn warnings(pod: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for member in ["podIPs", "hostIPs"] {
        for (i, ip) in crate::tree::list(pod, &["status", member]).iter().enumerate() {
            let at = Path::new("status").child(member).index(i).child("ip");
            found.extend(warnings_for_ip(&at, text(ip, &["ip"])));
        }
    }
    found
}

pub(super) fn validate(check: &mut Check, new: &Pod, old: &Pod) {
    let path = Path::new("status");
    let (now, then) = (&new.status, &old.status);
    for (i, condition) in now.conditions.iter().enumerate() {
        let at = path.child("conditions").index(i);
        generation(check, condition.observed_generation, &at);
        if !SYSTEM.contains(&condition.type_.as_str()) {
            check.keeps(&at.child("Type"), &condition.type_, qualified_name);
        }
    }
    if new.spec.node_name != old.spec.node_name {
        check.forbidden(&path.child("nodeName"), "may not be changed directly");
    }
    let nominated = now.nominated_node_name.as_str();
    if !nominated.is_empty() && nominated != then.nominated_node_name {
        let at = path.child("nominatedNodeName");
        check.keeps(&at, nominated, subdomain);
        if !old.spec.node_name.is_empty() {
            check.forbidden(&at, "may not be set on pods that are already bound to a node");
        }
    }
    generation(check, now.observed_generation, &path);
    if now.qos_class != then.qos_class {
        check.invalid(&path.child("qosClass"), now.qos_class.as_str(), "field is immutable");
    }
    transitions(check, new, old, &path);
    claims(check, new, &path);
    addresses(check, new, old, &path);
    for (member, statuses, containers) in [
        ("containerStatuses", &now.container_statuses, Some(&new.spec.containers)),
        ("initContainerStatuses", &now.init_container_statuses, Some(&new.spec.init_containers)),
        ("ephemeralContainerStatuses", &now.ephemeral_container_statuses, None),
    ] {
        let at = path.child(member);
        statuses
            .iter()
            .enumerate()
            .for_each(|(i, status)| user(check, status, &new.spec, &at.index(i).child("user")));
        for (i, status) in statuses.iter().enumerate() {
            allocated(check, status, containers, &at.index(i).child("allocatedResourcesStatus"));
        }
    }
}

fn generation(check: &mut Check, generation: i64, path: &Path) {
    if generation < 0 {
        check.invalid(&path.child("observedGeneration"), generation, NOT_NEGATIVE_INTEGER);
    }
}

/// Whether a container is started again after it ended.
fn restarts(spec: &PodSpec, container: &Container, code: i32) -> bool {
    let by_word = |policy: &str| match policy {
        "OnFailure" => code != 0,
        "Never" => false,
        _ => true,
    };
    let Some(policy) = container.restart_policy.as_deref() else { return by_word(&spec.restart_policy) };
    let rule = container.restart_policy_rules.iter().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
            "In" => codes.values.contains(&code),
            "NotIn" => !codes.values.contains(&code),
            _ => false,
        })
    });
    if rule.is_some_and(|rule| matches!(rule.action.as_str(), "Restart" | "RestartAllContainers")) {
        return true;
    }
    match policy {
        "Always" | "OnFailure" | "Never" => by_word(policy),
        _ => by_word(&spec.restart_policy),
    }
}

/// A container that ended for good does not come back.
fn transitions(check: &mut Check, new: &Pod, old: &Pod, path: &Path) {
    let spec = &old.spec;
    let all = || spec.init_containers.iter().chain(&spec.containers);
    let all_restart = all().flat_map(|c| &c.restart_policy_rules).any(|r| r.action == "RestartAllContainers");
    let (now, then) = (&new.status, &old.status);
    for (member, now, then, containers) in [
        ("containerStatuses", &now.container_statuses, &then.container_statuses, Some(&spec.containers)),
        (
            "initContainerStatuses",
            &now.init_container_statuses,
            &then.init_container_statuses,
            Some(&spec.init_containers),
        ),
        (
            "ephemeralContainerStatuses",
            &now.ephemeral_container_statuses,
            &then.ephemeral_container_statuses,
            None,
        ),
    ] {
        if containers.is_some() && all_restart {
            continue;
        }
        for (i, before) in then.iter().enumerate() {
            let Some(end) = &before.state.terminated else { continue };
            if !now.iter().any(|s| s.name == before.name && s.state.terminated.is_none()) {
                continue;
            }
            let container = containers.and_then(|all| all.iter().find(|c| c.name == before.name));
            if !container.is_some_and(|c| restarts(spec, c, end.exit_code)) {
                let why = "may not be transitioned to non-terminated state";
                check.forbidden(&path.child(member).index(i).child("state"), why);
            }
        }
    }
}

fn claims(check: &mut Check, pod: &Pod, path: &Path) {
    let (status, at) = (&pod.status, path.child("resourceClaimStatuses"));
    let mut names = HashSet::new();
    for (i, claim) in status.resource_claim_statuses.iter().enumerate() {
        let at = at.index(i);
        if !pod.spec.resource_claims.iter().any(|c| c.name == claim.name) {
            let why = "must match the name of an entry in `spec.resourceClaims`";
            check.invalid(&at.child("name"), claim.name.as_str(), why);
        }
        check.when(!names.insert(claim.name.as_str()), || {
            Error::duplicate(&at.child("name"), claim.name.as_str())
        });
        if let Some(name) = &claim.resource_claim_name {
            check.keeps(&at.child("resourceClaimName"), name, subdomain);
        }
    }
    let Some(extended) = &status.extended_resource_claim_status else { return };
    let (at, mut seen) = (path.child("extendedResourceClaimStatus"), HashSet::new());
    let mappings = at.child("requestMappings");
    if extended.request_mappings.is_empty() {
        check.required(&mappings, "at least one request mapping is required");
    }
    for (i, mapping) in extended.request_mappings.iter().enumerate() {
        let one = mappings.index(i);
        let (container, resource) = (mapping.container_name.as_str(), mapping.resource_name.as_str());
        let mut containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        match containers.find(|c| c.name == container) {
            None => {
                let why =
                    "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                check.invalid(&one.child("containerName"), container, why);
            }
            Some(c) if !c.resources.requests.contains_key(resource) => {
                let why = "must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests";
                check.invalid(&one.child("resourceName"), resource, why);
            }
            Some(_) => {}
        }
        let request = mapping.request_name.as_str();
        is_dns1123_label(request)
            .into_iter()
            .for_each(|why| check.invalid(&at.child("requestName"), request, why));
        if !seen.insert((container, resource, request)) {
            for (member, value) in
                [("containerName", container), ("resourceName", resource), ("requestName", request)]
            {
                check.0.push(Error::duplicate(&one.child(member), value));
            }
        }
    }
    check.present_and_keeps(&at.child("resourceClaimName"), &extended.resource_claim_name, "", subdomain);
}

fn addresses(check: &mut Check, new: &Pod, old: &Pod, path: &Path) {
    let pods = |pod: &Pod| pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let hosts = |pod: &Pod| pod.status.host_ips.iter().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let at = path.child("podIPs");
    family_pair(check, &pods(new), &pods(old), &at);
    if more_than_one_each(&pods(new)) {
        check.invalid(&at, shown_list("io.k8s.api.core.v1.PodIP", &new.status.pod_ips), ONE_EACH);
    }
    let at = path.child("hostIPs");
    if let Some(first) = new.status.host_ips.first().filter(|first| first.ip != new.status.host_ip) {
        check.invalid(&at.index(0).child("ip"), first.ip.as_str(), "must be equal to `hostIP`");
    }
    family_pair(check, &hosts(new), &hosts(old), &at);
    if more_than_one_each(&hosts(new)) {
        check.invalid(&at, shown_list("io.k8s.api.core.v1.HostIP", &new.status.host_ips), ONE_EACH);
    }
}

const ONE_EACH: &str = "may specify no more than one IP for each IP family";

fn family_pair(check: &mut Check, now: &[String], then: &[String], path: &Path) {
    for (i, ip) in now.iter().enumerate() {
        check.extend(is_valid_ip_for_legacy_field(&path.index(i), ip, Strictness::Strict, then));
    }
}

/// Whether several addresses are anything but one of each family.
fn more_than_one_each(ips: &[String]) -> bool {
    let families: HashSet<bool> =
        ips.iter().filter_map(|ip| parse_ip_sloppy(ip)).map(|ip| ip.is_ipv4()).collect();
    ips.len() > 1 && (ips.len() > 2 || families.len() < 2)
}

fn user(check: &mut Check, status: &ContainerStatus, spec: &PodSpec, path: &Path) {
    let Some(user) = status.user.as_ref().and_then(|user| user.linux.as_ref()) else { return };
    let at = path.child("linux");
    match spec.os.as_ref().map_or("linux", |os| os.name.as_str()) {
        "windows" => check.forbidden(&at, "cannot be set for a windows pod"),
        "linux" => {
            is_valid_user_id(user.uid)
                .into_iter()
                .for_each(|why| check.invalid(&at.child("uid"), user.uid, why));
            is_valid_group_id(user.gid)
                .into_iter()
                .for_each(|why| check.invalid(&at.child("gid"), user.gid, why));
            for (i, group) in user.supplemental_groups.iter().enumerate() {
                let at = at.child("supplementalGroups").index(i);
                is_valid_group_id(*group).into_iter().for_each(|why| check.invalid(&at, *group, why));
            }
        }
        _ => {}
    }
}

fn allocated(check: &mut Check, status: &ContainerStatus, containers: Option<&Vec<Container>>, path: &Path) {
    const HEALTH: [&str; 3] = ["Healthy", "Unhealthy", "Unknown"];
    const MESSAGE: usize = 2048;
    let Some(containers) = containers else {
        if !status.allocated_resources_status.is_empty() {
            check.forbidden(path, "must not be specified in container status");
        }
        return;
    };
    let container = containers.iter().find(|c| c.name == status.name);
    for (i, resource) in status.allocated_resources_status.iter().enumerate() {
        let at = path.index(i);
        if let Some(container) = container {
            let claim = |c: &ResourceClaim| match c.request.as_str() {
                "" => format!("claim:{}", c.name),
                request => format!("claim:{}/{request}", c.name),
            };
            let (known, why) = if resource.name.starts_with("claim:") {
                (
                    container.resources.claims.iter().any(|c| claim(c) == resource.name),
                    "must match one of the container's resource claims in a format 'claim:<claimName>/<request>' or 'claim:<claimName>' if request is empty",
                )
            } else {
                let known = container.resources.requests.contains_key(&resource.name);
                (known, "must match one of the container's resource requests")
            };
            if !known {
                check.invalid(&at.child("name"), resource.name.as_str(), why);
            }
        }
        let mut ids = HashSet::new();
        for (j, one) in resource.resources.iter().enumerate() {
            let at = at.child("resources").index(j);
            check.one_of(&at.child("health"), &one.health, &HEALTH);
            if let Some(message) = &one.message {
                let at = at.child("message");
                check.present(&at, message, "must be non-empty if specified");
                check.when(message.len() > MESSAGE, || Error::too_long(&at, MESSAGE));
            }
            check.when(!ids.insert(one.resource_id.as_str()), || {
                Error::duplicate(&at.child("resourceID"), one.resource_id.as_str())
            });
        }
    }
}
