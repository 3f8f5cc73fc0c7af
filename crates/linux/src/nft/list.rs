//! Reading the kernel's tables back.

use super::transaction::{NEWTABLE, nfgen, read_comment, successor};
use super::{Data, Element, Family, Set, Table, Transaction, Verdict};
use crate::netlink::{self, Attributes, Message, Reply, Result, Socket, attributes};
use crate::netns::Netns;
use std::collections::HashSet;

const GETTABLE: u16 = NEWTABLE | 1;
const GETCHAIN: u16 = NEWTABLE | 4;
const GETRULE: u16 = NEWTABLE | 7;
const GETSET: u16 = NEWTABLE | 10;
const GETSETELEM: u16 = NEWTABLE | 13;

/// How often a listing is taken again before the set is said not to settle; growing takes milliseconds.
const LISTINGS: usize = 1000;

/// The nftables socket of one network namespace.
#[derive(Debug)]
pub struct Nft(Socket);

/// A chain as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedChain {
    pub name: String,
    pub base: bool,
}

/// A rule as the kernel has it, known by its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRule {
    pub chain: String,
    pub handle: u64,
    pub comment: String,
}

impl Nft {
    /// Of the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Socket::open(netlink::Family::Netfilter).map(Self)
    }

    pub fn open_in(netns: &Netns) -> Result<Self> {
        Socket::open_in(netns, netlink::Family::Netfilter).map(Self)
    }

    /// Applies a transaction; on an error nothing of it has happened.
    pub fn commit(&mut self, transaction: Transaction) -> Result<()> {
        transaction.commit(&mut self.0)
    }

    pub fn tables(&mut self) -> Result<Vec<Table>> {
        let mut out = Vec::new();
        for family in [Family::Inet, Family::Ip, Family::Ip6] {
            let replies = self.0.dump("list tables", Message::new(GETTABLE, 0, &nfgen(family.raw(), 0)))?;
            out.extend(each(&replies).filter_map(|a| a.str(1)).map(|name| Table { family, name }));
        }
        Ok(out)
    }

    pub fn has_table(&mut self, table: &Table) -> Result<bool> {
        Ok(self.tables()?.contains(table))
    }

    /// Deletes a table, if it is there.
    pub fn remove_table(&mut self, table: &Table) -> Result<()> {
        let mut transaction = Transaction::new();
        // Adding first makes the deletion of an absent table succeed.
        transaction.add_table(table).delete_table(table);
        self.commit(transaction)
    }

    pub fn chains(&mut self, table: &Table) -> Result<Vec<ListedChain>> {
        let replies = self.0.dump("list chains", Message::new(GETCHAIN, 0, &nfgen(table.family.raw(), 0)))?;
        Ok(each(&replies)
            .filter(|a| a.str(1).as_ref() == Some(&table.name))
            .filter_map(|a| Some(ListedChain { name: a.str(3)?, base: a.find(4).is_some() }))
            .collect())
    }

    /// Every rule of a table, in order within each chain.
    pub fn rules(&mut self, table: &Table) -> Result<Vec<ListedRule>> {
        let mut message = Message::new(GETRULE, 0, &nfgen(table.family.raw(), 0));
        message.str(1, &table.name);
        let replies = self.0.dump("list rules", message)?;
        Ok(each(&replies)
            .filter(|a| a.str(1).as_ref() == Some(&table.name))
            .filter_map(|a| {
                Some(ListedRule {
                    chain: a.str(2)?,
                    handle: a.be64(3)?,
                    comment: a.find(7).map(read_comment).unwrap_or_default(),
                })
            })
            .collect())
    }

    /// The names of a table's sets and maps.
    pub fn sets(&mut self, table: &Table) -> Result<Vec<String>> {
        let mut message = Message::new(GETSET, 0, &nfgen(table.family.raw(), 0));
        message.str(1, &table.name);
        let replies = self.0.dump("list sets", message)?;
        Ok(each(&replies).filter_map(|a| a.str(2)).collect())
    }

    /// Every element of a set or map.
    ///
    /// The kernel grows a set's hash in the background, and a listing of several messages goes by position: when the
    /// order changes between two of them, some elements come twice and as many are left out. A listing without
    /// repeats is therefore whole, and one with repeats is taken again.
    pub fn elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>> {
        for _ in 0..LISTINGS {
            let listed = self.listing(table, set)?;
            let distinct: HashSet<&(bool, Element)> = listed.iter().collect();
            if distinct.len() < listed.len() {
                continue;
            }
            if set.interval && set.key.len() == 1 {
                return Ok(join_ranges(listed));
            }
            return Ok(listed.into_iter().map(|(_, element)| element).collect());
        }
        Err(netlink::Error::Unsettled("list elements"))
    }

    fn listing(&mut self, table: &Table, set: &Set) -> Result<Vec<(bool, Element)>> {
        let mut message = Message::new(GETSETELEM, 0, &nfgen(table.family.raw(), 0));
        message.str(1, &table.name).str(2, &set.name);
        let replies = self.0.dump("list elements", message)?;
        let nested = each(&replies).filter_map(|a| a.nested(3)).flatten();
        Ok(nested.filter_map(|(_, element)| parse_element(attributes(element))).collect())
    }
}

fn each(replies: &[Reply]) -> impl Iterator<Item = Attributes<'_>> {
    replies.iter().filter_map(|r| r.split(4)).map(|(_, attributes)| attributes)
}

fn value(attributes: Attributes<'_>, kind: u16) -> Option<Vec<u8>> {
    attributes.nested(kind)?.find(1).map(<[u8]>::to_vec)
}

/// The element, and whether it only ends the range before it.
fn parse_element(a: Attributes<'_>) -> Option<(bool, Element)> {
    let data = a.nested(2).and_then(|data| match data.find(1) {
        Some(bytes) => Some(Data::Value(bytes.to_vec())),
        None => Verdict::read(data.nested(2)?).map(Data::Verdict),
    });
    let key = value(a, 1)?;
    let end = value(a, 10).filter(|end| *end != key);
    Some((a.be32(3).unwrap_or_default() & 1 != 0, Element { key, end, data }))
}

/// Puts the two halves of one-field ranges together again.
fn join_ranges(mut listed: Vec<(bool, Element)>) -> Vec<Element> {
    // An end sorts before a start with the same key: it closes the range below.
    listed.sort_by(|(a_end, a), (b_end, b)| a.key.cmp(&b.key).then(b_end.cmp(a_end)));
    let mut out: Vec<Element> = Vec::new();
    let mut open = false;
    for (ends, element) in listed {
        if !ends {
            open = true;
            out.push(element);
        } else if open && let Some(last) = out.last_mut() {
            open = false;
            if successor(&last.key).as_ref() != Some(&element.key) {
                last.end = predecessor(&element.key);
            }
        }
    }
    if open && let Some(last) = out.last_mut() {
        let top = vec![0xff; last.key.len()];
        last.end = (top != last.key).then_some(top);
    }
    out
}

fn predecessor(key: &[u8]) -> Option<Vec<u8>> {
    let mut out = key.to_vec();
    for byte in out.iter_mut().rev() {
        let (next, borrow) = byte.overflowing_sub(1);
        *byte = next;
        if !borrow {
            return Some(out);
        }
    }
    None
}
