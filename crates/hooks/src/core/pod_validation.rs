//! What is wrong with a pod's spec. Upstream: `ValidatePodSpec` and what it reaches; volumes, containers, resources and
//! security contexts have files of their own.

use super::pod_containers::{self, Pod as Judged, image_alone};
use super::pod_resources::{self, Of};
use super::pod_totals::within_the_pod;
use super::{pod_env, pod_security, pod_volumes};
use crate::check::{Check, label, subdomain};
use crate::shown::shown_typed;
use crate::tree::list;
use api::core::v1::*;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::meta::LabelSelector;
use apimachinery::meta::validation::{
    SelectorLeniency, validate_label_name, validate_label_selector, validate_labels,
};
use apimachinery::quantity::Quantity;
use apimachinery::validation::*;
use apimachinery::value::Value;
use std::collections::{BTreeMap, HashSet};

const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod, of which `tree` is the tree.
pub(super) fn validate_pod(pod: &Pod, tree: &Value) -> ErrorList {
    let mut check = Check::default();
    let annotations = Path::new("metadata").child("annotations");
    let mirror = pod.metadata.annotations.get(MIRROR);
    if let Some(value) = mirror.filter(|_| pod.spec.node_name.is_empty()) {
        let why = "must set spec.nodeName if mirror pod annotation is set";
        check.invalid(&annotations.key(MIRROR), value.as_str(), why);
    }
    if let Some(cost) = pod.metadata.annotations.get(DELETION_COST).filter(|c| c.parse::<i32>().is_err()) {
        check.invalid(&annotations.key(DELETION_COST), cost.as_str(), "must be a 32bit integer");
    }
    let path = Path::new("spec");
    spec_rules(&mut check, &pod.spec, list(tree, &["spec", "volumes"]), &path, mirror.is_some());
    for (member, containers) in
        [("containers", &pod.spec.containers), ("initContainers", &pod.spec.init_containers)]
    {
        for (i, container) in containers.iter().enumerate() {
            image_alone(&mut check, container, &path.child(member).index(i));
        }
    }
    if pod.spec.service_account_name.is_empty() {
        for (i, volume) in pod.spec.volumes.iter().enumerate() {
            let sources = volume.projected.iter().flat_map(|projected| &projected.sources).enumerate();
            for (j, _) in sources.filter(|(_, source)| source.service_account_token.is_some()) {
                let at = path.child("volumes").index(i).child("projected").child("sources").index(j);
                let why = "must not be specified when serviceAccountName is not set";
                check.forbidden(&at.child("serviceAccountToken"), why);
            }
        }
    }
    if pod.spec.scheduler_name.is_empty() {
        check.required(&path.child("schedulerName"), "");
    }
    check.0
}

/// The spec of a pod or a template.
pub(crate) fn validate_pod_spec(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut check = Check::default();
    let volumes = spec.volumes.iter().map(|volume| apimachinery::value::to_value(volume).unwrap_or_default());
    spec_rules(&mut check, spec, &volumes.collect::<Vec<_>>(), path, false);
    check.0
}

fn spec_rules(check: &mut Check, spec: &PodSpec, volumes: &[Value], path: &Path, mirror: bool) {
    if spec.termination_grace_period_seconds.is_none() {
        check.required(&path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = pod_volumes::validate(check, &spec.volumes, volumes, &path.child("volumes"));
    resource_claims(check, &spec.resource_claims, &path.child("resourceClaims"), mirror);
    let claims = spec.resource_claims.iter().map(|c| c.name.as_str()).collect();
    let judged = Judged { spec, volumes, claims };
    pod_containers::validate(check, &judged, path);
    pod_containers::ephemeral(check, &judged, &path.child("ephemeralContainers"));
    if let Some(resources) = &spec.resources {
        let at = path.child("resources");
        if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
            check.forbidden(&at, "may not be set for a windows pod");
        } else {
            if !resources.claims.is_empty() {
                check.forbidden(&at.child("claims"), "claims may not be set for Resources at pod-level");
            }
            pod_resources::validate(check, resources, Of::Pod, Some(&judged.claims), &at);
            within_the_pod(check, spec, resources, &at);
        }
    }
    if spec.host_network {
        for (i, container) in spec.containers.iter().enumerate() {
            for (j, port) in
                container.ports.iter().enumerate().filter(|(_, p)| p.host_port != p.container_port)
            {
                let at = path.child("containers").index(i).child("ports").index(j).child("hostPort");
                let why = "must match `containerPort` when `hostNetwork` is true";
                check.invalid(&at, port.host_port, why);
            }
        }
    }
    words(check, spec, path);
    check.extend(validate_labels(&spec.node_selector, &path.child("nodeSelector")));
    pod_security::pod(check, spec, &path.child("securityContext"));
    affinity(check, spec.affinity.as_ref(), &path.child("affinity"));
    dns(check, spec, &path.child("dnsConfig"));
    for (i, gate) in spec.readiness_gates.iter().enumerate() {
        let at = path.child("readinessGates").index(i).child("conditionType");
        qualified(check, &at, &gate.condition_type);
    }
    let mut gates = HashSet::new();
    for (i, gate) in spec.scheduling_gates.iter().enumerate() {
        let at = path.child("schedulingGates").index(i);
        qualified(check, &at, &gate.name);
        check.when(!gates.insert(gate.name.as_str()), || Error::duplicate(&at, gate.name.as_str()));
    }
    spread(check, &spec.topology_spread_constraints, &path.child("topologySpreadConstraints"));
    pod_security::host_processes(check, spec, path);
    if spec.host_users == Some(false) {
        for (given, member) in
            [(spec.host_network, "hostNetwork"), (spec.host_pid, "HostPID"), (spec.host_ipc, "HostIPC")]
        {
            if given {
                check.forbidden(&path.child(member), "when `hostUsers` is false");
            }
        }
    }
    names(check, spec, path);
    pod_security::operating_system(check, spec, path);
    pod_env::files(check, spec, path);
}

fn words(check: &mut Check, spec: &PodSpec, path: &Path) {
    let at = path.child("restartPolicy");
    if check.present(&at, &spec.restart_policy, "") {
        check.one_of(&at, &spec.restart_policy, &["Always", "OnFailure", "Never"]);
    }
    let at = path.child("dnsPolicy");
    if check.present(&at, &spec.dns_policy, "") {
        check.one_of(&at, &spec.dns_policy, &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]);
    }
}

fn names(check: &mut Check, spec: &PodSpec, path: &Path) {
    if let Some(name) = &spec.hostname_override {
        let at = path.child("hostnameOverride");
        if spec.set_hostname_as_fqdn == Some(true) {
            check.forbidden(&at, "may not be specified when setHostnameAsFQDN is true");
        }
        if spec.host_network {
            check.forbidden(&at, "may not be specified when hostNetwork is true");
        }
        check.when(name.len() > 64, || Error::too_long(&at, 64));
        check.keeps(&at, name, subdomain);
    }
    for (member, name) in [("serviceAccountName", &spec.service_account_name), ("nodeName", &spec.node_name)]
    {
        if !name.is_empty() {
            check.keeps(&path.child(member), name, subdomain);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds.filter(|s| !(1..=i64::from(i32::MAX)).contains(s)) {
        let why = inclusive_range_error(1, i32::MAX.into());
        check.invalid(&path.child("activeDeadlineSeconds"), seconds, why);
    }
    for (member, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if !name.is_empty() {
            check.keeps(&path.child(member), name, label);
        }
    }
    tolerations(check, &spec.tolerations, &path.child("tolerations"));
    for (i, alias) in spec.host_aliases.iter().enumerate() {
        let at = path.child("hostAliases").index(i);
        address(check, &at.child("ip"), &alias.ip);
        for (j, name) in alias.hostnames.iter().enumerate() {
            check.keeps(&at.child("hostnames").index(j), name, subdomain);
        }
    }
    if !spec.priority_class_name.is_empty() {
        check.keeps(&path.child("priorityClassName"), &spec.priority_class_name, subdomain);
    }
    if let Some(name) = &spec.runtime_class_name {
        check.keeps(&path.child("runtimeClassName"), name, subdomain);
    }
    if let Some(policy) = &spec.preemption_policy {
        let at = path.child("preemptionPolicy");
        if check.present(&at, policy, "") {
            check.one_of(&at, policy, &["PreemptLowerPriority", "Never"]);
        }
    }
    if !spec.overhead.is_empty() {
        overhead(check, &path.child("overhead"), &spec.overhead);
    }
}

/// What a sandbox takes beside its containers.
pub(crate) fn overhead(check: &mut Check, path: &Path, overhead: &BTreeMap<String, Quantity>) {
    let overhead = ResourceRequirements { limits: overhead.clone(), ..Default::default() };
    pod_resources::validate(check, &overhead, Of::Container, None, path);
}

fn qualified(check: &mut Check, path: &Path, name: &str) {
    is_qualified_name(name).into_iter().for_each(|why| check.invalid(path, name, why));
}

fn address(check: &mut Check, path: &Path, text: &str) {
    if parse_ip_sloppy(text).is_none() {
        check.invalid(path, text, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

fn resource_claims(check: &mut Check, claims: &[PodResourceClaim], path: &Path, mirror: bool) {
    let mut names = HashSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let at = path.index(i);
        if mirror {
            check.forbidden(&Path::new(""), "static pods do not support resource claims");
            continue;
        }
        if check.present(&at.child("name"), &claim.name, "") {
            if names.insert(claim.name.as_str()) {
                check.keeps(&at.child("name"), &claim.name, label);
            } else {
                check.0.push(Error::duplicate(&at.child("name"), claim.name.as_str()));
            }
        }
        let shown = || shown_typed("io.k8s.api.core.v1.PodResourceClaim", claim);
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let why =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                check.invalid(&at, shown(), why);
            }
            (None, None) => {
                let why = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                check.invalid(&at, shown(), why);
            }
            _ => {}
        }
        for (member, name) in [
            ("resourceClaimName", &claim.resource_claim_name),
            ("resourceClaimTemplateName", &claim.resource_claim_template_name),
        ] {
            if let Some(name) = name {
                check.keeps(&at.child(member), name, subdomain);
            }
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn affinity(check: &mut Check, affinity: Option<&Affinity>, path: &Path) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            validate_node_selector(&mut check.0, selector, &path.child(REQUIRED));
        }
        for (i, term) in node.preferred_during_scheduling_ignored_during_execution.iter().enumerate() {
            let at = path.child(PREFERRED).index(i);
            weight(check, &at, term.weight);
            node_term(check, &term.preference, &at.child("preference"));
        }
    }
    if let Some(pod) = &affinity.pod_affinity {
        let required = &pod.required_during_scheduling_ignored_during_execution;
        let preferred = &pod.preferred_during_scheduling_ignored_during_execution;
        pod_terms(check, &path.child("podAffinity"), required, preferred);
    }
    if let Some(pod) = &affinity.pod_anti_affinity {
        let required = &pod.required_during_scheduling_ignored_during_execution;
        let preferred = &pod.preferred_during_scheduling_ignored_during_execution;
        pod_terms(check, &path.child("podAntiAffinity"), required, preferred);
    }
}

fn pod_terms(
    check: &mut Check,
    path: &Path,
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
) {
    for (i, term) in required.iter().enumerate() {
        pod_term(check, term, &path.child(REQUIRED).index(i));
    }
    for (i, term) in preferred.iter().enumerate() {
        let at = path.child(PREFERRED).index(i);
        weight(check, &at, term.weight);
        pod_term(check, &term.pod_affinity_term, &at.child("podAffinityTerm"));
    }
}

fn weight(check: &mut Check, path: &Path, weight: i32) {
    if !(1..=100).contains(&weight) {
        check.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn selector(check: &mut Check, selector: Option<&LabelSelector>, path: &Path) {
    check.extend(validate_label_selector(selector, SelectorLeniency::default(), path));
}

fn pod_term(check: &mut Check, term: &PodAffinityTerm, path: &Path) {
    selector(check, term.label_selector.as_ref(), &path.child("labelSelector"));
    selector(check, term.namespace_selector.as_ref(), &path.child("namespaceSelector"));
    for name in &term.namespaces {
        check.keeps(&path.child("namespace"), name, label);
    }
    label_keys(check, &term.match_label_keys, &term.mismatch_label_keys, term.label_selector.as_ref(), path);
    check.present(&path.child("topologyKey"), &term.topology_key, "can not be empty");
    check.extend(validate_label_name(&term.topology_key, &path.child("topologyKey")));
}

/// Keys whose values are taken from the pod: not those the selector speaks of itself, and none both ways.
fn label_keys(
    check: &mut Check,
    matching: &[String],
    mismatching: &[String],
    selector: Option<&LabelSelector>,
    path: &Path,
) {
    for (member, keys) in [("matchLabelKeys", matching), ("mismatchLabelKeys", mismatching)] {
        let at = path.child(member);
        if !keys.is_empty() && selector.is_none() {
            check.forbidden(&at, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            check.extend(validate_label_name(key, &at.index(i)));
        }
    }
    for (i, key) in matching.iter().enumerate().filter(|(_, key)| mismatching.contains(key)) {
        let why = "exists in both matchLabelKeys and mismatchLabelKeys";
        check.invalid(&path.child("matchLabelKeys").index(i), key.as_str(), why);
    }
}

/// A selector of nodes, which has terms.
pub(crate) fn validate_node_selector(errors: &mut ErrorList, selector: &NodeSelector, path: &Path) {
    let mut check = Check::default();
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        check.required(&path, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(&mut check, term, &path.index(i));
    }
    errors.extend(check.0);
}

fn node_term(check: &mut Check, term: &NodeSelectorTerm, path: &Path) {
    for (i, requirement) in term.match_expressions.iter().enumerate() {
        node_requirement(check, requirement, &path.child("matchExpressions").index(i));
    }
    for (i, requirement) in term.match_fields.iter().enumerate() {
        let at = path.child("matchFields").index(i);
        match requirement.operator.as_str() {
            "In" | "NotIn" if requirement.values.len() != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                check.required(&at.child("values"), why);
            }
            "In" | "NotIn" => {}
            other => check.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        if requirement.key == "metadata.name" {
            for (j, value) in requirement.values.iter().enumerate() {
                check.keeps(&at.child("values").index(j), value, subdomain);
            }
        } else {
            let why = "not a valid field selector key";
            check.invalid(&at.child("key"), requirement.key.as_str(), why);
        }
    }
}

fn node_requirement(check: &mut Check, requirement: &NodeSelectorRequirement, path: &Path) {
    let values = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if requirement.values.is_empty() => {
            check.required(&values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !requirement.values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            check.forbidden(&values, why);
        }
        "Gt" | "Lt" if requirement.values.len() != 1 => {
            check.required(&values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => check.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    check.extend(validate_label_name(&requirement.key, &path.child("key")));
}

fn dns(check: &mut Check, spec: &PodSpec, path: &Path) {
    const SERVERS: usize = 3;
    const SEARCHES: usize = 32;
    const CHARACTERS: usize = 2048;
    if spec.dns_policy == "None" {
        match &spec.dns_config {
            None => return check.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if config.nameservers.is_empty() => {
                let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return check.required(&path.child("nameservers"), why);
            }
            Some(_) => {}
        }
    }
    let Some(config) = &spec.dns_config else { return };
    let at = path.child("nameservers");
    if config.nameservers.len() > SERVERS {
        let why = format!("must not have more than {SERVERS} nameservers");
        check.invalid(&at, BadValue::json(&config.nameservers), why);
    }
    for (i, server) in config.nameservers.iter().enumerate() {
        address(check, &at.index(i), server);
    }
    let at = path.child("searches");
    if config.searches.len() > SEARCHES {
        let why = format!("must not have more than {SEARCHES} search paths");
        check.invalid(&at, BadValue::json(&config.searches), why);
    }
    if config.searches.join(" ").len() > CHARACTERS {
        let why =
            format!("must not have more than {CHARACTERS} characters (including spaces) in the search list");
        check.invalid(&at, BadValue::json(&config.searches), why);
    }
    for (i, search) in config.searches.iter().enumerate().filter(|(_, s)| *s != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        let wrong = is_dns1123_subdomain_with_underscore(search);
        wrong.into_iter().for_each(|why| check.invalid(&at.index(i), search, why));
    }
    for (i, option) in config.options.iter().enumerate() {
        check.present(&path.child("options").index(i), &option.name, "must not be empty");
    }
}

fn spread(check: &mut Check, constraints: &[TopologySpreadConstraint], path: &Path) {
    for (i, constraint) in constraints.iter().enumerate() {
        let at = path.index(i);
        if constraint.max_skew <= 0 {
            check.invalid(&at.child("maxSkew"), constraint.max_skew, "must be greater than zero");
        }
        let key = at.child("topologyKey");
        if check.present(&key, &constraint.topology_key, "can not be empty") {
            check.extend(validate_label_name(&constraint.topology_key, &key));
        }
        let known = ["DoNotSchedule", "ScheduleAnyway"];
        check.one_of(&at.child("whenUnsatisfiable"), &constraint.when_unsatisfiable, &known);
        let same = |other: &&TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key
                && other.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if constraints[i + 1..].iter().find(same).is_some() {
            let shown = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            let at = at.child("{topologyKey, whenUnsatisfiable}");
            check.0.push(Error::duplicate(&at, shown.as_str()));
        }
        if let Some(count) = constraint.min_domains {
            let at = at.child("minDomains");
            if count <= 0 {
                check.invalid(&at, count, "must be greater than zero");
            }
            if constraint.when_unsatisfiable != "DoNotSchedule" {
                let why = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}",
                    constraint.when_unsatisfiable
                );
                check.invalid(&at, count, why);
            }
        }
        for (member, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                check.one_of(&at.child(member), policy, &["Honor", "Ignore"]);
            }
        }
        label_keys(check, &constraint.match_label_keys, &[], constraint.label_selector.as_ref(), &at);
        selector(check, constraint.label_selector.as_ref(), &at.child("labelSelector"));
    }
}

/// What is wrong with tolerations outside of a pod.
pub fn toleration_errors(all: &[Toleration], path: &Path) -> ErrorList {
    let mut check = Check::default();
    tolerations(&mut check, all, path);
    check.0
}

pub(crate) fn tolerations(check: &mut Check, all: &[Toleration], path: &Path) {
    all.iter().enumerate().for_each(|(i, one)| toleration(check, one, &path.index(i)));
}

fn toleration(check: &mut Check, toleration: &Toleration, path: &Path) {
    let at = path.child("operator");
    if !toleration.key.is_empty() {
        check.extend(validate_label_name(&toleration.key, &path.child("key")));
    } else if toleration.operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        check.invalid(&at, toleration.operator.as_str(), why);
    }
    if toleration.toleration_seconds.is_some() && toleration.effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        check.invalid(&path.child("effect"), toleration.effect.as_str(), why);
    }
    let value = toleration.value.as_str();
    match toleration.operator.as_str() {
        "" | "Equal" => {
            let wrong: Vec<String> = is_valid_label_value(value).into_iter().collect();
            if !wrong.is_empty() {
                check.invalid(&at, value, wrong.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            check.invalid(&at, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        operator @ ("Lt" | "Gt") => {
            let known = ["Equal", "Exists", "Lt", "Gt"];
            check.0.push(Error::not_supported(&at, operator, &known));
        }
        other => check.0.push(Error::not_supported(&at, other, &["Equal", "Exists"])),
    }
    if !toleration.effect.is_empty() {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        check.one_of(&path.child("effect"), &toleration.effect, &known);
    }
}
