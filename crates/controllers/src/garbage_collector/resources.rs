//! Which kinds the server has, as last discovered.

use client::Resource;
use client::discovery::Discovered;
use parking_lot::RwLock;
use std::collections::HashMap;

/// Where the objects of a kind are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapping {
    pub resource: Resource,
    pub namespaced: bool,
}

#[derive(Debug, Default)]
pub(super) struct Resources(RwLock<HashMap<(String, String), Mapping>>);

impl Resources {
    pub(super) fn of_kind(&self, api_version: &str, kind: &str) -> Option<Mapping> {
        self.0.read().get(&(api_version.to_owned(), kind.to_owned())).cloned()
    }

    /// Takes what was discovered; what could not be asked for stays as it was.
    pub(super) fn learn(&self, discovered: &Discovered) {
        let mut kinds = self.0.write();
        kinds.retain(|(api_version, _), _| discovered.failed.contains(api_version));
        for found in &discovered.resources {
            let mapping = Mapping { resource: found.resource.clone(), namespaced: found.namespaced };
            kinds.entry((found.api_version(), found.kind.clone())).or_insert(mapping);
        }
    }
}
