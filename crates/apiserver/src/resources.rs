//! The resources this server serves: rows of the table with the strategy, the hub version and the key prefix of each.

use api::hooks::{Strategy, strategy};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::status::Status;
use schema::{ResourceRow, Table, TypeId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A resource in one served version.
pub struct Served {
    pub row: &'static ResourceRow,
    pub table: &'static Table,
    /// The type in the served version.
    pub ty: TypeId,
    /// The version on which hooks run and which is stored.
    pub hub_version: String,
    pub hub_ty: TypeId,
    pub strategy: &'static dyn Strategy,
    /// Key prefix with a trailing slash; empty for what is not stored.
    pub prefix: Arc<str>,
    pub api_version: String,
    pub hub_api_version: String,
    /// Subresources by name.
    pub subresources: HashMap<String, &'static ResourceRow>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Served({} {})", self.api_version, self.row.resource)
    }
}

impl Served {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.row.group.as_ref(), self.row.resource.as_ref())
    }

    pub fn group_kind(&self) -> GroupKind {
        GroupKind::new(self.row.group.as_ref(), self.row.kind.as_ref())
    }

    pub fn has_status(&self) -> bool {
        self.subresources.contains_key("status")
    }

    /// The name of an object below the prefix: `namespace/name` or `name`.
    pub fn key_name(&self, namespace: &str, name: &str) -> Arc<str> {
        if self.row.namespaced { format!("{namespace}/{name}").into() } else { name.into() }
    }

    pub fn key(&self, namespace: &str, name: &str) -> store::Key {
        store::Key { prefix: self.prefix.clone(), name: self.key_name(namespace, name) }
    }

    pub fn not_found(&self, name: &str) -> Status {
        Status::not_found(&self.group_resource(), name)
    }

    pub fn is_hub(&self) -> bool {
        self.api_version == self.hub_api_version
    }
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// Stable before beta before alpha, higher numbers first.
fn stability(version: &str) -> (u8, u32, u32) {
    let rest = version.strip_prefix('v').unwrap_or(version);
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let major = rest[..end].parse().unwrap_or(0);
    let (stage, minor) = match &rest[end..] {
        "" => (2, 0),
        tail if tail.starts_with("beta") => (1, tail[4..].parse().unwrap_or(0)),
        tail => (0, tail.trim_start_matches("alpha").parse().unwrap_or(0)),
    };
    (stage, major, minor)
}

/// All served resources.
#[derive(Debug)]
pub struct Resources {
    served: HashMap<(String, String, String), Arc<Served>>,
    group_versions: HashSet<(String, String)>,
}

impl Resources {
    /// The stable versions of a table, and those beta and alpha versions that `enabled` names (`batch/v2alpha1`).
    pub fn new(table: &'static Table, enabled: &[String]) -> Self {
        let mut served = HashMap::new();
        let mut group_versions = HashSet::new();
        let rows = table.resources();
        for row in rows.iter().filter(|r| !r.resource.contains('/')) {
            let api_version = api_version(&row.group, &row.version);
            if stability(&row.version).0 < 2 && !enabled.contains(&api_version) {
                continue;
            }
            let Some(ty) = table.kind(&row.group, &row.version, &row.kind) else { continue };
            // Upstream stores events of both groups as core/v1.
            let (hub_group, hub_version) = match (&row.key_prefix, row.group.as_ref()) {
                (Some(_), "events.k8s.io") => ("", "v1"),
                _ => {
                    let newest = rows
                        .iter()
                        .filter(|r| r.group == row.group && r.resource == row.resource)
                        .max_by_key(|r| stability(&r.version));
                    (row.group.as_ref(), newest.map_or(row.version.as_ref(), |r| r.version.as_ref()))
                }
            };
            let hub_api_version = self::api_version(hub_group, hub_version);
            // Serving a version as if it had its hub's shape would lose what the client said.
            let both_ways = api::hooks::converts(&row.group, &row.kind, &api_version, &hub_api_version)
                && api::hooks::converts(&row.group, &row.kind, &hub_api_version, &api_version);
            if !both_ways {
                continue;
            }
            let hub_ty = table.kind(hub_group, hub_version, &row.kind).unwrap_or(ty);
            let subresources = rows
                .iter()
                .filter(|r| r.group == row.group && r.version == row.version)
                .filter_map(|r| match r.split() {
                    (resource, Some(sub)) if resource == row.resource => Some((sub.to_owned(), r)),
                    _ => None,
                })
                .collect();
            let prefix = row.key_prefix.as_ref().map_or_else(String::new, |p| format!("{p}/"));
            group_versions.insert((row.group.to_string(), row.version.to_string()));
            served.insert(
                (row.group.to_string(), row.version.to_string(), row.resource.to_string()),
                Arc::new(Served {
                    row,
                    table,
                    ty,
                    hub_version: hub_version.to_owned(),
                    hub_ty,
                    strategy: strategy(hub_group, &row.kind),
                    prefix: prefix.into(),
                    api_version,
                    hub_api_version,
                    subresources,
                }),
            );
        }
        Resources { served, group_versions }
    }

    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<&Arc<Served>> {
        self.served.get(&(group.to_owned(), version.to_owned(), resource.to_owned()))
    }

    pub fn serves(&self, group: &str, version: &str) -> bool {
        self.group_versions.contains(&(group.to_owned(), version.to_owned()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.values()
    }

    /// Any served version of a group's resource, the most stable first.
    pub fn preferred(&self, group: &str, resource: &str) -> Option<&Arc<Served>> {
        self.served
            .values()
            .filter(|s| s.row.group == group && s.row.resource == resource)
            .max_by_key(|s| stability(&s.row.version))
    }

    /// The served resource of a kind, for owner references.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Served>> {
        self.served
            .values()
            .find(|s| s.api_version == api_version && s.row.kind == kind && !s.prefix.is_empty())
    }
}
