//! What Services, ingresses, policies and endpoints must be.

use crate::{check, check_update};
use apimachinery::json;
use expect_test::expect;

#[test]
fn networking() {
    let backend = json!({"service": {"name": "s", "port": {"number": 80, "name": "p"}}});
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {}}),
        expect!["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        "networking.k8s.io",
        "Ingress",
        json!({"spec": {"rules": [{"host": "1.2.3.4", "http": {"paths": [
            {"path": "a//b", "pathType": "Prefix", "backend": backend}, {"backend": {}},
        ]}}]}}),
        expect![[r#"
            spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must be an absolute path
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must not contain '//'
            spec.rules[0].http.paths[0].backend: Invalid value: "": cannot set both port name & port number
            spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified"#]],
    );
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"podSelector": {}, "ingress": [{
            "ports": [{"port": 0, "endPort": 5, "protocol": "ICMP"}, {"endPort": 5}],
            "from": [{}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}, "podSelector": {}}],
        }]}}),
        expect![[r#"
            spec.ingress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"
            spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ingress[0].ports[1].endPort: Invalid value: 5: may not be specified when `port` is not specified
            spec.ingress[0].from[0]: Required value: must specify a peer
            spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`
            spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer"#]],
    );
    check(
        "networking.k8s.io",
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.0/8", "11.0.0.0/8"]}}),
        expect![[
            r#"spec.cidrs: Invalid value: ["10.0.0.0/8","11.0.0.0/8"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"#
        ]],
    );
    check("networking.k8s.io", "IPAddress", json!({"spec": {}}), expect!["spec.parentRef: Required value"]);
}

#[test]
fn endpoint_slices() {
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({
            "addressType": "IPv4",
            "ports": [{"name": "A"}, {"protocol": "Odd"}],
            "endpoints": [{"addresses": ["127.0.0.1", "::2", "1.2.3.04"], "hostname": "A b"}],
        }),
        expect![[r#"
            ports[0].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            ports[1].protocol: Unsupported value: "Odd": supported values: "SCTP", "TCP", "UDP"
            endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
            endpoints[0].addresses: Invalid value: "::2": must be an IPv4 address
            endpoints[0].addresses[2]: Invalid value: "1.2.3.04": must not have leading 0s
            endpoints[0].hostname: Invalid value: "A b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"#]],
    );
    check_update(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        json!({"addressType": "FQDN", "endpoints": [{"addresses": ["127.0.0.1"]}]}),
        expect![[r#"addressType: Invalid value: "FQDN": field is immutable"#]],
    );
}
