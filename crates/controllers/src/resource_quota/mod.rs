//! Counts what is used of ResourceQuotas. Upstream: `resourcequota-controller`.
//!
//! The admission plugin adds to a quota's usage before an object is written; this controller takes away what is gone,
//! and corrects the rest a little later.

mod calm;
mod plan;
mod tally;

use crate::Context;
use crate::support::{now, queue};
use api::core::v1::ResourceQuota;
use calm::Calm;
use client::controller::{Outcome, Writes, run as work};
use client::discovery::{Discovered, discover};
use client::informer::Index;
use client::{Client, Error, Informer, ObjectKey, Projection, Resource};
use parking_lot::RwLock;
use rules::quota::constrains;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tally::{Change, Tallies};

const WORKERS: usize = 5;
const BY_NAMESPACE: &str = "namespace";
/// How long new objects are not looked at: admission has counted them, and may be counting more.
const SETTLE: Duration = Duration::from_secs(1);
/// `--resource-quota-sync-period`.
const RESYNC: Duration = Duration::from_secs(300);
/// How long objects may take to be read for the first time.
const SYNC: Duration = Duration::from_secs(10);

/// What is kept of a quota: what it constrains, and whether all of that has been counted.
struct Facts {
    constrained: Vec<String>,
    counted: bool,
}

impl Projection for Facts {
    type Kind = ResourceQuota;

    fn project(quota: &ResourceQuota) -> Self {
        Facts {
            constrained: quota.spec.hard.keys().cloned().collect(),
            counted: quota.status.hard == quota.spec.hard,
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_NAMESPACE, |quota| vec![quota.namespace().to_owned()])]
    }
}

struct Loop {
    client: Client,
    quotas: Informer<Facts>,
    tallies: Tallies,
    writes: Writes<ObjectKey>,
    discovered: RwLock<Arc<Discovered>>,
    calm: Calm,
}

/// Runs until shutdown. Keys are quotas.
pub(crate) async fn run(context: Context) {
    let quotas: Informer<Facts> = context.informers.get();
    quotas.synced().await;
    let queue = queue();
    let calm = Calm::default();
    let (changed, noted) = (queue.clone(), calm.clone());
    quotas.subscribe(move |change| {
        let quota = change.object();
        let key = quota.key().clone();
        // What admission counts is not written yet: a count made now would take it away again.
        if matches!(change, client::informer::Change::Updated { .. }) && quota.counted {
            noted.charged(&key);
            changed.add_after(key, SETTLE);
        } else {
            noted.hurry(&key);
            changed.add(key);
        }
    });
    let (here, changed, noted) = (quotas.clone(), queue.clone(), calm.clone());
    let tallies = Tallies::new(client::source::of(&context.client), move |namespace, change| {
        for quota in here.by_index(BY_NAMESPACE, namespace) {
            match change {
                Change::Freed => {
                    noted.hurry(quota.key());
                    changed.add(quota.key().clone());
                }
                Change::Other => changed.add_after(quota.key().clone(), SETTLE),
            }
        }
    });
    let writes = Writes::default();
    let this = Arc::new(Loop {
        client: context.client,
        quotas,
        tallies,
        writes: writes.clone(),
        discovered: RwLock::default(),
        calm,
    });
    work("resourcequota_primary", queue, writes, WORKERS, context.shutdown, move |key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    })
    .await;
}

/// The resources that the names constrain, as far as they are known; and whether all are.
fn resources<'a>(
    discovered: &Discovered,
    names: impl Iterator<Item = &'a str>,
) -> (BTreeSet<Resource>, bool) {
    let countable: Vec<_> = discovered
        .preferred()
        .filter(|r| r.namespaced && ["create", "list", "watch", "delete"].iter().all(|v| r.supports(v)))
        .collect();
    let (mut found, mut all) = (BTreeSet::new(), true);
    for name in names {
        let of =
            |r: &&&client::discovery::ApiResource| constrains(name, &r.resource.group, &r.resource.resource);
        match countable.iter().find(of) {
            Some(resource) => drop(found.insert(resource.resource.clone())),
            None => all = false,
        }
    }
    (found, all)
}

impl Loop {
    /// The resources that quotas of the namespace constrain.
    async fn wanted(&self, namespace: &str) -> Result<BTreeSet<Resource>, Error> {
        let quotas = self.quotas.by_index(BY_NAMESPACE, namespace);
        let names = || quotas.iter().flat_map(|quota| &quota.constrained).map(String::as_str);
        let discovered = self.discovered.read().clone();
        let (found, all) = resources(&discovered, names());
        if all {
            return Ok(found);
        }
        // A name that is not known may be that of a new resource.
        let discovered = Arc::new(discover(&self.client).await?);
        *self.discovered.write() = discovered.clone();
        Ok(resources(&discovered, names()).0)
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let tallies = self.tallies.keep(&key.namespace, &self.wanted(&key.namespace).await?);
        let Some(cached) = self.quotas.get(key) else {
            self.calm.forget(key);
            return Ok(Outcome::Done);
        };
        if let Some(left) = self.calm.wait(key) {
            return Ok(Outcome::After(left));
        }
        let quota = cached.decode()?;
        let now = now();
        let mut counting = plan::Counting::new(&quota, now);
        for tally in &tallies {
            if tokio::time::timeout(SYNC, tally.synced()).await.is_err() {
                tracing::warn!(quota = %key, resource = %tally.resource, "could not be counted");
                continue;
            }
            counting.add(&tally.resource, tally.items.lock().values());
        }
        let next = counting.next.map(|at| at.unix() + 1 - now.unix());
        if let Some(status) = counting.status() {
            let mut changed = quota.clone();
            changed.status = status;
            match self.client.namespaced::<ResourceQuota>(&key.namespace).update_status(&changed).await {
                Ok(written) => self.writes.note(key, &self.quotas, &written.metadata.resource_version),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let next = next.map(|seconds| Duration::from_secs(seconds.max(1).unsigned_abs()));
        Ok(Outcome::After(next.unwrap_or(RESYNC).min(RESYNC)))
    }
}
