//! The table of the pod network: host ports, masquerading at the cluster's edge, and a guard for 127/8.

use std::net::{IpAddr, Ipv4Addr};

use linux::netlink;
use linux::nft::{
    Chain, ChainKind, Data, Element, Expr, Family, Fib, Field, HookPoint, MapTo, Meta, Nft, Payload, Rule,
    Set, Skeleton, Table, Transaction, Verdict, key, priority, reg,
};

use crate::{Cidr, PortMapping};

/// One table per family, of the same name.
#[derive(Debug)]
pub struct PacketFilter {
    nft: Nft,
    families: Vec<Names>,
    prefix: String,
}

/// The sets of one family's table.
#[derive(Debug, Clone)]
struct Names {
    table: Table,
    node_cidrs: Set,
    cluster_cidrs: Set,
    hostports: Set,
    hostports_at: Set,
    hairpins: Set,
}

impl Names {
    fn new(family: Family, name: &str) -> Self {
        let a = family.address();
        let to = || MapTo::Fields(vec![a, Field::Port]);
        Self {
            table: Table::new(family, name),
            node_cidrs: Set::new("node-cidrs", &[a]).with_intervals(),
            cluster_cidrs: Set::new("cluster-cidrs", &[a]).with_intervals(),
            hostports: Set::map("hostports", &[Field::Proto, Field::Port], to()),
            hostports_at: Set::map("hostports-at", &[a, Field::Proto, Field::Port], to()),
            hairpins: Set::new("hairpins", &[a, a]),
        }
    }

    fn v4(&self) -> bool {
        self.table.family == Family::Ip
    }

    /// Registers an address takes.
    fn width(&self) -> u32 {
        if self.v4() { 1 } else { 4 }
    }

    fn skeleton(&self, prefix: &str) -> Skeleton {
        let (family, width) = (self.table.family, self.width());
        let rule =
            |chain: &str, comment: &str, exprs| Rule { chain: chain.into(), comment: comment.into(), exprs };
        let mut local =
            vec![Expr::Fib { key: Fib::DaddrType, to: reg(0) }, Expr::eq(reg(0), &Fib::LOCAL.to_ne_bytes())];
        if !self.v4() {
            // Nothing can be sent from ::1 to another host, so ports of ::1 are not translated.
            local.push(Expr::Payload { part: Payload::Daddr(family), to: reg(0) });
            local.push(Expr::neq(reg(0), &std::net::Ipv6Addr::LOCALHOST.octets()));
        }
        local.push(Expr::Verdict(Verdict::Jump("hostports".into())));
        let dnat = |map: &Set, mut load: Vec<Expr>| {
            load.push(Expr::Map { map: map.name.clone(), key: reg(0), to: reg(8) });
            load.push(Expr::Dnat { family, address: reg(8), port: Some(reg(8 + width)) });
            load
        };
        let protocol = |to| Expr::Meta { key: Meta::L4proto, to: reg(to) };
        let port = |to| Expr::Payload { part: Payload::Dport, to: reg(to) };
        let source = |to| Expr::Payload { part: Payload::Saddr(family), to: reg(to) };
        let destination = |to| Expr::Payload { part: Payload::Daddr(family), to: reg(to) };
        let in_set = |set: &Set, inverted| Expr::InSet { set: set.name.clone(), key: reg(0), inverted };
        let at = dnat(&self.hostports_at, vec![destination(0), protocol(width), port(width + 1)]);
        let any = dnat(&self.hostports, vec![protocol(0), port(1)]);
        let mut rules = vec![
            rule("prerouting", "ports of this node", local.clone()),
            rule("output", "ports of this node", local),
            rule("hostports", "of one address", at),
            rule("hostports", "of every address", any),
            rule(
                "postrouting",
                "a pod that reaches itself",
                vec![source(0), destination(width), in_set(&self.hairpins, false), Expr::Masquerade],
            ),
            rule(
                "postrouting",
                "out of the cluster",
                vec![
                    source(0),
                    in_set(&self.node_cidrs, false),
                    destination(0),
                    in_set(&self.cluster_cidrs, true),
                    Expr::Meta { key: Meta::Oifname, to: reg(0) },
                    Expr::neq(reg(0), prefix.as_bytes()),
                    Expr::Masquerade,
                ],
            ),
        ];
        if self.v4() {
            let loopback = || {
                [
                    Expr::Bitwise { from: reg(0), to: reg(0), mask: vec![255, 0, 0, 0], xor: vec![0; 4] },
                    Expr::eq(reg(0), &[127, 0, 0, 0]),
                ]
            };
            let mut guard = vec![
                Expr::Meta { key: Meta::Iifname, to: reg(0) },
                Expr::neq(reg(0), &padded_name("lo")),
                destination(0),
            ];
            guard.extend(loopback());
            guard.push(Expr::Verdict(Verdict::Drop));
            rules.push(rule("guard", "127/8 is not reached from outside", guard));
            let mut leave = vec![
                Expr::Meta { key: Meta::Oifname, to: reg(0) },
                Expr::eq(reg(0), prefix.as_bytes()),
                source(0),
            ];
            leave.extend(loopback());
            leave.push(Expr::Masquerade);
            rules.push(rule("postrouting", "127/8 does not leave the node", leave));
        }
        let before_services = priority::DSTNAT - 5;
        Skeleton {
            table: self.table.clone(),
            chains: vec![
                Chain::hooked("guard", ChainKind::Filter, HookPoint::Prerouting, priority::RAW),
                Chain::hooked("prerouting", ChainKind::Nat, HookPoint::Prerouting, before_services),
                Chain::hooked("output", ChainKind::Nat, HookPoint::Output, before_services),
                Chain::hooked("postrouting", ChainKind::Nat, HookPoint::Postrouting, priority::SRCNAT),
                Chain::new("hostports"),
            ],
            sets: vec![
                self.node_cidrs.clone(),
                self.cluster_cidrs.clone(),
                self.hostports.clone(),
                self.hostports_at.clone(),
                self.hairpins.clone(),
            ],
            rules,
        }
    }

    /// The elements for one pod's ports, with the set each belongs to.
    fn pod<'a>(&'a self, ips: &'a [IpAddr], ports: &'a [PortMapping]) -> Vec<(&'a Set, Element)> {
        let mut out = Vec::new();
        let Some(ip) = ips.iter().find(|ip| ip.is_ipv4() == self.v4()).filter(|_| !ports.is_empty()) else {
            return out;
        };
        out.push((&self.hairpins, Element::new(key(&[&bytes(ip), &bytes(ip)]))));
        for port in ports.iter().filter(|p| p.host_port != 0) {
            let (proto, from) = ([port.protocol.number()], port.host_port.to_be_bytes());
            let to = Data::Value(key(&[&bytes(ip), &port.container_port.to_be_bytes()]));
            match port.host_ip.filter(|h| !h.is_unspecified()) {
                None => out.push((&self.hostports, Element::new(key(&[&proto, &from])).to(to))),
                Some(host) if host.is_ipv4() == self.v4() => {
                    out.push((&self.hostports_at, Element::new(key(&[&bytes(&host), &proto, &from])).to(to)));
                }
                Some(_) => {}
            }
        }
        out
    }
}

impl PacketFilter {
    /// Brings the tables about; `ipv6` is false where the kernel has none.
    pub fn open(mut nft: Nft, table: &str, prefix: &str, ipv6: bool) -> netlink::Result<Self> {
        let families: Vec<_> = [Family::Ip, Family::Ip6][..1 + usize::from(ipv6)]
            .iter()
            .map(|f| Names::new(*f, table))
            .collect();
        for names in &families {
            names.skeleton(prefix).ensure(&mut nft)?;
        }
        Ok(Self { nft, families, prefix: prefix.into() })
    }

    /// Which sources are this node's pods, and which destinations see them as they are.
    pub fn set_cidrs(&mut self, node: &[Cidr], cluster: &[Cidr]) -> netlink::Result<()> {
        // Multicast has no translation to speak of.
        let multicast = Cidr { ip: IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), prefix: 4 };
        let cluster = [cluster, &[multicast]].concat();
        let mut transaction = Transaction::new();
        for names in &self.families {
            for (set, cidrs) in [(&names.node_cidrs, node), (&names.cluster_cidrs, &cluster[..])] {
                let elements = ranges(cidrs, names.v4());
                transaction.flush_set(&names.table, &set.name).add_elements(&names.table, set, &elements);
            }
        }
        self.nft.commit(transaction)
    }

    /// Makes the kernel's ports exactly those of the pods given.
    pub fn set_pods<'a>(
        &mut self,
        pods: impl Iterator<Item = (&'a [IpAddr], &'a [PortMapping])>,
    ) -> netlink::Result<()> {
        let pods: Vec<_> = pods.collect();
        let mut transaction = Transaction::new();
        for names in &self.families {
            let wanted: Vec<_> = pods.iter().flat_map(|(ips, ports)| names.pod(ips, ports)).collect();
            for set in [&names.hostports, &names.hostports_at, &names.hairpins] {
                let have = self.nft.elements(&names.table, set)?;
                let mut want: Vec<_> =
                    wanted.iter().filter(|(s, _)| s.name == set.name).map(|(_, e)| e.clone()).collect();
                want.sort();
                want.dedup_by(|a, b| a.key == b.key);
                let gone: Vec<_> = have.iter().filter(|e| !want.contains(e)).cloned().collect();
                want.retain(|e| !have.contains(e));
                transaction.delete_elements(&names.table, set, &gone).add_elements(&names.table, set, &want);
            }
        }
        self.nft.commit(transaction)
    }

    pub fn add_pod(&mut self, ips: &[IpAddr], ports: &[PortMapping]) -> netlink::Result<()> {
        linux::steps::step("letting a pod's packets through");
        let mut transaction = Transaction::new();
        for names in &self.families {
            for (set, element) in names.pod(ips, ports) {
                transaction.add_elements(&names.table, set, &[element]);
            }
        }
        self.nft.commit(transaction)
    }

    pub fn remove_pod(&mut self, ips: &[IpAddr], ports: &[PortMapping]) -> netlink::Result<()> {
        linux::steps::step("letting a pod's packets through no more");
        let mut transaction = Transaction::new();
        for names in &self.families {
            for (set, element) in names.pod(ips, ports) {
                // Another pod may own the port by now: only what still leads here goes.
                if self.nft.elements(&names.table, set)?.contains(&element) {
                    transaction.delete_elements(&names.table, set, &[element]);
                }
            }
        }
        self.nft.commit(transaction)
    }

    /// Deletes the tables.
    pub fn remove(&mut self) -> netlink::Result<()> {
        self.families.iter().try_for_each(|names| self.nft.remove_table(&names.table))
    }

    /// The prefix by which the rules know a pod's interface.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn bytes(ip: &IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Interface names are compared whole when padded, by their beginning when not.
fn padded_name(name: &str) -> [u8; 16] {
    let mut out = [0; 16];
    out[..name.len()].copy_from_slice(name.as_bytes());
    out
}

/// Disjoint ranges: a network inside another would be refused.
fn ranges(cidrs: &[Cidr], v4: bool) -> Vec<Element> {
    let mut ranges: Vec<_> = cidrs
        .iter()
        .filter(|c| c.ip.is_ipv4() == v4)
        .map(|c| (bytes(&c.first()), bytes(&c.last())))
        .collect();
    ranges.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    // Of two networks that share an address one holds the other.
    ranges.dedup_by(|b, a| b.1 <= a.1);
    ranges
        .into_iter()
        .map(|(first, last)| if first == last { Element::new(first) } else { Element::range(first, last) })
        .collect()
}
