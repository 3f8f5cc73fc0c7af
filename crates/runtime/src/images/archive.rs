//! Images in tar files: `docker save`'s format and OCI layouts, plain or compressed. The archive is indexed once and its
//! layers are read where they lie; only regular files in it count, links are not followed.

use super::error::{Error, Result};
use super::manifest::{self, Descriptor, Document, ImageConfig, MAX_DOCUMENT};
use super::snapshots::{LayerBlob, Section, decompress};
use super::tree::clean;
use super::{Digest, Reference};
use serde::Deserialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

/// Files in an archive.
const MAX_MEMBERS: usize = 100_000;
/// Bytes of an archive that has to be unpacked to disk before it can be read.
const MAX_ARCHIVE: u64 = 256 << 30;

/// An image found in an archive, ready to be unpacked.
pub(crate) struct Found {
    /// The digest of `config`.
    pub(crate) id: Digest,
    pub(crate) config: ImageConfig,
    pub(crate) names: Vec<Reference>,
    /// Of its manifest, where it has one.
    pub(crate) manifest: Option<Digest>,
    /// One for each of `config`'s diff_ids.
    pub(crate) layers: Vec<LayerBlob>,
    /// As registries count: config, manifest and layers as they are stored.
    pub(crate) size: u64,
}

/// The regular files of an archive.
struct Archive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, (u64, u64)>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

/// The images in `file`. `spool` is a directory for the uncompressed copy of a compressed archive.
/// `base` completes names that are mere tags (`v1`), as podman writes them.
pub(crate) fn read(file: File, spool: &Path, base: Option<&str>) -> Result<Vec<Found>> {
    let archive = Archive::index(plain(file, spool)?)?;
    if archive.has("oci-layout") || !archive.has("manifest.json") {
        let index = archive.document("index.json")?;
        let found = archive.layout(&index, base)?;
        if !archive.has("manifest.json") || found.iter().any(|image| !image.names.is_empty()) {
            return Ok(found);
        }
    }
    archive.docker()
}

/// A file that can be read at any place: itself if it is a plain tar.
fn plain(mut file: File, dir: &Path) -> Result<File> {
    let mut head = [0; 4];
    let attempt = (|| {
        let filled = file.read(&mut head)?;
        file.rewind()?;
        if !(head.starts_with(&[0x1f, 0x8b]) || head == [0x28, 0xb5, 0x2f, 0xfd]) || filled < 4 {
            return Ok(file);
        }
        spool(file, dir)
    })();
    attempt.map_err(Error::io("reading archive"))
}

/// The uncompressed content of a stream as a file in `dir`.
pub(crate) fn spool(stream: impl Read, dir: &Path) -> io::Result<File> {
    let mut copy = tempfile_in(dir)?;
    if io::copy(&mut decompress(stream)?.take(MAX_ARCHIVE), &mut copy)? == MAX_ARCHIVE {
        return Err(Error::TooLarge { what: "archive".into(), limit: MAX_ARCHIVE }.into());
    }
    copy.rewind()?;
    Ok(copy)
}

/// A file without a name: gone when it is closed, whatever happens.
fn tempfile_in(dir: &Path) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::open(dir, flags, Mode::from_raw_mode(0o600)) {
        Ok(fd) => Ok(fd.into()),
        // Not every file system has O_TMPFILE.
        Err(_) => {
            let path = dir.join(format!("spool-{}", uuid::Uuid::new_v4().simple()));
            let file = File::options().read(true).write(true).create_new(true).open(&path)?;
            std::fs::remove_file(&path)?;
            Ok(file)
        }
    }
}

impl Archive {
    fn index(file: File) -> Result<Archive> {
        let mut members = HashMap::new();
        let invalid = |error: io::Error| Error::Invalid(format!("not an image archive: {error}"));
        let mut tar = tar::Archive::new(&file);
        for entry in tar.entries_with_seek().map_err(invalid)? {
            let entry = entry.map_err(invalid)?;
            if members.len() >= MAX_MEMBERS {
                return Err(Error::TooLarge {
                    what: "number of files in archive".into(),
                    limit: MAX_MEMBERS as u64,
                });
            }
            if entry.header().entry_type().is_file() {
                members.insert(clean(&entry.path_bytes()), (entry.raw_file_position(), entry.size()));
            }
        }
        Ok(Archive { file: Arc::new(file), members })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name.as_bytes())
    }

    fn member(&self, name: &str) -> Result<(u64, u64)> {
        let found = self.members.get(&clean(name.as_bytes())).copied();
        found.ok_or_else(|| Error::Invalid(format!("archive has no file {name:?}")))
    }

    /// A small file, whole.
    fn document(&self, name: &str) -> Result<Vec<u8>> {
        let (offset, size) = self.member(name)?;
        if size > MAX_DOCUMENT {
            return Err(Error::TooLarge { what: name.to_owned(), limit: MAX_DOCUMENT });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        let mut section = Section::new(self.file.clone(), offset, size);
        section.read_to_end(&mut bytes).map_err(Error::io(format!("reading {name}")))?;
        Ok(bytes)
    }

    /// A small blob of a layout, checked.
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let bytes = self.document(&blob_name(digest))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(Error::DigestMismatch { what: "blob".into(), expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    fn layout(&self, index: &[u8], base: Option<&str>) -> Result<Vec<Found>> {
        let index = Document::parse(index)?.manifests.unwrap_or_default();
        // One image in variants, without names of their own, is one image.
        let unnamed = index.iter().all(|descriptor| annotated(descriptor).is_none());
        let chosen: Vec<&Descriptor> = match unnamed && index.len() > 1 {
            true => vec![manifest::choose(&index).ok_or_else(no_platform)?],
            false => index.iter().collect(),
        };
        let mut images: Vec<Found> = Vec::new();
        for descriptor in chosen {
            let found = self.layout_image(descriptor, base)?;
            match images.iter_mut().find(|image| image.manifest == found.manifest) {
                Some(image) => image.names.extend(found.names),
                None => images.push(found),
            }
        }
        match images.is_empty() {
            true => Err(Error::Invalid("archive has no images".into())),
            false => Ok(images),
        }
    }

    fn layout_image(&self, top: &Descriptor, base: Option<&str>) -> Result<Found> {
        let names = annotated(top).and_then(|name| reference(name, base)).into_iter().collect();
        let mut digest = top.digest.clone();
        let mut bytes = self.blob(&digest)?;
        let mut document = Document::parse(&bytes)?;
        if let Some(manifests) = &document.manifests {
            digest = manifest::choose(manifests).ok_or_else(no_platform)?.digest.clone();
            bytes = self.blob(&digest)?;
            document = Document::parse(&bytes)?;
        }
        let (Some(config), Some(layers)) = (document.config, document.layers) else {
            return Err(Error::Invalid("an index within an index".into()));
        };
        let size = bytes.len() as u64 + config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
        let (id, config) = (config.digest.clone(), ImageConfig::parse(&self.blob(&config.digest)?)?);
        let diff_ids = &config.rootfs.diff_ids;
        check_layers(diff_ids.len(), layers.len())?;
        let layers = layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
            let (offset, size) = self.member(&blob_name(&layer.digest))?;
            let digest = Some(layer.digest.clone());
            Ok(LayerBlob { file: self.file.clone(), offset, size, digest, diff_id: diff_id.clone() })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        Ok(Found { id, config, names, manifest: Some(top.digest.clone()), layers, size })
    }

    fn docker(&self) -> Result<Vec<Found>> {
        let list: Vec<DockerImage> = serde_json::from_slice(&self.document("manifest.json")?)
            .map_err(|e| Error::Invalid(format!("invalid manifest.json: {e}")))?;
        list.into_iter().map(|image| self.docker_image(image)).collect()
    }

    fn docker_image(&self, image: DockerImage) -> Result<Found> {
        let bytes = self.document(&image.config)?;
        let config = ImageConfig::parse(&bytes)?;
        check_layers(config.rootfs.diff_ids.len(), image.layers.len())?;
        let layers = image.layers.iter().zip(&config.rootfs.diff_ids).map(|(name, diff_id)| {
            let (offset, size) = self.member(name)?;
            Ok(LayerBlob { file: self.file.clone(), offset, size, digest: None, diff_id: diff_id.clone() })
        });
        let layers = layers.collect::<Result<Vec<_>>>()?;
        let size = bytes.len() as u64 + layers.iter().map(|layer| layer.size).sum::<u64>();
        let tags = image.repo_tags.unwrap_or_default();
        let names = tags.iter().map(|tag| Reference::parse(tag)).collect::<Result<Vec<_>>>()?;
        Ok(Found { id: Digest::of(&bytes), config, names, manifest: None, layers, size })
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn check_layers(diff_ids: usize, layers: usize) -> Result<()> {
    match diff_ids == layers {
        true => Ok(()),
        false => Err(Error::Invalid(format!("image has {layers} layers, its config {diff_ids}"))),
    }
}

fn no_platform() -> Error {
    Error::NoPlatform(format!("linux/{}", manifest::architecture()))
}

/// The full name that containerd and Docker annotate, else OCI's.
fn annotated(descriptor: &Descriptor) -> Option<&String> {
    let annotation = |name| descriptor.annotations.get(name);
    annotation("io.containerd.image.name").or_else(|| annotation("org.opencontainers.image.ref.name"))
}

/// A mere tag needs the base name; without one the image is known by its digest only.
fn reference(name: &str, base: Option<&str>) -> Option<Reference> {
    match (name.contains([':', '/', '@']), base) {
        (true, _) => Reference::parse(name).ok(),
        (false, Some(base)) => Reference::parse(&format!("{base}:{name}")).ok(),
        (false, None) => None,
    }
}
