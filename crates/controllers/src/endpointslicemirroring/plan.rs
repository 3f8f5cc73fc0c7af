//! Which slices mirror Endpoints: one per subset and family of addresses. Pure.

use super::{MANAGED_BY, MANAGER, SERVICE_NAME};
use crate::endpoint_subsets::repack;
use crate::pods::controller_reference;
use api::Kind as _;
use api::core::v1::{EndpointAddress, EndpointPort as Port, Endpoints};
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use apimachinery::meta::ObjectMeta;
use apimachinery::validation::{NameUse, name_is_dns_subdomain};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// How many addresses of a subset are mirrored at most.
pub(super) const MOST: usize = 1000;
/// Annotations that say something of the Endpoints alone.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub create: Vec<EndpointSlice>,
    pub update: Vec<EndpointSlice>,
    /// Names.
    pub delete: Vec<String>,
    /// Addresses that are none.
    pub invalid: usize,
    /// Addresses that are left out, invalid ones included.
    pub skipped: usize,
}

/// What the endpoints of one slice share, in an order that tells equal ones.
type Group = (&'static str, Vec<String>);

fn group(family: &'static str, ports: &[EndpointPort]) -> Group {
    let mut keys: Vec<String> = ports
        .iter()
        .map(|p| format!("{:?} {:?} {:?} {:?}", p.name, p.protocol, p.port, p.app_protocol))
        .collect();
    keys.sort();
    (family, keys)
}

fn family(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "IPv6" } else { "IPv4" }
}

fn endpoint(address: &EndpointAddress, ip: IpAddr, ready: bool) -> Endpoint {
    Endpoint {
        // Written anew, in case it was irregular.
        addresses: vec![ip.to_string()],
        conditions: EndpointConditions { ready: Some(ready), ..Default::default() },
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        hostname: (!address.hostname.is_empty()).then(|| address.hostname.clone()),
        ..Default::default()
    }
}

fn ports(ports: &[Port]) -> Vec<EndpointPort> {
    let one = |port: &Port| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(one).collect()
}

pub(super) fn plan(endpoints: &Endpoints, slices: Vec<EndpointSlice>) -> Plan {
    let mut plan = Plan::default();
    let mut wanted: BTreeMap<Group, (Vec<EndpointPort>, Vec<Endpoint>)> = BTreeMap::new();
    for subset in repack(&endpoints.subsets) {
        let ports = ports(&subset.ports);
        let all = subset.addresses.iter().map(|address| (address, true));
        let mut added = 0;
        for (address, ready) in all.chain(subset.not_ready_addresses.iter().map(|address| (address, false))) {
            if added == MOST {
                plan.skipped += 1;
                continue;
            }
            let Some(ip) = apimachinery::validation::parse_ip_sloppy(&address.ip) else {
                plan.invalid += 1;
                plan.skipped += 1;
                continue;
            };
            added += 1;
            let (_, endpoints) =
                wanted.entry(group(family(ip), &ports)).or_insert_with(|| (ports.clone(), Vec::new()));
            endpoints.push(endpoint(address, ip, ready));
        }
    }
    let mut there: BTreeMap<Group, Vec<EndpointSlice>> = BTreeMap::new();
    let mut surplus: Vec<EndpointSlice> = Vec::new();
    for slice in slices {
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        there.entry(group(family, &slice.ports)).or_default().push(slice);
    }
    for (key, (ports, list)) in wanted {
        let mut new = slice(endpoints, key.0, ports, list);
        let mut slices = there.remove(&key).unwrap_or_default().into_iter();
        match slices.next() {
            None => plan.create.push(new),
            Some(old) => {
                if !same(&old, &new) {
                    rename(&mut new.metadata, &old.metadata);
                    plan.update.push(new);
                }
            }
        }
        surplus.extend(slices);
    }
    surplus.extend(there.into_values().flatten());
    // A slice that is no longer wanted becomes one that is.
    for mut new in std::mem::take(&mut plan.create) {
        match surplus.iter().position(|old| old.address_type == new.address_type) {
            Some(at) => {
                rename(&mut new.metadata, &surplus.remove(at).metadata);
                plan.update.push(new);
            }
            None => plan.create.push(new),
        }
    }
    plan.delete = surplus.into_iter().map(|slice| slice.metadata.name).collect();
    if endpoints.metadata.deletion_timestamp.is_some() {
        plan.create.clear();
    }
    plan
}

fn rename(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generate_name.clear();
    new.name.clone_from(&old.name);
}

/// Whether a slice says all that it should.
fn same(old: &EndpointSlice, new: &EndpointSlice) -> bool {
    let sorted = |slice: &EndpointSlice| {
        let mut endpoints = slice.endpoints.clone();
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        endpoints
    };
    let uids = |slice: &EndpointSlice| -> Vec<String> {
        slice.metadata.owner_references.iter().map(|owner| owner.uid.clone()).collect()
    };
    sorted(old) == sorted(new)
        && old.metadata.labels == new.metadata.labels
        && old.metadata.annotations == new.metadata.annotations
        && uids(old) == uids(new)
}

fn slice(
    endpoints: &Endpoints,
    family: &str,
    ports: Vec<EndpointPort>,
    list: Vec<Endpoint>,
) -> EndpointSlice {
    let mut slice =
        EndpointSlice { address_type: family.into(), ports, endpoints: list, ..EndpointSlice::new() };
    let (from, meta) = (&endpoints.metadata, &mut slice.metadata);
    meta.namespace.clone_from(&from.namespace);
    meta.labels.clone_from(&from.labels);
    meta.labels.insert(SERVICE_NAME.into(), from.name.clone());
    meta.labels.insert(MANAGED_BY.into(), MANAGER.into());
    meta.annotations.clone_from(&from.annotations);
    meta.annotations.retain(|annotation, _| !NOT_MIRRORED.contains(&annotation.as_str()));
    meta.owner_references = vec![controller_reference(endpoints)];
    let prefix = format!("{}-", from.name);
    let valid = name_is_dns_subdomain(&prefix, NameUse::Prefix).into_iter().next().is_none();
    meta.generate_name = if valid { prefix } else { from.name.clone() };
    slice
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use apimachinery::value::Value;
    use expect_test::{Expect, expect};

    fn endpoints(subsets: Value) -> Endpoints {
        let annotations = json!({"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"});
        apimachinery::value::from_value(json!({
            "metadata": {"name": "db", "namespace": "x", "uid": "u1", "labels": {"l": "m"}, "annotations": annotations},
            "subsets": subsets,
        }))
        .unwrap()
    }

    fn show(plan: &Plan) -> String {
        let mut text = String::new();
        for (verb, slices) in [("create", &plan.create), ("update", &plan.update)] {
            for s in slices {
                let addresses: Vec<String> = s
                    .endpoints
                    .iter()
                    .map(|e| {
                        format!(
                            "{}{}",
                            e.addresses.join(","),
                            if e.conditions.ready == Some(true) { "" } else { "!" }
                        )
                    })
                    .collect();
                let name = format!("{}{}", s.metadata.name, s.metadata.generate_name);
                text += &format!(
                    "{verb} {name} {} {:?} {:?}\n",
                    s.address_type, addresses, s.metadata.annotations
                );
            }
        }
        text + &format!("delete {:?} invalid {} skipped {}\n", plan.delete, plan.invalid, plan.skipped)
    }

    fn check(subsets: Value, slices: Vec<EndpointSlice>, expected: Expect) -> Plan {
        let plan = plan(&endpoints(subsets), slices);
        expected.assert_eq(&show(&plan));
        plan
    }

    #[test]
    fn a_slice_for_each_subset_and_family() {
        let subsets = json!([
            {"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}, {"ip": "no"}], "ports": [{"port": 80, "protocol": "TCP"}]},
        ]);
        let mut made = check(
            subsets.clone(),
            Vec::new(),
            expect![[r#"
            create db- IPv4 ["10.0.0.1", "10.0.0.2!"] {"a": "b"}
            create db- IPv6 ["fd00::1"] {"a": "b"}
            delete [] invalid 1 skipped 1
        "#]],
        )
        .create;
        for (i, slice) in made.iter_mut().enumerate() {
            slice.metadata.generate_name.clear();
            slice.metadata.name = format!("db-{i}");
        }
        check(
            subsets,
            made.clone(),
            expect![[r#"
            delete [] invalid 1 skipped 1
        "#]],
        );
        // Other ports: the slices are used again.
        check(
            json!([{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 81, "protocol": "TCP"}]}]),
            made.clone(),
            expect![[r#"
                update db-0 IPv4 ["10.0.0.1"] {"a": "b"}
                delete ["db-1"] invalid 0 skipped 0
            "#]],
        );
        check(
            json!([]),
            made,
            expect![[r#"
            delete ["db-0", "db-1"] invalid 0 skipped 0
        "#]],
        );
    }
}
