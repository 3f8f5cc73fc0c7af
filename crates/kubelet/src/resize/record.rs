//! What was allocated to a pod and actuated in it, in a file of the pod's directory. Upstream: the checkpoints
//! `allocated_pods_state` and `actuated_pods_state`.

use super::Resources;
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::io;

const FILE: &str = "resources.json";

/// The file's content.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub allocated: Resources,
    pub actuated: Resources,
}

/// Reads it; a pod that was never admitted has none.
pub(crate) fn load(config: &Config, uid: &str) -> Option<Record> {
    let bytes = std::fs::read(config.pod_dir(uid).join(FILE)).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(%uid, %error, "what was allocated to a pod cannot be read; what it asks for counts");
            None
        }
    }
}

/// Replaces it. Not synced: after a power cut the pod's containers are started anew with what the spec says.
pub(crate) fn save(config: &Config, uid: &str, record: &Record) -> io::Result<()> {
    let dir = config.pod_dir(uid);
    std::fs::create_dir_all(&dir)?;
    crate::saved::replace(&dir.join(FILE), record)
}
