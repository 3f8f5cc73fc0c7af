//! The resources this server serves: rows of the table with the strategy, the hub version and the key prefix of each.
//! Built-in ones are there from the start; others come and go ([`Resources::install`]), and a request in flight keeps the
//! one it began with.

use crate::storage::measures::{Families, Measures};
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::status::Status;
use apimachinery::value::Value;
use client::recent::Recent;
use hooks::{Strategy, strategy};
use parking_lot::RwLock;
use schema::encode::Body;
use schema::{ResourceRow, Table, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use store::Entry;
use tokio_util::sync::CancellationToken;

/// What is static for a built-in resource and shared for one that may go.
pub enum Shared<T: ?Sized + 'static> {
    Static(&'static T),
    Owned(Arc<T>),
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Shared::Static(t) => t,
            Shared::Owned(t) => t,
        }
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        match self {
            Shared::Static(t) => Shared::Static(t),
            Shared::Owned(t) => Shared::Owned(t.clone()),
        }
    }
}

/// Where the types of a resource are known from.
pub enum Types {
    Builtin(&'static Table),
    /// Compiled from a definition when it is first needed.
    Custom(Arc<dyn Deref<Target = Table> + Send + Sync>),
}

impl Deref for Types {
    type Target = Table;
    fn deref(&self) -> &Table {
        match self {
            Types::Builtin(table) => table,
            Types::Custom(table) => table,
        }
    }
}

/// A resource in one served version.
pub struct Served {
    pub row: Shared<ResourceRow>,
    pub table: Types,
    /// The type in the served version.
    pub ty: TypeId,
    /// The version on which hooks run: of built-in kinds the stored one, of custom kinds the served one.
    pub hub_version: String,
    pub hub_ty: TypeId,
    pub strategy: Shared<dyn Strategy>,
    /// Key prefix with a trailing slash; empty for what is not stored.
    pub prefix: Arc<str>,
    pub api_version: String,
    pub hub_api_version: String,
    /// Subresources by name.
    pub subresources: HashMap<String, Shared<ResourceRow>>,
    /// What a resource that may go has beside.
    pub custom: Option<Custom>,
    /// What counts what the store is asked for.
    pub measures: OnceLock<Measures>,
}

/// A resource that came at run time.
#[derive(Debug)]
pub struct Custom {
    /// Cancelled when the resource goes, or is served anew with another schema: its watches end.
    pub gone: CancellationToken,
    /// Whether stored objects may differ from what they would be if they were written now.
    pub stale_storage: bool,
    /// For the `Warning` header of every answer.
    pub warning: Option<String>,
    /// What discovery lists: the resource and its subresources.
    pub listed: Vec<ResourceRow>,
    /// Where its schema is.
    pub source: Arc<crate::custom::Source>,
    /// How its objects come from version to version.
    pub conversion: Arc<crate::custom::Conversion>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Served({} {})", self.api_version, self.row.resource)
    }
}

/// The package that upstream keeps a group's unversioned types in.
pub(crate) fn package(group: &str) -> &str {
    match group.split('.').next().unwrap_or_default() {
        "" | "events" => "core",
        first => first,
    }
}

impl Served {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.row.group.clone(), self.row.resource.clone())
    }

    fn name(&self) -> Name {
        (self.row.group.to_string(), self.row.version.to_string(), self.row.resource.to_string())
    }

    pub fn group_kind(&self) -> GroupKind {
        // Kinds that two groups share are known by the one that keeps them.
        let group = self.hub_api_version.split_once('/').map_or("", |(group, _)| group);
        GroupKind::new(group.to_owned(), self.row.kind.to_string())
    }

    /// The kind that a refused object is told of as; one of a custom kind may say that it is another.
    pub fn group_kind_of(&self, value: &Value) -> GroupKind {
        match (&self.custom, value["kind"].as_str()) {
            (Some(_), Some(kind)) => GroupKind::new(self.row.group.to_string(), kind.to_owned()),
            _ => self.group_kind(),
        }
    }

    /// Whether a PUT must say which version of the object it replaces.
    pub fn put_needs_version(&self) -> bool {
        self.custom.is_some() || hooks::put_needs_version(&self.row.group, &self.row.kind)
    }

    fn measure(&self, families: &Arc<Families>) {
        // Of groups that share objects the one counts in which they are stored.
        let group = self.hub_api_version.split_once('/').map_or("", |(group, _)| group);
        self.measures.get_or_init(|| Measures::new(families.clone(), group, &self.row.resource));
    }

    /// The kind of a list of these.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.source.list_kind.clone(),
            None => format!("{}List", self.row.kind),
        }
    }

    /// Namespaces are in themselves: their name is the namespace that requests for them are about.
    pub fn is_namespace(&self) -> bool {
        self.row.group.is_empty() && self.row.resource == "namespaces"
    }

    /// What Go calls the type of an object in memory, as upstream's refusals do.
    pub fn go_type(&self) -> String {
        match self.custom {
            Some(_) => "*unstructured.Unstructured".to_owned(),
            None => format!("*{}.{}", package(&self.row.group), self.row.kind),
        }
    }

    /// Whether a verb is served of the object itself, which has no name, or of a subresource.
    pub fn serves(&self, verb: &str, subresource: &str) -> bool {
        match subresource {
            "" => self.row.allows(verb),
            _ => self.subresources.get(subresource).is_some_and(|row| row.allows(verb)),
        }
    }

    /// Whether there is such a subresource; the object itself has no name.
    pub fn has(&self, subresource: &str) -> bool {
        subresource.is_empty() || self.subresources.contains_key(subresource)
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

    /// Whether an object is served as its bytes stand; those of custom kinds are once they are presented.
    pub fn is_verbatim(&self) -> bool {
        self.custom.is_some() || self.is_hub()
    }

    /// Whether a stored object is in the version in which it is served, and as its schema has it now. Objects of built-in
    /// kinds are in their hub version when they come from the store.
    pub fn is_presented(&self, entry: &Entry) -> bool {
        self.custom.is_none() || Body::from_stored(&entry.value[..]).is_ok_and(|body| self.is_own_form(&body))
    }

    /// Whether the body of an object of a custom kind is as it would be written now.
    pub(crate) fn is_own_form<B: AsRef<[u8]>>(&self, body: &Body<B>) -> bool {
        // Keys are sorted, so that the version comes first.
        let rest = body.json().strip_prefix(b"{\"apiVersion\":\"");
        self.custom.as_ref().is_none_or(|custom| !custom.stale_storage)
            && rest
                .and_then(|r| r.strip_prefix(self.api_version.as_bytes()))
                .is_some_and(|r| r.starts_with(b"\""))
    }

    /// The conversion that stands between stored and served objects, where it may have to do something.
    fn conversion(&self, entry: &Entry) -> Option<&crate::custom::Conversion> {
        let custom = self.custom.as_ref()?;
        (!self.is_presented(entry)).then_some(&*custom.conversion)
    }

    /// A stored object in the version in which it is served.
    pub async fn present(&self, entry: Arc<Entry>) -> Result<Arc<Entry>, Status> {
        match self.conversion(&entry) {
            Some(conversion) => conversion.present(self, &entry).await,
            None => Ok(entry),
        }
    }

    /// Stored objects in the version in which they are served: what has to be converted is so together.
    pub async fn present_all(&self, entries: Vec<Arc<Entry>>) -> Result<Vec<Arc<Entry>>, Status> {
        match &self.custom {
            Some(custom) => custom.conversion.present_all(self, entries).await,
            None => Ok(entries),
        }
    }

    /// An object of this resource's hub version as `other`, a version of the same kind, serves it.
    pub(crate) async fn seen_as(&self, other: &Served, value: Value) -> Result<Value, Status> {
        match &self.custom {
            None => Ok(other.to_served(value)),
            Some(custom) => custom.conversion.convert_one(value, &other.api_version).await,
        }
    }

    /// The way back of [`Served::seen_as`].
    pub(crate) async fn taken_from(&self, other: &Served, value: Value) -> Result<Value, Status> {
        match &self.custom {
            None => Ok(other.to_hub(value)),
            Some(custom) => custom.conversion.convert_one(value, &self.api_version).await,
        }
    }

    /// Brings an object of the served version to the hub version.
    pub fn to_hub(&self, value: Value) -> Value {
        self.convert(&self.api_version, &self.hub_api_version, value)
    }

    /// Brings an object of the hub version to the served version.
    pub fn to_served(&self, value: Value) -> Value {
        self.convert(&self.hub_api_version, &self.api_version, value)
    }

    fn convert(&self, from: &str, to: &str, value: Value) -> Value {
        if from == to {
            return value;
        }
        hooks::convert(&self.row.group, &self.row.kind, from, to, value)
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
    served: HashMap<Name, Arc<Served>>,
    installed: RwLock<Installed>,
    /// What the informers of this process decoded of their objects lately.
    pub recent: Arc<Recent>,
    families: OnceLock<Arc<Families>>,
}

/// Group, version and resource.
type Name = (String, String, String);

/// What came at run time.
#[derive(Debug, Default)]
struct Installed {
    served: HashMap<Name, Arc<Served>>,
    /// By who brought them.
    by_owner: BTreeMap<String, Vec<Arc<Served>>>,
}

impl Resources {
    /// The stable versions of a table, and those beta and alpha versions that `enabled` names (`batch/v2alpha1`).
    pub fn new(table: &'static Table, enabled: &[String]) -> Self {
        Self::serving(table, &|row| {
            stability(&row.version).0 == 2 || enabled.contains(&api_version(&row.group, &row.version))
        })
    }

    /// Those resources of a table that `serves` chooses.
    pub fn serving(table: &'static Table, serves: &dyn Fn(&ResourceRow) -> bool) -> Self {
        let mut served = HashMap::new();
        let rows = table.resources();
        for row in rows.iter().filter(|r| !r.resource.contains('/')) {
            let api_version = api_version(&row.group, &row.version);
            if !serves(row) {
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
            let both_ways = hooks::converts(&row.group, &row.kind, &api_version, &hub_api_version)
                && hooks::converts(&row.group, &row.kind, &hub_api_version, &api_version);
            if !both_ways {
                continue;
            }
            let hub_ty = table.kind(hub_group, hub_version, &row.kind).unwrap_or(ty);
            let subresources = rows
                .iter()
                .filter(|r| r.group == row.group && r.version == row.version)
                .filter_map(|r| match r.split() {
                    (resource, Some(sub)) if resource == row.resource => {
                        Some((sub.to_owned(), Shared::Static(r)))
                    }
                    _ => None,
                })
                .collect();
            let prefix = row.key_prefix.as_ref().map_or_else(String::new, |p| format!("{p}/"));
            served.insert(
                (row.group.to_string(), row.version.to_string(), row.resource.to_string()),
                Arc::new(Served {
                    row: Shared::Static(row),
                    table: Types::Builtin(table),
                    ty,
                    hub_version: hub_version.to_owned(),
                    hub_ty,
                    strategy: Shared::Static(strategy(hub_group, &row.kind)),
                    prefix: prefix.into(),
                    api_version,
                    hub_api_version,
                    subresources,
                    custom: None,
                    measures: OnceLock::new(),
                }),
            );
        }
        Resources { served, installed: RwLock::default(), recent: Arc::default(), families: OnceLock::new() }
    }

    pub fn get(&self, group: &str, version: &str, resource: &str) -> Option<Arc<Served>> {
        let name = (group.to_owned(), version.to_owned(), resource.to_owned());
        self.served.get(&name).cloned().or_else(|| self.installed.read().served.get(&name).cloned())
    }

    /// Counts from now on what the store is asked for, of resources that come later, too.
    pub fn measure(&self, families: Arc<Families>) {
        let families = self.families.get_or_init(|| families);
        self.all().iter().for_each(|served| served.measure(families));
    }

    /// All that is served now.
    pub fn all(&self) -> Vec<Arc<Served>> {
        self.served.values().cloned().chain(self.installed()).collect()
    }

    /// What came at run time, in the order of who brought it.
    pub fn installed(&self) -> Vec<Arc<Served>> {
        self.installed.read().by_owner.values().flatten().cloned().collect()
    }

    /// How objects of what `owner` brought come from version to version.
    pub fn conversion(&self, owner: &str) -> Option<Arc<crate::custom::Conversion>> {
        let installed = self.installed.read();
        let served = installed.by_owner.get(owner)?.first()?;
        served.custom.as_ref().map(|custom| custom.conversion.clone())
    }

    /// Serves what `owner` brings, in place of what it brought before, whose watches end.
    pub fn install(&self, owner: &str, resources: Vec<Arc<Served>>) {
        let before = {
            let mut installed = self.installed.write();
            let before = installed.by_owner.remove(owner).unwrap_or_default();
            if let Some(families) = self.families.get() {
                resources.iter().for_each(|served| served.measure(families));
            }
            for served in &before {
                installed.served.remove(&served.name());
            }
            for served in &resources {
                installed.served.insert(served.name(), served.clone());
            }
            if !resources.is_empty() {
                installed.by_owner.insert(owner.to_owned(), resources);
            }
            before
        };
        before.iter().filter_map(|s| s.custom.as_ref()).for_each(|c| c.gone.cancel());
    }

    /// Any served version of a group's resource, the most stable first.
    pub fn preferred(&self, group: &str, resource: &str) -> Option<Arc<Served>> {
        self.all()
            .into_iter()
            .filter(|s| s.row.group == group && s.row.resource == resource)
            .max_by_key(|s| stability(&s.row.version))
    }

    /// The served resource of a kind, for owner references.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<Arc<Served>> {
        let is =
            |s: &&Arc<Served>| s.api_version == api_version && s.row.kind == kind && !s.prefix.is_empty();
        let found = self.served.values().find(is).cloned();
        found.or_else(|| self.installed.read().served.values().find(is).cloned())
    }
}
