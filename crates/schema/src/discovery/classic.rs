//! The unaggregated documents: `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use super::{Group, Resources, Version, group_version, is_empty, storage_version_hash, to_json};
use crate::row::{ResourceRow, Str};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiVersions<'a> {
    kind: &'static str,
    versions: Vec<&'a str>,
    #[serde(rename = "serverAddressByClientCIDRs")]
    addresses: [ServerAddress<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServerAddress<'a> {
    #[serde(rename = "clientCIDR")]
    client_cidr: &'static str,
    server_address: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion<'a> {
    group_version: String,
    version: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroup<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    name: &'a str,
    versions: Vec<GroupVersion<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_version: Option<GroupVersion<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiGroupList<'a> {
    kind: &'static str,
    api_version: &'static str,
    groups: Vec<ApiGroup<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceList<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    group_version: String,
    resources: Vec<ApiResource<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource<'a> {
    name: &'a str,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    kind: &'a str,
    verbs: &'a [Str],
    #[serde(skip_serializing_if = "is_empty")]
    short_names: &'a [Str],
    #[serde(skip_serializing_if = "is_empty")]
    categories: &'a [Str],
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

/// `/api`; `server_address` is the host and port that clients outside reach.
pub fn api_versions(core: &Group<'_>, server_address: &str) -> Vec<u8> {
    to_json(&ApiVersions {
        kind: "APIVersions",
        versions: core.versions.iter().map(|v| v.version).collect(),
        addresses: [ServerAddress { client_cidr: "0.0.0.0/0", server_address }],
    })
}

fn api_group<'a>(group: &'a Group<'_>) -> ApiGroup<'a> {
    let version = |v: &Version<'a>| GroupVersion {
        group_version: group_version(group.name, v.version),
        version: v.version,
    };
    ApiGroup {
        kind: None,
        api_version: None,
        name: group.name,
        versions: group.versions.iter().map(version).collect(),
        preferred_version: group.versions.first().map(version),
    }
}

/// `/apis`; the core group has no place in it and is passed over.
pub fn group_list(groups: &[Group<'_>]) -> Vec<u8> {
    let groups = groups.iter().filter(|g| !g.name.is_empty()).map(api_group).collect();
    to_json(&ApiGroupList { kind: "APIGroupList", api_version: "v1", groups })
}

/// `/apis/apps`.
pub fn group(group: &Group<'_>) -> Vec<u8> {
    to_json(&ApiGroup { kind: Some("APIGroup"), api_version: Some("v1"), ..api_group(group) })
}

/// `/api/v1`, `/apis/apps/v1`. None for the version of another server, which answers for itself.
pub fn resource_list(group: &str, version: &Version<'_>) -> Option<Vec<u8>> {
    let Resources::Rows(rows) = &version.resources else { return None };
    let mut rows = rows.clone();
    // Subresources stay in the order in which they are told of: of custom kinds it is not that of their names.
    rows.sort_by(|a, b| a.split().0.cmp(b.split().0));
    Some(to_json(&ApiResourceList {
        kind: "APIResourceList",
        // The core group's document never had one.
        api_version: (!group.is_empty()).then_some("v1"),
        group_version: group_version(group, version.version),
        resources: rows.into_iter().map(resource).collect(),
    }))
}

fn resource(row: &ResourceRow) -> ApiResource<'_> {
    let subresource = row.resource.contains('/');
    ApiResource {
        name: &row.resource,
        singular_name: if subresource { "" } else { &row.singular },
        namespaced: row.namespaced,
        group: row.kind_group_version.as_ref().map(|(group, _)| &**group),
        version: row.kind_group_version.as_ref().map(|(_, version)| &**version),
        kind: &row.kind,
        verbs: &row.verbs,
        short_names: &row.short_names,
        categories: &row.categories,
        storage_version_hash: if subresource { None } else { storage_version_hash(row) },
    }
}
