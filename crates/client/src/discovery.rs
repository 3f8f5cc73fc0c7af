//! Which resources a server has, from its aggregated discovery documents.

use crate::client::Client;
use crate::error::{Error, Result};
use crate::key::Resource;
use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use std::collections::HashSet;
use std::time::Duration;

/// A resource that the server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiResource {
    pub resource: Resource,
    pub kind: String,
    pub namespaced: bool,
    pub verbs: Vec<String>,
    /// Whether this is the version that the server prefers for it.
    pub preferred: bool,
}

impl ApiResource {
    /// `apps/v1`, as objects name it.
    pub fn api_version(&self) -> String {
        match self.resource.group.as_str() {
            "" => self.resource.version.clone(),
            group => format!("{group}/{}", self.resource.version),
        }
    }

    pub fn supports(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// What discovery found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Discovered {
    /// Every version of every resource.
    pub resources: Vec<ApiResource>,
    /// Versions of groups that their servers did not answer for, `group/version`.
    pub failed: Vec<String>,
}

impl Discovered {
    /// Each resource once, in the version that the server prefers.
    pub fn preferred(&self) -> impl Iterator<Item = &ApiResource> {
        self.resources.iter().filter(|resource| resource.preferred)
    }

    /// The resource of a kind.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&ApiResource> {
        self.resources.iter().find(|r| r.kind == kind && r.api_version() == api_version)
    }

    /// Why not everything was found, in client-go's words.
    pub fn failure(&self) -> Option<String> {
        if self.failed.is_empty() {
            return None;
        }
        let mut failed = self.failed.clone();
        failed.sort();
        let each: Vec<String> =
            failed.iter().map(|gv| format!("{gv}: stale GroupVersion discovery: {gv}")).collect();
        Some(format!("unable to retrieve the complete list of server APIs: {}", each.join(", ")))
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Group {
    metadata: Named,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Served>,
    #[serde(default)]
    freshness: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Served {
    resource: String,
    #[serde(default)]
    response_kind: Option<Kind>,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(default)]
    kind: String,
}

const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Asks the server what it serves.
pub async fn discover(client: &Client) -> Result<Discovered> {
    let mut discovered = Discovered::default();
    for path in ["/api", "/apis"] {
        let answer = client.raw_as(ACCEPT, Method::GET, path, &[], "", Bytes::new()).await?;
        read(path, &answer, &mut discovered)?;
    }
    Ok(discovered)
}

/// Until a server that did not say what it serves is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// Whether the server serves a kind that it may do without. Asks until there is an answer.
pub async fn served<K: api::Kind>(client: &Client) -> bool {
    loop {
        match serves(client, &Resource::of::<K>()).await {
            Ok(true) => return true,
            Ok(false) => {
                tracing::info!(kind = K::KIND, "is not served: nothing is done about it");
                return false;
            }
            Err(error) => tracing::warn!(kind = K::KIND, %error, "could not learn whether it is served"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Whether the server serves a resource in this very version.
pub async fn serves(client: &Client, resource: &Resource) -> Result<bool> {
    #[derive(Deserialize)]
    struct List {
        resources: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let answer = match client.raw(Method::GET, &path, &[], "", Bytes::new()).await {
        Err(error) if error.is_not_found() => return Ok(false),
        answer => answer?,
    };
    let list: List = serde_json::from_slice(&answer)
        .map_err(|source| Error::Decode { what: format!("the resources of {path}"), source })?;
    Ok(list.resources.iter().any(|named| named.name == resource.resource))
}

fn read(path: &str, answer: &[u8], discovered: &mut Discovered) -> Result<()> {
    let document: Document = serde_json::from_slice(answer)
        .map_err(|source| Error::Decode { what: format!("the resources of {path}"), source })?;
    for group in document.items {
        let name = group.metadata.name;
        // Versions are listed as the server prefers them.
        let mut seen = HashSet::new();
        for version in group.versions {
            if version.freshness == "Stale" {
                discovered.failed.push(match name.as_str() {
                    "" => version.version.clone(),
                    name => format!("{name}/{}", version.version),
                });
            }
            for served in version.resources {
                discovered.resources.push(ApiResource {
                    preferred: seen.insert(served.resource.clone()),
                    resource: Resource::new(&name, &version.version, &served.resource),
                    kind: served.response_kind.map(|kind| kind.kind).unwrap_or_default(),
                    namespaced: served.scope == "Namespaced",
                    verbs: served.verbs,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(document: &str, expected: Expect) {
        let mut discovered = Discovered::default();
        read("/apis", document.as_bytes(), &mut discovered).unwrap();
        let mut text = String::new();
        for r in &discovered.resources {
            let mark = if r.preferred { " preferred" } else { "" };
            let scope = if r.namespaced { "namespaced" } else { "cluster" };
            text += &format!("{} {} {scope} {}{mark}\n", r.resource, r.kind, r.verbs.join(","));
        }
        text += &discovered.failure().unwrap_or_default();
        expected.assert_eq(&text);
    }

    #[test]
    fn the_first_version_that_has_a_resource_is_preferred() {
        check(
            r#"{"items":[
                {"metadata":{"name":"a.io"},"versions":[
                    {"version":"v1","freshness":"Current","resources":[
                        {"resource":"xs","responseKind":{"group":"","version":"","kind":"X"},"scope":"Namespaced","verbs":["get","list"]}]},
                    {"version":"v1beta1","freshness":"Current","resources":[
                        {"resource":"xs","responseKind":{"kind":"X"},"scope":"Namespaced","verbs":["get"]},
                        {"resource":"ys","responseKind":{"kind":"Y"},"scope":"Cluster","verbs":["delete"]}]}]},
                {"metadata":{"name":"metrics.k8s.io"},"versions":[{"version":"v1beta1","freshness":"Stale"}]}]}"#,
            expect![[r#"
                a.io/v1/xs X namespaced get,list preferred
                a.io/v1beta1/xs X namespaced get
                a.io/v1beta1/ys Y cluster delete preferred
                unable to retrieve the complete list of server APIs: metrics.k8s.io/v1beta1: stale GroupVersion discovery: metrics.k8s.io/v1beta1"#]],
        );
    }
}
