//! A batch of changes that the kernel takes whole or not at all.

use super::{Chain, ChainKind, Data, Element, Field, HookPoint, MapTo, Rule, Set, Table, type_id, type_len};
use crate::netlink::{Message, Result, Socket};

const SUBSYSTEM: u16 = 10 << 8;
pub(super) const NEWTABLE: u16 = SUBSYSTEM;
pub(super) const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const DELCHAIN: u16 = SUBSYSTEM | 5;
const NEWRULE: u16 = SUBSYSTEM | 6;
const DELRULE: u16 = SUBSYSTEM | 8;
const NEWSET: u16 = SUBSYSTEM | 9;
const DELSET: u16 = SUBSYSTEM | 11;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;

const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// A nested attribute's length has sixteen bits; longer lists of elements go into further messages of the batch.
const ELEMENTS_PER_MESSAGE: usize = 32 * 1024;

pub(super) fn nfgen(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Changes in the order given; later ones see earlier ones.
#[derive(Debug, Default)]
pub struct Transaction {
    messages: Vec<(Message, &'static str)>,
}

impl Transaction {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many bytes the kernel will be sent.
    pub fn len(&self) -> usize {
        self.messages.iter().map(|(m, _)| m.len()).sum()
    }

    /// Adds the changes of another transaction after these.
    pub fn append(&mut self, other: Transaction) -> &mut Self {
        self.messages.extend(other.messages);
        self
    }

    fn push(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        table: &Table,
        fill: impl FnOnce(&mut Message),
    ) {
        let mut message = Message::new(kind, flags, &nfgen(table.family.raw(), 0));
        message.str(1, &table.name);
        fill(&mut message);
        self.messages.push((message, what));
    }

    /// Adds a table; present is fine.
    pub fn add_table(&mut self, table: &Table) -> &mut Self {
        self.push("add table", NEWTABLE, CREATE, table, |m| {
            m.be32(2, 0);
        });
        self
    }

    /// Deletes a table with all that is in it.
    pub fn delete_table(&mut self, table: &Table) -> &mut Self {
        self.push("delete table", DELTABLE, 0, table, |_| {});
        self
    }

    /// Adds a chain; present is fine.
    pub fn add_chain(&mut self, table: &Table, chain: &Chain) -> &mut Self {
        self.push("add chain", NEWCHAIN, CREATE, table, |m| {
            m.str(3, &chain.name);
            if let Some(hook) = chain.hook {
                m.nest(4, |m| {
                    m.be32(1, hook.point.raw()).be32(2, hook.priority as u32);
                });
                m.str(7, hook.kind.raw());
                const ACCEPT: u32 = 1;
                m.be32(5, ACCEPT);
            }
        });
        self
    }

    /// Deletes a chain, which must be empty and unreferenced by then.
    pub fn delete_chain(&mut self, table: &Table, chain: &str) -> &mut Self {
        self.push("delete chain", DELCHAIN, 0, table, |m| {
            m.str(3, chain);
        });
        self
    }

    /// Deletes every rule of a chain.
    pub fn flush_chain(&mut self, table: &Table, chain: &str) -> &mut Self {
        self.push("flush chain", DELRULE, 0, table, |m| {
            m.str(2, chain);
        });
        self
    }

    /// Appends a rule to its chain.
    pub fn add_rule(&mut self, table: &Table, rule: &Rule) -> &mut Self {
        self.push("add rule", NEWRULE, CREATE | APPEND, table, |m| {
            m.str(2, &rule.chain);
            m.nest(4, |m| rule.exprs.iter().for_each(|e| e.write(m)));
            if !rule.comment.is_empty() {
                m.attr(7, &comment(&rule.comment));
            }
        });
        self
    }

    /// Deletes one rule by the handle it was listed with.
    pub fn delete_rule(&mut self, table: &Table, chain: &str, handle: u64) -> &mut Self {
        self.push("delete rule", DELRULE, 0, table, |m| {
            m.str(2, chain).attr(3, &handle.to_be_bytes());
        });
        self
    }

    /// Adds a set or map; the same one present is fine.
    pub fn add_set(&mut self, table: &Table, set: &Set) -> &mut Self {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        let ranges_of_many = set.interval && set.key.len() > 1;
        let flags = [
            (set.interval, INTERVAL),
            (set.to.is_some(), MAP),
            (set.dynamic, TIMEOUT | EVAL),
            (ranges_of_many, CONCAT),
        ];
        let flags = flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
        let id = self.messages.len() as u32 + 1;
        self.push("add set", NEWSET, CREATE, table, |m| {
            m.str(2, &set.name).be32(3, flags).be32(10, id);
            m.be32(4, type_id(&set.key)).be32(5, type_len(&set.key) as u32);
            match &set.to {
                None => {}
                Some(MapTo::Verdict) => {
                    m.be32(6, 0xffff_ff00).be32(7, 0);
                }
                Some(MapTo::Fields(fields)) => {
                    m.be32(6, type_id(fields)).be32(7, type_len(fields) as u32);
                }
            }
            if ranges_of_many || set.size > 0 {
                m.nest(9, |m| {
                    if set.size > 0 {
                        m.be32(1, set.size);
                    }
                    if ranges_of_many {
                        m.nest(2, |m| {
                            for field in &set.key {
                                m.nest(1, |m| {
                                    m.be32(1, field.len() as u32);
                                });
                            }
                        });
                    }
                });
            }
            m.attr(13, &byte_orders(set));
        });
        self
    }

    pub fn delete_set(&mut self, table: &Table, set: &str) -> &mut Self {
        self.push("delete set", DELSET, 0, table, |m| {
            m.str(2, set);
        });
        self
    }

    /// Deletes every element of a set.
    pub fn flush_set(&mut self, table: &Table, set: &str) -> &mut Self {
        self.push("flush set", DELSETELEM, 0, table, |m| {
            m.str(2, set);
        });
        self
    }

    /// Adds elements; the same one present is fine, one with other data is an error.
    pub fn add_elements(&mut self, table: &Table, set: &Set, elements: &[Element]) -> &mut Self {
        self.elements("add elements", NEWSETELEM, CREATE, table, set, elements)
    }

    /// Deletes elements by key; an absent one fails the whole transaction.
    pub fn delete_elements(&mut self, table: &Table, set: &Set, elements: &[Element]) -> &mut Self {
        self.elements("delete elements", DELSETELEM, 0, table, set, elements)
    }

    fn elements(
        &mut self,
        what: &'static str,
        kind: u16,
        flags: u16,
        table: &Table,
        set: &Set,
        elements: &[Element],
    ) -> &mut Self {
        let mut rest = elements;
        while !rest.is_empty() {
            self.push(what, kind, flags, table, |m| {
                m.str(2, &set.name);
                m.nest(3, |m| {
                    let start = m.len();
                    while let Some((first, others)) = rest.split_first() {
                        if m.len() - start > ELEMENTS_PER_MESSAGE {
                            break;
                        }
                        write_element(m, set, first);
                        rest = others;
                    }
                });
            });
        }
        self
    }

    /// Applies the whole batch.
    pub(super) fn commit(self, socket: &mut Socket) -> Result<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let mut names = vec!["begin transaction"];
        let mut messages = vec![Message::new(BATCH_BEGIN, 0, &nfgen(0, 10))];
        let last = self.messages.len();
        for (i, (message, what)) in self.messages.into_iter().enumerate() {
            names.push(what);
            messages.push(if i + 1 == last { message.acknowledged() } else { message });
        }
        names.push("end transaction");
        messages.push(Message::new(BATCH_END, 0, &nfgen(0, 10)));
        socket.batch(messages, |i| names.get(i).copied().unwrap_or("transaction"))
    }
}

/// A range in a set of several fields has an end key; in a set of one it is two elements, the second one past it.
fn write_element(m: &mut Message, set: &Set, element: &Element) {
    let key = |m: &mut Message, attribute: u16, key: &[u8]| {
        m.nest(attribute, |m| {
            m.attr(1, key);
        });
    };
    m.nest(1, |m| {
        key(m, 1, &element.key);
        if set.interval && set.key.len() > 1 {
            key(m, 10, element.end.as_ref().unwrap_or(&element.key));
        }
        match &element.data {
            Some(Data::Value(value)) => key(m, 2, value),
            Some(Data::Verdict(verdict)) => verdict.write(m, 2),
            None => {}
        }
    });
    if set.interval && set.key.len() == 1 {
        // Without an end element the range reaches the end of the space, as it must for the last address.
        if let Some(after) = successor(element.end.as_ref().unwrap_or(&element.key)) {
            m.nest(1, |m| {
                key(m, 1, &after);
                const INTERVAL_END: u32 = 1;
                m.be32(3, INTERVAL_END);
            });
        }
    }
}

pub(super) fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut out = key.to_vec();
    for byte in out.iter_mut().rev() {
        let (next, carry) = byte.overflowing_add(1);
        *byte = next;
        if !carry {
            return Some(out);
        }
    }
    None
}

/// nft's own form of a rule comment: type, length, text with terminator.
fn comment(text: &str) -> Vec<u8> {
    let mut end = text.len().min(127);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut out = vec![0, end as u8 + 1];
    out.extend_from_slice(&text.as_bytes()[..end]);
    out.push(0);
    out
}

pub(super) fn read_comment(bytes: &[u8]) -> String {
    match bytes {
        [0, len, text @ ..] => {
            let text = text.get(..(*len as usize).saturating_sub(1)).unwrap_or_default();
            String::from_utf8_lossy(text).into_owned()
        }
        _ => String::new(),
    }
}

/// Tells nft how to print numbers: numbers are in host order here, the rest in network order.
fn byte_orders(set: &Set) -> Vec<u8> {
    const HOST: u32 = 1;
    const NETWORK: u32 = 2;
    let order = |fields: &[Field]| match fields {
        [Field::Number] => HOST,
        _ => NETWORK,
    };
    let mut out = vec![0, 4];
    out.extend_from_slice(&order(&set.key).to_ne_bytes());
    if let Some(MapTo::Fields(fields)) = &set.to {
        out.extend_from_slice(&[1, 4]);
        out.extend_from_slice(&order(fields).to_ne_bytes());
    }
    out
}

impl ChainKind {
    fn raw(self) -> &'static str {
        match self {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        }
    }
}

impl HookPoint {
    fn raw(self) -> u32 {
        match self {
            HookPoint::Prerouting => 0,
            HookPoint::Input => 1,
            HookPoint::Forward => 2,
            HookPoint::Output => 3,
            HookPoint::Postrouting => 4,
        }
    }
}
