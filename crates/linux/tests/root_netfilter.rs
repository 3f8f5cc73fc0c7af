//! nftables, links and conntrack in fresh network namespaces, judged by Debian's `nft`. Needs root.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use linux::netlink::route::{Address, Neighbour, NeighbourTable, Route, Routing, Scope, VethEnd, Vxlan};
use linux::netns::Netns;
use linux::nft::{
    Chain, ChainKind, Ct, Data, DynsetOp, Element, Expr, Family, Fib, Field, HookPoint, MapTo, Meta, Nft,
    Payload, Reject, Rule, Set, Table, Transaction, Verdict, key, priority, reg,
};

fn nft_list(netns: &Netns) -> String {
    netns
        .run(|| {
            let out = Command::new("nft")
                .args(["list", "ruleset"])
                .output()
                .expect("Debian's nftables is installed");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8(out.stdout).unwrap()
        })
        .unwrap()
}

fn rule(chain: &str, comment: &str, exprs: Vec<Expr>) -> Rule {
    Rule { chain: chain.into(), exprs, comment: comment.into() }
}

#[test]
fn root_a_table_written_is_the_table_nft_lists() {
    let netns = Netns::create().unwrap();
    let mut nft = Nft::open_in(&netns).unwrap();
    for family in [Family::Ip, Family::Ip6] {
        let a = family.address();
        let width = if family == Family::Ip { 1 } else { 4 };
        let ip = |last: u8| {
            if family == Family::Ip { vec![10, 0, 0, last] } else { [vec![0xfd; 15], vec![last]].concat() }
        };
        let table = Table::new(family, "tiphys-test");
        let vips = Set::map("vips", &[a, Field::Proto, Field::Port], MapTo::Verdict);
        let sticky = Set::map(
            "sticky",
            &[a, Field::Proto, Field::Port, Field::Number],
            MapTo::Fields(vec![Field::Number]),
        );
        let by_id = Set::map("by-id", &[Field::Number], MapTo::Fields(vec![a, Field::Port]));
        let endpoints = Set::map(
            "endpoints",
            &[a, Field::Proto, Field::Port, Field::Number],
            MapTo::Fields(vec![a, Field::Port]),
        );
        let affinity =
            Set::map("affinity", &[a, Field::Proto, Field::Port, a], MapTo::Fields(vec![Field::Number]))
                .dynamic();
        let nets = Set::new("nets", &[a]).with_intervals();
        let allow = Set::new("allow", &[a, Field::Proto, Field::Port]).with_intervals();
        let vip = |last: u8| key(&[&ip(last), &[6], &80u16.to_be_bytes()]);
        let mut t = Transaction::new();
        t.add_table(&table);
        t.add_chain(&table, &Chain::hooked("pre", ChainKind::Nat, HookPoint::Prerouting, priority::DSTNAT));
        t.add_chain(&table, &Chain::hooked("post", ChainKind::Nat, HookPoint::Postrouting, priority::SRCNAT));
        t.add_chain(&table, &Chain::hooked("check", ChainKind::Filter, HookPoint::Prerouting, -110));
        t.add_chain(&table, &Chain::new("pick-2"));
        for set in [&vips, &sticky, &by_id, &endpoints, &affinity, &nets, &allow] {
            t.add_set(&table, set);
        }
        let load = |from: u32| {
            vec![
                Expr::Payload { part: Payload::Daddr(family), to: reg(from) },
                Expr::Meta { key: Meta::L4proto, to: reg(from + width) },
                Expr::Payload { part: Payload::Dport, to: reg(from + width + 1) },
            ]
        };
        t.add_rule(
            &table,
            &rule(
                "pre",
                "dispatch",
                [load(0), vec![Expr::VerdictMap { map: "vips".into(), key: reg(0) }]].concat(),
            ),
        );
        let dnat = Expr::Dnat { family, address: reg(11), port: Some(reg(11 + width)) };
        let after = reg(2 + width);
        let mut stuck = load(0);
        stuck.extend([
            Expr::Payload { part: Payload::Saddr(family), to: after },
            Expr::Map { map: "affinity".into(), key: reg(0), to: reg(15) },
            Expr::SetMeta { key: Meta::Priority, from: reg(15) },
            Expr::Meta { key: Meta::Priority, to: reg(15) },
            Expr::Dynset {
                set: "affinity".into(),
                op: DynsetOp::Update,
                key: reg(0),
                data: Some(reg(15)),
                timeout_ms: 5000,
            },
            Expr::Map { map: "by-id".into(), key: reg(15), to: reg(11) },
            dnat.clone(),
        ]);
        t.add_rule(&table, &rule("pick-2", "stuck", stuck));
        let mut stick = load(0);
        stick.extend([
            Expr::Random { modulus: 2, to: after },
            Expr::Map { map: "sticky".into(), key: reg(0), to: reg(15) },
            Expr::SetMeta { key: Meta::Priority, from: reg(15) },
            Expr::Meta { key: Meta::Priority, to: reg(15) },
            Expr::Payload { part: Payload::Saddr(family), to: after },
            Expr::Dynset {
                set: "affinity".into(),
                op: DynsetOp::Update,
                key: reg(0),
                data: Some(reg(15)),
                timeout_ms: 5000,
            },
            Expr::Map { map: "by-id".into(), key: reg(15), to: reg(11) },
            dnat.clone(),
        ]);
        t.add_rule(&table, &rule("pick-2", "stick", stick));
        let mut pick = load(0);
        pick.extend([
            Expr::Random { modulus: 2, to: after },
            Expr::Map { map: "endpoints".into(), key: reg(0), to: reg(11) },
            dnat,
        ]);
        t.add_rule(&table, &rule("pick-2", "pick", pick));
        t.add_rule(
            &table,
            &rule(
                "post",
                "masquerade",
                vec![
                    Expr::Meta { key: Meta::Mark, to: reg(0) },
                    Expr::and(reg(0), 0x4000),
                    Expr::eq(reg(0), &0x4000u32.to_ne_bytes()),
                    Expr::Masquerade,
                ],
            ),
        );
        let mut check = Expr::ct_any(Ct::State, Ct::NEW).to_vec();
        check.extend([
            Expr::Fib { key: Fib::DaddrType, to: reg(0) },
            Expr::eq(reg(0), &Fib::LOCAL.to_ne_bytes()),
            Expr::Payload { part: Payload::Saddr(family), to: reg(0) },
            Expr::InSet { set: "nets".into(), key: reg(0), inverted: true },
            Expr::Counter,
            Expr::Reject(Reject::PortUnreachable),
        ]);
        t.add_rule(&table, &rule("check", "refuse", check));
        let verdict = |v| Some(Data::Verdict(v));
        let vip_elements = vec![
            Element { key: vip(1), end: None, data: verdict(Verdict::Goto("pick-2".into())) },
            Element { key: vip(2), end: None, data: verdict(Verdict::Drop) },
        ];
        t.add_elements(&table, &vips, &vip_elements);
        let top = vec![0xff; ip(0).len()];
        let net_elements =
            vec![Element::new(ip(1)), Element::range(ip(4), ip(7)), Element::range(ip(200), top)];
        t.add_elements(&table, &nets, &net_elements);
        let allow_elements = vec![
            Element::range(vip(16), key(&[&ip(31), &[6], &443u16.to_be_bytes()])),
            Element::new(vip(80)),
        ];
        t.add_elements(&table, &allow, &allow_elements);
        let endpoint_elements: Vec<_> = (0..2000u32)
            .map(|i| {
                let k = key(&[&ip(1), &[6], &80u16.to_be_bytes(), &i.to_ne_bytes()]);
                Element::new(k).to(Data::Value(key(&[&ip(i as u8), &8080u16.to_be_bytes()])))
            })
            .collect();
        t.add_elements(&table, &endpoints, &endpoint_elements);
        nft.commit(t).unwrap();

        let sorted = |mut v: Vec<Element>| {
            v.sort();
            v
        };
        assert_eq!(sorted(nft.elements(&table, &vips).unwrap()), sorted(vip_elements));
        assert_eq!(sorted(nft.elements(&table, &endpoints).unwrap()), sorted(endpoint_elements));
        assert_eq!(sorted(nft.elements(&table, &nets).unwrap()), sorted(net_elements));
        assert_eq!(sorted(nft.elements(&table, &allow).unwrap()), sorted(allow_elements));
        let listed: Vec<_> = nft.rules(&table).unwrap().into_iter().map(|r| (r.chain, r.comment)).collect();
        assert!(listed.contains(&("pick-2".into(), "pick".into())), "{listed:?}");
        assert_eq!(nft.chains(&table).unwrap().iter().filter(|c| c.base).count(), 3);
        assert_eq!(nft.sets(&table).unwrap().len(), 7);
        let text = nft_list(&netns);
        let (addr, word) = if family == Family::Ip {
            ("10.0.0.1", "ip")
        } else {
            ("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fd01", "ip6")
        };
        let endpoint = format!("{word} daddr . meta l4proto . th dport . numgen random mod 2 map @endpoints");
        for expected in [
            format!("{addr} . tcp . 80 : goto pick-2"),
            format!("{word} daddr . meta l4proto . th dport vmap @vips comment \"dispatch\""),
            format!("dnat {word} to {endpoint} comment \"pick\""),
            "meta mark & 0x00004000 == 0x00004000 masquerade fully-random".into(),
            format!(
                "ct state new fib daddr type local {word} saddr != @nets counter packets 0 bytes 0 reject"
            ),
        ] {
            assert!(text.contains(&expected), "{expected}\n{text}");
        }

        // A refused transaction changes nothing and says which step was refused.
        let mut t = Transaction::new();
        t.delete_elements(&table, &vips, &[Element::new(vip(1))]);
        t.delete_elements(&table, &vips, &[Element::new(vip(9))]);
        let error = nft.commit(t).unwrap_err();
        assert!(error.is_absent() && error.to_string().starts_with("delete elements"), "{error}");
        assert_eq!(nft.elements(&table, &vips).unwrap().len(), 2);

        // Elements, then the chain they led to, in one transaction.
        let mut t = Transaction::new();
        t.delete_elements(&table, &vips, &[Element::new(vip(1))]);
        t.flush_chain(&table, "pick-2").delete_chain(&table, "pick-2");
        nft.commit(t).unwrap();
        nft.remove_table(&table).unwrap();
        nft.remove_table(&table).unwrap();
    }
    assert_eq!(nft.tables().unwrap(), []);
}

#[test]
fn root_links_addresses_routes_and_neighbours() {
    let (host, pod) = (Netns::create().unwrap(), Netns::create().unwrap());
    let mut routing = Routing::open_in(&host).unwrap();
    let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let ends = (VethEnd { name: "tph0", mac: a }, VethEnd { name: "eth0", mac: b });
    routing.add_veth(&ends.0, &ends.1, std::os::fd::AsFd::as_fd(&pod), 1400).unwrap();
    assert!(
        routing.add_veth(&ends.0, &ends.1, std::os::fd::AsFd::as_fd(&pod), 1400).unwrap_err().is_exists()
    );
    let veth = routing.link("tph0").unwrap().unwrap();
    assert_eq!((veth.mac, veth.mtu, veth.up, veth.kind.as_str()), (Some(a), 1400, true, "veth"));
    let mut inside = Routing::open_in(&pod).unwrap();
    let eth0 = inside.link("eth0").unwrap().unwrap();
    assert_eq!((eth0.mac, eth0.up), (Some(b), false));
    inside.set_up(eth0.index).unwrap();

    let address =
        Address { link: eth0.index, ip: "10.1.2.3".parse().unwrap(), prefix: 32, scope: Scope::Global };
    inside.add_address(&address).unwrap();
    inside.add_address(&address).unwrap();
    assert!(inside.addresses().unwrap().contains(&address));
    let gateway = "169.254.1.1".parse().unwrap();
    let routes = [Route::direct(gateway, 32, eth0.index), Route::default_via(gateway, eth0.index)];
    routes.iter().for_each(|r| inside.set_route(r).unwrap());
    routes.iter().for_each(|r| assert!(inside.routes().unwrap().contains(r), "{r:?} {:?}", inside.routes()));
    let neighbour = Neighbour { link: eth0.index, ip: gateway, mac: a, table: NeighbourTable::Resolution };
    inside.set_neighbour(&neighbour).unwrap();
    assert_eq!(inside.neighbours(NeighbourTable::Resolution).unwrap(), std::slice::from_ref(&neighbour));
    inside.delete_neighbour(&neighbour).unwrap();
    inside.delete_route(&routes[1]).unwrap();
    inside.delete_route(&routes[1]).unwrap();
    inside.delete_address(&address).unwrap();

    let vxlan = Vxlan { vni: 4097, port: 8472, local: Some("10.0.0.1".parse().unwrap()), device: None };
    routing.add_vxlan("vx0", a, 1350, &vxlan).unwrap();
    let link = routing.link("vx0").unwrap().unwrap();
    assert_eq!(link.vxlan, Some(vxlan));
    let entry = Neighbour {
        link: link.index,
        ip: "10.0.0.2".parse().unwrap(),
        mac: b,
        table: NeighbourTable::Forwarding,
    };
    routing.set_neighbour(&entry).unwrap();
    assert!(routing.neighbours(NeighbourTable::Forwarding).unwrap().contains(&entry));
    routing.delete_link("tph0").unwrap();
    routing.delete_link("tph0").unwrap();
    assert_eq!(routing.link("tph0").unwrap(), None);
}

/// The kernel grows a set's hash in the background; a listing that runs meanwhile must still be the set.
#[test]
fn root_a_set_that_grows_is_listed_whole() {
    let netns = Netns::create().unwrap();
    let mut nft = Nft::open_in(&netns).unwrap();
    let table = Table::new(Family::Ip, "tiphys-test");
    let mut t = Transaction::new();
    t.add_table(&table);
    nft.commit(t).unwrap();
    let elements: Vec<_> = (0..3000u32).map(|i| Element::new(key(&[&i.to_be_bytes()]))).collect();
    for round in 0..60 {
        let set = Set::new(format!("s{round}"), &[Family::Ip.address()]);
        let mut t = Transaction::new();
        t.add_set(&table, &set);
        t.add_elements(&table, &set, &elements);
        nft.commit(t).unwrap();
        let mut listed = nft.elements(&table, &set).unwrap();
        listed.sort();
        assert!(listed == elements, "round {round}: {} of {} elements", listed.len(), elements.len());
    }
}
