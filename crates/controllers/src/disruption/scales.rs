//! How many pods the controllers of some pods want together, asked of the server: of Deployments, ReplicaSets and the
//! like, and of anything else that has a scale.

use super::plan::{PodRef, Scale};
use api::apps::v1::{Deployment, ReplicaSet};
use api::autoscaling::v1::Scale as ScaleObject;
use api::core::v1::Pod;
use apimachinery::meta::OwnerReference;
use apimachinery::value::Value;
use client::{Client, Resource};
use std::collections::BTreeMap;

/// Why the number is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("found no controllers for pod {0:?}")]
    NoController(String),
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
    #[error("no matches for kind {0:?} in version {1:?}")]
    NoKind(String, String),
}

pub(super) async fn expected(client: &Client, pods: &[PodRef]) -> Result<Scale, Error> {
    let mut scales: BTreeMap<String, i32> = BTreeMap::new();
    let mut asked: Vec<String> = Vec::new();
    let mut unmanaged = false;
    for pod in pods {
        let Some(controller) = &pod.controller else {
            unmanaged = true;
            continue;
        };
        // Pods of a kind share their controller: it is asked once.
        if asked.contains(&controller.uid) {
            continue;
        }
        asked.push(controller.uid.clone());
        let whole: Pod = pod.decode()?;
        let owner = whole.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let found = match owner {
            Some(owner) => scale(client, pod.namespace(), owner).await?,
            None => None,
        };
        let (uid, replicas) = found.ok_or_else(|| Error::NoController(pod.name().to_owned()))?;
        scales.insert(uid, replicas);
    }
    Ok(Scale { expected: scales.values().sum(), unmanaged })
}

/// Uid and size of what controls a pod.
async fn scale(
    client: &Client,
    namespace: &str,
    owner: &OwnerReference,
) -> Result<Option<(String, i32)>, Error> {
    if owner.kind == "ReplicaSet" && owner.api_version.starts_with("apps/") {
        let Some(set) = client.namespaced::<ReplicaSet>(namespace).get_opt(&owner.name).await? else {
            return Ok(None);
        };
        if set.metadata.uid != owner.uid {
            return Ok(None);
        }
        // The Deployment above knows better, also in the middle of a rollout.
        let above = set.metadata.owner_references.iter().find(|o| o.controller == Some(true));
        if let Some(above) = above.filter(|above| above.kind == "Deployment") {
            let deployment = client.namespaced::<Deployment>(namespace).get_opt(&above.name).await?;
            let deployment = deployment.filter(|deployment| deployment.metadata.uid == above.uid);
            return Ok(deployment.map(|d| (d.metadata.uid, d.spec.replicas.unwrap_or(1))));
        }
        return Ok(Some((set.metadata.uid, set.spec.replicas.unwrap_or(1))));
    }
    let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
    let resource = resource(client, group, version, &owner.kind).await?;
    let Some((resource, scales)) = resource else {
        return Err(Error::NoKind(owner.kind.clone(), owner.api_version.clone()));
    };
    if !scales {
        let name =
            if group.is_empty() { resource.resource } else { format!("{}.{group}", resource.resource) };
        return Err(Error::NoScale(name));
    }
    let scale: Result<ScaleObject, _> =
        client.resource(resource, Some(namespace)).get(&owner.name, Some("scale")).await;
    match scale {
        Ok(scale) if scale.metadata.uid == owner.uid => Ok(Some((scale.metadata.uid, scale.spec.replicas))),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The resource of a kind, and whether it has a scale, as discovery says.
async fn resource(
    client: &Client,
    group: &str,
    version: &str,
    kind: &str,
) -> Result<Option<(Resource, bool)>, Error> {
    let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let listed = client.request::<Value>(http::Method::GET, &path, &[], "", bytes::Bytes::new()).await;
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let resources: Vec<&Value> = listed["resources"].as_array().into_iter().flatten().collect();
    let name = resources.iter().find_map(|r| {
        let name = r["name"].as_str()?;
        (r["kind"] == kind && !name.contains('/')).then(|| name.to_owned())
    });
    Ok(name.map(|name| {
        let scale = format!("{name}/scale");
        let scales = resources.iter().any(|r| r["name"] == scale.as_str());
        (Resource::new(group, version, &name), scales)
    }))
}
