//! Counts the objects of a namespace that its quotas constrain, as long as they do: nothing is kept of others.

use super::plan::{Item, read};
use crate::support::now;
use client::source::{Feed, Query, Raw, Source};
use client::{ObjectKey, Resource};
use futures::StreamExt as _;
use parking_lot::Mutex;
use rules::quota::Usage;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;

const PAUSE: Duration = Duration::from_secs(1);

/// What a change may mean to a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Something is free again.
    Freed,
    Other,
}

type Told = Arc<dyn Fn(&str, Change) + Send + Sync>;

/// The objects of one resource in one namespace.
pub(super) struct Tally {
    pub resource: Resource,
    pub items: Mutex<HashMap<ObjectKey, Item>>,
    synced: watch::Sender<bool>,
}

impl Tally {
    pub(super) async fn synced(&self) {
        // The sender lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    fn put(&self, raw: &Raw, last: &mut Arc<Usage>) -> Option<Change> {
        let mut item = match read(&self.resource, raw, now()) {
            Ok(item) => item,
            Err(error) => {
                tracing::error!(object = %raw.key, %error, "an object is not counted");
                return None;
            }
        };
        item.share(last);
        let runs = item.runs();
        let before = self.items.lock().insert(raw.key.clone(), item);
        let ended = before.is_some_and(|before| before.runs()) && !runs;
        Some(if ended { Change::Freed } else { Change::Other })
    }

    async fn run(self: Arc<Self>, source: Arc<dyn Source>, namespace: String, told: Told) {
        let mut last = Arc::new(Usage::new());
        loop {
            let query = Query::all(self.resource.clone()).in_namespace(namespace.clone());
            let mut feeds = source.open(query);
            while let Some(Ok(batch)) = feeds.next().await {
                for feed in batch {
                    let change = match feed {
                        Feed::Snapshot { objects, .. } => {
                            self.items.lock().clear();
                            for raw in &objects {
                                self.put(raw, &mut last);
                            }
                            self.synced.send_replace(true);
                            Some(Change::Other)
                        }
                        Feed::Put(raw) => self.put(&raw, &mut last),
                        Feed::Delete(raw) => self.items.lock().remove(&raw.key).map(|_| Change::Freed),
                        Feed::Progress(_) => None,
                    };
                    change.into_iter().for_each(|change| told(&namespace, change));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// All tallies that are needed.
pub(super) struct Tallies {
    source: Arc<dyn Source>,
    told: Told,
    running: Mutex<HashMap<String, Vec<(Arc<Tally>, AbortHandle)>>>,
}

impl Tallies {
    pub(super) fn new(source: Arc<dyn Source>, told: impl Fn(&str, Change) + Send + Sync + 'static) -> Self {
        Tallies { source, told: Arc::new(told), running: Mutex::default() }
    }

    /// Keeps tallies of these resources in the namespace, and of no others.
    pub(super) fn keep(&self, namespace: &str, wanted: &BTreeSet<Resource>) -> Vec<Arc<Tally>> {
        let mut running = self.running.lock();
        let here = running.entry(namespace.to_owned()).or_default();
        here.retain(|(tally, task)| {
            let stays = wanted.contains(&tally.resource);
            if !stays {
                task.abort();
            }
            stays
        });
        for resource in wanted {
            if !here.iter().any(|(tally, _)| tally.resource == *resource) {
                let tally = Arc::new(Tally {
                    resource: resource.clone(),
                    items: Mutex::default(),
                    synced: watch::Sender::new(false),
                });
                let run = tally.clone().run(self.source.clone(), namespace.to_owned(), self.told.clone());
                here.push((tally, tokio::spawn(run).abort_handle()));
            }
        }
        let tallies = here.iter().map(|(tally, _)| tally.clone()).collect();
        if here.is_empty() {
            running.remove(namespace);
        }
        tallies
    }
}

impl Drop for Tallies {
    fn drop(&mut self) {
        self.running.lock().values().flatten().for_each(|(_, task)| task.abort());
    }
}
