//! What a Service asks of a node, as text: objects in, frontends and pools out.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use client::{ObjectKey, Projection};
use expect_test::{Expect, expect};
use proxy::conntrack::Truth;
use proxy::endpoints::arrange;
use proxy::facts::{ServiceFacts, SliceFacts};
use proxy::plan::{NodeView, Plan, Pool, PoolName, Refusal, plan};
use serde_json::{Value, json};
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// A Service of type ClusterIP with a TCP port, its spec merged with `spec`.
fn service(spec: Value) -> Value {
    let mut out = json!({
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    });
    for (field, value) in spec.as_object().unwrap() {
        match field.as_str() {
            "status" => out["status"] = value.clone(),
            "labels" => out["metadata"]["labels"] = value.clone(),
            _ => out["spec"][field.as_str()] = value.clone(),
        }
    }
    out
}

/// An endpoint from words: its address, then `here`, `unready`, `ending`, `gone`, `zone=…`, `node=…`.
fn endpoint(words: &str) -> Value {
    let mut words = words.split(' ');
    let mut out = json!({"addresses": [words.next().unwrap()], "nodeName": "there", "conditions": {}});
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("here", _) => out["nodeName"] = "here".into(),
            ("unready", _) => out["conditions"] = json!({"ready": false, "serving": false}),
            ("ending", _) => {
                out["conditions"] = json!({"ready": false, "serving": true, "terminating": true});
            }
            ("gone", _) => {
                out["conditions"] = json!({"ready": false, "serving": false, "terminating": true});
            }
            ("zone", zone) => out["hints"]["forZones"] = json!([{"name": zone}]),
            ("node", node) => out["hints"]["forNodes"] = json!([{"name": node}]),
            (other, _) => panic!("{other}"),
        }
    }
    out
}

fn slices(endpoints: &[&str]) -> Vec<SliceFacts> {
    let slice = |v4: bool| {
        let mine: Vec<Value> = endpoints
            .iter()
            .filter(|e| e.split(' ').next().unwrap().parse::<IpAddr>().unwrap().is_ipv4() == v4)
            .map(|e| endpoint(e))
            .collect();
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": "web"}},
            "addressType": if v4 { "IPv4" } else { "IPv6" },
            "endpoints": mine,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP"}],
        });
        SliceFacts::project(&serde_json::from_value(slice).unwrap())
    };
    vec![slice(true), slice(false)]
}

fn planned(spec: Value, endpoints: &[&str]) -> Option<Plan> {
    let facts = ServiceFacts::project(&serde_json::from_value(service(spec)).unwrap());
    let slices = slices(endpoints);
    let slices: Vec<&SliceFacts> = slices.iter().collect();
    let node = NodeView {
        name: "here".into(),
        zone: "a".into(),
        ips: vec!["192.168.0.1".parse().unwrap(), "fd00:1::1".parse().unwrap()],
    };
    facts.0.map(|service| plan(&ObjectKey::new("shop", "web"), &service, &slices, &node))
}

fn show(plan: &Plan) -> String {
    let mut out = String::new();
    let pool = |name: &Option<PoolName>| name.as_ref().map(ToString::to_string);
    for (frontend, route) in &plan.frontends {
        write!(out, "{frontend} {:?}", route.entry).unwrap();
        if let Some(pool) = pool(&route.pool) {
            write!(out, " {pool}").unwrap();
        }
        if let Some(pool) = pool(&route.short_circuit) {
            write!(out, " (inside {pool})").unwrap();
        }
        match route.refusal {
            Some(Refusal::Drop) => out += " drop",
            Some(Refusal::Reject) => out += " reject",
            None => {}
        }
        if let Some(ranges) = plan.source_ranges.get(frontend) {
            let ranges: Vec<String> = ranges.iter().map(|r| r.canonical()).collect();
            write!(out, " from {}", ranges.join(" ")).unwrap();
        }
        out += "\n";
    }
    for (name, Pool { endpoints, affinity }) in &plan.pools {
        let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
        let affinity = affinity.map(|s| format!(" for {s}s")).unwrap_or_default();
        writeln!(out, "{name}: {}{affinity}", endpoints.join(" ")).unwrap();
    }
    let hairpins: Vec<String> = plan.hairpins.iter().map(|(a, _)| a.to_string()).collect();
    if !hairpins.is_empty() {
        writeln!(out, "hairpins: {}", hairpins.join(" ")).unwrap();
    }
    if let Some(check) = plan.health_check {
        writeln!(out, "health check {}: {}", check.port, check.local_endpoints).unwrap();
    }
    out
}

fn check(spec: Value, endpoints: &[&str], expected: Expect) {
    let shown = planned(spec, endpoints).map_or("not ours\n".into(), |plan| show(&plan));
    expected.assert_eq(&shown);
}

#[test]
fn services_of_others_and_without_addresses_are_left_alone() {
    for spec in [
        json!({"clusterIP": "None", "clusterIPs": ["None"]}),
        json!({"clusterIP": "", "clusterIPs": [], "type": "ExternalName"}),
        json!({"clusterIP": "", "clusterIPs": []}),
        json!({"labels": {"service.kubernetes.io/service-proxy-name": "mine"}}),
        json!({"labels": {"service.kubernetes.io/headless": ""}}),
    ] {
        check(spec, &["10.0.0.1"], expect!["not ours\n"]);
    }
}

#[test]
fn readiness_decides_and_the_ending_stand_in() {
    check(
        json!({}),
        &["10.0.0.1 here", "10.0.0.2", "10.0.0.3 unready", "10.0.0.4 ending"],
        expect![[r#"
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.1:8080 10.0.0.2:8080
        hairpins: 10.0.0.1:8080
    "#]],
    );
    check(
        json!({}),
        &["10.0.0.3 unready", "10.0.0.4 ending", "10.0.0.5 gone"],
        expect![[r#"
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.4:8080
    "#]],
    );
    check(
        json!({}),
        &["10.0.0.3 unready", "10.0.0.5 gone"],
        expect![[r#"
        10.96.0.1:80/tcp Internal reject
    "#]],
    );
    // An address that changed hands: the endpoint that stays counts, wherever it stands.
    for both in [["10.0.0.1 gone", "10.0.0.1"], ["10.0.0.1", "10.0.0.1 gone"]] {
        check(
            json!({}),
            &both,
            expect![[r#"
            10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
            cluster-shop/web:http/tcp: 10.0.0.1:8080
        "#]],
        );
    }
}

#[test]
fn hints_count_when_all_have_them_and_one_is_for_us() {
    let pool = |endpoints: &[&str]| {
        let plan = planned(json!({}), endpoints).unwrap();
        let ips = plan.pools.values().flat_map(|p| &p.endpoints).map(|e| e.ip().to_string());
        ips.collect::<Vec<_>>().join(" ")
    };
    for (endpoints, expected) in [
        (["10.0.0.1 zone=a", "10.0.0.2 zone=b"], "10.0.0.1"),
        (["10.0.0.1 zone=c", "10.0.0.2 zone=b"], "10.0.0.1 10.0.0.2"),
        (["10.0.0.1 zone=a", "10.0.0.2"], "10.0.0.1 10.0.0.2"),
        (["10.0.0.1 zone=a", "10.0.0.2 unready"], "10.0.0.1"),
        (["10.0.0.1 zone=a unready", "10.0.0.2 zone=b"], "10.0.0.2"),
        (["10.0.0.1 zone=a node=there", "10.0.0.2 zone=a node=here"], "10.0.0.2"),
        (["10.0.0.1 zone=a node=there", "10.0.0.2 zone=b node=else"], "10.0.0.1"),
        (["10.0.0.1 zone=a node=here", "10.0.0.2 zone=a"], "10.0.0.1 10.0.0.2"),
    ] {
        assert_eq!(pool(&endpoints), expected, "{endpoints:?}");
    }
}

#[test]
fn policies_keep_traffic_on_the_node() {
    let node_port = |policy: &str| {
        json!({"type": "NodePort", "externalTrafficPolicy": policy,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}]})
    };
    let mixed = ["10.0.0.1 here", "10.0.0.2"];
    check(
        node_port("Cluster"),
        &mixed,
        expect![[r#"
        node:30080/tcp External cluster-shop/web:http/tcp
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.1:8080 10.0.0.2:8080
        hairpins: 10.0.0.1:8080
    "#]],
    );
    check(
        node_port("Local"),
        &mixed,
        expect![[r#"
        node:30080/tcp ExternalLocal local-shop/web:http/tcp (inside cluster-shop/web:http/tcp)
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.1:8080 10.0.0.2:8080
        local-shop/web:http/tcp: 10.0.0.1:8080
        hairpins: 10.0.0.1:8080
    "#]],
    );
    check(
        node_port("Local"),
        &["10.0.0.2"],
        expect![[r#"
        node:30080/tcp ExternalLocal (inside cluster-shop/web:http/tcp) drop
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.2:8080
    "#]],
    );
    check(
        node_port("Local"),
        &[],
        expect![[r#"
        node:30080/tcp ExternalLocal reject
        10.96.0.1:80/tcp Internal reject
    "#]],
    );
    // The ending stand in for each policy by itself.
    check(
        node_port("Local"),
        &["10.0.0.1 here ending", "10.0.0.2"],
        expect![[r#"
        node:30080/tcp ExternalLocal local-shop/web:http/tcp (inside cluster-shop/web:http/tcp)
        10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
        cluster-shop/web:http/tcp: 10.0.0.2:8080
        local-shop/web:http/tcp: 10.0.0.1:8080
        hairpins: 10.0.0.1:8080
    "#]],
    );
    let inside = json!({"internalTrafficPolicy": "Local"});
    check(
        inside.clone(),
        &mixed,
        expect![[r#"
        10.96.0.1:80/tcp Internal local-shop/web:http/tcp
        local-shop/web:http/tcp: 10.0.0.1:8080
        hairpins: 10.0.0.1:8080
    "#]],
    );
    check(
        inside,
        &["10.0.0.2"],
        expect![[r#"
        10.96.0.1:80/tcp Internal drop
    "#]],
    );
}

#[test]
fn load_balancers_and_external_addresses() {
    let ingress = json!({"loadBalancer": {"ingress": [
        {"ip": "203.0.113.1", "ipMode": "VIP"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}, {"ip": "203.0.113.3"},
        {"hostname": "example.org"}, {"ip": "fd00:113::1"},
    ]}});
    check(
        json!({"type": "LoadBalancer", "status": ingress, "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 32000, "sessionAffinity": "ClientIP", "externalIPs": ["198.51.100.1"],
            "loadBalancerSourceRanges": [" 192.168.0.0/16", "192.168.1.0/24 ", "fd00::/8", "10.9.0.0/16"]}),
        &["10.0.0.1 here", "10.0.0.2"],
        expect![[r#"
            10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
            198.51.100.1:80/tcp ExternalLocal local-shop/web:http/tcp (inside cluster-shop/web:http/tcp)
            203.0.113.1:80/tcp ExternalLocal local-shop/web:http/tcp (inside cluster-shop/web:http/tcp) from 10.9.0.0/16 192.168.0.0/16 203.0.113.1/32 203.0.113.3/32
            203.0.113.3:80/tcp ExternalLocal local-shop/web:http/tcp (inside cluster-shop/web:http/tcp) from 10.9.0.0/16 192.168.0.0/16 203.0.113.1/32 203.0.113.3/32
            cluster-shop/web:http/tcp: 10.0.0.1:8080 10.0.0.2:8080 for 10800s
            local-shop/web:http/tcp: 10.0.0.1:8080 for 10800s
            hairpins: 10.0.0.1:8080
            health check 32000: 1
        "#]],
    );
    // A health check is for Local only; a range of everything is none.
    check(
        json!({"type": "LoadBalancer", "healthCheckNodePort": 32000, "externalIPs": ["198.51.100.1"],
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
            "loadBalancerSourceRanges": ["10.0.0.0/8", "0.0.0.0/0"]}),
        &["10.0.0.2"],
        expect![[r#"
            10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
            198.51.100.1:80/tcp External cluster-shop/web:http/tcp
            203.0.113.1:80/tcp External cluster-shop/web:http/tcp
            cluster-shop/web:http/tcp: 10.0.0.2:8080
        "#]],
    );
}

#[test]
fn both_families_and_every_protocol() {
    check(
        json!({"clusterIPs": ["10.96.0.1", "fd00:96::1"], "type": "NodePort", "ports": [
            {"name": "http", "port": 80, "nodePort": 30080},
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053},
            {"name": "assoc", "port": 99, "protocol": "SCTP"},
        ]}),
        &["10.0.0.1", "fd00::1"],
        expect![[r#"
            node:30080/tcp External cluster-shop/web:http/tcp
            node:30053/udp External cluster-shop/web:dns/udp
            10.96.0.1:80/tcp Internal cluster-shop/web:http/tcp
            10.96.0.1:53/udp Internal cluster-shop/web:dns/udp
            10.96.0.1:99/sctp Internal reject
            node6:30080/tcp External cluster-shop/web:http/tcp
            node6:30053/udp External cluster-shop/web:dns/udp
            [fd00:96::1]:80/tcp Internal cluster-shop/web:http/tcp
            [fd00:96::1]:53/udp Internal cluster-shop/web:dns/udp
            [fd00:96::1]:99/sctp Internal reject
            cluster-shop/web:dns/udp: 10.0.0.1:53
            cluster-shop/web:dns/udp: [fd00::1]:53
            cluster-shop/web:http/tcp: 10.0.0.1:8080
            cluster-shop/web:http/tcp: [fd00::1]:8080
        "#]],
    );
}

#[test]
fn an_order_changes_as_little_as_it_can() {
    let parse = |text: &str| -> Vec<SocketAddr> {
        text.split(' ').filter(|w| !w.is_empty()).map(|w| format!("10.0.0.{w}:80").parse().unwrap()).collect()
    };
    for (before, now, expected) in [
        ("", "1 2 3", "1 2 3"),
        ("1 2 3", "", ""),
        ("3 1 2", "1 2 3", "3 1 2"),
        ("1 2 3 4", "1 3 4", "1 4 3"),
        ("1 2 3 4", "1 2 3", "1 2 3"),
        ("1 2 3 4", "1 3 4 5", "1 5 3 4"),
        ("1 2 3 4", "1 2 3 4 5", "1 2 3 4 5"),
        ("1 2 3 4", "4", "4"),
        ("1 2 3 4 5", "2 5", "5 2"),
        ("1 2", "3 4 5", "3 4 5"),
    ] {
        assert_eq!(arrange(&parse(before), &parse(now)), parse(expected), "{before} to {now}");
    }
}

#[test]
fn flows_to_what_no_longer_serves_are_stale() {
    let spec = json!({"type": "NodePort", "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}]});
    let plan = planned(spec, &["10.0.0.1", "10.0.0.2 ending", "10.0.0.3 unready"]).unwrap();
    let node_ips = ["192.168.0.1".parse().unwrap()];
    let truth = Truth::new(&plan.udp, &node_ips);
    let tuple = |from: &str, to: &str| {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        linux::conntrack::Tuple {
            source: from.ip(),
            destination: to.ip(),
            source_port: from.port(),
            destination_port: to.port(),
        }
    };
    for (to, answers, stale) in [
        ("10.96.0.1:53", "10.0.0.1:53", false),
        ("10.96.0.1:53", "10.0.0.2:53", false),
        ("10.96.0.1:53", "10.0.0.3:53", true),
        ("10.96.0.1:53", "10.96.0.1:53", true),
        ("10.96.0.1:54", "10.0.0.9:53", false),
        ("192.168.0.1:30053", "10.0.0.1:53", false),
        ("192.168.0.1:30053", "10.0.0.9:53", true),
        ("192.168.0.1:30053", "192.168.0.1:30053", true),
        ("192.0.2.1:30053", "192.0.2.1:30053", false),
    ] {
        let client = "10.0.1.1:4000";
        assert_eq!(truth.denies(&tuple(client, to), &tuple(answers, client)), stale, "{to} {answers}");
    }
}
