//! The size of what is scaled, through the `scale` subresource of any kind that has one.

use api::autoscaling::v1::Scale;
use api::autoscaling::v2::CrossVersionObjectReference;
use apimachinery::value::Value;
use bytes::Bytes;
use client::{Client, Resource, Result};
use http::Method;

/// The resource of a kind, as discovery says; none if there is no such kind.
pub(super) async fn resource(client: &Client, api_version: &str, kind: &str) -> Result<Option<Resource>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let listed = match client.request::<Value>(Method::GET, &path, &[], "", Bytes::new()).await {
        Ok(listed) => listed,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut resources = listed["resources"].as_array().into_iter().flatten();
    let name = resources.find_map(|resource| {
        let name = resource["name"].as_str()?;
        (resource["kind"] == kind && !name.contains('/')).then(|| name.to_owned())
    });
    Ok(name.map(|name| Resource::new(group, version, &name)))
}

/// The scale of a target, and its resource.
pub(super) async fn get(
    client: &Client,
    namespace: &str,
    target: &CrossVersionObjectReference,
) -> std::result::Result<(Resource, Scale), String> {
    let version = if target.api_version.is_empty() { "v1" } else { &target.api_version };
    let found = resource(client, version, &target.kind).await.map_err(|error| error.to_string())?;
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let Some(found) = found else {
        return Err(format!("no matches for kind {:?} in group {group:?}", target.kind));
    };
    let scale = client.resource(found.clone(), Some(namespace)).get(&target.name, Some("scale")).await;
    Ok((found, scale.map_err(|error| error.to_string())?))
}

/// Writes a size; a scale that changed meanwhile is read again.
pub(super) async fn set(
    client: &Client,
    namespace: &str,
    resource: &Resource,
    mut scale: Scale,
    size: i32,
) -> Result<()> {
    let api = client.resource(resource.clone(), Some(namespace));
    let name = scale.metadata.name.clone();
    loop {
        scale.spec.replicas = size;
        match api.update::<_, Scale>(&name, Some("scale"), &scale).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_conflict() => scale = api.get(&name, Some("scale")).await?,
            Err(error) => return Err(error),
        }
    }
}
