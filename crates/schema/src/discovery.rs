//! Discovery documents from resource rows: the classic ones (`/api`, `/apis`, a group, a version) and the aggregated
//! one. The caller says what is enabled and brings the groups of custom resources and of aggregated API servers.

use crate::row::ResourceRow;
use crate::table::Table;
use apimachinery::value::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256, Sha512};
use std::cmp::Ordering;
use std::collections::BTreeMap;

mod aggregated;
mod classic;

pub use aggregated::{AggregatedVersion, aggregated};
pub use classic::{api_versions, group, group_list, resource_list};

/// A group as it is served, the preferred version first.
#[derive(Debug, Clone)]
pub struct Group<'a> {
    pub name: &'a str,
    pub versions: Vec<Version<'a>>,
}

/// A version of a group.
#[derive(Debug, Clone)]
pub struct Version<'a> {
    pub version: &'a str,
    pub resources: Resources<'a>,
    /// Set for aggregated API servers that could not be asked lately.
    pub stale: bool,
}

/// What a version has to offer.
#[derive(Debug, Clone)]
pub enum Resources<'a> {
    /// Resources and subresources, in any order.
    Rows(Vec<&'a ResourceRow>),
    /// The `resources` of an `APIVersionDiscovery` that another server sent.
    Foreign(&'a Value),
}

/// Built-in groups in the order in which upstream lists them, by the priority of their `APIService`.
const PRIORITY: [&str; 23] = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "internal.apiserver.k8s.io",
    "storagemigration.k8s.io",
];

/// The groups of a table, those without an enabled resource left out. The first is the core group, if it is there.
pub fn groups<'a>(table: &'a Table, enabled: &dyn Fn(&ResourceRow) -> bool) -> Vec<Group<'a>> {
    groups_of(table.resources().iter().filter(|r| enabled(r)))
}

/// The groups of some rows.
pub fn groups_of<'a>(rows: impl IntoIterator<Item = &'a ResourceRow>) -> Vec<Group<'a>> {
    let mut found: BTreeMap<(usize, &str), BTreeMap<&str, Vec<&ResourceRow>>> = BTreeMap::new();
    for row in rows {
        let priority = PRIORITY.iter().position(|g| *g == row.group).unwrap_or(PRIORITY.len());
        found.entry((priority, &*row.group)).or_default().entry(&*row.version).or_default().push(row);
    }
    found
        .into_iter()
        .map(|((_, name), versions)| {
            let mut versions: Vec<Version<'a>> = versions
                .into_iter()
                .map(|(version, rows)| Version { version, resources: Resources::Rows(rows), stale: false })
                .collect();
            versions.sort_by(|a, b| compare_versions(b.version, a.version));
            Group { name, versions }
        })
        .collect()
}

/// Whether upstream serves the version unasked: what is neither alpha nor beta.
pub fn enabled_by_default(row: &ResourceRow) -> bool {
    !row.version.contains("alpha") && !row.version.contains("beta")
}

/// Upstream's order of API versions: stable above beta above alpha, higher numbers above lower ones, and whatever is
/// not of that form below, by name.
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (parse_version(a), parse_version(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => b.cmp(a),
    }
}

/// Stability, major and minor number.
fn parse_version(version: &str) -> Option<(u8, u32, u32)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let major: u32 = rest[..digits].parse().ok().filter(|n| *n > 0)?;
    let tail = &rest[digits..];
    if tail.is_empty() {
        return Some((2, major, 0));
    }
    let (stability, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((stability, major, minor.parse().ok().filter(|n| *n > 0)?))
}

/// The hash by which clients see that the storage version of a resource has changed; none for what is not stored.
pub fn storage_version_hash(row: &ResourceRow) -> Option<String> {
    let (group, version) = row.storage_version.as_ref()?;
    let text = format!("{group}/{version}/{}", row.kind);
    Some(STANDARD.encode(&Sha256::digest(text.as_bytes())[..8]))
}

/// The value of the `ETag` header of a document, quotes included.
pub fn etag(document: &[u8]) -> String {
    format!("\"{}\"", sha512_hex(document))
}

/// SHA-512 in capital hexadecimal digits, as discovery and OpenAPI use it.
pub(crate) fn sha512_hex(bytes: &[u8]) -> String {
    Sha512::digest(bytes).iter().map(|b| format!("{b:02X}")).collect()
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn is_empty(items: &[std::borrow::Cow<'static, str>]) -> bool {
    items.is_empty()
}

fn to_json(document: &impl serde::Serialize) -> Vec<u8> {
    // Serialising plain structs into memory cannot fail.
    let mut out = apimachinery::value::to_json_vec(document).unwrap_or_default();
    out.push(b'\n');
    out
}
