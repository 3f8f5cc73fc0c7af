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
use api::resource::v1::DeviceClass;
use calm::Calm;
use client::controller::{Outcome, Writes, run as work};
use client::discovery::served;
use client::discovery::{Discovered, discover};
use client::informer::Index;
use client::{Client, Error, Informer, ObjectKey, Projection, Resource};
use parking_lot::RwLock;
use rules::quota::devices::{self, DeviceClasses};
use rules::quota::{constrains, extended_request};
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

/// What is kept of a class of devices: the extended resource that it gives.
#[derive(PartialEq)]
struct Class {
    gives: Option<String>,
}

impl Projection for Class {
    type Kind = DeviceClass;

    fn project(class: &DeviceClass) -> Self {
        Class { gives: class.spec.extended_resource_name.clone() }
    }
}

struct Loop {
    client: Client,
    quotas: Informer<Facts>,
    /// Nothing where they are not served, or give no extended resources.
    classes: Option<Informer<Class>>,
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
    let give = context.gates.enabled("DRAExtendedResource");
    let classes = match give && served::<DeviceClass>(&context.client).await {
        true => Some(context.informers.get::<Class>()),
        false => None,
    };
    if let Some(classes) = &classes {
        classes.synced().await;
        let (here, changed) = (quotas.clone(), queue.clone());
        classes.subscribe(move |change| {
            if change.old().is_some_and(|old| old.projection == change.object().projection) {
                return;
            }
            // What claims use of extended resources is another thing now.
            for quota in here.list() {
                if quota.constrained.iter().any(|name| extended_request(name).is_some()) {
                    changed.add_after(quota.key().clone(), SETTLE);
                }
            }
        });
    }
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
        classes,
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
    classes: &DeviceClasses,
    names: impl Iterator<Item = &'a str>,
) -> (BTreeSet<Resource>, bool) {
    let countable: Vec<_> = discovered
        .preferred()
        .filter(|r| r.namespaced && ["create", "list", "watch", "delete"].iter().all(|v| r.supports(v)))
        .collect();
    let (mut found, mut all) = (BTreeSet::new(), true);
    for name in names {
        let constrained = countable.iter().map(|countable| &countable.resource);
        let mut constrained =
            constrained.filter(|r| constrains(name, &r.group, &r.resource, classes)).peekable();
        all &= constrained.peek().is_some();
        found.extend(constrained.cloned());
    }
    (found, all)
}

impl Loop {
    /// The resources that quotas of the namespace constrain.
    async fn wanted(&self, namespace: &str, classes: &DeviceClasses) -> Result<BTreeSet<Resource>, Error> {
        let quotas = self.quotas.by_index(BY_NAMESPACE, namespace);
        let names = || quotas.iter().flat_map(|quota| &quota.constrained).map(String::as_str);
        let discovered = self.discovered.read().clone();
        let (found, all) = resources(&discovered, classes, names());
        if all {
            return Ok(found);
        }
        // A name that is not known may be that of a new resource.
        let discovered = Arc::new(discover(&self.client).await?);
        *self.discovered.write() = discovered.clone();
        Ok(resources(&discovered, classes, names()).0)
    }

    /// The classes of devices, as they are now.
    fn classes(&self) -> DeviceClasses {
        let classes = self.classes.iter().flat_map(Informer::list);
        classes.map(|class| (class.name().to_owned(), class.gives.clone())).collect()
    }

    async fn reconcile(&self, key: &ObjectKey) -> Result<Outcome, Error> {
        let classes = self.classes();
        let wanted = self.wanted(&key.namespace, &classes).await?;
        let mut tallies = self.tallies.keep(&key.namespace, &wanted);
        // Claims to devices come when it is known what their pods are charged.
        tallies.sort_by_key(|tally| tally.resource.resource == devices::RESOURCE);
        let Some(cached) = self.quotas.get(key) else {
            self.calm.forget(key);
            return Ok(Outcome::Done);
        };
        if let Some(left) = self.calm.wait(key) {
            return Ok(Outcome::After(left));
        }
        let quota = cached.decode()?;
        let now = now();
        let mut counting = plan::Counting::new(&quota, &classes, now);
        for tally in &tallies {
            if tokio::time::timeout(SYNC, tally.synced()).await.is_err() {
                tracing::warn!(quota = %key, resource = %tally.resource, "could not be counted");
                counting.miss(&tally.resource);
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
