//! What is remembered of sandboxes and containers: a JSON file each, written before anything is done (the journal: its
//! `phase` says what was begun) and after it is done. Exit codes are the shim's to write (`exit.json`).

use crate::disk::{self, Durability};
use crate::images::Digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// How far an object has come. `Creating` and `Removing` are undone, respectively finished, after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    Creating,
    Ready,
    /// A sandbox that is being stopped.
    Stopping,
    /// A sandbox that has been stopped, or has died.
    NotReady,
    Removing,
}

/// The file of a sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SandboxRecord {
    pub(crate) id: String,
    pub(crate) phase: Phase,
    #[serde(with = "message")]
    pub(crate) config: cri::v1::PodSandboxConfig,
    pub(crate) handler: String,
    pub(crate) created_at: i64,
    /// Sockets and namespaces.
    pub(crate) run_dir: PathBuf,
    /// Of its containers.
    pub(crate) cgroup_parent: String,
    /// The primary one first.
    #[serde(default)]
    pub(crate) ips: Vec<IpAddr>,
    /// Nothing of another boot is alive.
    pub(crate) boot: String,
}

/// The file of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerRecord {
    pub(crate) id: String,
    pub(crate) sandbox: String,
    pub(crate) phase: Phase,
    #[serde(with = "message")]
    pub(crate) config: cri::v1::ContainerConfig,
    pub(crate) image: Digest,
    /// `repo@digest`, or the image's id.
    pub(crate) image_ref: String,
    /// What it stands on.
    pub(crate) chain: Vec<Digest>,
    pub(crate) created_at: i64,
    pub(crate) cgroup: String,
    /// Absolute; empty without a log.
    pub(crate) log_path: String,
    /// A number.
    pub(crate) stop_signal: i32,
    pub(crate) user: UserRecord,
    /// In force, after updates.
    #[serde(with = "message")]
    pub(crate) resources: cri::v1::LinuxContainerResources,
    /// Why its process could not be prepared: told when it is started, as runtimes do that prepare it only then.
    #[serde(default)]
    pub(crate) start_error: String,
    /// Of exec'd processes, too.
    pub(crate) process: shim::protocol::Process,
}

/// Who a container's process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UserRecord {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// CRI messages as base64 of their protobuf form: fields of a later version survive.
mod message {
    use super::*;

    pub(super) fn serialize<M: Message, S: Serializer>(
        message: &M,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(message.encode_to_vec()))
    }

    pub(super) fn deserialize<'de, M: Message + Default, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<M, D::Error> {
        let text = String::deserialize(deserializer)?;
        M::decode(STANDARD.decode(text).map_err(D::Error::custom)?.as_slice()).map_err(D::Error::custom)
    }
}

pub(crate) const SANDBOX_FILE: &str = "sandbox.json";
pub(crate) const CONTAINER_FILE: &str = "container.json";

/// Writes a record into its directory.
pub(crate) fn save<T: Serialize>(dir: &Path, file: &str, record: &T) -> io::Result<()> {
    disk::write_json(&dir.join(file), record, Durability::Crash)
}

/// The records in the directories of `dir`, and the directories that hold none that can be read.
pub(crate) fn load_all<T: DeserializeOwned>(dir: &Path, file: &str) -> io::Result<(Vec<T>, Vec<PathBuf>)> {
    let (mut records, mut broken) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match disk::read_json(&path.join(file)) {
            Ok(Some(record)) => records.push(record),
            Ok(None) => broken.push(path),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "unreadable record: removing what it was about");
                broken.push(path);
            }
        }
    }
    Ok((records, broken))
}

/// What names this boot of the machine.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
}

/// 64 random hex characters, as containerd's ids.
pub(crate) fn new_id() -> String {
    let halves = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let bytes: Vec<u8> = halves.iter().flat_map(|half| *half.as_bytes()).collect();
    // A version-4 UUID has six fixed bits; the hash spreads the rest.
    Digest::of(&bytes).hex().to_owned()
}
