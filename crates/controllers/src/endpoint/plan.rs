//! The Endpoints a Service should have. Pure.

use crate::endpoint_subsets::repack;
use crate::endpoint_triggers::stamp;
use crate::service_pods::PodFacts;
use api::Kind as _;
use api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference, Service};
use apimachinery::time::Time;
use client::Cached;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// How many addresses Endpoints hold at most.
const CAPACITY: usize = 1000;
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");
const HEADLESS: &str = "service.kubernetes.io/headless";
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");

/// Whether the service's endpoints are of IPv6.
fn wants_ipv6(service: &Service, pods: &[Arc<Cached<PodFacts>>]) -> bool {
    let is_six = |ip: &str| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    match service.spec.cluster_ip.as_str() {
        "" | "None" => match service.spec.ip_families.first() {
            Some(family) => family == "IPv6",
            None => pods.iter().find_map(|pod| pod.ips.first()).is_some_and(|ip| is_six(ip)),
        },
        ip => is_six(ip),
    }
}

/// The addresses and ports of the pods, in canonical form.
pub(super) fn subsets(service: &Service, pods: &[Arc<Cached<PodFacts>>]) -> Vec<EndpointSubset> {
    let six = wants_ipv6(service, pods);
    let publish = service.spec.publish_not_ready_addresses;
    let mut subsets = Vec::new();
    for pod in pods.iter().filter(|pod| !pod.ended && (publish || !pod.deleting)) {
        let of_family = |ip: &&String| ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == six);
        let Some(ip) = pod.ips.iter().find(of_family) else { continue };
        let named = !pod.hostname.is_empty() && pod.subdomain == service.metadata.name;
        let address = EndpointAddress {
            ip: ip.clone(),
            hostname: if named { pod.hostname.clone() } else { String::new() },
            node_name: Some(pod.node.clone()),
            target_ref: Some(ObjectReference {
                kind: "Pod".into(),
                namespace: pod.namespace().into(),
                name: pod.name().into(),
                uid: pod.uid.to_string(),
                ..Default::default()
            }),
        };
        let mut add = |ports| {
            let mut subset = EndpointSubset { ports, ..Default::default() };
            let ready = publish || pod.ready;
            let list = if ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
            list.push(address.clone());
            subsets.push(subset);
        };
        if service.spec.ports.is_empty() && service.spec.cluster_ip == "None" {
            add(Vec::new());
        }
        for port in &service.spec.ports {
            let Some(number) = pod.port(port) else { continue };
            add(vec![EndpointPort {
                name: port.name.clone(),
                port: number,
                protocol: port.protocol.clone(),
                app_protocol: port.app_protocol.clone(),
            }]);
        }
    }
    repack(&subsets)
}

/// The object to write; none if what is there is right.
pub(super) fn endpoints(
    service: &Service,
    current: Option<&Endpoints>,
    subsets: Vec<EndpointSubset>,
    triggered: Option<Time>,
) -> Option<Endpoints> {
    if let Some(current) = current
        && (current.subsets == subsets || repack(&current.subsets) == subsets)
        && labels_match(&current.metadata.labels, &service.metadata.labels)
        && count(&current.subsets) <= CAPACITY
        && !current.metadata.annotations.contains_key(OVER_CAPACITY.0)
    {
        return None;
    }
    let mut new = current.cloned().unwrap_or_else(Endpoints::new);
    new.metadata.name.clone_from(&service.metadata.name);
    new.metadata.namespace.clone_from(&service.metadata.namespace);
    new.metadata.labels.clone_from(&service.metadata.labels);
    new.metadata.labels.remove(HEADLESS);
    if matches!(service.spec.cluster_ip.as_str(), "" | "None") {
        new.metadata.labels.insert(HEADLESS.into(), String::new());
    }
    new.metadata.labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    new.subsets = subsets;
    stamp(&mut new.metadata, triggered);
    let annotations = &mut new.metadata.annotations;
    match truncate(&mut new.subsets) {
        true => annotations.insert(OVER_CAPACITY.0.into(), OVER_CAPACITY.1.into()),
        false => annotations.remove(OVER_CAPACITY.0),
    };
    Some(new)
}

fn labels_match(have: &BTreeMap<String, String>, service: &BTreeMap<String, String>) -> bool {
    let own = |label: &str| label == HEADLESS || label == MANAGED_BY.0;
    let copied: BTreeMap<&String, &String> = have.iter().filter(|(label, _)| !own(label)).collect();
    have.get(MANAGED_BY.0).is_some_and(|manager| manager == MANAGED_BY.1)
        && copied.len() == service.len()
        && service.iter().all(|(label, value)| copied.get(label) == Some(&value))
}

fn count(subsets: &[EndpointSubset]) -> usize {
    subsets.iter().map(|subset| subset.addresses.len() + subset.not_ready_addresses.len()).sum()
}

/// Cuts the addresses down to what Endpoints may hold, each subset by its share, those that are not ready before others.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    if count(subsets) <= CAPACITY {
        return false;
    }
    let ready: usize = subsets.iter().map(|subset| subset.addresses.len()).sum();
    let cut_ready = ready > CAPACITY;
    let (room, total) =
        if cut_ready { (CAPACITY, ready) } else { (CAPACITY - ready, count(subsets) - ready) };
    let mut left = room;
    for subset in subsets {
        let list = if cut_ready { &mut subset.addresses } else { &mut subset.not_ready_addresses };
        // Rounded up: the last subset gets what is left.
        let share = (list.len() * room).div_ceil(total).min(left);
        list.truncate(share);
        left -= list.len();
        if cut_ready {
            subset.not_ready_addresses.clear();
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_subsets::show;
    use apimachinery::json;
    use expect_test::expect;

    fn service(spec: apimachinery::value::Value) -> Service {
        let labels = json!({"app": "web"});
        apimachinery::value::from_value(
            json!({"metadata": {"name": "web", "namespace": "a", "labels": labels}, "spec": spec}),
        )
        .unwrap()
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let service = service(json!({"clusterIP": "10.96.0.7", "ports": [{"port": 80}]}));
        let made = endpoints(&service, None, Vec::new(), Some(Time::from_unix(0))).unwrap();
        expect![[r#"
            {
              "name": "web",
              "namespace": "a",
              "labels": {
                "app": "web",
                "endpoints.kubernetes.io/managed-by": "endpoint-controller"
              },
              "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:00Z"
              }
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&made.metadata).unwrap());
        assert_eq!(endpoints(&service, Some(&made), Vec::new(), None), None);
        let mut other = made.clone();
        other.metadata.labels.insert("more".into(), "than".into());
        assert!(endpoints(&service, Some(&other), Vec::new(), None).is_some());
    }

    #[test]
    fn a_thousand_addresses_are_enough() {
        let addresses = |n: usize, from: usize| -> Vec<EndpointAddress> {
            let one = |i: usize| EndpointAddress {
                ip: format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255),
                ..Default::default()
            };
            (from..from + n).map(one).collect()
        };
        let mut lengths = Vec::new();
        for (ready, not_ready) in [(400, 400), (600, 300), (700, 0)] {
            let subset = |from| EndpointSubset {
                addresses: addresses(ready, from),
                not_ready_addresses: addresses(not_ready, from + ready),
                ports: Vec::new(),
            };
            let mut subsets = vec![subset(0), subset(5000)];
            let cut = truncate(&mut subsets);
            let each: Vec<_> =
                subsets.iter().map(|s| (s.addresses.len(), s.not_ready_addresses.len())).collect();
            lengths.push(format!("{cut} {each:?}"));
        }
        expect![[r#"
            true [(400, 100), (400, 100)]
            true [(500, 0), (500, 0)]
            true [(500, 0), (500, 0)]"#]]
        .assert_eq(&lengths.join("\n"));
        assert!(show(&[]).is_empty());
    }
}
