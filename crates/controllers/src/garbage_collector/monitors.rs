//! A monitor per resource: it follows the metadata of all its objects into the graph. Resources come and go with their
//! definitions, which are monitored like everything else.

use super::graph::Seen;
use super::names::{KindName, Uid};
use super::world::World;
use apimachinery::meta::OwnerReference;
use client::discovery::{ApiResource, Discovered};
use client::source::{Feed, Query, Raw, Source};
use client::{ObjectKey, Resource};
use futures::StreamExt as _;
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

/// Not worth a place in the graph: they own nothing, and go by themselves.
const IGNORED: [(&str, &str); 2] = [("", "events"), ("events.k8s.io", "events")];
/// Whose objects decide which resources there are.
const DEFINING: [(&str, &str); 2] =
    [("apiextensions.k8s.io", "customresourcedefinitions"), ("apiregistration.k8s.io", "apiservices")];
/// How long a feed that failed is left alone.
const PAUSE: Duration = Duration::from_secs(1);

fn is_among(list: &[(&str, &str)], resource: &Resource) -> bool {
    list.iter().any(|(group, name)| resource.group == *group && resource.resource == *name)
}

/// No more than the graph needs is read of an object.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
    #[serde(borrow, default)]
    finalizers: Option<Vec<Cow<'a, str>>>,
}

fn read(raw: &Raw) -> Option<(ObjectKey, Uid, Seen)> {
    let head: Head = match serde_json::from_slice(&raw.bytes) {
        Ok(head) => head,
        Err(error) => {
            tracing::error!(object = %raw.key, %error, "skipping an object that cannot be read");
            return None;
        }
    };
    let metadata = head.metadata;
    let finalizers = metadata.finalizers.unwrap_or_default();
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    let seen = Seen {
        deleting: metadata.deletion_timestamp.is_some(),
        foreground: has(super::plan::FOREGROUND),
        orphan: has(super::plan::ORPHAN),
        owners: metadata.owner_references.unwrap_or_default(),
    };
    Some((raw.key.clone(), Uid::from(&*metadata.uid), seen))
}

struct Monitor {
    task: AbortHandle,
    kind: Arc<KindName>,
    synced: watch::Receiver<bool>,
}

pub(super) struct Monitors {
    world: Arc<World>,
    source: Arc<dyn Source>,
    running: HashMap<Resource, Monitor>,
    /// A definition changed.
    pub(super) definitions: Arc<Notify>,
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.running.values().for_each(|monitor| monitor.task.abort());
    }
}

impl Monitors {
    pub(super) fn new(world: Arc<World>, source: Arc<dyn Source>) -> Self {
        Monitors { world, source, running: HashMap::new(), definitions: Arc::default() }
    }

    /// Starts and ends monitors as resources come and go. Returns whether there are new ones.
    pub(super) fn update(&mut self, discovered: &Discovered) -> bool {
        let followed = |resource: &&ApiResource| {
            ["delete", "list", "watch"].iter().all(|verb| resource.supports(verb))
                && !is_among(&IGNORED, &resource.resource)
        };
        let wanted: HashMap<&Resource, &ApiResource> =
            discovered.preferred().filter(followed).map(|found| (&found.resource, found)).collect();
        let unknown = |resource: &Resource| {
            let api_version = match resource.group.as_str() {
                "" => resource.version.clone(),
                group => format!("{group}/{}", resource.version),
            };
            discovered.failed.contains(&api_version)
        };
        let world = &self.world;
        self.running.retain(|resource, monitor| {
            let stays = wanted.contains_key(resource) || unknown(resource);
            if !stays {
                monitor.task.abort();
                world.change(|graph| graph.retain(&monitor.kind, &HashSet::new()));
            }
            stays
        });
        let before = self.running.len();
        for (resource, found) in wanted {
            if !self.running.contains_key(resource) {
                let monitor = self.start(found);
                self.running.insert(resource.clone(), monitor);
            }
        }
        self.running.len() > before
    }

    fn start(&self, found: &ApiResource) -> Monitor {
        let kind = self.world.graph.lock().names.kind(&found.api_version(), &found.kind);
        let (told, synced) = watch::channel(false);
        let follow = Follow {
            world: self.world.clone(),
            source: self.source.clone(),
            resource: found.resource.clone(),
            kind: kind.clone(),
            definitions: is_among(&DEFINING, &found.resource).then(|| self.definitions.clone()),
            told,
        };
        Monitor { task: tokio::spawn(follow.run()).abort_handle(), kind, synced }
    }

    /// Waits until every monitor has seen what there is.
    pub(super) async fn synced(&self) {
        for monitor in self.running.values() {
            // A monitor that ended has nothing to say any more.
            let _ = monitor.synced.clone().wait_for(|synced| *synced).await;
        }
    }
}

struct Follow {
    world: Arc<World>,
    source: Arc<dyn Source>,
    resource: Resource,
    kind: Arc<KindName>,
    definitions: Option<Arc<Notify>>,
    told: watch::Sender<bool>,
}

impl Follow {
    async fn run(self) {
        loop {
            let mut feeds = self.source.open(Query::all(self.resource.clone()));
            loop {
                match feeds.next().await {
                    Some(Ok(feeds)) => feeds.into_iter().for_each(|feed| self.take(feed)),
                    Some(Err(error)) => {
                        tracing::debug!(resource = %self.resource, %error, "following a resource failed");
                        break;
                    }
                    None => break,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn put(&self, raw: &Raw) -> Option<Uid> {
        let (key, uid, seen) = read(raw)?;
        self.world.change(|graph| graph.put(&self.kind, &key, uid.clone(), seen));
        Some(uid)
    }

    fn take(&self, feed: Feed) {
        match feed {
            Feed::Snapshot { objects, .. } => {
                let present: HashSet<Uid> = objects.iter().filter_map(|raw| self.put(raw)).collect();
                self.world.change(|graph| graph.retain(&self.kind, &present));
                self.told.send_replace(true);
            }
            Feed::Put(raw) => drop(self.put(&raw)),
            Feed::Delete(raw) => {
                if let Some((_, uid, _)) = read(&raw) {
                    self.world.change(|graph| graph.remove(&uid));
                }
            }
            Feed::Progress(_) => return,
        }
        if let Some(definitions) = &self.definitions {
            definitions.notify_one();
        }
    }
}
