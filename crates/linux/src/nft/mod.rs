//! nftables over netlink: typed tables, chains, rules, sets and maps; changed by atomic [`Transaction`]s, read back
//! by [`Nft`]. Nothing is forked and no text is parsed.
//!
//! The kernel keeps no names for types: a set's key is a run of [`Field`]s, each padded to four bytes in a
//! concatenation. Rules carry a comment (what `nft list` prints) that callers use to recognise their own.

mod expr;
mod list;
mod monitor;
mod skeleton;
mod transaction;

pub use expr::{Cmp, Ct, DynsetOp, Expr, Fib, Meta, Payload, Reg, Reject, Verdict, reg};
pub use list::{ListedChain, ListedRule, Nft};
pub use monitor::{Monitor, News};
pub use skeleton::{Found, Skeleton, marked};
pub use transaction::Transaction;

/// The protocol family a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    Inet,
    Ip,
    Ip6,
}

impl Family {
    pub(crate) fn raw(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    /// The field type of this family's addresses.
    pub fn address(self) -> Field {
        if self == Family::Ip6 { Field::Ip6 } else { Field::Ip }
    }
}

/// A table by family and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Table {
    pub family: Family,
    pub name: String,
}

impl Table {
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into() }
    }
}

/// Where a base chain is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    pub kind: ChainKind,
    pub point: HookPoint,
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    Filter,
    Nat,
    Route,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookPoint {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// Upstream's names for the places where others hook in.
pub mod priority {
    pub const RAW: i32 = -300;
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SRCNAT: i32 = 100;
}

/// A chain; one without a hook is only jumped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: String,
    pub hook: Option<Hook>,
}

impl Chain {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), hook: None }
    }

    pub fn hooked(name: impl Into<String>, kind: ChainKind, point: HookPoint, priority: i32) -> Self {
        Self { name: name.into(), hook: Some(Hook { kind, point, priority }) }
    }
}

/// A rule to append to a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub chain: String,
    pub exprs: Vec<Expr>,
    pub comment: String,
}

/// One part of a key or of a map's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    Ip,
    Ip6,
    Proto,
    Port,
    /// A number in host order; nft prints it as a mark (its integers cannot stand in a concatenation).
    Number,
    Ifname,
}

impl Field {
    /// nft's number for the type, for whoever lists the set with `nft`.
    fn id(self) -> u32 {
        match self {
            Field::Ip => 7,
            Field::Ip6 => 8,
            Field::Proto => 12,
            Field::Port => 13,
            Field::Number => 19,
            Field::Ifname => 41,
        }
    }

    pub fn len(self) -> usize {
        match self {
            Field::Proto => 1,
            Field::Port => 2,
            Field::Ip | Field::Number => 4,
            Field::Ip6 | Field::Ifname => 16,
        }
    }

    pub fn is_empty(self) -> bool {
        false
    }
}

fn type_id(fields: &[Field]) -> u32 {
    fields.iter().fold(0, |id, f| (id << 6) | f.id())
}

fn type_len(fields: &[Field]) -> usize {
    match fields {
        [one] => one.len(),
        many => many.iter().map(|f| f.len().next_multiple_of(4)).sum(),
    }
}

/// What a map maps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapTo {
    Verdict,
    Fields(Vec<Field>),
}

/// A named set, or a map when it maps to something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: String,
    pub key: Vec<Field>,
    pub to: Option<MapTo>,
    /// Elements may be ranges.
    pub interval: bool,
    /// Rules add elements, which expire.
    pub dynamic: bool,
    /// How many elements it takes at most; zero for the kernel's default (65535 when rules add them).
    pub size: u32,
}

impl Set {
    pub fn new(name: impl Into<String>, key: &[Field]) -> Self {
        Self { name: name.into(), key: key.to_vec(), to: None, interval: false, dynamic: false, size: 0 }
    }

    pub fn map(name: impl Into<String>, key: &[Field], to: MapTo) -> Self {
        Self { to: Some(to), ..Self::new(name, key) }
    }

    pub fn with_intervals(self) -> Self {
        Self { interval: true, ..self }
    }

    pub fn dynamic(self) -> Self {
        Self { dynamic: true, ..self }
    }

    pub fn of_size(self, size: u32) -> Self {
        Self { size, ..self }
    }
}

/// An element of a set or map. Keys are the fields' bytes in network order, as [`key`] lays them out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    pub key: Vec<u8>,
    /// The last key of a range, inclusive. Sets of a single field take ranges too.
    pub end: Option<Vec<u8>>,
    pub data: Option<Data>,
}

impl Element {
    pub fn new(key: Vec<u8>) -> Self {
        Self { key, end: None, data: None }
    }

    pub fn range(key: Vec<u8>, end: Vec<u8>) -> Self {
        Self { key, end: Some(end), data: None }
    }

    pub fn to(self, data: Data) -> Self {
        Self { data: Some(data), ..self }
    }
}

/// What a map's element leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    Value(Vec<u8>),
    Verdict(Verdict),
}

/// Lays parts out as a key or value: a single part as it is, several padded to four bytes each.
pub fn key(parts: &[&[u8]]) -> Vec<u8> {
    if let [one] = parts {
        return one.to_vec();
    }
    let mut out = Vec::with_capacity(parts.iter().map(|p| p.len().next_multiple_of(4)).sum());
    for part in parts {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}
