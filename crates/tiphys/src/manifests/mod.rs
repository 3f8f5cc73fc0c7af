//! `--manifests`: what the files of a directory declare is applied at start, when a file changes, and when somebody
//! changes what was declared. In: the directory. Out: server-side applies.
//!
//! A key is an object; it is applied again when its declaration is new or its object is not as the last apply left it. An
//! object that no file declares any more stays as it is.

mod documents;

use anyhow::{Context as _, Result};
use apimachinery::meta::ObjectMeta;
use client::controller::{self, Outcome, Writes};
use client::discovery::{ApiResource, discover};
use client::metadata::Partial;
use client::params::{Patch, PatchParams};
use client::queue::{Backoff, Queue};
use client::source::{self, Feed, Query, Raw};
use client::{Client, Error};
use documents::{Declared, Key};
use futures::StreamExt as _;
use kubelet::file_watch::{FileWatch, WatchFlags};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};

/// The owner of the fields.
const MANAGER: &str = "tiphys-manifests";
/// Kinds and namespaces that are declared beside what needs them are there soon.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(100), max: Duration::from_secs(30) };
/// How long somebody else's change stands: two who do not agree are no busier than that.
const STANDS: Duration = Duration::from_secs(1);

/// What is compared of an object: all but its status, as far as its kind counts generations.
#[derive(Debug, Clone, PartialEq)]
struct Mark {
    uid: String,
    generation: Option<i64>,
    /// Of kinds that do not.
    resource_version: Option<String>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Mark {
    fn of(meta: ObjectMeta, resource_version: String) -> Self {
        let generation = Some(meta.generation).filter(|generation| *generation != 0);
        Mark {
            uid: meta.uid,
            resource_version: generation.is_none().then_some(resource_version),
            generation,
            labels: meta.labels.into_iter().collect(),
            annotations: meta.annotations.into_iter().collect(),
        }
    }
}

/// An object that is kept applied.
struct Kept {
    declared: Declared,
    /// As it was after the last apply.
    mark: Option<Mark>,
    /// Ends the look at the object.
    watch: Option<DropGuard>,
}

struct World {
    client: Client,
    queue: Queue<Key>,
    kept: Mutex<BTreeMap<Key, Kept>>,
    served: Mutex<Vec<ApiResource>>,
    shutdown: CancellationToken,
}

/// See the module.
pub(crate) struct Manifests {
    directory: PathBuf,
    watch: FileWatch,
    /// Each file's text, and what it was last known to declare.
    files: BTreeMap<PathBuf, (String, Vec<Declared>)>,
}

impl Manifests {
    /// Those of a directory. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When there is no such directory, or it cannot be watched.
    pub(crate) fn of(directory: &Path) -> Result<Self> {
        let told = || format!("--manifests {}", directory.display());
        std::fs::read_dir(directory).with_context(told)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO;
        let watch = FileWatch::new(&[(directory, flags)]).with_context(told)?;
        Ok(Manifests { directory: directory.to_owned(), watch, files: BTreeMap::new() })
    }

    /// Has a client apply them until `shutdown`.
    pub(crate) async fn run(mut self, client: Client, shutdown: CancellationToken) {
        let (kept, served) = (Mutex::default(), Mutex::default());
        let queue = Queue::new(BACKOFF);
        let world = Arc::new(World { client, queue, kept, served, shutdown: shutdown.clone() });
        let queue = world.queue.clone();
        let applying = world.clone();
        let reconcile = move |key| {
            let world = applying.clone();
            async move { world.apply(key).await }
        };
        let applying = controller::run(MANAGER, queue, Writes::default(), 1, shutdown, reconcile);
        let reading = async {
            loop {
                match self.look() {
                    Ok(()) => self.tell(&world),
                    Err(error) => {
                        tracing::error!(directory = %self.directory.display(), %error, "manifests cannot be read");
                    }
                }
                if let Err(error) = self.watch.changed().await {
                    tracing::error!(directory = %self.directory.display(), %error, "manifests are no longer watched");
                    return std::future::pending().await;
                }
            }
        };
        tokio::select! {
            () = applying => {}
            () = reading => {}
        }
    }

    /// Reads what changed. A file that cannot be read declares what it did.
    fn look(&mut self) -> std::io::Result<()> {
        let entries = std::fs::read_dir(&self.directory)?;
        let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
        let mut found = BTreeMap::new();
        for path in paths {
            let named =
                path.extension().is_some_and(|suffix| ["yaml", "yml", "json"].iter().any(|s| suffix == *s));
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            // Through links, as Secrets and ConfigMaps are mounted.
            if !named || hidden || !path.is_file() {
                continue;
            }
            let before = self.files.remove(&path);
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) => {
                    tracing::error!(file = %path.display(), %error, "a manifest cannot be read");
                    found.extend(before.map(|before| (path, before)));
                    continue;
                }
            };
            let now = match before {
                Some(before) if before.0 == text => before,
                before => match documents::read(&text) {
                    Ok(declared) => (text, declared),
                    Err(error) => {
                        tracing::error!(file = %path.display(), error, "a manifest cannot be applied");
                        (text, before.map(|(_, declared)| declared).unwrap_or_default())
                    }
                },
            };
            found.insert(path, now);
        }
        self.files = found;
        Ok(())
    }

    /// Has applied what is new, in the files' order.
    fn tell(&self, world: &World) {
        let mut kept = world.kept.lock();
        let mut before = std::mem::take(&mut *kept);
        for (path, (_, declared)) in &self.files {
            for one in declared {
                let key = &one.key;
                if kept.contains_key(key) {
                    tracing::warn!(file = %path.display(), object = %key, "declared twice: the first counts");
                    continue;
                }
                match before.remove(key) {
                    Some(known) if known.declared == *one => drop(kept.insert(key.clone(), known)),
                    known => {
                        let watch = known.and_then(|known| known.watch);
                        kept.insert(key.clone(), Kept { declared: one.clone(), mark: None, watch });
                        world.queue.forget(key);
                        world.queue.add(key.clone());
                    }
                }
            }
        }
    }
}

impl World {
    async fn apply(self: &Arc<Self>, key: Key) -> Result<Outcome, String> {
        let Some(declared) = self.kept.lock().get(&key).map(|kept| kept.declared.clone()) else {
            return Ok(Outcome::Done);
        };
        let applied = self.send(&declared).await;
        let (served, mark) = applied.inspect_err(|why| {
            // Each once, not as often as it is tried.
            if self.queue.failures(&key) == 0 {
                tracing::warn!(object = %key, why, "a manifest is not applied yet");
            }
        })?;
        let mut all = self.kept.lock();
        let Some(kept) = all.get_mut(&key) else { return Ok(Outcome::Done) };
        if kept.mark.as_ref() != Some(&mark) {
            tracing::info!(object = %key, "applied a manifest");
        }
        kept.mark = Some(mark);
        if kept.watch.is_none() {
            let ended = self.shutdown.child_token();
            let world = self.clone();
            tokio::spawn(ended.clone().run_until_cancelled_owned(world.watch(key.clone(), served)));
            kept.watch = Some(ended.drop_guard());
        }
        Ok(Outcome::Done)
    }

    async fn send(&self, declared: &Declared) -> Result<(ApiResource, Mark), String> {
        let served = self.served(declared).await.map_err(|error| error.to_string())?;
        let served = served.ok_or_else(|| {
            format!("no matches for kind {:?} in version {:?}", declared.key.kind, declared.key.api_version)
        })?;
        let objects = self.client.resource(served.resource.clone(), namespace(&served, &declared.key));
        let params = PatchParams { field_manager: MANAGER.into(), force: true, strict: true };
        let patch = Patch::Apply(declared.object.clone());
        let applied: client::Result<Partial> =
            objects.metadata().patch(&declared.key.name, None, &patch, &params).await;
        let Partial { metadata } = applied.map_err(|error| error.to_string())?;
        let version = metadata.resource_version.clone();
        Ok((served, Mark::of(metadata, version)))
    }

    /// The resource of a kind; those of custom kinds come while we look.
    async fn served(&self, declared: &Declared) -> Result<Option<ApiResource>, Error> {
        let find = |all: &[ApiResource]| {
            let of_kind =
                |r: &&ApiResource| r.kind == declared.key.kind && r.api_version() == declared.key.api_version;
            all.iter().filter(of_kind).find(|r| r.supports("patch")).cloned()
        };
        if let Some(known) = find(&self.served.lock()) {
            return Ok(Some(known));
        }
        let discovered = discover(&self.client).await?;
        let found = find(&discovered.resources);
        *self.served.lock() = discovered.resources;
        Ok(found)
    }

    /// Looks at an object, and has it applied again when it is not as it was left.
    async fn watch(self: Arc<Self>, key: Key, served: ApiResource) {
        let mut query = Query::all(served.resource.clone()).fields(format!("metadata.name={}", key.name));
        query.namespace = namespace(&served, &key).map(str::to_owned);
        let source = source::of(&self.client);
        loop {
            let mut feeds = source.open(query.clone());
            while let Some(Ok(feeds)) = feeds.next().await {
                for feed in feeds {
                    let differs = match feed {
                        Feed::Snapshot { objects, .. } => {
                            objects.is_empty() || objects.iter().any(|raw| self.differs(&key, raw))
                        }
                        Feed::Put(raw) => self.differs(&key, &raw),
                        Feed::Delete(_) => true,
                        Feed::Progress(_) => false,
                    };
                    if differs {
                        self.queue.add_after(key.clone(), STANDS);
                    }
                }
            }
            // Its kind may be gone, and come again.
            self.served.lock().retain(|other| other.resource != served.resource);
            self.queue.add_after(key.clone(), STANDS);
            tokio::time::sleep(BACKOFF.max).await;
        }
    }

    fn differs(&self, key: &Key, seen: &Raw) -> bool {
        let kept = self.kept.lock();
        let known = kept.get(key).and_then(|kept| kept.mark.as_ref());
        seen.metadata().map_or(true, |meta| known != Some(&Mark::of(meta, seen.revision.to_string())))
    }
}

/// Where an object is: in `default` when nothing says where.
fn namespace<'a>(served: &ApiResource, key: &'a Key) -> Option<&'a str> {
    let place = match key.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    };
    served.namespaced.then_some(place)
}
