//! Encryption at rest: which provider keeps the values of which resource, and upstream's prefixes before them.
//!
//! The first provider of a resource writes, each of them reads; a value that another one wrote, or another key, is
//! stale and is written anew by the next write of its object, changed or not.

mod cipher;
mod config;
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
mod generated;
mod kms;

pub use config::{ConfigError, Configuration};

use bytes::Bytes;
use cipher::Cipher;
use config::{Keys, ProviderConfiguration};
use kms::Kms;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use store::{Key, Loaded, Transform, TransformError};

/// What every encrypted value begins with.
const ENCRYPTED: &[u8] = b"k8s:enc:";

/// One key of a provider, or the provider that leaves values as they are.
enum Keeper {
    Identity,
    Local {
        /// `k8s:enc:aescbc:v1:name:`.
        prefix: Vec<u8>,
        cipher: Cipher,
    },
    Kms {
        /// `k8s:enc:kms:v2:name:`.
        prefix: Vec<u8>,
        kms: Arc<Kms>,
    },
}

impl Keeper {
    /// A sealed value and whether its key is not the present one; nothing when another one keeps it.
    fn open(&self, kept: &[u8], about: &[u8]) -> Option<Result<(Vec<u8>, bool), TransformError>> {
        match self {
            Self::Identity => None,
            Self::Local { prefix, cipher } => {
                let plain = cipher.decrypt(kept.strip_prefix(prefix.as_slice())?, about);
                Some(plain.map(|plain| (plain, false)).map_err(|error| TransformError(error.to_owned())))
            }
            Self::Kms { prefix, kms } => {
                Some(kms.decrypt(kept.strip_prefix(prefix.as_slice())?, about).map_err(TransformError))
            }
        }
    }
}

/// The providers of some resources, the one that writes first.
type Keepers = Arc<Vec<Keeper>>;

/// What a configuration comes to.
type Entries = Vec<(config::ResourceConfiguration, Keepers)>;

/// Which resources are kept by which providers. The configuration may be replaced under way.
pub struct Encryption {
    inner: Arc<dyn Transform>,
    entries: RwLock<Arc<Entries>>,
    /// Values of this revision and older ones were written under another configuration.
    outdated: AtomicU64,
    /// Group and resource of the known buckets.
    resources: HashMap<Arc<str>, (String, String)>,
    /// What stands for `/registry` in the store: ciphers are bound to whole keys.
    root: String,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").field("entries", &self.entries.read().len()).finish_non_exhaustive()
    }
}

fn keepers(path: &str, provider: &ProviderConfiguration, into: &mut Vec<Keeper>) -> Result<(), ConfigError> {
    let mut local = |name: &str,
                     keys: &Keys,
                     lengths: &[usize],
                     make: fn(Vec<u8>) -> cipher::Result<Cipher>| {
        if keys.keys.is_empty() {
            return Err(ConfigError(format!("{path}.{name}.keys: Required value: keys must be provided")));
        }
        for (index, key) in keys.keys.iter().enumerate() {
            let path = format!("{path}.{name}.keys[{index}]");
            let made = make(key.bytes(&path, lengths)?);
            let cipher = made.map_err(|error| ConfigError(format!("{path}: {error}")))?;
            into.push(Keeper::Local { prefix: format!("k8s:enc:{name}:v1:{}:", key.name).into(), cipher });
        }
        Ok(())
    };
    const AES: &[usize] = &[16, 24, 32];
    if let Some(keys) = &provider.aesgcm {
        local("aesgcm", keys, AES, |key| Cipher::aes_gcm(&key))?;
    }
    if let Some(keys) = &provider.aescbc {
        local("aescbc", keys, AES, Cipher::aes_cbc)?;
    }
    if let Some(keys) = &provider.secretbox {
        local("secretbox", keys, &[32], |key| Cipher::secret_box(&key))?;
    }
    if let Some(configuration) = &provider.kms {
        let prefix = format!("k8s:enc:kms:v2:{}:", configuration.name).into();
        let kms = Kms::new(configuration).map_err(|error| ConfigError(format!("{path}.{error}")))?;
        into.push(Keeper::Kms { prefix, kms });
    }
    if provider.identity.is_some() {
        into.push(Keeper::Identity);
    }
    Ok(())
}

fn entries(configuration: Configuration) -> Result<Entries, ConfigError> {
    let mut entries = Entries::new();
    for (index, entry) in configuration.resources.into_iter().enumerate() {
        let mut made = Vec::new();
        for (place, provider) in entry.providers.iter().enumerate() {
            keepers(&format!("resources[{index}].providers[{place}]"), provider, &mut made)?;
        }
        entries.push((entry, Arc::new(made)));
    }
    Ok(entries)
}

impl Encryption {
    /// `resources` are the known buckets with their group and resource; those of custom resources tell it themselves.
    pub fn new(
        configuration: Configuration,
        resources: HashMap<Arc<str>, (String, String)>,
        root: &str,
        inner: Arc<dyn Transform>,
    ) -> Result<Self, ConfigError> {
        let root = format!("/{}/", root.trim_matches('/'));
        let entries = RwLock::new(Arc::new(entries(configuration)?));
        Ok(Encryption { inner, entries, outdated: AtomicU64::new(0), resources, root })
    }

    /// Keeps values as another configuration says from now on. One that cannot be used changes nothing.
    pub fn reload(&self, configuration: Configuration) -> Result<(), ConfigError> {
        let entries = Arc::new(entries(configuration)?);
        *self.entries.write() = entries;
        Ok(())
    }

    /// Every value up to this revision is to be written anew by the next write of its object, changed or not.
    pub fn outdate(&self, revision: u64) {
        self.outdated.fetch_max(revision, Ordering::AcqRel);
    }

    /// Whether a value of this revision was written before the configuration was replaced.
    pub fn is_outdated(&self, prefix: &str, revision: u64) -> bool {
        revision <= self.outdated.load(Ordering::Acquire) && self.keepers(prefix).is_some()
    }

    /// The providers of a bucket, if any are configured.
    fn keepers(&self, prefix: &str) -> Option<Keepers> {
        let known = self.resources.get(prefix).map(|(group, resource)| (group.as_str(), resource.as_str()));
        // A custom resource's bucket is `/registry/<group>/<resource>/`.
        let own = prefix
            .strip_prefix(store::etcd::ROOT)
            .and_then(|rest| rest.trim_end_matches('/').split_once('/'));
        let (group, resource) = known.or(own)?;
        let entries = self.entries.read();
        let found = entries.iter().find(|(entry, _)| entry.covers(group, resource));
        found.map(|(_, keepers)| keepers.clone())
    }

    /// The whole key in the store.
    fn about(&self, key: &Key) -> Vec<u8> {
        let rest = key.prefix.strip_prefix(store::etcd::ROOT).unwrap_or(&key.prefix);
        format!("{}{rest}{}", self.root, key.name).into()
    }

    fn decrypt(&self, key: &Key, kept: &Bytes) -> Result<(Bytes, bool), TransformError> {
        let fail = |detail: &str| TransformError(detail.to_owned());
        let keepers = self.keepers(&key.prefix).unwrap_or_default();
        if !kept.starts_with(ENCRYPTED) {
            let Some(at) = keepers.iter().position(|keeper| matches!(keeper, Keeper::Identity)) else {
                // A resource without providers is kept as it is. With them plain values need identity among them.
                return match keepers.is_empty() {
                    true => Ok((kept.clone(), false)),
                    false => Err(fail("no matching prefix found")),
                };
            };
            return Ok((kept.clone(), at > 0));
        }
        let mut last = fail(match keepers.is_empty() {
            true => "identity transformer tried to read encrypted data",
            false => "no matching prefix found",
        });
        for (at, keeper) in keepers.iter().enumerate() {
            match keeper.open(kept, &self.about(key)) {
                None => {}
                Some(Ok((plain, stale))) => return Ok((plain.into(), stale || at > 0)),
                // Two keys may have one name.
                Some(Err(error)) => last = error,
            }
        }
        Err(last)
    }
}

impl Transform for Encryption {
    fn save(&self, key: &Key, value: &Bytes) -> Result<Bytes, TransformError> {
        let plain = self.inner.save(key, value)?;
        match self.keepers(&key.prefix).as_ref().and_then(|keepers| keepers.first()) {
            None | Some(Keeper::Identity) => Ok(plain),
            Some(Keeper::Local { prefix, cipher }) => {
                let sealed = cipher.encrypt(&plain, &self.about(key));
                let sealed = sealed.map_err(|error| TransformError(error.to_owned()))?;
                Ok([prefix.as_slice(), &sealed].concat().into())
            }
            Some(Keeper::Kms { prefix, kms }) => {
                let sealed = kms.encrypt(&plain, &self.about(key)).map_err(TransformError)?;
                Ok([prefix.as_slice(), &sealed].concat().into())
            }
        }
    }

    fn load(&self, key: &Key, kept: Bytes) -> Result<Loaded, TransformError> {
        let (plain, stale) = self.decrypt(key, &kept)?;
        let loaded = self.inner.load(key, plain)?;
        Ok(Loaded { stale: loaded.stale || stale, ..loaded })
    }
}

#[cfg(test)]
mod tests;
