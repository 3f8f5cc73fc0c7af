//! What whoever writes a Service is told, though it is let in. Upstream: `GetWarningsForService`.

use crate::tree::{list, text};
use api::core::v1::Service;
use apimachinery::field::Path;
use apimachinery::validation::{warnings_for_cidr, warnings_for_ip};
use apimachinery::value::Value;

pub(super) fn warnings(service: &Service) -> Vec<String> {
    const HINTS: &str = "service.kubernetes.io/topology-aware-hints";
    const MODE: &str = "service.kubernetes.io/topology-mode";
    let (spec, path) = (&service.spec, Path::new("spec"));
    let mut found = Vec::new();
    if service.metadata.annotations.contains_key(HINTS) {
        found.push(format!("annotation {HINTS} is deprecated, please use {MODE} instead"));
    }
    let each = |member: &'static str, ips: &[String], found: &mut Vec<String>| {
        for (i, ip) in ips.iter().enumerate() {
            found.extend(warnings_for_ip(&path.child(member).index(i), ip));
        }
    };
    if !matches!(spec.cluster_ip.as_str(), "" | "None") {
        each("clusterIPs", &spec.cluster_ips, &mut found);
    }
    let headless = spec.type_ == "ClusterIP" && spec.cluster_ip == "None";
    if headless {
        for (member, given) in [
            ("loadBalancerIP", !spec.load_balancer_ip.is_empty()),
            ("externalIPs", !spec.external_ips.is_empty()),
            ("SessionAffinity", spec.session_affinity != "None"),
        ] {
            if given {
                found.push(format!("spec.{member} is ignored for headless services"));
            }
        }
    }
    each("externalIPs", &spec.external_ips, &mut found);
    let named = spec.type_ == "ExternalName";
    if !spec.external_ips.is_empty() && !headless && !named {
        found.push("spec.externalIPs is deprecated and may no longer be implemented in some clusters".into());
    }
    if !spec.load_balancer_ip.is_empty() {
        found.extend(warnings_for_ip(&path.child("loadBalancerIP"), &spec.load_balancer_ip));
    }
    for (i, range) in spec.load_balancer_source_ranges.iter().enumerate() {
        found.extend(warnings_for_cidr(&path.child("loadBalancerSourceRanges").index(i), range));
    }
    if named && !spec.external_ips.is_empty() {
        found.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".into());
    }
    if !named && !spec.external_name.is_empty() {
        found.push("spec.externalName is ignored when spec.type is not \"ExternalName\"".into());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        found.push("spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"".into());
    }
    found
}

/// Of the addresses that a load balancer has.
pub(super) fn status_warnings(service: &Value) -> Vec<String> {
    const INGRESS: [&str; 3] = ["status", "loadBalancer", "ingress"];
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let each = list(service, &INGRESS).iter().enumerate().filter(|(_, i)| !text(i, &["ip"]).is_empty());
    each.flat_map(|(i, ingress)| warnings_for_ip(&path.index(i), text(ingress, &["ip"]))).collect()
}
