//! What the specification and CoreDNS answer, question by question, over one small cluster.

#![allow(clippy::unwrap_used)]

use api::core::v1::Service;
use api::discovery::v1::EndpointSlice;
use dns::answer::{Answer, Question, Zone};
use dns::records::{ServiceFacts, SliceFacts};
use dns::zone::Index;
use expect_test::{Expect, expect};
use hickory_proto::rr::{Name, Record, RecordType};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::Arc;

fn put_service(index: &mut Index, namespace: &str, name: &str, spec: Value) {
    let service: Service = serde_json::from_value(json!({ "spec": spec })).unwrap();
    index.put_service(&namespace.into(), &name.into(), Arc::new(ServiceFacts::new(&service)));
}

fn put_slice(index: &mut Index, namespace: &str, name: &str, service: &str, ports: Value, endpoints: Value) {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": { "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
    }))
    .unwrap();
    index.put_slice(&namespace.into(), &name.into(), SliceFacts::new(&slice).map(Arc::new));
}

fn cluster() -> Index {
    let mut index = Index::default();
    for namespace in ["default", "kube-system", "db"] {
        index.put_namespace(namespace);
    }
    let https = json!([{ "name": "https", "port": 443, "protocol": "TCP" }]);
    put_service(
        &mut index,
        "default",
        "kubernetes",
        json!({ "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"], "ports": https }),
    );
    let both = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "dns-tcp", "port": 53 }]);
    put_service(
        &mut index,
        "kube-system",
        "kube-dns",
        json!({ "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10", "fd00::a"], "ports": both }),
    );
    let pg = json!([{ "name": "pg", "port": 5432 }]);
    put_service(&mut index, "db", "pg", json!({ "clusterIP": "None", "clusterIPs": ["None"], "ports": pg }));
    put_slice(
        &mut index,
        "db",
        "pg-a",
        "pg",
        pg.clone(),
        json!([
            { "addresses": ["10.244.0.5"], "hostname": "pg-0", "conditions": { "ready": true } },
            { "addresses": ["10.244.1.6"], "conditions": {} },
            { "addresses": ["10.244.1.7"], "hostname": "pg-2", "conditions": { "ready": false } },
        ]),
    );
    put_slice(
        &mut index,
        "db",
        "pg-b",
        "pg",
        pg,
        json!([{ "addresses": ["fd00:1::5"], "hostname": "pg-0", "conditions": { "ready": true } }]),
    );
    put_slice(&mut index, "default", "k", "kubernetes", https, json!([{ "addresses": ["192.0.2.1"] }]));
    put_service(&mut index, "db", "none", json!({ "clusterIP": "None" }));
    put_service(&mut index, "db", "portless", json!({ "clusterIP": "None" }));
    put_slice(&mut index, "db", "p", "portless", json!([]), json!([{ "addresses": ["10.244.2.1"] }]));
    let external = |name: &str| json!({ "type": "ExternalName", "externalName": name });
    put_service(&mut index, "default", "outside", external("www.Example.com"));
    put_service(&mut index, "default", "inside", external("pg.db.svc.cluster.local"));
    put_service(&mut index, "default", "gone", external("gone.db.svc.cluster.local"));
    put_service(&mut index, "default", "round", external("round.default.svc.cluster.local"));
    put_service(&mut index, "default", "address", external("192.0.2.7"));
    put_service(&mut index, "nowhere", "lost", json!({ "clusterIP": "10.96.0.99" }));
    index.reached(42);
    index
}

fn ask(index: &Index, name: &str, record_type: &str) -> String {
    let zone = Zone::new("cluster.local", 5).unwrap();
    let name = Name::from_ascii(name).unwrap();
    let question = Question { name: &name, record_type: record_type.parse::<RecordType>().unwrap(), turn: 0 };
    let mut out = String::new();
    match zone.answer(index, question) {
        Answer::NotHere => out.push_str("upstream\n"),
        Answer::Here(reply) => {
            writeln!(out, "{}", reply.code).unwrap();
            let mut section = |mark: &str, records: &[Record]| {
                for record in records {
                    writeln!(out, "{mark}{record}").unwrap();
                }
            };
            section("", &reply.answers);
            section("authority: ", &reply.authorities);
            section("additional: ", &reply.additionals);
            if let Some(alias) = reply.alias {
                writeln!(out, "then upstream: {alias}").unwrap();
            }
        }
    }
    out
}

fn check(questions: &[&str], expected: Expect) {
    let index = cluster();
    let mut out = String::new();
    for question in questions {
        let (name, record_type) = question.split_once(' ').unwrap();
        writeln!(out, "? {question}").unwrap();
        out.push_str(&ask(&index, name, record_type));
    }
    expected.assert_eq(&out);
}

#[test]
fn the_zone_itself() {
    check(
        &[
            "dns-version.cluster.local. TXT",
            "dns-version.cluster.local. A",
            "cluster.local. SOA",
            "cluster.local. NS",
            "cluster.local. A",
            "ns.dns.cluster.local. AAAA",
            "svc.cluster.local. A",
            "default.svc.cluster.local. A",
            "nowhere.svc.cluster.local. A",
            "lost.nowhere.svc.cluster.local. A",
            "other.cluster.local. A",
            "cluster.example. A",
            "local. A",
        ],
        expect![[r#"
            ? dns-version.cluster.local. TXT
            No Error
            dns-version.cluster.local. 5 IN TXT 1.1.0
            ? dns-version.cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? cluster.local. SOA
            No Error
            cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? cluster.local. NS
            No Error
            cluster.local. 5 IN NS ns.dns.cluster.local.
            additional: ns.dns.cluster.local. 5 IN A 10.96.0.10
            additional: ns.dns.cluster.local. 5 IN AAAA fd00::a
            ? cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? ns.dns.cluster.local. AAAA
            No Error
            ns.dns.cluster.local. 5 IN AAAA fd00::a
            ? svc.cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? default.svc.cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? nowhere.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? lost.nowhere.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? other.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? cluster.example. A
            upstream
            ? local. A
            upstream
        "#]],
    );
}

#[test]
fn services_with_an_address() {
    check(
        &[
            "kubernetes.default.svc.cluster.local. A",
            "KuberNetes.DEFAULT.svc.Cluster.Local. A",
            "kubernetes.default.svc.cluster.local. AAAA",
            "kubernetes.default.svc.cluster.local. TXT",
            "_https._tcp.kubernetes.default.svc.cluster.local. SRV",
            "_https._udp.kubernetes.default.svc.cluster.local. SRV",
            "_tcp.kubernetes.default.svc.cluster.local. SRV",
            "_udp.kubernetes.default.svc.cluster.local. SRV",
            "https.tcp.kubernetes.default.svc.cluster.local. SRV",
            "a._https._tcp.kubernetes.default.svc.cluster.local. SRV",
            "kube-dns.kube-system.svc.cluster.local. SRV",
            "kube-dns.kube-system.svc.cluster.local. AAAA",
            "192-0-2-1.kubernetes.default.svc.cluster.local. A",
            "*.default.svc.cluster.local. A",
        ],
        expect![[r#"
            ? kubernetes.default.svc.cluster.local. A
            No Error
            kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
            ? KuberNetes.DEFAULT.svc.Cluster.Local. A
            No Error
            KuberNetes.DEFAULT.svc.Cluster.Local. 5 IN A 10.96.0.1
            ? kubernetes.default.svc.cluster.local. AAAA
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? kubernetes.default.svc.cluster.local. TXT
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? _https._tcp.kubernetes.default.svc.cluster.local. SRV
            No Error
            _https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.
            additional: kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1
            ? _https._udp.kubernetes.default.svc.cluster.local. SRV
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? _tcp.kubernetes.default.svc.cluster.local. SRV
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? _udp.kubernetes.default.svc.cluster.local. SRV
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? https.tcp.kubernetes.default.svc.cluster.local. SRV
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? a._https._tcp.kubernetes.default.svc.cluster.local. SRV
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? kube-dns.kube-system.svc.cluster.local. SRV
            No Error
            kube-dns.kube-system.svc.cluster.local. 5 IN SRV 0 100 53 kube-dns.kube-system.svc.cluster.local.
            additional: kube-dns.kube-system.svc.cluster.local. 5 IN A 10.96.0.10
            additional: kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00::a
            ? kube-dns.kube-system.svc.cluster.local. AAAA
            No Error
            kube-dns.kube-system.svc.cluster.local. 5 IN AAAA fd00::a
            ? 192-0-2-1.kubernetes.default.svc.cluster.local. A
            No Error
            192-0-2-1.kubernetes.default.svc.cluster.local. 5 IN A 192.0.2.1
            ? *.default.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn headless_services() {
    check(
        &[
            "pg.db.svc.cluster.local. A",
            "pg.db.svc.cluster.local. AAAA",
            "_pg._tcp.pg.db.svc.cluster.local. SRV",
            "_tcp.pg.db.svc.cluster.local. A",
            "pg-0.pg.db.svc.cluster.local. A",
            "PG-0.pg.db.svc.cluster.local. AAAA",
            "10-244-1-6.pg.db.svc.cluster.local. A",
            "10-244-1-6.pg.db.svc.cluster.local. AAAA",
            "10-244-0-5.pg.db.svc.cluster.local. A",
            "pg-2.pg.db.svc.cluster.local. A",
            "none.db.svc.cluster.local. A",
            "portless.db.svc.cluster.local. A",
            "portless.db.svc.cluster.local. SRV",
        ],
        expect![[r#"
            ? pg.db.svc.cluster.local. A
            No Error
            pg.db.svc.cluster.local. 5 IN A 10.244.0.5
            pg.db.svc.cluster.local. 5 IN A 10.244.1.6
            ? pg.db.svc.cluster.local. AAAA
            No Error
            pg.db.svc.cluster.local. 5 IN AAAA fd00:1::5
            ? _pg._tcp.pg.db.svc.cluster.local. SRV
            No Error
            _pg._tcp.pg.db.svc.cluster.local. 5 IN SRV 0 50 5432 10-244-1-6.pg.db.svc.cluster.local.
            _pg._tcp.pg.db.svc.cluster.local. 5 IN SRV 0 50 5432 pg-0.pg.db.svc.cluster.local.
            additional: 10-244-1-6.pg.db.svc.cluster.local. 5 IN A 10.244.1.6
            additional: pg-0.pg.db.svc.cluster.local. 5 IN A 10.244.0.5
            additional: pg-0.pg.db.svc.cluster.local. 5 IN AAAA fd00:1::5
            ? _tcp.pg.db.svc.cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? pg-0.pg.db.svc.cluster.local. A
            No Error
            pg-0.pg.db.svc.cluster.local. 5 IN A 10.244.0.5
            ? PG-0.pg.db.svc.cluster.local. AAAA
            No Error
            PG-0.pg.db.svc.cluster.local. 5 IN AAAA fd00:1::5
            ? 10-244-1-6.pg.db.svc.cluster.local. A
            No Error
            10-244-1-6.pg.db.svc.cluster.local. 5 IN A 10.244.1.6
            ? 10-244-1-6.pg.db.svc.cluster.local. AAAA
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? 10-244-0-5.pg.db.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? pg-2.pg.db.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? none.db.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? portless.db.svc.cluster.local. A
            No Error
            portless.db.svc.cluster.local. 5 IN A 10.244.2.1
            ? portless.db.svc.cluster.local. SRV
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn aliases() {
    check(
        &[
            "outside.default.svc.cluster.local. A",
            "outside.default.svc.cluster.local. CNAME",
            "a.outside.default.svc.cluster.local. A",
            "inside.default.svc.cluster.local. A",
            "gone.default.svc.cluster.local. A",
            "round.default.svc.cluster.local. CNAME",
            "address.default.svc.cluster.local. A",
        ],
        expect![[r#"
            ? outside.default.svc.cluster.local. A
            No Error
            outside.default.svc.cluster.local. 5 IN CNAME www.Example.com.
            then upstream: www.Example.com.
            ? outside.default.svc.cluster.local. CNAME
            No Error
            outside.default.svc.cluster.local. 5 IN CNAME www.Example.com.
            ? a.outside.default.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? inside.default.svc.cluster.local. A
            No Error
            inside.default.svc.cluster.local. 5 IN CNAME pg.db.svc.cluster.local.
            pg.db.svc.cluster.local. 5 IN A 10.244.0.5
            pg.db.svc.cluster.local. 5 IN A 10.244.1.6
            ? gone.default.svc.cluster.local. A
            Non-Existent Domain
            gone.default.svc.cluster.local. 5 IN CNAME gone.db.svc.cluster.local.
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? round.default.svc.cluster.local. CNAME
            No Error
            round.default.svc.cluster.local. 5 IN CNAME round.default.svc.cluster.local.
            ? address.default.svc.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
        "#]],
    );
    assert!(ask(&cluster(), "round.default.svc.cluster.local.", "A").starts_with("Server Failure"));
}

#[test]
fn pods() {
    check(
        &[
            "10-244-0-5.db.pod.cluster.local. A",
            "10-244-0-5.db.pod.cluster.local. AAAA",
            "fd00--5.db.pod.cluster.local. AAAA",
            "10-244-0-5.nowhere.pod.cluster.local. A",
            "10-244-0-500.db.pod.cluster.local. A",
            "db.pod.cluster.local. A",
        ],
        expect![[r#"
            ? 10-244-0-5.db.pod.cluster.local. A
            No Error
            10-244-0-5.db.pod.cluster.local. 5 IN A 10.244.0.5
            ? 10-244-0-5.db.pod.cluster.local. AAAA
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? fd00--5.db.pod.cluster.local. AAAA
            No Error
            fd00--5.db.pod.cluster.local. 5 IN AAAA fd00::5
            ? 10-244-0-5.nowhere.pod.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? 10-244-0-500.db.pod.cluster.local. A
            Non-Existent Domain
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? db.pod.cluster.local. A
            No Error
            authority: cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
        "#]],
    );
}

#[test]
fn names_of_addresses() {
    check(
        &[
            "1.0.96.10.in-addr.arpa. PTR",
            "1.0.96.10.IN-ADDR.arpa. A",
            "5.0.244.10.in-addr.arpa. PTR",
            "6.1.244.10.in-addr.arpa. PTR",
            "7.1.244.10.in-addr.arpa. PTR",
            "99.0.96.10.in-addr.arpa. PTR",
            "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR",
            "0.96.10.in-addr.arpa. PTR",
        ],
        expect![[r#"
            ? 1.0.96.10.in-addr.arpa. PTR
            No Error
            1.0.96.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local.
            ? 1.0.96.10.IN-ADDR.arpa. A
            No Error
            authority: 1.0.96.10.IN-ADDR.arpa. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 42 7200 1800 86400 5
            ? 5.0.244.10.in-addr.arpa. PTR
            No Error
            5.0.244.10.in-addr.arpa. 5 IN PTR pg-0.pg.db.svc.cluster.local.
            ? 6.1.244.10.in-addr.arpa. PTR
            No Error
            6.1.244.10.in-addr.arpa. 5 IN PTR 10-244-1-6.pg.db.svc.cluster.local.
            ? 7.1.244.10.in-addr.arpa. PTR
            upstream
            ? 99.0.96.10.in-addr.arpa. PTR
            upstream
            ? a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR
            No Error
            a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR kube-dns.kube-system.svc.cluster.local.
            ? 0.96.10.in-addr.arpa. PTR
            upstream
        "#]],
    );
}

#[test]
fn addresses_take_turns() {
    let mut index = Index::default();
    index.put_namespace("n");
    put_service(&mut index, "n", "s", json!({ "clusterIP": "None" }));
    let endpoints = json!([{ "addresses": ["10.0.0.1"] }, { "addresses": ["10.0.0.2"] }]);
    put_slice(&mut index, "n", "s-1", "s", json!([]), endpoints);
    let zone = Zone::new("cluster.local.", 5).unwrap();
    let name = Name::from_ascii("s.n.svc.cluster.local.").unwrap();
    let first = |turn| match zone.answer(&index, Question { name: &name, record_type: RecordType::A, turn }) {
        Answer::Here(reply) => reply.answers[0].data.ip_addr().unwrap().to_string(),
        Answer::NotHere => panic!("in the zone"),
    };
    assert_eq!([first(0), first(1), first(2)], ["10.0.0.1", "10.0.0.2", "10.0.0.1"]);
}

#[test]
fn changes_leave_nothing_behind() {
    let mut index = Index::default();
    let headless = json!({ "clusterIP": "None" });
    // A slice first, then its Service, then its Namespace.
    put_slice(&mut index, "n", "s-1", "s", json!([]), json!([{ "addresses": ["10.0.0.1"] }]));
    put_service(&mut index, "n", "s", headless.clone());
    assert!(ask(&index, "s.n.svc.cluster.local.", "A").starts_with("Non-Existent Domain"));
    index.put_namespace("n");
    assert!(ask(&index, "s.n.svc.cluster.local.", "A").contains("10.0.0.1"));
    // An endpoint goes, one stays, one comes and gets a name.
    let endpoints = json!([{ "addresses": ["10.0.0.1"] }, { "addresses": ["10.0.0.2"], "hostname": "b" }]);
    put_slice(&mut index, "n", "s-1", "s", json!([]), endpoints);
    put_slice(
        &mut index,
        "n",
        "s-1",
        "s",
        json!([]),
        json!([{ "addresses": ["10.0.0.2"], "hostname": "b" }]),
    );
    assert_eq!(ask(&index, "1.0.0.10.in-addr.arpa.", "PTR"), "upstream\n");
    assert!(ask(&index, "2.0.0.10.in-addr.arpa.", "PTR").contains("b.s.n.svc.cluster.local."));
    // The slice moves to another Service.
    put_service(&mut index, "n", "t", headless);
    put_slice(
        &mut index,
        "n",
        "s-1",
        "t",
        json!([]),
        json!([{ "addresses": ["10.0.0.2"], "hostname": "b" }]),
    );
    assert!(ask(&index, "s.n.svc.cluster.local.", "A").starts_with("Non-Existent Domain"));
    assert!(ask(&index, "2.0.0.10.in-addr.arpa.", "PTR").contains("b.t.n.svc.cluster.local."));
    // The Service gets an address, and loses it.
    put_service(&mut index, "n", "s", json!({ "clusterIP": "10.96.0.5" }));
    assert!(ask(&index, "5.0.96.10.in-addr.arpa.", "PTR").contains("s.n.svc"));
    put_service(&mut index, "n", "s", json!({ "type": "ExternalName", "externalName": "a.example" }));
    assert_eq!(ask(&index, "5.0.96.10.in-addr.arpa.", "PTR"), "upstream\n");
    index.remove_namespace("n");
    index.put_slice(&"n".into(), &"s-1".into(), None);
    index.remove_service(&"n".into(), &"s".into());
    index.remove_service(&"n".into(), &"t".into());
    assert!(index.is_empty(), "{index:?}");
}
