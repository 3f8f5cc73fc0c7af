//! The rules of Endpoints.

use crate::check::{Check, label, qualified_name, subdomain};
use crate::tree::typed;
use api::core::v1::{EndpointAddress, EndpointPort, Endpoints};
use apimachinery::field::{ErrorList, Path};
use apimachinery::validation::{Strictness, is_valid_ip_for_legacy_field, parse_ip_sloppy};
use apimachinery::value::Value;

pub(super) fn validate(endpoints: &Value) -> ErrorList {
    let mut check = Check::default();
    let endpoints: Endpoints = typed(endpoints);
    for (i, subset) in endpoints.subsets.iter().enumerate() {
        let path = Path::new("subsets").index(i);
        if subset.addresses.is_empty() && subset.not_ready_addresses.is_empty() {
            check.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (member, list) in
            [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
        {
            for (i, address) in list.iter().enumerate() {
                validate_address(&mut check, &path.child(member).index(i), address);
            }
        }
        for (i, port) in subset.ports.iter().enumerate() {
            validate_port(&mut check, &path.child("ports").index(i), port, subset.ports.len() > 1);
        }
    }
    check.0
}

fn validate_address(check: &mut Check, path: &Path, address: &EndpointAddress) {
    let ip = path.child("ip");
    check.extend(is_valid_ip_for_legacy_field(&ip, &address.ip, Strictness::Strict, &[]));
    if !address.hostname.is_empty() {
        check.keeps(&path.child("hostname"), &address.hostname, label);
    }
    if let Some(node) = &address.node_name {
        check.keeps(&path.child("nodeName"), node, subdomain);
    }
    validate_endpoint_ip(check, &ip, &address.ip);
}

/// Addresses that reach the node itself, or everybody, are no endpoints.
pub(crate) fn validate_endpoint_ip(check: &mut Check, path: &Path, text: &str) {
    let Some(ip) = parse_ip_sloppy(text) else {
        return check.invalid(path, text, "must be a valid IP address");
    };
    if ip.is_unspecified() {
        check.invalid(path, text, format!("may not be unspecified ({text})"));
    }
    if ip.is_loopback() {
        check.invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (link_local, local_multicast) = match ip {
        std::net::IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        std::net::IpAddr::V6(v6) => {
            (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02)
        }
    };
    if link_local {
        check.invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        check.invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_port(check: &mut Check, path: &Path, port: &EndpointPort, named: bool) {
    let name = path.child("name");
    if named && port.name.is_empty() {
        check.required(&name, "");
    } else if !port.name.is_empty() {
        check.keeps(&name, &port.name, label);
    }
    check.port(&path.child("port"), port.port);
    let protocol = path.child("protocol");
    if check.present(&protocol, &port.protocol, "") {
        check.one_of(&protocol, &port.protocol, &["SCTP", "TCP", "UDP"]);
    }
    if let Some(application) = &port.app_protocol {
        check.keeps(&path.child("appProtocol"), application, qualified_name);
    }
}

pub(super) fn validate_update(endpoints: &Value, old: &Value) -> ErrorList {
    // What was taken once stays valid.
    if endpoints["subsets"] == old["subsets"] { ErrorList::new() } else { validate(endpoints) }
}
