//! The part of the tables that Services do not change: base chains, sets, and the rules that tie them together.
//!
//! A frontend's verdict (`services`) names the treatment of its clients, which ends in a pool's number, kept in the
//! packet's priority until `dispatch` finds the chain for that many endpoints. That chain draws an index and finds the
//! endpoint under (pool, index). So Services and endpoints are elements only; no rule is written for them.

use crate::plan::{Entry, Family};
use linux::nft::{
    Chain, ChainKind, Ct, DynsetOp, Expr, Fib, Field, HookPoint, MapTo, Meta, Payload, Reg, Reject, Rule,
    Set, Skeleton, Table, Verdict, priority, reg,
};
use std::net::Ipv6Addr;

/// One table per family, of this name.
pub(super) const TABLE: &str = "tiphys-proxy";
/// Upstream's mark for what is to be masqueraded.
const MASQUERADE: u32 = 1 << 14;
/// Load balancers' source ranges look at the address before it is translated.
const BEFORE_DSTNAT: i32 = priority::DSTNAT - 10;

/// What the skeleton depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Whether it is known which sources are the cluster's.
    pub(super) cluster_cidrs: bool,
    /// Whether node ports are open on some addresses only.
    pub(super) node_port_addresses: bool,
    /// Whether node ports are open on 127/8.
    pub(super) localhost: bool,
}

/// The sets that are kept as the plans say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Which {
    ClusterCidrs,
    NodePortAddresses,
    ClusterIps,
    Services,
    ServicePools,
    ShortCircuits,
    NoEndpoints,
    Firewalled,
    SourceRanges,
    Hairpins,
    Pools,
    /// (pool, index) to the endpoint, without affinity.
    Endpoints,
    /// (pool, index) to the endpoint's number, with affinity.
    Sticky,
    /// (pool, endpoint's number) to the endpoint, with affinity.
    ById,
}

pub(super) const SETS: [Which; 14] = [
    Which::ClusterCidrs,
    Which::NodePortAddresses,
    Which::ClusterIps,
    Which::Services,
    Which::ServicePools,
    Which::ShortCircuits,
    Which::NoEndpoints,
    Which::Firewalled,
    Which::SourceRanges,
    Which::Hairpins,
    Which::Pools,
    Which::Endpoints,
    Which::Sticky,
    Which::ById,
];

/// Clients by pool and address, with the number of the endpoint they keep; the rules fill it.
const AFFINITY: &str = "affinity";
/// Of how many clients on a node the endpoint is kept.
const CLIENTS: u32 = 1 << 20;

pub(super) fn table(family: Family) -> Table {
    Table::new(nft_family(family), TABLE)
}

fn nft_family(family: Family) -> linux::nft::Family {
    if family == Family::V4 { linux::nft::Family::Ip } else { linux::nft::Family::Ip6 }
}

impl Which {
    pub(super) fn set(self, family: Family) -> Set {
        let a = nft_family(family).address();
        let frontend = [a, Field::Proto, Field::Port];
        let number = || MapTo::Fields(vec![Field::Number]);
        let endpoint = || MapTo::Fields(vec![a, Field::Port]);
        let pair = [Field::Number, Field::Number];
        match self {
            Which::ClusterCidrs => Set::new("cluster-cidrs", &[a]).with_intervals(),
            Which::NodePortAddresses => Set::new("node-port-addresses", &[a]).with_intervals(),
            Which::ClusterIps => Set::new("cluster-ips", &[a]),
            Which::Services => Set::map("services", &frontend, MapTo::Verdict),
            Which::ServicePools => Set::map("service-pools", &frontend, number()),
            Which::ShortCircuits => Set::map("short-circuits", &frontend, number()),
            Which::NoEndpoints => Set::map("no-endpoints", &frontend, MapTo::Verdict),
            Which::Firewalled => Set::new("firewalled", &frontend),
            Which::SourceRanges => {
                Set::new("source-ranges", &[a, Field::Proto, Field::Port, a]).with_intervals()
            }
            Which::Hairpins => Set::new("hairpins", &[a, a, Field::Proto, Field::Port]),
            Which::Pools => Set::map("pools", &[Field::Number], MapTo::Verdict),
            Which::Endpoints => Set::map("endpoints", &pair, endpoint()),
            Which::Sticky => Set::map("sticky", &pair, number()),
            Which::ById => Set::map("by-id", &pair, endpoint()),
        }
    }

    fn name(self) -> String {
        self.set(Family::V4).name
    }
}

/// The chain for clients of a frontend.
pub(super) fn entry_chain(entry: Entry, node_port: bool) -> &'static str {
    match (entry, node_port) {
        (Entry::Internal, _) => "internal",
        (Entry::External, false) => "external",
        (Entry::External, true) => "node-port",
        (Entry::ExternalLocal, false) => "external-local",
        (Entry::ExternalLocal, true) => "node-port-local",
    }
}

/// Where refusals that are answered go.
pub(super) const REJECT: &str = "reject";

/// The chain that picks one of so many endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pick {
    pub(super) endpoints: u32,
    pub(super) affinity: Option<u32>,
}

impl Pick {
    pub(super) fn chain(self) -> String {
        match self.affinity {
            None => format!("pick-{}", self.endpoints),
            Some(seconds) => format!("sticky-{}-{seconds}", self.endpoints),
        }
    }

    /// Whether a chain is one of these.
    pub(super) fn is_chain(name: &str) -> bool {
        name.starts_with("pick-") || name.starts_with("sticky-")
    }
}

/// Writes the rules of one family.
pub(super) struct Writer {
    family: Family,
    /// Registers an address takes.
    width: u32,
}

impl Writer {
    pub(super) fn new(family: Family) -> Self {
        Self { family, width: if family == Family::V4 { 1 } else { 4 } }
    }

    fn source(&self, to: u32) -> Expr {
        Expr::Payload { part: Payload::Saddr(nft_family(self.family)), to: reg(to) }
    }

    fn destination(&self, to: u32) -> Expr {
        Expr::Payload { part: Payload::Daddr(nft_family(self.family)), to: reg(to) }
    }

    fn protocol_and_port(&self, to: u32) -> [Expr; 2] {
        [
            Expr::Meta { key: Meta::L4proto, to: reg(to) },
            Expr::Payload { part: Payload::Dport, to: reg(to + 1) },
        ]
    }

    /// The frontend's key: with an address, or (a port of the node) with none.
    fn frontend(&self, node_port: bool) -> Vec<Expr> {
        let mut out = vec![self.destination(0)];
        if node_port {
            let none = vec![0; self.width as usize * 4];
            out.push(Expr::Bitwise { from: reg(0), to: reg(0), mask: none.clone(), xor: none });
        }
        out.extend(self.protocol_and_port(self.width));
        out
    }

    /// Goes on for addresses of the node on which node ports are open.
    fn node_address(&self, shape: Shape) -> Vec<Expr> {
        let mut out = fib_local(Fib::DaddrType);
        match self.family {
            // Nothing can be sent from ::1 to another host.
            Family::V6 => {
                out.push(self.destination(0));
                out.push(Expr::neq(reg(0), &Ipv6Addr::LOCALHOST.octets()));
            }
            Family::V4 if !shape.localhost => {
                out.push(self.destination(0));
                out.extend(loopback(Expr::neq(reg(0), &[127, 0, 0, 0])));
            }
            Family::V4 => {}
        }
        if shape.node_port_addresses {
            out.push(self.destination(0));
            out.push(in_set(Which::NodePortAddresses));
        }
        out
    }

    pub(super) fn skeleton(&self, shape: Shape) -> Skeleton {
        let mut rules = self.base_rules(shape);
        for (entry, node_port) in [
            (Entry::Internal, false),
            (Entry::External, false),
            (Entry::External, true),
            (Entry::ExternalLocal, false),
            (Entry::ExternalLocal, true),
        ] {
            rules.extend(self.entry_rules(entry, node_port, shape));
        }
        use {ChainKind::*, HookPoint::*};
        let entries = rules.iter().map(|r| r.chain.as_str()).filter(|c| {
            !c.starts_with("filter-")
                && !c.starts_with("nat-")
                && !c.starts_with("firewall-")
                && *c != "guard"
        });
        let mut plain: Vec<&str> = entries.collect();
        plain.dedup();
        let mut chains: Vec<Chain> = plain.into_iter().map(Chain::new).collect();
        chains.extend([
            Chain::hooked("guard", Filter, Prerouting, priority::RAW),
            Chain::hooked("firewall-prerouting", Filter, Prerouting, BEFORE_DSTNAT),
            Chain::hooked("firewall-output", Filter, Output, BEFORE_DSTNAT),
            Chain::hooked("filter-input", Filter, Input, priority::FILTER),
            Chain::hooked("filter-forward", Filter, Forward, priority::FILTER),
            Chain::hooked("filter-output", Filter, Output, priority::FILTER),
            Chain::hooked("nat-prerouting", Nat, Prerouting, priority::DSTNAT),
            Chain::hooked("nat-output", Nat, Output, priority::DSTNAT),
            Chain::hooked("nat-postrouting", Nat, Postrouting, priority::SRCNAT),
        ]);
        let mut sets: Vec<Set> = SETS.iter().map(|w| w.set(self.family)).collect();
        let a = nft_family(self.family).address();
        let number = MapTo::Fields(vec![Field::Number]);
        sets.push(Set::map(AFFINITY, &[Field::Number, a], number).dynamic().of_size(CLIENTS));
        Skeleton { table: table(self.family), chains, sets, rules }
    }

    fn base_rules(&self, shape: Shape) -> Vec<Rule> {
        let w = self.width;
        let new = || Expr::ct_any(Ct::State, Ct::NEW).to_vec();
        let jump = |chain: &str| vec![Expr::Verdict(Verdict::Jump(chain.into()))];
        let look_up = |which: Which, node_port| {
            [self.frontend(node_port), vec![Expr::VerdictMap { map: which.name(), key: reg(0) }]].concat()
        };
        let mut firewall = [new(), self.frontend(false)].concat();
        firewall.extend([
            in_set(Which::Firewalled),
            self.source(w + 2),
            Expr::InSet { set: Which::SourceRanges.name(), key: reg(0), inverted: true },
            Expr::Verdict(Verdict::Drop),
        ]);
        let refused_node_port = [new(), self.node_address(shape), look_up(Which::NoEndpoints, true)].concat();
        let refused = [new(), look_up(Which::NoEndpoints, false)].concat();
        let unknown_port = [
            new(),
            vec![self.destination(0), in_set(Which::ClusterIps), Expr::Verdict(Verdict::Goto(REJECT.into()))],
        ]
        .concat();
        let marked = vec![
            Expr::Meta { key: Meta::Mark, to: reg(0) },
            Expr::and(reg(0), MASQUERADE),
            Expr::neq(reg(0), &[0; 4]),
            Expr::Meta { key: Meta::Mark, to: reg(0) },
            Expr::and(reg(0), !MASQUERADE),
            Expr::SetMeta { key: Meta::Mark, from: reg(0) },
            Expr::Masquerade,
        ];
        let mut hairpin = Expr::ct_any(Ct::Status, Ct::DNAT).to_vec();
        hairpin.extend([self.source(0), self.destination(w)]);
        hairpin.extend(self.protocol_and_port(2 * w));
        hairpin.extend([in_set(Which::Hairpins), Expr::Masquerade]);
        let tcp = vec![
            Expr::Meta { key: Meta::L4proto, to: reg(0) },
            Expr::eq(reg(0), &[6]),
            Expr::Reject(Reject::TcpReset),
        ];
        let unreachable = Reject::PortUnreachableOf(nft_family(self.family));
        let dispatch = vec![
            Expr::Meta { key: Meta::Priority, to: reg(0) },
            Expr::VerdictMap { map: Which::Pools.name(), key: reg(0) },
        ];
        let mut rules = vec![
            rule("services", "virtual addresses", look_up(Which::Services, false)),
            rule(
                "services",
                "ports of the node",
                [self.node_address(shape), look_up(Which::Services, true)].concat(),
            ),
            rule("dispatch", "to the chain for so many endpoints", dispatch),
            rule(REJECT, "answered with a reset", tcp),
            rule(REJECT, "answered with port unreachable", vec![Expr::Reject(unreachable)]),
            rule("nat-prerouting", "", jump("services")),
            rule("nat-output", "", jump("services")),
            rule("nat-postrouting", "marked on the way in", marked),
            rule("nat-postrouting", "an endpoint that reaches itself", hairpin),
            rule("filter-input", "node ports without endpoints", refused_node_port),
        ];
        for chain in ["filter-input", "filter-forward", "filter-output"] {
            rules.push(rule(chain, "services without endpoints", refused.clone()));
        }
        for chain in ["filter-forward", "filter-output"] {
            rules.push(rule(chain, "ports that no service has", unknown_port.clone()));
        }
        for chain in ["firewall-prerouting", "firewall-output"] {
            rules.push(rule(chain, "sources a load balancer does not take", firewall.clone()));
        }
        if self.family == Family::V4 && shape.localhost {
            let mut name = [0; 16];
            name[..2].copy_from_slice(b"lo");
            let mut guard = vec![
                Expr::Meta { key: Meta::Iifname, to: reg(0) },
                Expr::neq(reg(0), &name),
                self.destination(0),
            ];
            guard.extend(loopback(Expr::eq(reg(0), &[127, 0, 0, 0])));
            guard.push(Expr::Verdict(Verdict::Drop));
            rules.push(rule("guard", "127/8 is not reached from outside", guard));
        }
        rules
    }

    fn entry_rules(&self, entry: Entry, node_port: bool, shape: Shape) -> Vec<Rule> {
        let chain = entry_chain(entry, node_port);
        let to_pool = |which: Which| {
            let mut out = self.frontend(node_port);
            out.extend([
                Expr::Map { map: which.name(), key: reg(0), to: reg(8) },
                Expr::SetMeta { key: Meta::Priority, from: reg(8) },
                Expr::Verdict(Verdict::Goto("dispatch".into())),
            ]);
            out
        };
        let mut rules = Vec::new();
        match entry {
            Entry::Internal if shape.cluster_cidrs => {
                let outside = Expr::InSet { set: Which::ClusterCidrs.name(), key: reg(0), inverted: true };
                let exprs = [vec![self.source(0), outside], mark()].concat();
                rules.push(rule(chain, "from outside the cluster", exprs));
            }
            Entry::Internal => {}
            Entry::External => rules.push(rule(chain, "the endpoint may be on another node", mark())),
            Entry::ExternalLocal => {
                let local = || fib_local(Fib::SaddrType);
                let pods = vec![self.source(0), in_set(Which::ClusterCidrs)];
                rules.push(rule(chain, "from a pod", [pods, to_pool(Which::ShortCircuits)].concat()));
                rules.push(rule(chain, "from the node", [local(), mark()].concat()));
                rules.push(rule(chain, "from the node", [local(), to_pool(Which::ShortCircuits)].concat()));
            }
        }
        rules.push(rule(chain, "to the pool", to_pool(Which::ServicePools)));
        rules
    }

    /// The rules of a pick's chain.
    pub(super) fn pick_rules(&self, pick: Pick) -> Vec<Rule> {
        let w = self.width;
        let chain = pick.chain();
        let pool = |to| Expr::Meta { key: Meta::Priority, to: reg(to) };
        let index = |to| Expr::Random { modulus: pick.endpoints, to: reg(to) };
        let map = |which: Which, key, to| Expr::Map { map: which.name(), key: reg(key), to: reg(to) };
        let dnat = || Expr::Dnat { family: nft_family(self.family), address: reg(7), port: Some(reg(7 + w)) };
        let Some(seconds) = pick.affinity else {
            let exprs = vec![pool(0), index(1), map(Which::Endpoints, 0, 7), dnat()];
            return vec![rule(&chain, "", exprs)];
        };
        // Registers: pool 0, client 1 and on, pool again 5, endpoint's number 6, endpoint 7 and on, the mark 12.
        let affinity = |op, data: Reg| Expr::Dynset {
            set: AFFINITY.into(),
            op,
            key: reg(0),
            data: Some(data),
            timeout_ms: u64::from(seconds) * 1000,
        };
        // nft (1.0.6) aborts when it lists a map's result used as a key, but not when the result went through
        // the packet; the mark is put back at once.
        let through_mark = || {
            [
                Expr::Meta { key: Meta::Mark, to: reg(12) },
                Expr::SetMeta { key: Meta::Mark, from: reg(6) },
                Expr::Meta { key: Meta::Mark, to: reg(6) },
                Expr::SetMeta { key: Meta::Mark, from: reg(12) },
            ]
        };
        let mut known = vec![pool(0), self.source(1), pool(5)];
        known.push(Expr::Map { map: AFFINITY.into(), key: reg(0), to: reg(6) });
        known.extend(through_mark());
        known.extend([map(Which::ById, 5, 7), affinity(DynsetOp::Update, reg(6)), dnat()]);
        let forget = vec![pool(0), self.source(1), affinity(DynsetOp::Delete, reg(0))];
        let draw = || {
            let mut out = vec![pool(0), index(1), map(Which::Sticky, 0, 6)];
            out.extend(through_mark());
            out.extend([pool(5), map(Which::ById, 5, 7)]);
            out
        };
        let keep = [draw(), vec![pool(0), self.source(1), affinity(DynsetOp::Add, reg(6)), dnat()]].concat();
        vec![
            rule(&chain, "a client that is known keeps its endpoint", known),
            rule(&chain, "unless that is gone", forget),
            rule(&chain, "a new client", keep),
            rule(&chain, "a client too many to remember", [draw(), vec![dnat()]].concat()),
        ]
    }
}

fn rule(chain: &str, comment: &str, exprs: Vec<Expr>) -> Rule {
    Rule { chain: chain.into(), comment: comment.into(), exprs }
}

fn in_set(which: Which) -> Expr {
    Expr::InSet { set: which.name(), key: reg(0), inverted: false }
}

fn fib_local(key: Fib) -> Vec<Expr> {
    vec![Expr::Fib { key, to: reg(0) }, Expr::eq(reg(0), &Fib::LOCAL.to_ne_bytes())]
}

/// Looks at the first eight bits of the address in register 0.
fn loopback(compare: Expr) -> [Expr; 2] {
    [Expr::Bitwise { from: reg(0), to: reg(0), mask: vec![255, 0, 0, 0], xor: vec![0; 4] }, compare]
}

fn mark() -> Vec<Expr> {
    vec![
        Expr::Meta { key: Meta::Mark, to: reg(0) },
        Expr::or(reg(0), MASQUERADE),
        Expr::SetMeta { key: Meta::Mark, from: reg(0) },
    ]
}
