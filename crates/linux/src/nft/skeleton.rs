//! The part of a table that does not change with the cluster: chains, sets and rules, brought about by difference.
//!
//! A rule's comment carries a hash of what it does, so a later start, or a later release, recognises its own rules
//! and leaves alone what is right: connections and counters go on.

use std::collections::BTreeMap;
use std::hash::Hasher;

use super::{Chain, Nft, Rule, Set, Table, Transaction};
use crate::netlink::Result;

/// A table as it must be, but for the elements of its sets and the chains added as it lives.
#[derive(Debug, Clone)]
pub struct Skeleton {
    pub table: Table,
    pub chains: Vec<Chain>,
    pub sets: Vec<Set>,
    pub rules: Vec<Rule>,
}

/// What [`Skeleton::ensure`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing usable: the table is new and every set empty.
    Nothing,
    /// A table whose sets hold what an earlier process put there.
    Table,
}

impl Skeleton {
    /// Makes the kernel's table agree. A table whose sets or chains have another shape is replaced as a whole.
    pub fn ensure(&self, nft: &mut Nft) -> Result<Found> {
        if !nft.has_table(&self.table)? {
            nft.commit(self.whole())?;
            return Ok(Found::Nothing);
        }
        let difference = self.difference(nft)?;
        match nft.commit(difference) {
            Ok(()) => Ok(Found::Table),
            Err(_) => {
                let mut replace = Transaction::new();
                replace.delete_table(&self.table);
                replace.append(self.whole());
                nft.commit(replace)?;
                Ok(Found::Nothing)
            }
        }
    }

    fn whole(&self) -> Transaction {
        let mut transaction = Transaction::new();
        self.declare(&mut transaction);
        for rule in &self.rules {
            transaction.add_rule(&self.table, &marked(rule));
        }
        transaction
    }

    fn declare(&self, transaction: &mut Transaction) {
        transaction.add_table(&self.table);
        for set in &self.sets {
            transaction.add_set(&self.table, set);
        }
        for chain in &self.chains {
            transaction.add_chain(&self.table, chain);
        }
    }

    fn difference(&self, nft: &mut Nft) -> Result<Transaction> {
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in nft.rules(&self.table)? {
            listed.entry(rule.chain).or_default().push(rule.comment);
        }
        let mut transaction = Transaction::new();
        self.declare(&mut transaction);
        for chain in &self.chains {
            let wanted: Vec<_> = self.rules.iter().filter(|r| r.chain == chain.name).map(marked).collect();
            let have = listed.get(&chain.name).map(Vec::as_slice).unwrap_or_default();
            if have.iter().eq(wanted.iter().map(|r| &r.comment)) {
                continue;
            }
            transaction.flush_chain(&self.table, &chain.name);
            for rule in &wanted {
                transaction.add_rule(&self.table, rule);
            }
        }
        Ok(transaction)
    }
}

/// The rule with the hash of its expressions in its comment.
pub fn marked(rule: &Rule) -> Rule {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    for expr in &rule.exprs {
        hasher.write(format!("{expr:?}").as_bytes());
    }
    Rule { comment: format!("{} #{:08x}", rule.comment, hasher.finish() as u32), ..rule.clone() }
}

/// FNV-1a: unlike the standard hasher, the same in every release of the compiler.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}
