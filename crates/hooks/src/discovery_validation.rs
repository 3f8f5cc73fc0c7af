//! What is wrong with an endpoint slice. Upstream: `ValidateEndpointSlice`.

use super::check::{Check, label, qualified_name, subdomain};
use super::core::validate_endpoint_ip;
use super::tree::typed;
use api::discovery::v1::{Endpoint, EndpointHints, EndpointPort, EndpointSlice};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::validation::validate_labels;
use apimachinery::validation::*;
use apimachinery::value::Value;
use std::collections::HashSet;

const FAMILIES: &[&str] = &["FQDN", "IPv4", "IPv6"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;
const MAX_TOPOLOGY: usize = 16;
const MAX_HINTS: usize = 8;

/// A slice, and the one before it.
pub(super) fn validate(slice: &Value, old: Option<&Value>) -> ErrorList {
    let mut check = Check::default();
    let same = old.is_some_and(|old| old["endpoints"] == slice["endpoints"]);
    let slice: EndpointSlice = typed(slice);
    let family = slice.address_type.as_str();
    let at = Path::new("addressType");
    if check.present(&at, family, "") {
        check.one_of(&at, family, FAMILIES);
    }
    ports(&mut check, &slice.ports, &Path::new("ports"));
    // What was taken once stays valid.
    if !same {
        endpoints(&mut check, &slice.endpoints, family, &Path::new("endpoints"));
    }
    check.0
}

/// Whether there are no more than may be.
fn few(check: &mut Check, path: &Path, count: usize, most: usize) -> bool {
    check.when(count > most, || Error::too_many(path, Some(count), most));
    count <= most
}

fn ports(check: &mut Check, ports: &[EndpointPort], path: &Path) {
    if !few(check, path, ports.len(), MAX_PORTS) {
        return;
    }
    let mut names = HashSet::new();
    for (i, port) in ports.iter().enumerate() {
        let (path, name) = (path.index(i), port.name.as_deref().unwrap_or_default());
        let at = path.child("name");
        if !name.is_empty() {
            check.keeps(&at, name, label);
        }
        check.when(!names.insert(name), || Error::duplicate(&at, name));
        let at = path.child("protocol");
        match &port.protocol {
            Some(protocol) => check.one_of(&at, protocol, PROTOCOLS),
            None => check.required(&at, ""),
        }
        if let Some(protocol) = &port.app_protocol {
            check.keeps(&path.child("appProtocol"), protocol, qualified_name);
        }
    }
}

fn endpoints(check: &mut Check, endpoints: &[Endpoint], family: &str, path: &Path) {
    if !few(check, path, endpoints.len(), MAX_ENDPOINTS) {
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let path = path.index(i);
        let at = path.child("addresses");
        if endpoint.addresses.is_empty() {
            check.required(&at, "must contain at least 1 address");
        }
        few(check, &at, endpoint.addresses.len(), MAX_ADDRESSES);
        for (j, address) in endpoint.addresses.iter().enumerate() {
            self::address(check, address, family, &at, &at.index(j));
        }
        if let Some(node) = &endpoint.node_name {
            check.keeps(&path.child("nodeName"), node, subdomain);
        }
        let at = path.child("deprecatedTopology");
        few(check, &at, endpoint.deprecated_topology.len(), MAX_TOPOLOGY);
        check.extend(validate_labels(&endpoint.deprecated_topology, &at));
        if let Some(name) = &endpoint.hostname {
            check.keeps(&path.child("hostname"), name, label);
        }
        if let Some(hints) = &endpoint.hints {
            self::hints(check, hints, &path.child("hints"));
        }
    }
}

/// An address at a path, which upstream tells of at the list when it is of another family.
fn address(check: &mut Check, address: &str, family: &str, list: &Path, at: &Path) {
    let found = match family {
        "IPv4" => is_valid_ip_for_legacy_field(at, address, Strictness::Strict, &[]),
        "IPv6" => is_valid_ip(at, address),
        "FQDN" => return check.extend(is_fully_qualified_domain_name(at, address)),
        _ => return,
    };
    if !found.is_empty() {
        return check.extend(found);
    }
    if address.contains(':') != (family == "IPv6") {
        check.invalid(list, address, format!("must be an {family} address"));
    }
    validate_endpoint_ip(check, at, address);
}

fn hints(check: &mut Check, hints: &EndpointHints, path: &Path) {
    let label_value = |name: &str| is_valid_label_value(name).into_iter().collect();
    let zones: Vec<&str> = hints.for_zones.iter().map(|zone| zone.name.as_str()).collect();
    let nodes: Vec<&str> = hints.for_nodes.iter().map(|node| node.name.as_str()).collect();
    if named(check, &zones, label_value, &path.child("forZones")) {
        named(check, &nodes, subdomain, &path.child("forNodes"));
    }
}

/// Names, each there once; false where there are too many to look at.
fn named(check: &mut Check, names: &[&str], rule: fn(&str) -> Vec<String>, path: &Path) -> bool {
    if !few(check, path, names.len(), MAX_HINTS) {
        return false;
    }
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        let at = path.index(i).child("name");
        check.when(!seen.insert(name), || Error::duplicate(&at, *name));
        check.keeps(&at, name, rule);
    }
    true
}
