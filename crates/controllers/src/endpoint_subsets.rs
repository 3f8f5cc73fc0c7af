//! The subsets of `Endpoints` in canonical form: ports that the same addresses offer stand together. Pure.
//! Upstream: `RepackSubsets`.

use api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What tells addresses apart, in the order in which they stand: by address, then by uid of what is behind it.
type Place = (Option<IpAddr>, String, String);

fn place(address: &EndpointAddress) -> Place {
    let uid = address.target_ref.as_ref().map(|target| target.uid.clone()).unwrap_or_default();
    (address.ip.parse().ok(), address.ip.clone(), uid)
}

type PortKey = (String, i32, String, Option<String>);

fn port_key(port: &EndpointPort) -> PortKey {
    (port.name.clone(), port.port, port.protocol.clone(), port.app_protocol.clone())
}

/// Brings subsets into canonical form. An address that is ready and not ready for the same port is not ready.
pub(crate) fn repack(subsets: &[EndpointSubset]) -> Vec<EndpointSubset> {
    let mut addresses: BTreeMap<Place, &EndpointAddress> = BTreeMap::new();
    // A subset without ports is one of a port of its own.
    let mut by_port: BTreeMap<Option<PortKey>, (Option<&EndpointPort>, BTreeMap<Place, bool>)> =
        BTreeMap::new();
    for subset in subsets {
        let mut ports: Vec<Option<&EndpointPort>> = subset.ports.iter().map(Some).collect();
        if ports.is_empty() {
            ports.push(None);
        }
        for port in ports {
            let (_, places) = by_port.entry(port.map(port_key)).or_insert_with(|| (port, BTreeMap::new()));
            let all = subset.addresses.iter().map(|address| (address, true));
            for (address, ready) in
                all.chain(subset.not_ready_addresses.iter().map(|address| (address, false)))
            {
                let place = place(address);
                addresses.entry(place.clone()).or_insert(address);
                places.entry(place).and_modify(|was| *was &= ready).or_insert(ready);
            }
        }
    }
    let mut by_places: BTreeMap<BTreeMap<Place, bool>, Vec<EndpointPort>> = BTreeMap::new();
    for (port, places) in by_port.into_values() {
        by_places.entry(places).or_default().extend(port.cloned());
    }
    let subset = |(places, ports): (BTreeMap<Place, bool>, Vec<EndpointPort>)| {
        let of = |wanted: bool| {
            let these = places.iter().filter(|(_, ready)| **ready == wanted);
            these.filter_map(|(place, _)| addresses.get(place).map(|a| (*a).clone())).collect()
        };
        EndpointSubset { addresses: of(true), not_ready_addresses: of(false), ports }
    };
    by_places.into_iter().map(subset).collect()
}

#[cfg(test)]
pub(crate) fn show(subsets: &[EndpointSubset]) -> String {
    let list =
        |addresses: &[EndpointAddress]| addresses.iter().map(|a| a.ip.as_str()).collect::<Vec<_>>().join(",");
    let line = |s: &EndpointSubset| {
        let ports: Vec<String> =
            s.ports.iter().map(|p| format!("{}:{}/{}", p.name, p.port, p.protocol)).collect();
        let (ready, not_ready) = (list(&s.addresses), list(&s.not_ready_addresses));
        format!("ready [{ready}] not ready [{not_ready}] ports [{}]\n", ports.join(","))
    };
    subsets.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;
    use expect_test::{Expect, expect};

    fn check(subsets: apimachinery::value::Value, expected: Expect) {
        let subsets: Vec<EndpointSubset> = apimachinery::value::from_value(subsets).unwrap();
        let packed = repack(&subsets);
        expected.assert_eq(&show(&packed));
        assert_eq!(repack(&packed), packed, "packing twice is packing once");
    }

    #[test]
    fn ports_with_the_same_addresses_stand_together() {
        let one = |ip: &str, port: i32| json!({"addresses": [{"ip": ip}], "ports": [{"port": port, "protocol": "TCP"}]});
        check(
            json!([one("10.0.0.2", 80), one("10.0.0.1", 80), one("10.0.0.1", 443), one("10.0.0.2", 443)]),
            expect![[r#"
                ready [10.0.0.1,10.0.0.2] not ready [] ports [:80/TCP,:443/TCP]
            "#]],
        );
        check(
            json!([one("10.0.0.10", 80), one("10.0.0.9", 80), one("10.0.0.9", 81), {"notReadyAddresses": [{"ip": "10.0.0.3"}], "ports": [{"port": 80, "protocol": "TCP"}]}]),
            expect![[r#"
                ready [10.0.0.9,10.0.0.10] not ready [10.0.0.3] ports [:80/TCP]
                ready [10.0.0.9] not ready [] ports [:81/TCP]
            "#]],
        );
        check(
            json!([{"addresses": [{"ip": "10.0.0.1"}]}, {"addresses": [{"ip": "10.0.0.2"}]}]),
            expect![[r#"
                ready [10.0.0.1,10.0.0.2] not ready [] ports []
            "#]],
        );
    }
}
