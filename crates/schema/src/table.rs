//! A table: types that may refer to one another, and the resources made of them.
//!
//! The built-in table is `api::table()`; each custom resource version has a small table
//! of its own whose `ObjectMeta` is copied in from the built-in one.

use crate::custom::Check;
use crate::row::{Presence, ResourceRow, Seq, Type, TypeId, TypeRow};
use apimachinery::value::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Types and resources with their indices.
#[derive(Debug)]
pub struct Table {
    types: Seq<TypeRow>,
    resources: Seq<ResourceRow>,
    by_name: HashMap<String, TypeId>,
    by_gvk: HashMap<(String, String, String), TypeId>,
    /// Group, version, resource (with its subresource) to the index of its row.
    by_resource: HashMap<(String, String, String), usize>,
    derived: Vec<Derived>,
    /// For custom resources: what their values must be like. Objects of such a table are free trees.
    checks: Option<Box<Check>>,
}

/// What the readers would otherwise work out of a type's fields again and again.
#[derive(Debug, Default)]
struct Derived {
    names: Names,
    /// Fields that are written although absent, in JSON order.
    filled: Box<[u16]>,
    /// Fields with a default that is applied.
    defaults: Box<[(u16, Value)]>,
    /// Whether the type or anything within it has a default.
    reaches_default: bool,
    /// Whether the type or anything within it has a gated field.
    reaches_gate: bool,
}

impl Derived {
    fn of(row: &TypeRow) -> Self {
        let defaults: Box<[(u16, Value)]> = (0u16..)
            .zip(row.fields.iter())
            .filter_map(|(i, f)| Some((i, serde_json::from_str(f.default.as_deref()?).ok()?)))
            .collect();
        let filled = |f: &crate::row::Field| match f.presence {
            Presence::Always => true,
            Presence::OmitZero => false,
            Presence::OmitEmpty => {
                let never_empty = matches!(
                    f.ty,
                    Type::Ref(_)
                        | Type::Time
                        | Type::MicroTime
                        | Type::Quantity
                        | Type::IntOrString
                        | Type::Any
                        | Type::Object
                );
                !f.pointer && never_empty
            }
        };
        Derived {
            names: Names::of(row),
            filled: (0u16..).zip(row.fields.iter()).filter(|(_, f)| filled(f)).map(|(i, _)| i).collect(),
            reaches_default: !defaults.is_empty(),
            reaches_gate: row.fields.iter().any(|f| f.gate.is_some()),
            defaults,
        }
    }
}

/// Where the fields of a type stand by their names: an open-addressed table, so that a search touches one short array
/// instead of the rows, which are long and lie far apart.
#[derive(Debug, Default)]
struct Names {
    /// A part of the name's hash and the field's place; their number is a power of two, or none.
    slots: Box<[Option<(u32, u16)>]>,
}

impl Names {
    fn of(row: &TypeRow) -> Self {
        if row.fields.is_empty() {
            return Names::default();
        }
        // A quarter stays free at least, so that a search ends.
        let mut slots = vec![None; (row.fields.len() * 4 / 3 + 1).next_power_of_two()];
        for (i, field) in (0u16..).zip(row.fields.iter()) {
            let hash = hash(&field.name);
            let mut at = start(hash, slots.len());
            while slots[at].is_some() {
                at = (at + 1) & (slots.len() - 1);
            }
            slots[at] = Some((hash as u32, i));
        }
        Names { slots: slots.into() }
    }

    fn find(&self, row: &TypeRow, name: &str) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let hash = hash(name);
        let mut at = start(hash, self.slots.len());
        loop {
            let (part, i) = self.slots[at]?;
            let i = usize::from(i);
            if part == hash as u32 && row.fields[i].name == name {
                return Some(i);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

/// Of the names of one type few are alike in their length and their first eight bytes.
fn hash(name: &str) -> u64 {
    (prefix(name) ^ name.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a search begins: the upper bits are the best mixed.
fn start(hash: u64, slots: usize) -> usize {
    (hash >> 40) as usize & (slots - 1)
}

/// The first eight bytes of a name, as a number.
fn prefix(name: &str) -> u64 {
    match name.as_bytes().first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        // A copy of a few bytes whose number is not known is a call.
        None => name.bytes().zip(0..).fold(0, |first, (byte, i)| first | u64::from(byte) << (56 - 8 * i)),
    }
}

fn derive(types: &[TypeRow]) -> Vec<Derived> {
    let mut derived: Vec<Derived> = types.iter().map(Derived::of).collect();
    // Types may be recursive: spread the two marks until nothing changes.
    loop {
        let mut changed = false;
        for (i, row) in types.iter().enumerate() {
            for id in row.fields.iter().filter_map(|f| f.ty.element()) {
                let inner = &derived[id.0 as usize];
                let (default, gate) = (inner.reaches_default, inner.reaches_gate);
                let own = &mut derived[i];
                changed |= default && !own.reaches_default || gate && !own.reaches_gate;
                own.reaches_default |= default;
                own.reaches_gate |= gate;
            }
        }
        if !changed {
            return derived;
        }
    }
}

static EMPTY: LazyLock<Table> = LazyLock::new(|| Table::new(Cow::Borrowed(&[]), Cow::Borrowed(&[])));

impl Table {
    /// Builds the indices over rows.
    pub fn new(types: Seq<TypeRow>, resources: Seq<ResourceRow>) -> Self {
        let mut by_name = HashMap::with_capacity(types.len());
        let mut by_gvk = HashMap::new();
        for (i, t) in types.iter().enumerate() {
            let id = TypeId(i as u32);
            by_name.insert(t.name.to_string(), id);
            // DeleteOptions and WatchEvent are kinds of every group; the rows list them all.
            for (g, v, k) in t.gvk.iter() {
                by_gvk.insert((g.to_string(), v.to_string(), k.to_string()), id);
            }
        }
        let by_resource = resources
            .iter()
            .enumerate()
            .map(|(i, r)| ((r.group.to_string(), r.version.to_string(), r.resource.to_string()), i))
            .collect();
        let derived = derive(&types);
        Table { types, resources, by_name, by_gvk, by_resource, derived, checks: None }
    }

    /// The table of a version of a custom resource.
    pub(crate) fn custom(types: Vec<TypeRow>, resources: Vec<ResourceRow>, checks: Check) -> Self {
        Table { checks: Some(Box::new(checks)), ..Table::new(types.into(), resources.into()) }
    }

    /// What values of a custom resource must be like; none in the built-in table.
    pub fn checks(&self) -> Option<&Check> {
        self.checks.as_deref()
    }

    /// A table without types, for what needs none.
    pub fn empty() -> &'static Table {
        &EMPTY
    }

    /// The place of a type's field with this JSON name.
    pub(crate) fn index(&self, id: TypeId, name: &str) -> Option<usize> {
        self.derived[id.0 as usize].names.find(&self.types[id.0 as usize], name)
    }

    /// Indices of the fields that are written although absent, in JSON order.
    pub(crate) fn filled(&self, id: TypeId) -> &[u16] {
        &self.derived[id.0 as usize].filled
    }

    /// Fields of the type with a default that is applied.
    pub(crate) fn defaults(&self, id: TypeId) -> &[(u16, Value)] {
        &self.derived[id.0 as usize].defaults
    }

    /// Whether the type or anything within it has a default.
    pub(crate) fn reaches_default(&self, id: TypeId) -> bool {
        self.derived[id.0 as usize].reaches_default
    }

    /// Whether the type or anything within it has a gated field.
    pub(crate) fn reaches_gate(&self, id: TypeId) -> bool {
        self.derived[id.0 as usize].reaches_gate
    }

    /// The row of a type.
    pub fn ty(&self, id: TypeId) -> &TypeRow {
        &self.types[id.0 as usize]
    }

    pub fn types(&self) -> &[TypeRow] {
        &self.types
    }

    /// All resource rows, subresources included.
    pub fn resources(&self) -> &[ResourceRow] {
        &self.resources
    }

    /// The type with this OpenAPI definition name.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    /// The root type of a group, version and kind.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<TypeId> {
        // Keys are owned; the three short copies cost less than a second index.
        self.by_gvk.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).copied()
    }

    /// The row of a resource (`pods`) or subresource (`pods/status`).
    pub fn resource(&self, group: &str, version: &str, resource: &str) -> Option<&ResourceRow> {
        self.by_resource
            .get(&(group.to_owned(), version.to_owned(), resource.to_owned()))
            .map(|i| &self.resources[*i])
    }
}
