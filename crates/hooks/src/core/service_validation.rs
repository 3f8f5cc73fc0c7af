//! What is wrong with a Service. Its addresses and families are judged where they are given out (`apiserver::services`).
//! Upstream: `validateService`, `ValidateServiceUpdate`, `ValidateServiceStatusUpdate`.

use super::endpoints_validation::validate_endpoint_ip;
use crate::check::{Check, qualified_name, subdomain};
use crate::shown::shown_as;
use api::core::v1::{LoadBalancerIngress, Service, ServiceSpec};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::int_or_string::IntOrString;
use apimachinery::json;
use apimachinery::meta::validation::validate_labels;
use apimachinery::validation::*;
use std::collections::HashSet;

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const TRAFFIC: [&str; 2] = ["Cluster", "Local"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const BALANCERS_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";
const LONGEST_AFFINITY: i32 = 86400;

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips == ["None"]
}

fn is_balanced(spec: &ServiceSpec) -> bool {
    spec.type_ == "LoadBalancer"
}

fn is_reached_from_outside(spec: &ServiceSpec) -> bool {
    match spec.type_.as_str() {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !spec.external_ips.is_empty(),
        _ => false,
    }
}

fn needs_health_check(spec: &ServiceSpec) -> bool {
    is_balanced(spec) && spec.external_traffic_policy == "Local"
}

/// A new Service, or one that was another before.
pub(super) fn validate(service: &Service, old: Option<&Service>) -> ErrorList {
    let mut check = Check::default();
    let (spec, path) = (&service.spec, Path::new("spec"));
    hints(&mut check, service);
    if spec.ports.is_empty() && !is_headless(spec) && spec.type_ != "ExternalName" {
        check.required(&path.child("ports"), "");
    }
    by_type(&mut check, spec, &path);
    let mut names = HashSet::new();
    for i in 0..spec.ports.len() {
        port(&mut check, spec, i, &mut names, &path.child("ports").index(i));
    }
    check.extend(validate_labels(&spec.selector, &path.child("selector")));
    affinity(&mut check, spec, &path);
    let before = old.map_or(&[][..], |old| &old.spec.external_ips);
    for (i, ip) in spec.external_ips.iter().enumerate() {
        let at = path.child("externalIPs").index(i);
        let found = is_valid_ip_for_legacy_field(&at, ip, Strictness::Strict, before);
        match found.is_empty() {
            true => validate_endpoint_ip(&mut check, &at, ip),
            false => check.extend(found),
        }
    }
    if check.present(&path.child("type"), &spec.type_, "") {
        check.one_of(&path.child("type"), &spec.type_, &TYPES);
    }
    port_numbers(&mut check, spec, &path.child("ports"));
    source_ranges(&mut check, service, old);
    let at = path.child("allocateLoadBalancerNodePorts");
    match spec.allocate_load_balancer_node_ports {
        Some(_) if !is_balanced(spec) => check.forbidden(&at, BALANCERS_ONLY),
        None if is_balanced(spec) => check.required(&Path::new("allocateLoadBalancerNodePorts"), ""),
        _ => {}
    }
    class(&mut check, spec, &path.child("loadBalancerClass"));
    traffic(&mut check, spec, &path);
    check.0
}

fn hints(check: &mut Check, service: &Service) {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let annotations = &service.metadata.annotations;
    if let (Some(hints), Some(mode)) = (annotations.get(HINTS), annotations.get(MODE))
        && hints != mode
    {
        let at = Path::new("metadata").child("annotations").key(MODE);
        check.invalid(&at, mode, format!("must match annotations[{HINTS}] when both are specified"));
    }
}

fn by_type(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    match spec.type_.as_str() {
        ty @ ("LoadBalancer" | "NodePort") if is_headless(spec) => {
            let why = format!("may not be set to 'None' for {ty} services");
            check.invalid(&path.child("clusterIPs").index(0), "None", why);
        }
        "ExternalName" => {
            for (member, given) in [
                ("clusterIPs", !spec.cluster_ips.is_empty()),
                ("ipFamilies", !spec.ip_families.is_empty()),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ] {
                if given {
                    check.forbidden(&path.child(member), "may not be set for ExternalName services");
                }
            }
            let name = spec.external_name.strip_suffix('.').unwrap_or(&spec.external_name);
            check.present_and_keeps(&path.child("externalName"), name, "", subdomain);
        }
        _ => {}
    }
}

fn port<'a>(check: &mut Check, spec: &'a ServiceSpec, i: usize, names: &mut HashSet<&'a str>, path: &Path) {
    let port = &spec.ports[i];
    let at = path.child("name");
    if port.name.is_empty() {
        check.when(spec.ports.len() > 1, || Error::required(&at, ""));
    } else {
        check.keeps(&at, &port.name, crate::check::label);
        check.when(!names.insert(port.name.as_str()), || Error::duplicate(&at, port.name.as_str()));
    }
    check.port(&path.child("port"), port.port);
    let at = path.child("protocol");
    if check.present(&at, &port.protocol, "") {
        check.one_of(&at, &port.protocol, &PROTOCOLS);
    }
    let at = path.child("targetPort");
    match &port.target_port {
        IntOrString::Int(number) => check.port(&at, *number),
        IntOrString::String(name) => {
            check.keeps(&at, name, |name| is_valid_port_name(name).into_iter().collect())
        }
    }
    if let Some(protocol) = &port.app_protocol {
        check.keeps(&path.child("appProtocol"), protocol, qualified_name);
    }
}

fn affinity(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let at = path.child("sessionAffinity");
    if check.present(&at, &spec.session_affinity, "") {
        check.one_of(&at, &spec.session_affinity, &["ClientIP", "None"]);
    }
    let (at, config) = (path.child("sessionAffinityConfig"), spec.session_affinity_config.as_ref());
    if spec.session_affinity == "None" && config.is_some() {
        check.forbidden(&at, "must not be set when session affinity is None");
    }
    if spec.session_affinity != "ClientIP" {
        return;
    }
    let why = "when session affinity type is ClientIP";
    let Some(config) = config else { return check.required(&at, why) };
    let at = at.child("clientIP");
    let Some(client) = &config.client_ip else { return check.required(&at, why) };
    let at = at.child("timeoutSeconds");
    match client.timeout_seconds {
        None => check.required(&at, why),
        Some(seconds) if !(1..=LONGEST_AFFINITY).contains(&seconds) => {
            let why = format!("must be greater than 0 and less than {LONGEST_AFFINITY}");
            check.invalid(&at, seconds, why);
        }
        Some(_) => {}
    }
}

/// Node ports where there are none, and numbers that are there twice.
fn port_numbers(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    for (i, _) in spec.ports.iter().enumerate().filter(|(_, p)| spec.type_ == "ClusterIP" && p.node_port != 0)
    {
        let at = path.index(i).child("nodePort");
        check.forbidden(&at, "may not be used when `type` is 'ClusterIP'");
    }
    let mut seen = HashSet::new();
    for (i, port) in spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0) {
        check.when(!seen.insert((port.protocol.as_str(), port.node_port)), || {
            Error::duplicate(&path.index(i).child("nodePort"), port.node_port)
        });
    }
    let mut seen = HashSet::new();
    for (i, port) in spec.ports.iter().enumerate() {
        check.when(!seen.insert((port.protocol.as_str(), port.port)), || {
            let key = json!({"protocol": port.protocol, "port": port.port});
            Error::duplicate(&path.index(i), shown_as("io.k8s.api.core.v1.ServicePort", &key))
        });
    }
}

/// In the field, or in the annotation that was there before it. Spaces around a range are part of the API.
fn source_ranges(check: &mut Check, service: &Service, old: Option<&Service>) {
    let ranges = &service.spec.load_balancer_source_ranges;
    let annotation = service.metadata.annotations.get(SOURCE_RANGES);
    let mut only_balanced = |at: &Path| {
        check.when(!is_balanced(&service.spec), || Error::forbidden(at, BALANCERS_ONLY));
    };
    if !ranges.is_empty() {
        let at = Path::new("spec").child("LoadBalancerSourceRanges");
        only_balanced(&at);
        let before = old.map_or(&[][..], |old| &old.spec.load_balancer_source_ranges);
        let before: Vec<String> = before.iter().map(|range| range.trim().to_owned()).collect();
        for (i, range) in ranges.iter().enumerate() {
            let found =
                is_valid_cidr_for_legacy_field(&at.index(i), range.trim(), Strictness::Strict, &before);
            check.extend(found);
        }
    } else if let Some(text) = annotation {
        let at = Path::new("metadata").child("annotations").key(SOURCE_RANGES);
        only_balanced(&at);
        let same = old.is_some_and(|old| old.metadata.annotations.get(SOURCE_RANGES) == Some(text));
        for range in text.split(',').filter(|_| !same && !text.trim().is_empty()) {
            check.extend(is_valid_cidr_for_legacy_field(&at, range.trim(), Strictness::Strict, &[]));
        }
    }
}

fn class(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    match &spec.load_balancer_class {
        Some(class) if is_balanced(spec) => check.keeps(path, class, qualified_name),
        Some(_) => check.forbidden(path, BALANCERS_ONLY),
        None => {}
    }
}

fn traffic(check: &mut Check, spec: &ServiceSpec, path: &Path) {
    let (at, policy) = (path.child("externalTrafficPolicy"), spec.external_traffic_policy.as_str());
    if is_reached_from_outside(spec) {
        if check.present(&at, policy, "") {
            check.one_of(&at, policy, &TRAFFIC);
        }
    } else if !policy.is_empty() {
        check.invalid(&at, policy, "may only be set for externally-accessible services");
    }
    let (at, port) = (path.child("healthCheckNodePort"), spec.health_check_node_port);
    match (needs_health_check(spec), port) {
        (false, 0) => {}
        (false, _) => {
            let why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            check.invalid(&at, port, why);
        }
        (true, 0) => check.required(&at, ""),
        (true, _) => check.port(&at, port),
    }
    let at = path.child("internalTrafficPolicy");
    match &spec.internal_traffic_policy {
        Some(policy) => check.one_of(&at, policy, &TRAFFIC),
        None if matches!(spec.type_.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") => {
            check.required(&at, "")
        }
        None => {}
    }
    if let Some(distribution) = &spec.traffic_distribution {
        check.one_of(&path.child("trafficDistribution"), distribution, &DISTRIBUTIONS);
    }
}

/// What does not change while a Service has a load balancer. Class and port are judged again with everything else.
pub(super) fn validate_change(service: &Service, old: &Service) -> ErrorList {
    let mut check = Check::default();
    let (spec, before, path) = (&service.spec, &old.spec, Path::new("spec"));
    let at = path.child("loadBalancerClass");
    if is_balanced(spec) && is_balanced(before) && spec.load_balancer_class != before.load_balancer_class {
        check.invalid(&at, spec.load_balancer_class.as_deref(), "may not change once set");
    }
    class(&mut check, spec, &at);
    let health = |spec: &ServiceSpec| needs_health_check(spec).then_some(spec.health_check_node_port);
    if let (Some(port), Some(before)) = (health(spec), health(before))
        && port != before
    {
        check.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
    check.0
}

pub(super) fn validate_status(service: &Service, old: &Service) -> ErrorList {
    let mut check = Check::default();
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let (now, then) = (&service.status.load_balancer.ingress, &old.status.load_balancer.ingress);
    if !is_balanced(&service.spec) && !now.is_empty() {
        check.forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'");
        return check.0;
    }
    let before: Vec<String> = then.iter().map(|i| i.ip.clone()).filter(|ip| !ip.is_empty()).collect();
    for (i, one) in now.iter().enumerate() {
        ingress(&mut check, one, &before, &path.index(i));
    }
    check.0
}

fn ingress(check: &mut Check, ingress: &LoadBalancerIngress, before: &[String], path: &Path) {
    let (ip, mode) = (ingress.ip.as_str(), path.child("ipMode"));
    if !ip.is_empty() {
        check.extend(is_valid_ip_for_legacy_field(&path.child("ip"), ip, Strictness::Strict, before));
    }
    match &ingress.ip_mode {
        None if !ip.is_empty() => check.required(&mode, "must be specified when `ip` is set"),
        None => {}
        Some(_) if ip.is_empty() => check.forbidden(&mode, "may not be specified when `ip` is not set"),
        Some(word) => check.one_of(&mode, word, &["Proxy", "VIP"]),
    }
    let (at, name) = (path.child("hostname"), ingress.hostname.as_str());
    if !name.is_empty() {
        check.keeps(&at, name, subdomain);
        if parse_ip_sloppy(name).is_some() {
            check.invalid(&at, name, "must be a DNS name, not an IP address");
        }
    }
}
