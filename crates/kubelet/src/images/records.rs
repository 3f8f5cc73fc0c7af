//! What is remembered of pulls, on disk in upstream's form and place (`image_manager/pulling`, `image_manager/pulled`): which
//! image was pulled with whose credentials. Upstream: `pullmanager/fs_pullrecords.go`.

use crate::saved;
use apimachinery::time::Time;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";
const INTENT: &str = "ImagePullIntent";
const RECORD: &str = "ImagePulledRecord";

/// A Secret, and what it held for the image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PullSecret {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub credential_hash: String,
}

impl PullSecret {
    pub(super) fn is_same_object(&self, other: &PullSecret) -> bool {
        (&self.namespace, &self.name, &self.uid) == (&other.namespace, &other.name, &other.uid)
    }
}

/// A service account whose token stood for credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PullAccount {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// With what an image was pulled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Credentials {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<PullSecret>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<PullAccount>,
    /// Every pod of the node may use it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

/// An image that was pulled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    kind: String,
    api_version: String,
    pub last_updated_time: Option<Time>,
    pub image_ref: String,
    /// By the image's name without tag and digest.
    #[serde(default)]
    pub credential_mapping: BTreeMap<String, Credentials>,
}

impl Record {
    pub(super) fn new(image_ref: &str) -> Self {
        Record {
            kind: RECORD.into(),
            api_version: API_VERSION.into(),
            last_updated_time: None,
            image_ref: image_ref.into(),
            credential_mapping: BTreeMap::new(),
        }
    }

    /// Adds what an image was pulled with; says whether that was news.
    pub(super) fn merge(&mut self, name: &str, new: Credentials) -> bool {
        let known = self.credential_mapping.entry(name.to_owned()).or_default();
        let before = known.clone();
        if known.node_pods_accessible || new.node_pods_accessible {
            *known = Credentials { node_pods_accessible: true, ..Default::default() };
            return *known != before;
        }
        for secret in new.kubernetes_secrets {
            known.kubernetes_secrets.retain(|other| !other.is_same_object(&secret));
            known.kubernetes_secrets.push(secret);
        }
        known.kubernetes_secrets.sort();
        for account in new.kubernetes_service_accounts {
            if !known.kubernetes_service_accounts.contains(&account) {
                known.kubernetes_service_accounts.push(account);
            }
        }
        *known != before
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// The two directories.
#[derive(Debug)]
pub(crate) struct Records {
    pulling: PathBuf,
    pulled: PathBuf,
}

impl Records {
    pub(crate) fn open(root_dir: &Path) -> io::Result<Self> {
        let dir = |name| root_dir.join("image_manager").join(name);
        let records = Records { pulling: dir("pulling"), pulled: dir("pulled") };
        for dir in [&records.pulling, &records.pulled] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(records)
    }

    /// How many there are, readable or not.
    pub(super) fn counts(&self) -> (usize, usize) {
        (files(&self.pulling).count(), files(&self.pulled).count())
    }

    pub(super) fn intend(&self, image: &str) -> io::Result<()> {
        let intent = Intent { kind: INTENT.into(), api_version: API_VERSION.into(), image: image.into() };
        write(&self.pulling, image, &intent)
    }

    pub(super) fn intends(&self, image: &str) -> bool {
        read::<Intent>(&self.pulling.join(file_name(image))).is_some_and(|intent| intent.image == image)
    }

    pub(super) fn intents(&self) -> Vec<String> {
        list::<Intent>(&self.pulling).into_iter().map(|intent| intent.image).collect()
    }

    pub(super) fn forget_intent(&self, image: &str) {
        remove(&self.pulling.join(file_name(image)));
    }

    pub(super) fn get(&self, image_ref: &str) -> Option<Record> {
        read::<Record>(&self.pulled.join(file_name(image_ref))).filter(|record| record.image_ref == image_ref)
    }

    /// Whether there is a record, readable or not.
    pub(super) fn has(&self, image_ref: &str) -> bool {
        self.pulled.join(file_name(image_ref)).exists()
    }

    pub(super) fn put(&self, mut record: Record) -> io::Result<()> {
        record.last_updated_time = Some(crate::clock::time());
        write(&self.pulled, &record.image_ref.clone(), &record)
    }

    pub(super) fn all(&self) -> Vec<Record> {
        list(&self.pulled)
    }

    pub(super) fn forget(&self, image_ref: &str) {
        remove(&self.pulled.join(file_name(image_ref)));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn file_name(of: &str) -> String {
    format!("sha256-{}", sha256(of.as_bytes()))
}

fn write(dir: &Path, of: &str, value: &impl Serialize) -> io::Result<()> {
    saved::replace(&dir.join(file_name(of)), value)
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn list<T: DeserializeOwned>(dir: &Path) -> Vec<T> {
    files(dir).filter_map(|path| read(&path)).collect()
}

fn files(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| {
        entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("sha256-") && !name.ends_with(saved::TEMPORARY))
    });
    ours.map(|entry| entry.path())
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "a record of a pull could not be removed");
    }
}
