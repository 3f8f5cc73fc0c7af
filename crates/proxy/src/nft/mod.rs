//! From plans to the kernel: only what changed, in one transaction; after a start or a failure, the difference to
//! what the kernel lists. Established connections are conntrack's and never touched.

mod lower;
mod skeleton;

use crate::endpoints::arrange;
use crate::plan::{Family, Plan, Pool, PoolName};
use apimachinery::validation::Cidr;
use client::ObjectKey;
use linux::netlink::Result;
use linux::nft::{Chain, Data, Element, Nft, Skeleton, Transaction, marked};
use lower::{Placed, lower, networks, number, pick, read_endpoint, read_pair};
use skeleton::{Pick, SETS, Shape, Which, Writer, table};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

/// The part of the configuration that is in the kernel.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Empty when unknown; then no cluster IP's client is masqueraded.
    pub cluster_cidrs: Vec<Cidr>,
    /// Empty for all addresses of the node.
    pub node_port_addresses: Vec<Cidr>,
    pub localhost_node_ports: bool,
    pub ipv6: bool,
}

/// The kernel's rule set.
#[derive(Debug)]
pub struct Ruleset {
    nft: Nft,
    halves: Vec<Half>,
}

/// Key and end of an element.
type Place = (Which, Vec<u8>, Option<Vec<u8>>);

/// One family's table.
struct Half {
    family: Family,
    skeleton: Skeleton,
    writer: Writer,
    /// Who wants which element. Of several Services that want one place, the first by name has it.
    claims: HashMap<Place, Vec<(ObjectKey, Option<Data>)>>,
    /// What the kernel has in the places that changed since the last commit.
    touched: HashMap<Place, Option<Option<Data>>>,
    placed: HashMap<PoolName, (Placed, Pick)>,
    ids: HashSet<u32>,
    /// Chains of picks in the kernel.
    chains: BTreeSet<Pick>,
    /// What an earlier process left: the order of endpoints by the pool's number.
    left: HashMap<u32, Vec<SocketAddr>>,
}

impl std::fmt::Debug for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Half").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Ruleset {
    /// Looks at what an earlier process left. All of it stays until the first [`Ruleset::reconcile`], which comes
    /// after every Service was set: until then connections go where they went.
    pub fn open(mut nft: Nft, options: &Options) -> Result<Self> {
        let families: &[Family] = if options.ipv6 { &[Family::V4, Family::V6] } else { &[Family::V4] };
        let mut halves = Vec::new();
        for family in families {
            let mut half = Half::new(*family, options);
            if nft.has_table(&half.skeleton.table)?
                && let Err(error) = half.read_left(&mut nft)
            {
                // Another release's table: only the order of endpoints is lost.
                tracing::debug!(%error, "the order of endpoints could not be read");
            }
            halves.push(half);
        }
        Ok(Ruleset { nft, halves })
    }

    /// Replaces a Service's plan; nothing reaches the kernel yet.
    pub fn set(&mut self, service: &ObjectKey, old: &Plan, new: &Plan) {
        for half in &mut self.halves {
            half.set(service, old, new);
        }
    }

    /// Writes what changed since the last commit. On an error the kernel has none of it, and
    /// [`Ruleset::reconcile`] is due.
    pub fn commit(&mut self) -> Result<()> {
        let mut transaction = Transaction::new();
        for half in &mut self.halves {
            half.changes(&mut transaction);
        }
        self.nft.commit(transaction)
    }

    /// Whether the kernel still has the tables; somebody may flush everything.
    pub fn is_there(&mut self) -> Result<bool> {
        let tables = self.nft.tables()?;
        Ok(self.halves.iter().all(|half| tables.contains(&half.skeleton.table)))
    }

    /// Makes the kernel agree with everything set so far, whatever is there.
    pub fn reconcile(&mut self) -> Result<()> {
        for half in &mut self.halves {
            half.reconcile(&mut self.nft)?;
        }
        Ok(())
    }
}

/// Whether a table is one of ours.
pub fn is_ours(table: &linux::nft::Table) -> bool {
    table.name == skeleton::TABLE
}

/// Deletes the tables of both families, if they are there.
pub fn remove(nft: &mut Nft) -> Result<()> {
    for table in [table(Family::V4), table(Family::V6)] {
        if nft.has_table(&table)? {
            nft.remove_table(&table)?;
        }
    }
    Ok(())
}

impl Half {
    fn new(family: Family, options: &Options) -> Self {
        let writer = Writer::new(family);
        let cluster = networks(&options.cluster_cidrs, family);
        let open = networks(&options.node_port_addresses, family);
        let shape = Shape {
            cluster_cidrs: !cluster.is_empty(),
            node_port_addresses: !options.node_port_addresses.is_empty(),
            localhost: options.localhost_node_ports,
        };
        let mut half = Half {
            family,
            skeleton: writer.skeleton(shape),
            writer,
            claims: HashMap::new(),
            touched: HashMap::new(),
            placed: HashMap::new(),
            ids: HashSet::new(),
            chains: BTreeSet::new(),
            left: HashMap::new(),
        };
        let ourselves = ObjectKey::new("", "");
        for (which, elements) in [(Which::ClusterCidrs, cluster), (Which::NodePortAddresses, open)] {
            for element in elements {
                half.claim(&ourselves, which, element);
            }
        }
        half
    }

    fn set(&mut self, service: &ObjectKey, old: &Plan, new: &Plan) {
        let before = self.lower(old);
        for name in old.pools.keys().filter(|n| n.family == self.family && !new.pools.contains_key(n)) {
            if let Some((placed, _)) = self.placed.remove(name) {
                self.ids.remove(&placed.id);
            }
        }
        for (name, pool) in &new.pools {
            if name.family == self.family {
                self.place(name, pool);
            }
        }
        let after = self.lower(new);
        for (which, element) in before.difference(&after) {
            self.unclaim(service, *which, element);
        }
        for (which, element) in after.difference(&before) {
            self.claim(service, *which, element.clone());
        }
    }

    fn lower(&self, plan: &Plan) -> BTreeSet<(Which, Element)> {
        lower(plan, self.family, |name| self.placed.get(name).map(|(placed, _)| placed.clone()))
    }

    fn place(&mut self, name: &PoolName, pool: &Pool) {
        match self.placed.entry(name.clone()) {
            Entry::Occupied(mut known) => {
                let (placed, chain) = known.get_mut();
                placed.order = arrange(&placed.order, &pool.endpoints);
                *chain = pick(pool);
            }
            Entry::Vacant(free) => {
                let id = number(&name.to_string(), &self.ids);
                self.ids.insert(id);
                let left = self.left.remove(&id).unwrap_or_default();
                free.insert((Placed { id, order: arrange(&left, &pool.endpoints) }, pick(pool)));
            }
        }
    }

    fn effective(&self, place: &Place) -> Option<Option<Data>> {
        self.claims.get(place).and_then(|c| c.first()).map(|(_, data)| data.clone())
    }

    fn touch(&mut self, place: &Place) {
        if !self.touched.contains_key(place) {
            let now = self.effective(place);
            self.touched.insert(place.clone(), now);
        }
    }

    fn claim(&mut self, owner: &ObjectKey, which: Which, element: Element) {
        let place = (which, element.key, element.end);
        self.touch(&place);
        let claims = self.claims.entry(place).or_default();
        let at = claims.partition_point(|(o, _)| o < owner);
        claims.insert(at, (owner.clone(), element.data));
    }

    fn unclaim(&mut self, owner: &ObjectKey, which: Which, element: &Element) {
        let place = (which, element.key.clone(), element.end.clone());
        self.touch(&place);
        if let Entry::Occupied(mut claims) = self.claims.entry(place) {
            claims.get_mut().retain(|(o, data)| o != owner || *data != element.data);
            if claims.get().is_empty() {
                claims.remove();
            }
        }
    }

    /// Adds to a transaction what changed: chains that elements will lead to, places given up, places taken.
    fn changes(&mut self, transaction: &mut Transaction) {
        let table = &self.skeleton.table;
        let (mut gone, mut come): (Elements, Elements) = Default::default();
        for (place, before) in std::mem::take(&mut self.touched) {
            let after = self.effective(&place);
            if before == after {
                continue;
            }
            let (which, key, end) = place;
            let element = |data| Element { key: key.clone(), end: end.clone(), data };
            if let Some(data) = before {
                gone.entry(which).or_default().push(element(data));
            }
            if let Some(data) = after {
                come.entry(which).or_default().push(element(data));
            }
        }
        if come.contains_key(&Which::Pools) {
            let wanted: BTreeSet<Pick> = self.placed.values().map(|(_, pick)| *pick).collect();
            for pick in wanted.difference(&self.chains) {
                transaction.add_chain(table, &Chain::new(pick.chain()));
                for rule in self.writer.pick_rules(*pick) {
                    transaction.add_rule(table, &marked(&rule));
                }
            }
            self.chains.extend(wanted);
        }
        write(transaction, self.family, &gone, &come);
    }

    fn reconcile(&mut self, nft: &mut Nft) -> Result<()> {
        self.skeleton.ensure(nft)?;
        self.touched.clear();
        self.left.clear();
        let table = &self.skeleton.table;
        let mut transaction = Transaction::new();
        let wanted: BTreeSet<Pick> = self.placed.values().map(|(_, pick)| *pick).collect();
        let mut unused = self.chain_changes(nft, &wanted, &mut transaction)?;
        let (mut gone, mut come): (Elements, Elements) = Default::default();
        let mut want: HashMap<Which, HashSet<Element>> = HashMap::new();
        for (place, claims) in &self.claims {
            let data = claims.first().and_then(|(_, data)| data.clone());
            let element = Element { key: place.1.clone(), end: place.2.clone(), data };
            want.entry(place.0).or_default().insert(element);
        }
        for which in SETS {
            let have: HashSet<Element> = nft.elements(table, &which.set(self.family))?.into_iter().collect();
            let want = want.remove(&which).unwrap_or_default();
            let mut surplus: Vec<_> = have.difference(&want).cloned().collect();
            let mut missing: Vec<_> = want.difference(&have).cloned().collect();
            surplus.sort();
            missing.sort();
            gone.insert(which, surplus);
            come.insert(which, missing);
        }
        write(&mut transaction, self.family, &gone, &come);
        nft.commit(transaction)?;
        self.chains = wanted;
        // Before Linux 6.2 a chain counts as referred to for a while after its last element went: it may stay.
        unused.retain(|name| {
            let mut transaction = Transaction::new();
            transaction.flush_chain(table, name).delete_chain(table, name);
            nft.commit(transaction).is_err()
        });
        if !unused.is_empty() {
            tracing::debug!(chains = ?unused, "unused chains stay until the next start");
        }
        Ok(())
    }

    /// Writes the chains of picks that are missing or were written by another release; returns the unused ones.
    fn chain_changes(
        &self,
        nft: &mut Nft,
        wanted: &BTreeSet<Pick>,
        transaction: &mut Transaction,
    ) -> Result<Vec<String>> {
        let table = &self.skeleton.table;
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for rule in nft.rules(table)? {
            listed.entry(rule.chain).or_default().push(rule.comment);
        }
        for pick in wanted {
            let rules: Vec<_> = self.writer.pick_rules(*pick).iter().map(marked).collect();
            let name = pick.chain();
            let have = listed.get(&name).map(Vec::as_slice).unwrap_or_default();
            if have.iter().eq(rules.iter().map(|r| &r.comment)) {
                continue;
            }
            transaction.add_chain(table, &Chain::new(&name)).flush_chain(table, &name);
            for rule in &rules {
                transaction.add_rule(table, rule);
            }
        }
        let names: HashSet<String> = wanted.iter().map(|p| p.chain()).collect();
        let chains = nft.chains(table)?.into_iter().map(|c| c.name);
        Ok(chains.filter(|c| Pick::is_chain(c) && !names.contains(c)).collect())
    }

    /// Reads the order in which an earlier process put the endpoints.
    fn read_left(&mut self, nft: &mut Nft) -> Result<()> {
        let table = &self.skeleton.table;
        let mut read = |which: Which| nft.elements(table, &which.set(self.family));
        let mut places: BTreeMap<(u32, u32), SocketAddr> = BTreeMap::new();
        for element in read(Which::Endpoints)? {
            if let (Some(place), Some(endpoint)) =
                (read_pair(&element.key), read_endpoint(element.data.as_ref()))
            {
                places.insert(place, endpoint);
            }
        }
        let by_id: HashMap<_, _> = read(Which::ById)?
            .into_iter()
            .filter_map(|e| Some((read_pair(&e.key)?, read_endpoint(e.data.as_ref())?)))
            .collect();
        for element in read(Which::Sticky)? {
            let Some((pool, index)) = read_pair(&element.key) else { continue };
            let Some(Data::Value(id)) = &element.data else { continue };
            let Some(id) = id.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes) else {
                continue;
            };
            if let Some(endpoint) = by_id.get(&(pool, id)) {
                places.insert((pool, index), *endpoint);
            }
        }
        for ((pool, _), endpoint) in places {
            self.left.entry(pool).or_default().push(endpoint);
        }
        Ok(())
    }
}

type Elements = BTreeMap<Which, Vec<Element>>;

/// Deletions first: a place may change hands within the transaction.
fn write(transaction: &mut Transaction, family: Family, gone: &Elements, come: &Elements) {
    let table = table(family);
    for (which, elements) in gone {
        transaction.delete_elements(&table, &which.set(family), elements);
    }
    for (which, elements) in come {
        transaction.add_elements(&table, &which.set(family), elements);
    }
}
