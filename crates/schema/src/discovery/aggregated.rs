//! The aggregated document: `APIGroupDiscoveryList`, with subresources inside their resources.

use super::{Group, Resources, is_empty, to_json};
use crate::row::{ResourceRow, Str};
use apimachinery::value::Value;
use serde::Serialize;
use std::collections::BTreeMap;

/// Which version of the document a client accepts; the two differ in name only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AggregatedVersion {
    V2,
    V2Beta1,
}

impl AggregatedVersion {
    /// The content type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2Beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'a>,
    items: Vec<GroupDiscovery<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
}

#[derive(Serialize)]
struct GroupDiscovery<'a> {
    metadata: Metadata<'a>,
    versions: Vec<VersionDiscovery<'a>>,
}

#[derive(Serialize)]
struct VersionDiscovery<'a> {
    version: &'a str,
    resources: Content<'a>,
    freshness: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Rows(Vec<ResourceDiscovery<'a>>),
    Foreign(&'a Value),
}

#[derive(Serialize, Default)]
struct ResponseKind<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceDiscovery<'a> {
    resource: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_kind: Option<ResponseKind<'a>>,
    scope: &'static str,
    singular_resource: &'a str,
    verbs: &'a [Str],
    #[serde(skip_serializing_if = "is_empty")]
    short_names: &'a [Str],
    #[serde(skip_serializing_if = "is_empty")]
    categories: &'a [Str],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subresources: Vec<Subresource<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Subresource<'a> {
    subresource: &'a str,
    response_kind: ResponseKind<'a>,
    verbs: &'a [Str],
}

/// The document of `/api` (the core group alone) or `/apis` (all others).
pub fn aggregated(groups: &[Group<'_>], version: AggregatedVersion) -> Vec<u8> {
    let items = groups
        .iter()
        .map(|group| GroupDiscovery {
            metadata: Metadata { name: group.name },
            versions: group
                .versions
                .iter()
                .map(|v| VersionDiscovery {
                    version: v.version,
                    resources: match &v.resources {
                        Resources::Rows(rows) => Content::Rows(resources(rows)),
                        Resources::Foreign(value) => Content::Foreign(value),
                    },
                    freshness: if v.stale { "Stale" } else { "Current" },
                })
                .collect(),
        })
        .collect();
    to_json(&List {
        kind: "APIGroupDiscoveryList",
        api_version: match version {
            AggregatedVersion::V2 => "apidiscovery.k8s.io/v2",
            AggregatedVersion::V2Beta1 => "apidiscovery.k8s.io/v2beta1",
        },
        metadata: Metadata { name: "" },
        items,
    })
}

fn response_kind(row: &ResourceRow) -> ResponseKind<'_> {
    // Empty means the group and version that the resource is in.
    let (group, version) = row.kind_group_version.as_ref().map_or(("", ""), |(g, v)| (&**g, &**v));
    ResponseKind { group, version, kind: &row.kind }
}

fn resources<'a>(rows: &[&'a ResourceRow]) -> Vec<ResourceDiscovery<'a>> {
    let mut found: BTreeMap<&str, ResourceDiscovery<'a>> = BTreeMap::new();
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| a.split().0.cmp(b.split().0));
    for row in sorted {
        let (name, subresource) = row.split();
        let scope = if row.namespaced { "Namespaced" } else { "Cluster" };
        let entry = found.entry(name).or_insert_with(|| ResourceDiscovery {
            resource: name,
            response_kind: None,
            scope,
            singular_resource: "",
            verbs: &[],
            short_names: &[],
            categories: &[],
            subresources: Vec::new(),
        });
        match subresource {
            Some(subresource) => {
                entry.subresources.push(Subresource {
                    subresource,
                    response_kind: response_kind(row),
                    verbs: &row.verbs,
                });
            }
            None => {
                entry.response_kind = Some(response_kind(row));
                entry.singular_resource = &row.singular;
                entry.verbs = &row.verbs;
                entry.short_names = &row.short_names;
                entry.categories = &row.categories;
            }
        }
    }
    found.into_values().collect()
}
