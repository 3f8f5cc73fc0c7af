//! What is wrong with a Service's addresses, or with an address. Pure; upstream's reasons and words.

use super::{FAMILY, MANAGED_BY, MANAGER, family, spec};
use crate::object;
use apimachinery::time::Time;
use apimachinery::validation::parse_ip_sloppy;
use apimachinery::value::Value;
use std::net::IpAddr;
use std::time::Duration;

/// How long a server may take between the address of a Service and the Service (upstream's request timeout).
const REQUEST: Duration = Duration::from_secs(60);
/// How long it may take to take an address back from a Service that was not written.
const REVERT: Duration = Duration::from_secs(5);

/// What to tell of a Service, and what to do about its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// Reason and message of an event.
    pub event: Option<(&'static str, String)>,
    pub cure: Cure,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cure {
    /// People have to do something.
    None,
    Create(IpAddr),
    /// The object there is not this Service's, or has lost its labels.
    Recreate(IpAddr),
}

/// What is known of the rest.
pub(super) struct Known<'a> {
    /// Whether some range holds an address.
    pub in_range: &'a dyn Fn(IpAddr) -> bool,
    /// The object of an address.
    pub address: &'a dyn Fn(IpAddr) -> Option<Value>,
    /// A Service by namespace and name.
    pub service: &'a dyn Fn(&str, &str) -> Option<Value>,
}

fn parent<'a>(address: &'a Value, field: &str) -> &'a str {
    address["spec"]["parentRef"][field].as_str().unwrap_or_default()
}

fn belongs_to_a_service(address: &Value) -> bool {
    parent(address, "group").is_empty() && parent(address, "resource") == "services"
}

/// What is wrong with the addresses of a Service.
pub(super) fn service(service: &Value, known: &Known<'_>) -> Vec<Fault> {
    let set = !matches!(spec::text(&service["spec"], "clusterIP"), "" | "None");
    let all = spec::cluster_ips(&service["spec"]).into_iter().filter(|_| set);
    all.filter_map(|ip| one(service, &ip, known)).collect()
}

fn one(service: &Value, ip: &str, known: &Known<'_>) -> Option<Fault> {
    let tell = |reason, message, cure| Some(Fault { event: Some((reason, message)), cure });
    let Some(address) = parse_ip_sloppy(ip) else {
        let message = format!("Cluster IP {ip} is not a valid IP; please recreate Service");
        return tell("ClusterIPNotValid", message, Cure::None);
    };
    let (namespace, name, family) = (object::namespace(service), object::name(service), family(address));
    if !(known.in_range)(address) {
        let message = format!(
            "Cluster IP [{family}]: {address} is not within any configured Service CIDR; please recreate service"
        );
        return tell("ClusterIPOutOfRange", message, Cure::None);
    }
    let Some(held) = (known.address)(address) else {
        let message = format!("Cluster IP [{family}]: {address} is not allocated; repairing");
        return tell("ClusterIPNotAllocated", message, Cure::Create(address));
    };
    let wrong = || {
        format!(
            "the ClusterIP [{family}]: {address} for Service {namespace}/{name} has a wrong reference; repairing"
        )
    };
    if !belongs_to_a_service(&held) {
        return tell("ClusterIPNotAllocated", wrong(), Cure::Recreate(address));
    }
    let owner = (parent(&held, "namespace"), parent(&held, "name"));
    if owner != (namespace, name) {
        let Some(other) = (known.service)(owner.0, owner.1) else {
            return tell("ClusterIPNotAllocated", wrong(), Cure::Recreate(address));
        };
        if spec::cluster_ips(&other["spec"]).iter().any(|ip| ip == object::name(&held)) {
            let message = format!(
                "Cluster IP [{family}]:{address} was assigned to multiple services; please recreate service"
            );
            return tell("ClusterIPAlreadyAllocated", message, Cure::None);
        }
    }
    let labels = &held["metadata"]["labels"];
    let labelled = labels[MANAGED_BY] == MANAGER && labels[FAMILY] == family;
    (!labelled).then_some(Fault { event: None, cure: Cure::Recreate(address) })
}

/// Whether an address is nobody's: the reason and message of the event that says so.
pub(super) fn address(address: &Value, service: Option<&Value>, now: Time) -> Option<(&'static str, String)> {
    if address["metadata"]["labels"][MANAGED_BY] != MANAGER {
        return None;
    }
    let (name, namespace, owner) =
        (object::name(address), parent(address, "namespace"), parent(address, "name"));
    if !belongs_to_a_service(address) {
        let parent = &address["spec"]["parentRef"];
        let message = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service {parent}: cleaning up"
        );
        return Some(("IPAddressNotAllocated", message));
    }
    let created: Option<Time> = object::meta_str(address, "creationTimestamp").parse().ok();
    let younger = |than: Duration| {
        created.is_some_and(|created| {
            created.plus(apimachinery::time::Duration::from_seconds(than.as_secs() as i64)) > now
        })
    };
    let Some(service) = service else {
        let message =
            format!("IPAddress: {name} for Service {namespace}/{owner} appears to have leaked: cleaning up");
        return (!younger(REQUEST)).then_some(("IPAddressNotAllocated", message));
    };
    if spec::cluster_ips(&service["spec"]).iter().any(|ip| ip == name) {
        return None;
    }
    // A name becomes a Service with an address: the address comes first.
    if spec::is_external_name(&service["spec"]) && younger(REQUEST) {
        return None;
    }
    let begun: Option<Time> = object::meta_str(service, "creationTimestamp").parse().ok();
    if created > begun && younger(REVERT) {
        return None;
    }
    let message =
        format!("IPAddress: {name} for Service {namespace}/{owner} has a wrong reference; cleaning up");
    Some(("IPAddressWrongReference", message))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::ip_address;
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(ips: &[&str], held: &[Value], expected: Expect) {
        let one = json!({"metadata": {"namespace": "ns", "name": "one"},
            "spec": {"type": "ClusterIP", "clusterIP": ips[0], "clusterIPs": ips}});
        let two = json!({"metadata": {"namespace": "ns", "name": "two"},
            "spec": {"type": "ClusterIP", "clusterIP": "10.0.0.2", "clusterIPs": ["10.0.0.2"]}});
        let known = Known {
            in_range: &|address| address.to_string().starts_with("10.0."),
            address: &|address| held.iter().find(|held| object::name(held) == address.to_string()).cloned(),
            service: &|_, name| (name == "two").then(|| two.clone()),
        };
        let shown: Vec<String> = service(&one, &known).iter().map(|fault| format!("{fault:?}\n")).collect();
        expected.assert_eq(&shown.concat());
    }

    #[test]
    fn services_without_their_addresses_are_found() {
        let of = |ip: &str, name: &str| ip_address(ip.parse().unwrap(), "ns", name);
        check(&["None"], &[], expect![""]);
        check(&["10.0.0.1"], &[of("10.0.0.1", "one")], expect![""]);
        check(
            &["10.0.0.x"],
            &[],
            expect![[r#"
            Fault { event: Some(("ClusterIPNotValid", "Cluster IP 10.0.0.x is not a valid IP; please recreate Service")), cure: None }
        "#]],
        );
        check(
            &["10.1.0.1"],
            &[],
            expect![[r#"
            Fault { event: Some(("ClusterIPOutOfRange", "Cluster IP [IPv4]: 10.1.0.1 is not within any configured Service CIDR; please recreate service")), cure: None }
        "#]],
        );
        check(
            &["10.0.0.1"],
            &[],
            expect![[r#"
            Fault { event: Some(("ClusterIPNotAllocated", "Cluster IP [IPv4]: 10.0.0.1 is not allocated; repairing")), cure: Create(10.0.0.1) }
        "#]],
        );
        check(
            &["10.0.0.1"],
            &[of("10.0.0.1", "gone")],
            expect![[r#"
            Fault { event: Some(("ClusterIPNotAllocated", "the ClusterIP [IPv4]: 10.0.0.1 for Service ns/one has a wrong reference; repairing")), cure: Recreate(10.0.0.1) }
        "#]],
        );
        check(
            &["10.0.0.2"],
            &[of("10.0.0.2", "two")],
            expect![[r#"
            Fault { event: Some(("ClusterIPAlreadyAllocated", "Cluster IP [IPv4]:10.0.0.2 was assigned to multiple services; please recreate service")), cure: None }
        "#]],
        );
        let mut other = of("10.0.0.1", "one");
        other["spec"]["parentRef"]["resource"] = "gateways".into();
        check(
            &["10.0.0.1"],
            &[other],
            expect![[r#"
            Fault { event: Some(("ClusterIPNotAllocated", "the ClusterIP [IPv4]: 10.0.0.1 for Service ns/one has a wrong reference; repairing")), cure: Recreate(10.0.0.1) }
        "#]],
        );
        let mut bare = of("10.0.0.1", "one");
        bare["metadata"]["labels"] = json!({});
        check(
            &["10.0.0.1"],
            &[bare],
            expect![[r#"
            Fault { event: None, cure: Recreate(10.0.0.1) }
        "#]],
        );
    }

    #[test]
    fn addresses_without_their_services_are_found_in_time() {
        let mut held = ip_address("10.0.0.1".parse().unwrap(), "ns", "one");
        held["metadata"]["creationTimestamp"] = "2026-01-01T00:00:10Z".into();
        let with = |ip: &str| {
            json!({"metadata": {"namespace": "ns", "name": "one", "creationTimestamp": "2026-01-01T00:00:00Z"},
                "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip]}})
        };
        let name = json!({"metadata": {"namespace": "ns", "name": "one"}, "spec": {"type": "ExternalName"}});
        let check = |held: &Value, service: Option<&Value>, now: &str, reason: &str| {
            let found = address(held, service, format!("2026-01-01T{now}Z").parse().unwrap());
            assert_eq!(found.as_ref().map_or("", |(reason, _)| reason), reason, "{now} {found:?}");
        };
        check(&held, Some(&with("10.0.0.1")), "01:00:00", "");
        check(&held, None, "00:01:09", "");
        check(&held, None, "00:01:10", "IPAddressNotAllocated");
        check(&held, Some(&with("10.0.0.9")), "00:00:14", "");
        check(&held, Some(&with("10.0.0.9")), "00:00:15", "IPAddressWrongReference");
        check(&held, Some(&name), "00:01:09", "");
        check(&held, Some(&name), "00:01:10", "IPAddressWrongReference");
        held["metadata"]["labels"] = json!({});
        check(&held, None, "01:00:00", "");
    }
}
