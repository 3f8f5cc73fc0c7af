//! Images: what is here by name and digest, how it got here, and the unpacked layers that containers stand on.
//! `images.json` is the truth; blobs and snapshots that it does not lead to are removed.

/// Images in tar files.
mod archive;
/// Content digests.
mod digest;
/// What can go wrong.
mod error;
/// Unpacking one layer.
mod layer;
/// OCI's documents.
pub mod manifest;
/// Image names.
mod reference;
/// Registries.
pub mod registry;
/// Unpacked layers.
mod snapshots;
/// Directory trees that hostile names cannot leave.
mod tree;

#[cfg(test)]
mod tests;

pub use digest::Digest;
pub use error::{Error, Result};
pub use layer::Limits;
pub use reference::Reference;
pub use snapshots::Usage;

use crate::disk::{self, Durability};
use crate::keyed::Keyed;
use archive::Found;
use manifest::{ExecConfig, ImageConfig};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use snapshots::{LayerBlob, Snapshots};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// How long a layer that was fetched in part waits for a pull to go on with it; as containerd, which lets an ingest of its
/// CRI service go after a day.
const PARTIAL: Duration = Duration::from_secs(24 * 60 * 60);

/// An image that is here, unpacked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// The digest of its config.
    pub id: Digest,
    /// `docker.io/library/nginx:latest`, …
    pub tags: BTreeSet<String>,
    /// `docker.io/library/nginx@sha256:…`, …
    pub digests: BTreeSet<String>,
    /// As registries count it.
    pub size: u64,
    /// ChainIDs of its layers, the lowest first.
    pub chain: Vec<Digest>,
    /// Defaults for containers.
    pub config: ExecConfig,
    /// Not to be garbage-collected.
    #[serde(default)]
    pub pinned: bool,
}

impl Image {
    /// As CRI shows it.
    pub fn to_cri(&self) -> cri::v1::Image {
        let user = self.config.user.as_deref().unwrap_or("");
        let user = user.split(':').next().unwrap_or("");
        let uid = user.parse::<i64>().ok();
        cri::v1::Image {
            id: self.id.to_string(),
            repo_tags: self.tags.iter().cloned().collect(),
            repo_digests: self.digests.iter().cloned().collect(),
            size: self.size,
            uid: uid.map(|value| cri::v1::Int64Value { value }),
            username: if uid.is_some() { String::new() } else { user.to_owned() },
            spec: None,
            pinned: self.pinned,
        }
    }
}

/// Where an image comes from. One that was imported may be nowhere else: it is pinned, so that nobody deletes it to make
/// room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Archive,
    Registry,
}

/// How to import an archive.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Completes names that are mere tags.
    pub base_name: Option<String>,
    /// More names, for an archive with a single image.
    pub names: Vec<String>,
}

#[derive(Default)]
struct State {
    images: BTreeMap<Digest, Image>,
    /// Layers that someone stands on, by container id or by the id of a pull under way.
    pins: HashMap<String, Vec<Digest>>,
}

/// The image store; one per data directory.
pub struct Images {
    dir: PathBuf,
    state: Mutex<State>,
    /// Held while `images.json` is replaced, and while layers are removed.
    writer: Mutex<()>,
    snapshots: Snapshots,
    registries: registry::Registries,
    pulls: Keyed,
}

impl Images {
    /// Opens the store under `dir`; `pins` are the layers that existing containers stand on. Blocks.
    pub fn open(
        dir: &Path,
        limits: Limits,
        registries: registry::Registries,
        pins: HashMap<String, Vec<Digest>>,
    ) -> Result<Images> {
        let failed = |what: &str| Error::io(format!("{what} in {}", dir.display()));
        disk::make_dir(dir).map_err(failed("making the image store"))?;
        disk::remove_temporaries(dir).map_err(failed("tidying the image store"))?;
        let ingest = dir.join("ingest");
        disk::make_dir(&ingest).map_err(failed("making the image store"))?;
        forget_partial(&ingest, SystemTime::now());
        let images: Option<Vec<Image>> =
            disk::read_json(&dir.join("images.json")).map_err(failed("reading images.json"))?;
        let mut images: BTreeMap<Digest, Image> =
            images.unwrap_or_default().into_iter().map(|image| (image.id.clone(), image)).collect();
        let known: HashSet<Digest> =
            images.values().flat_map(|image| &image.chain).chain(pins.values().flatten()).cloned().collect();
        let snapshots = Snapshots::open(dir.join("snapshots"), limits, &known)
            .map_err(failed("opening the snapshots"))?;
        images.retain(|id, image| {
            let whole = image.chain.iter().all(|chain| snapshots.has(chain));
            if !whole {
                tracing::warn!(image = %id, "image has lost layers; it will have to be pulled again");
            }
            whole
        });
        Ok(Images {
            dir: dir.to_owned(),
            state: Mutex::new(State { images, pins }),
            writer: Mutex::new(()),
            snapshots,
            registries,
            pulls: Keyed::default(),
        })
    }

    /// All images, by id.
    pub fn list(&self) -> Vec<Image> {
        self.state.lock().images.values().cloned().collect()
    }

    /// The image of that name, digest, id, or unambiguous prefix of an id.
    pub fn find(&self, name: &str) -> Option<Image> {
        find(&self.state.lock().images, name).cloned()
    }

    /// `find`, and holds its layers until `unpin`: what a container is created from.
    pub fn pin(&self, name: &str, holder: &str) -> Option<Image> {
        let mut state = self.state.lock();
        let image = find(&state.images, name).cloned()?;
        state.pins.insert(holder.to_owned(), image.chain.clone());
        Some(image)
    }

    /// As `pin`, beside what the holder has pinned already.
    pub fn pin_too(&self, name: &str, holder: &str) -> Option<Image> {
        let mut state = self.state.lock();
        let image = find(&state.images, name).cloned()?;
        state.pins.entry(holder.to_owned()).or_default().extend(image.chain.iter().cloned());
        Some(image)
    }

    /// Lets go of what `holder` has pinned; layers that nobody needs any more are removed. Blocks.
    pub fn unpin(&self, holder: &str) {
        if self.state.lock().pins.remove(holder).is_some_and(|chain| !chain.is_empty()) {
            self.collect();
        }
    }

    /// The directories to stack for an image, the uppermost first.
    pub fn lower_dirs(&self, image: &Image) -> Vec<PathBuf> {
        match image.chain.is_empty() {
            true => vec![self.snapshots.empty()],
            false => image.chain.iter().rev().map(|chain| self.snapshots.path(chain)).collect(),
        }
    }

    /// Where it all lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What all unpacked layers take.
    pub fn usage(&self) -> Usage {
        let chains: HashSet<Digest> =
            self.state.lock().images.values().flat_map(|image| image.chain.clone()).collect();
        chains
            .iter()
            .map(|chain| self.snapshots.usage(chain))
            .fold(Usage::default(), |a, b| Usage { bytes: a.bytes + b.bytes, inodes: a.inodes + b.inodes })
    }

    /// Imports the images of an archive (docker-archive or OCI layout; plain, gzip or zstd). Blocks.
    pub fn import_file(&self, file: File, options: &ImportOptions) -> Result<Vec<Image>> {
        let found = archive::read(file, &self.dir.join("ingest"), options.base_name.as_deref())?;
        if !options.names.is_empty() && found.len() != 1 {
            return Err(Error::Invalid(format!(
                "archive has {} images, names were given for one",
                found.len()
            )));
        }
        let more = options.names.iter().map(|name| Reference::parse(name)).collect::<Result<Vec<_>>>()?;
        let import = |mut image: Found| {
            image.names.extend(more.iter().cloned());
            let layers = image.layers.clone();
            self.install(
                image.id,
                image.config,
                image.manifest,
                &image.names,
                image.size,
                layers,
                Origin::Archive,
            )
        };
        found.into_iter().map(import).collect()
    }

    /// As `import_file`, from a stream, which is first copied to disk. Blocks.
    pub fn import_stream(&self, stream: impl std::io::Read, options: &ImportOptions) -> Result<Vec<Image>> {
        let file = archive::spool(stream, &self.dir.join("ingest")).map_err(Error::io("reading archive"))?;
        self.import_file(file, options)
    }

    /// Pulls an image; returns it when it is unpacked. Pulls of one name at a time are one.
    pub async fn pull(self: &Arc<Self>, name: &str, auth: Option<registry::Credentials>) -> Result<Image> {
        let reference = Reference::parse(name)?;
        let _turn = self.pulls.lock(&reference.to_string()).await;
        let ingest = self.dir.join("ingest");
        let pull = self.registries.resolve(&reference, auth).await?;
        let chain = pull.config.chain_ids();
        let layers = pull.layers.iter().zip(&chain).zip(&pull.config.rootfs.diff_ids);
        let missing = layers.filter(|((_, chain), _)| !self.snapshots.has(chain));
        let missing: Vec<_> = missing.map(|((layer, _), diff)| (layer.clone(), diff.clone())).collect();
        let blobs = pull.fetch_layers(&missing, &ingest, &self.pulls).await?;
        let this = self.clone();
        let install = move || {
            let names = [reference];
            let id = pull.id.clone();
            let manifest = Some(pull.manifest);
            let image = this.install(id, pull.config, manifest, &names, pull.size, blobs, Origin::Registry);
            // Whatever came of it: a layer that was fetched whole is not resumed.
            for (layer, _) in &missing {
                linux::steps::step("forgetting a fetched layer");
                drop(std::fs::remove_file(ingest.join(layer.digest.hex())));
            }
            image
        };
        tokio::task::spawn_blocking(install).await.map_err(|e| Error::Invalid(format!("unpacking: {e}")))?
    }

    /// Unpacks what is missing and records the image.
    #[expect(clippy::too_many_arguments, reason = "all of an image, once")]
    fn install(
        &self,
        id: Digest,
        config: ImageConfig,
        manifest: Option<Digest>,
        names: &[Reference],
        size: u64,
        blobs: Vec<LayerBlob>,
        origin: Origin,
    ) -> Result<Image> {
        if !config.os.is_empty() && (config.os != "linux" || config.architecture != manifest::architecture())
        {
            return Err(Error::NoPlatform(format!("image is for {}/{}", config.os, config.architecture)));
        }
        let chain = config.chain_ids();
        let holder = format!("install-{}", uuid::Uuid::new_v4().simple());
        self.state.lock().pins.insert(holder.clone(), chain.clone());
        // Blobs come for some of the layers only; each belongs to the chain that ends with its diff_id.
        let mut taken = HashSet::new();
        let layers: Vec<(Digest, LayerBlob)> = chain
            .iter()
            .zip(&config.rootfs.diff_ids)
            .filter(|(chain, _)| taken.insert((*chain).clone()))
            .filter_map(|(chain, diff)| {
                Some((chain.clone(), blobs.iter().find(|b| b.diff_id == *diff)?.clone()))
            })
            .collect();
        let result = self.snapshots.install(&chain, &layers).and_then(|()| {
            let lost = chain.iter().find(|chain| !self.snapshots.has(chain));
            match lost {
                Some(chain) => Err(Error::Invalid(format!("layer {chain} was removed meanwhile; try again"))),
                None => self.record(id, config.config, chain, manifest, names, size, origin),
            }
        });
        self.unpin(&holder);
        result
    }

    #[expect(clippy::too_many_arguments, reason = "all of an image, once")]
    fn record(
        &self,
        id: Digest,
        config: ExecConfig,
        chain: Vec<Digest>,
        manifest: Option<Digest>,
        names: &[Reference],
        size: u64,
        origin: Origin,
    ) -> Result<Image> {
        self.change(|images| {
            for image in images.values_mut() {
                // A tag names one image: the newest.
                names.iter().filter_map(Reference::tagged).for_each(|tag| {
                    image.tags.remove(&tag);
                });
            }
            let image = images.entry(id.clone()).or_insert_with(|| Image {
                id: id.clone(),
                tags: BTreeSet::new(),
                digests: BTreeSet::new(),
                size,
                chain,
                config,
                pinned: false,
            });
            image.pinned |= origin == Origin::Archive;
            for name in names {
                image.tags.extend(name.tagged());
                image.digests.extend(name.digest.as_ref().or(manifest.as_ref()).map(|d| name.with_digest(d)));
            }
            image.clone()
        })
    }

    /// Gives an image one more name.
    pub fn tag(&self, image: &str, name: &str) -> Result<()> {
        let tag = Reference::parse(name)?.tagged().ok_or_else(|| Error::Reference(name.to_owned()))?;
        let id = self.find(image).ok_or_else(|| Error::NotFound(image.to_owned()))?.id;
        self.change(|images| {
            for image in images.values_mut() {
                image.tags.remove(&tag);
            }
            images.get_mut(&id).map(|image| image.tags.insert(tag)).is_some()
        })?;
        Ok(())
    }

    /// Removes the image with all its names; layers stay for as long as a container stands on them. One that is not
    /// there is removed already. Blocks.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Some(image) = self.find(name) else { return Ok(()) };
        self.change(|images| drop(images.remove(&image.id)))?;
        self.collect();
        Ok(())
    }

    /// Changes the list on disk, then in memory: who sees a change can rely on it.
    fn change<T>(&self, change: impl FnOnce(&mut BTreeMap<Digest, Image>) -> T) -> Result<T> {
        let _writer = self.writer.lock();
        let mut images = self.state.lock().images.clone();
        let result = change(&mut images);
        let list: Vec<&Image> = images.values().collect();
        disk::write_json(&self.dir.join("images.json"), &list, Durability::Power)
            .map_err(Error::io("writing images.json"))?;
        self.state.lock().images = images;
        Ok(result)
    }

    fn collect(&self) {
        forget_partial(&self.dir.join("ingest"), SystemTime::now());
        let _writer = self.writer.lock();
        let needed: HashSet<Digest> = {
            let state = self.state.lock();
            let of_images = state.images.values().flat_map(|image| image.chain.clone());
            of_images.chain(state.pins.values().flatten().cloned()).collect()
        };
        for chain in self.snapshots.list() {
            // Somebody may have pinned it since; pins are taken for what is in `images` or about to be checked.
            let pinned = || self.state.lock().pins.values().any(|pins| pins.contains(&chain));
            if !needed.contains(&chain)
                && !pinned()
                && let Err(error) = self.snapshots.remove(&chain)
            {
                tracing::warn!(layer = %chain, %error, "could not remove a layer");
            }
        }
    }
}

/// Removes layers that nobody has written to for long. A pull that holds one open keeps what it has; one that comes back to
/// it begins anew.
fn forget_partial(ingest: &Path, now: SystemTime) {
    let forget = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(ingest)? {
            let entry = entry?;
            let written = match entry.metadata() {
                Ok(metadata) => metadata.modified()?,
                // Another pull has just ended.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if now.duration_since(written).is_ok_and(|age| age > PARTIAL) {
                tracing::info!(layer = ?entry.file_name(), "removing a layer that was fetched in part");
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    if let Err(error) = forget() {
        tracing::warn!(%error, "could not remove layers that were fetched in part");
    }
}

fn find<'a>(images: &'a BTreeMap<Digest, Image>, name: &str) -> Option<&'a Image> {
    if let Some(digest) = Digest::parse(name).or_else(|| Digest::parse(&format!("sha256:{name}"))) {
        return images.get(&digest);
    }
    if let Ok(reference) = Reference::parse(name) {
        let full = reference.to_string();
        let named = images.values().find(|image| image.tags.contains(&full) || image.digests.contains(&full));
        if named.is_some() {
            return named;
        }
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let prefix = hex.len() >= 4 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let mut matching = images.values().filter(|image| prefix && image.id.hex().starts_with(hex));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}
