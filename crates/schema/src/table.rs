//! A table: types that may refer to one another, and the resources made of them.
//!
//! The built-in table is `api::table()`; each custom resource version has a small table
//! of its own whose `ObjectMeta` is copied in from the built-in one.

use crate::row::{ResourceRow, Seq, TypeId, TypeRow};
use std::collections::HashMap;

/// Types and resources with their indices.
#[derive(Debug)]
pub struct Table {
    types: Seq<TypeRow>,
    resources: Seq<ResourceRow>,
    by_name: HashMap<String, TypeId>,
    by_gvk: HashMap<(String, String, String), TypeId>,
    /// Group, version, resource (with its subresource) to the index of its row.
    by_resource: HashMap<(String, String, String), usize>,
}

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
        Table { types, resources, by_name, by_gvk, by_resource }
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
