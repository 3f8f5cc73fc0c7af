//! The expressions a rule is made of, and their attributes.

use super::Family;
use crate::netlink::{Attributes, Message};

/// A register: sixteen of four bytes each; longer values take several in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reg(u32);

/// The n-th four-byte register (`NFT_REG32_00` and on).
pub const fn reg(n: u32) -> Reg {
    Reg(8 + n)
}

const VERDICT: u32 = 0;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

impl Verdict {
    pub(super) fn write(&self, m: &mut Message, attribute: u16) {
        let (code, chain): (i32, _) = match self {
            Verdict::Drop => (0, None),
            Verdict::Accept => (1, None),
            Verdict::Jump(chain) => (-3, Some(chain)),
            Verdict::Goto(chain) => (-4, Some(chain)),
            Verdict::Return => (-5, None),
        };
        m.nest(attribute, |m| {
            m.nest(2, |m| {
                m.be32(1, code as u32);
                if let Some(chain) = chain {
                    m.str(2, chain);
                }
            });
        });
    }

    pub(super) fn read(attributes: Attributes<'_>) -> Option<Self> {
        let chain = || attributes.str(2);
        Some(match attributes.be32(1)? as i32 {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            -3 => Verdict::Jump(chain()?),
            -4 => Verdict::Goto(chain()?),
            -5 => Verdict::Return,
            _ => return None,
        })
    }
}

/// Packet metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta {
    /// Four bytes of scratch that routing does not look at and forwarding sets anew. nft (1.0.6) aborts when it
    /// lists a map's result used as a key, but not when the result went through here.
    Priority,
    Mark,
    Iifname,
    Oifname,
    L4proto,
}

impl Meta {
    fn raw(self) -> u32 {
        match self {
            Meta::Priority => 2,
            Meta::Mark => 3,
            Meta::Iifname => 6,
            Meta::Oifname => 7,
            Meta::L4proto => 16,
        }
    }
}

/// Parts of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    Saddr(Family),
    Daddr(Family),
    /// Source port of TCP, UDP and SCTP alike.
    Sport,
    /// Destination port of TCP, UDP and SCTP alike.
    Dport,
}

impl Payload {
    /// Base header, offset, length.
    fn raw(self) -> (u32, u32, u32) {
        match self {
            Payload::Saddr(Family::Ip6) => (1, 8, 16),
            Payload::Daddr(Family::Ip6) => (1, 24, 16),
            Payload::Saddr(_) => (1, 12, 4),
            Payload::Daddr(_) => (1, 16, 4),
            Payload::Sport => (2, 0, 2),
            Payload::Dport => (2, 2, 2),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cmp {
    Eq,
    Neq,
}

/// What conntrack knows of the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ct {
    State,
    Status,
    Direction,
}

impl Ct {
    pub const ESTABLISHED: u32 = 2;
    pub const RELATED: u32 = 4;
    pub const NEW: u32 = 8;
    /// Status bit: the destination was translated.
    pub const DNAT: u32 = 1 << 5;

    fn raw(self) -> u32 {
        match self {
            Ct::State => 0,
            Ct::Direction => 1,
            Ct::Status => 2,
        }
    }
}

/// Which address a routing look-up classifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fib {
    SaddrType,
    DaddrType,
}

impl Fib {
    pub const LOCAL: u32 = 2;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DynsetOp {
    /// Adds the element unless it is there.
    Add,
    /// Adds the element or starts its timeout anew; an element that is there keeps its data.
    Update,
    /// Deletes the element, if it is there.
    Delete,
}

impl DynsetOp {
    fn raw(self) -> u32 {
        match self {
            DynsetOp::Add => 0,
            DynsetOp::Update => 1,
            DynsetOp::Delete => 2,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    TcpReset,
    /// ICMP port unreachable, in the packet's flavour; for tables of [`Family::Inet`], others drop silently.
    PortUnreachable,
    /// ICMP port unreachable, for tables of this family.
    PortUnreachableOf(Family),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    Meta {
        key: Meta,
        to: Reg,
    },
    SetMeta {
        key: Meta,
        from: Reg,
    },
    Payload {
        part: Payload,
        to: Reg,
    },
    Ct {
        key: Ct,
        to: Reg,
    },
    Fib {
        key: Fib,
        to: Reg,
    },
    Cmp {
        from: Reg,
        op: Cmp,
        value: Vec<u8>,
    },
    /// `(from & mask) ^ xor`; an OR is a mask without the bits and a XOR with them.
    Bitwise {
        from: Reg,
        to: Reg,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Immediate {
        to: Reg,
        value: Vec<u8>,
    },
    Verdict(Verdict),
    /// Goes on only if the key is (or, inverted, is not) in the set.
    InSet {
        set: String,
        key: Reg,
        inverted: bool,
    },
    /// Goes on with the map's value, only if the key is there.
    Map {
        map: String,
        key: Reg,
        to: Reg,
    },
    /// Takes the map's verdict, if the key is there.
    VerdictMap {
        map: String,
        key: Reg,
    },
    /// A random number below `modulus`, in host order.
    Random {
        modulus: u32,
        to: Reg,
    },
    Dynset {
        set: String,
        op: DynsetOp,
        key: Reg,
        data: Option<Reg>,
        timeout_ms: u64,
    },
    Dnat {
        family: Family,
        address: Reg,
        port: Option<Reg>,
    },
    Masquerade,
    Reject(Reject),
    Counter,
}

impl Expr {
    /// Compares and goes on when equal.
    pub fn eq(from: Reg, value: &[u8]) -> Self {
        Expr::Cmp { from, op: Cmp::Eq, value: value.to_vec() }
    }

    pub fn neq(from: Reg, value: &[u8]) -> Self {
        Expr::Cmp { from, op: Cmp::Neq, value: value.to_vec() }
    }

    /// Goes on when any of the bits is set in the conntrack field.
    pub fn ct_any(key: Ct, bits: u32) -> [Self; 3] {
        [Expr::Ct { key, to: reg(0) }, Expr::and(reg(0), bits), Expr::neq(reg(0), &[0; 4])]
    }

    /// Keeps these bits of a host-order number.
    pub fn and(at: Reg, bits: u32) -> Self {
        Expr::Bitwise { from: at, to: at, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] }
    }

    /// Sets these bits of a host-order number.
    pub fn or(at: Reg, bits: u32) -> Self {
        Expr::Bitwise {
            from: at,
            to: at,
            mask: (!bits).to_ne_bytes().to_vec(),
            xor: bits.to_ne_bytes().to_vec(),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
            Expr::Payload { .. } => "payload",
            Expr::Ct { .. } => "ct",
            Expr::Fib { .. } => "fib",
            Expr::Cmp { .. } => "cmp",
            Expr::Bitwise { .. } => "bitwise",
            Expr::Immediate { .. } | Expr::Verdict(_) => "immediate",
            Expr::InSet { .. } | Expr::Map { .. } | Expr::VerdictMap { .. } => "lookup",
            Expr::Random { .. } => "numgen",
            Expr::Dynset { .. } => "dynset",
            Expr::Dnat { .. } => "nat",
            Expr::Masquerade => "masq",
            Expr::Reject(_) => "reject",
            Expr::Counter => "counter",
        }
    }

    /// Appends the expression as one element of a rule's list.
    pub(super) fn write(&self, m: &mut Message) {
        m.nest(1, |m| {
            m.str(1, self.name());
            m.nest(2, |m| self.write_data(m));
        });
    }

    fn write_data(&self, m: &mut Message) {
        let value = |m: &mut Message, attribute: u16, bytes: &[u8]| {
            m.nest(attribute, |m| {
                m.attr(1, bytes);
            });
        };
        match self {
            Expr::Meta { key, to } => {
                m.be32(2, key.raw()).be32(1, to.0);
            }
            Expr::SetMeta { key, from } => {
                m.be32(2, key.raw()).be32(3, from.0);
            }
            Expr::Payload { part, to } => {
                let (base, offset, len) = part.raw();
                m.be32(1, to.0).be32(2, base).be32(3, offset).be32(4, len);
            }
            Expr::Ct { key, to } => {
                m.be32(2, key.raw()).be32(1, to.0);
            }
            Expr::Fib { key, to } => {
                const ADDRTYPE: u32 = 3;
                let flags = if *key == Fib::SaddrType { 1 } else { 2 };
                m.be32(3, flags).be32(2, ADDRTYPE).be32(1, to.0);
            }
            Expr::Cmp { from, op, value: bytes } => {
                m.be32(1, from.0).be32(2, if *op == Cmp::Eq { 0 } else { 1 });
                value(m, 3, bytes);
            }
            Expr::Bitwise { from, to, mask, xor } => {
                m.be32(1, from.0).be32(2, to.0).be32(3, mask.len() as u32);
                value(m, 4, mask);
                value(m, 5, xor);
            }
            Expr::Immediate { to, value: bytes } => {
                m.be32(1, to.0);
                value(m, 2, bytes);
            }
            Expr::Verdict(verdict) => {
                m.be32(1, VERDICT);
                verdict.write(m, 2);
            }
            Expr::InSet { set, key, inverted } => {
                m.str(1, set).be32(2, key.0);
                if *inverted {
                    m.be32(5, 1);
                }
            }
            Expr::Map { map, key, to } => {
                m.str(1, map).be32(2, key.0).be32(3, to.0);
            }
            Expr::VerdictMap { map, key } => {
                m.str(1, map).be32(2, key.0).be32(3, VERDICT);
            }
            Expr::Random { modulus, to } => {
                const RANDOM: u32 = 1;
                m.be32(1, to.0).be32(2, *modulus).be32(3, RANDOM).be32(4, 0);
            }
            Expr::Dynset { set, op, key, data, timeout_ms } => {
                m.str(1, set).be32(3, op.raw()).be32(4, key.0);
                if let Some(data) = data {
                    m.be32(5, data.0);
                }
                m.attr(6, &timeout_ms.to_be_bytes());
            }
            Expr::Dnat { family, address, port } => {
                const DNAT: u32 = 1;
                m.be32(1, DNAT).be32(2, u32::from(family.raw())).be32(3, address.0);
                if let Some(port) = port {
                    m.be32(5, port.0);
                }
            }
            Expr::Masquerade => {
                // Two clients behind one address must not race for the same source port.
                const RANDOM_FULLY: u32 = 1 << 4;
                m.be32(1, RANDOM_FULLY);
            }
            Expr::Reject(Reject::TcpReset) => {
                m.be32(1, 1).attr(2, &[0]);
            }
            Expr::Reject(Reject::PortUnreachable) => {
                const ICMPX: u32 = 2;
                const ICMPX_PORT_UNREACH: u8 = 1;
                m.be32(1, ICMPX).attr(2, &[ICMPX_PORT_UNREACH]);
            }
            Expr::Reject(Reject::PortUnreachableOf(family)) => {
                const ICMP: u32 = 0;
                const ICMP_PORT_UNREACH: u8 = 3;
                const ICMPV6_PORT_UNREACH: u8 = 4;
                let code = if *family == Family::Ip6 { ICMPV6_PORT_UNREACH } else { ICMP_PORT_UNREACH };
                m.be32(1, ICMP).attr(2, &[code]);
            }
            Expr::Counter => {}
        }
    }
}
