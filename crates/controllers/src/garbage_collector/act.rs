//! The requests: objects looked at, deleted, let go.

use super::graph::View;
use super::names::{Coordinates, Uid};
use super::plan::{FOREGROUND, ORPHAN, OwnerState, Step, decide};
use super::resources::Mapping;
use super::world::World;
use apimachinery::json;
use apimachinery::meta::options::{DeleteOptions, Preconditions};
use apimachinery::meta::{ObjectMeta, OwnerReference};
use apimachinery::value::Value;
use client::client::Dynamic;
use client::metadata::Partial;
use client::{Client, Patch, PatchParams};
use futures::FutureExt as _;
use std::sync::Arc;

/// How often a finalizer is taken off in the face of conflicts before the object has to wait.
const CONFLICTS: usize = 4;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Api(#[from] client::Error),
    #[error("unable to get REST mapping for {0}/{1}.")]
    UnknownKind(String, String),
    #[error("a cluster-scoped object names an owner in a namespace")]
    NamespacedOwner,
    #[error("the object was not seen yet")]
    Unseen,
    #[error("the finalizer {0} could not be removed for conflicts")]
    Conflicts(&'static str),
}

/// What came of looking at an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Looked {
    Done,
    /// The server has no such object.
    Absent,
}

pub(super) struct Act {
    pub client: Client,
    pub world: Arc<World>,
}

impl Act {
    fn mapping(&self, at: &Coordinates) -> Result<Mapping, Error> {
        let (api_version, kind) = (&at.kind.api_version, &at.kind.kind);
        let found = self.world.resources.of_kind(api_version, kind);
        found.ok_or_else(|| Error::UnknownKind(api_version.clone(), kind.clone()))
    }

    fn objects(&self, mapping: &Mapping, namespace: &str) -> Dynamic {
        let namespace = mapping.namespaced.then_some(namespace);
        self.client.resource(mapping.resource.clone(), namespace)
    }

    fn at(&self, at: &Coordinates) -> Result<Dynamic, Error> {
        let mapping = self.mapping(at)?;
        if mapping.namespaced && at.namespace.is_empty() {
            return Err(Error::NamespacedOwner);
        }
        Ok(self.objects(&mapping, &at.namespace))
    }

    /// The object as it is now.
    async fn get(&self, at: &Coordinates) -> Result<Option<ObjectMeta>, Error> {
        match self.at(at)?.get::<Partial>(&at.name, None).await {
            Ok(object) => Ok(Some(object.metadata)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes the object if nothing keeps it.
    pub(super) async fn look(&self, view: &View) -> Result<Looked, Error> {
        // From here on the object only goes; its dependents are looked at when it is gone.
        if view.deleting && !view.deleting_dependents {
            return Ok(Looked::Done);
        }
        let at = &view.at;
        let latest = match self.get(at).await? {
            Some(latest) if Uid::from(latest.uid.as_str()) == at.uid => latest,
            _ => return Ok(Looked::Absent),
        };
        if view.deleting_dependents {
            return self.finish(view).await.map(|()| Looked::Done);
        }
        let mut owners = Vec::new();
        for reference in &latest.owner_references {
            owners.push((reference, self.owner(reference, at).await?));
        }
        if owners.is_empty() {
            return Ok(Looked::Done);
        }
        let dependents: Vec<bool> =
            self.world.graph.lock().dependents(&at.uid).iter().map(|view| view.deleting_dependents).collect();
        match decide(&latest, &owners, &dependents) {
            Step::Keep => {}
            Step::DropReferences(uids) => self.drop_references(at, &uids).await?,
            Step::Delete { policy, unblock } => {
                if unblock {
                    self.unblock(at, &latest).await?;
                }
                // Unblocking changed the version that was looked at.
                let version = (!unblock).then_some(latest.resource_version.as_str());
                match self.delete(at, version, &latest.owner_references, policy).await {
                    Err(Error::Api(error)) if error.is_not_found() => {}
                    done => done?,
                }
            }
        }
        Ok(Looked::Done)
    }

    async fn owner(&self, reference: &OwnerReference, item: &Coordinates) -> Result<OwnerState, Error> {
        let mut at = {
            let mut graph = self.world.graph.lock();
            let at = Coordinates {
                kind: graph.names.kind(&reference.api_version, &reference.kind),
                namespace: item.namespace.clone(),
                name: reference.name.as_str().into(),
                uid: reference.uid.as_str().into(),
            };
            let anywhere = Coordinates { namespace: "".into(), ..at.clone() };
            if graph.absent.contains(&at) || graph.absent.contains(&anywhere) {
                return Ok(OwnerState::Dangling);
            }
            at
        };
        if !self.mapping(&at)?.namespaced {
            at.namespace = "".into();
        }
        match self.get(&at).await? {
            Some(owner) if owner.uid == reference.uid => Ok(OwnerState::of(&owner)),
            _ => {
                self.world.graph.lock().absent.add(at);
                Ok(OwnerState::Dangling)
            }
        }
    }

    /// An object that is deleted in the foreground goes when nothing blocks it.
    async fn finish(&self, view: &View) -> Result<(), Error> {
        let blocking = self.world.graph.lock().blocking(&view.at.uid);
        if blocking.is_empty() {
            return self.remove_finalizer(&view.at, FOREGROUND).await;
        }
        for dependent in blocking.into_iter().filter(|dependent| !dependent.deleting_dependents) {
            self.world.delete.add(dependent.at.uid);
        }
        Ok(())
    }

    async fn delete(
        &self,
        at: &Coordinates,
        version: Option<&str>,
        owners: &[OwnerReference],
        policy: &str,
    ) -> Result<(), Error> {
        let objects = self.at(at)?;
        let options = |version: Option<&str>| DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(at.uid.to_string()),
                resource_version: version.map(Into::into),
            }),
            propagation_policy: Some(policy.into()),
            ..Default::default()
        };
        match objects.delete(&at.name, &options(version)).await {
            Err(error) if error.is_conflict() && version.is_some() => {
                let Some(live) = self.get(at).await? else { return Ok(()) };
                let same = Uid::from(live.uid.as_str()) == at.uid && live.owner_references == owners;
                if !same {
                    return Err(error.into());
                }
                // Changes that do not concern the owners must not keep it alive.
                objects.delete(&at.name, &options(None)).await?;
                Ok(())
            }
            done => Ok(done.map(drop)?),
        }
    }

    /// A strategic-merge patch, or what amounts to it where the resource knows only JSON merge patches.
    async fn patch(
        &self,
        at: &Coordinates,
        strategic: Value,
        merge: impl Fn(ObjectMeta) -> Value,
    ) -> Result<(), Error> {
        let objects = self.at(at)?;
        let params = PatchParams::default();
        let patched: client::Result<Partial> =
            objects.patch(&at.name, None, &Patch::Strategic(strategic), &params).await;
        match patched {
            Err(error) if error.code() == Some(415) => {}
            done => return Ok(done.map(drop)?),
        }
        let Some(live) = self.get(at).await? else { return Ok(()) };
        let patched: client::Result<Partial> =
            objects.patch(&at.name, None, &Patch::Merge(merge(live)), &params).await;
        Ok(patched.map(drop)?)
    }

    async fn drop_references(&self, at: &Coordinates, uids: &[String]) -> Result<(), Error> {
        let gone: Vec<Value> = uids.iter().map(|uid| json!({"$patch": "delete", "uid": uid})).collect();
        let strategic = json!({"metadata": {"ownerReferences": gone, "uid": at.uid.to_string()}});
        self.patch(at, strategic, |live| {
            let kept: Vec<_> =
                live.owner_references.iter().filter(|owner| !uids.contains(&owner.uid)).collect();
            json!({"metadata": {"resourceVersion": live.resource_version, "ownerReferences": kept}})
        })
        .await
    }

    /// Lets the object block none of its owners.
    async fn unblock(&self, at: &Coordinates, latest: &ObjectMeta) -> Result<(), Error> {
        let freed = |owners: &[OwnerReference]| -> Vec<OwnerReference> {
            let free = |owner: &OwnerReference| OwnerReference {
                block_owner_deletion: Some(false),
                ..owner.clone()
            };
            owners.iter().map(free).collect()
        };
        let blocking: Vec<OwnerReference> = latest
            .owner_references
            .iter()
            .filter(|owner| owner.block_owner_deletion == Some(true))
            .cloned()
            .collect();
        let strategic = json!({"metadata": {"ownerReferences": freed(&blocking), "uid": at.uid.to_string()}});
        self.patch(at, strategic, |live| {
            let owners = freed(&live.owner_references);
            json!({"metadata": {"resourceVersion": live.resource_version, "ownerReferences": owners}})
        })
        .await
    }

    async fn remove_finalizer(&self, at: &Coordinates, finalizer: &'static str) -> Result<(), Error> {
        for _ in 0..CONFLICTS {
            let Some(live) = self.get(at).await? else { return Ok(()) };
            let held = live.finalizers.iter().any(|f| f == finalizer);
            if !held || Uid::from(live.uid.as_str()) != at.uid {
                return Ok(());
            }
            let rest: Vec<_> = live.finalizers.iter().filter(|f| *f != finalizer).collect();
            let patch = json!({"metadata": {"resourceVersion": live.resource_version, "finalizers": rest}});
            let patched: client::Result<Partial> =
                self.at(at)?.patch(&at.name, None, &Patch::Merge(patch), &PatchParams::default()).await;
            match patched {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if !error.is_conflict() => return Err(error.into()),
                Err(_) => {}
            }
        }
        Err(Error::Conflicts(finalizer))
    }

    /// Lets the dependents of an object go, then the object.
    pub(super) async fn orphan(&self, view: &View) -> Result<(), Error> {
        let owner = view.at.uid.to_string();
        let dependents = self.world.graph.lock().dependents(&view.at.uid);
        let uids = std::slice::from_ref(&owner);
        let each: Vec<_> =
            dependents.iter().map(|dependent| self.drop_references(&dependent.at, uids).boxed()).collect();
        for done in futures::future::join_all(each).await {
            match done {
                Err(Error::Api(error)) if error.is_not_found() => {}
                done => done?,
            }
        }
        self.remove_finalizer(&view.at, ORPHAN).await
    }
}
