//! Which claims pods of this node use, and the devices that drivers have prepared for them: on disk over restarts, since a
//! driver must be told when the last pod is done. Upstream: `cm/dra/claiminfo.go`.

use crate::saved;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "dra_manager_state";

/// A device that a driver has prepared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Device {
    pub pool_name: String,
    pub device_name: String,
    #[serde(rename = "ShareID", skip_serializing_if = "Option::is_none")]
    pub share_id: Option<String>,
    pub request_names: Vec<String>,
    #[serde(rename = "CDIDeviceIDs")]
    pub cdi_device_ids: Vec<String>,
}

/// A claim that some pod uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Claim {
    #[serde(rename = "ClaimUID")]
    pub uid: String,
    #[serde(rename = "ClaimName")]
    pub name: String,
    pub namespace: String,
    #[serde(rename = "PodUIDs")]
    pub pods: BTreeSet<String>,
    /// By driver.
    #[serde(rename = "DriverState")]
    pub drivers: BTreeMap<String, Vec<Device>>,
    /// Not kept: a driver is asked again after a restart, and answers the same.
    #[serde(skip)]
    pub prepared: bool,
}

impl Device {
    /// Whether it is for a request, or any is meant. Of what stands for a request, drivers name that request alone.
    pub(crate) fn is_for(&self, request: &str) -> bool {
        let request = request.split('/').next().unwrap_or_default();
        request.is_empty()
            || self.request_names.is_empty()
            || self.request_names.iter().any(|name| name == request)
    }
}

impl Claim {
    /// The devices for a request, or for all of them.
    pub(crate) fn cdi_devices(&self, request: &str) -> Vec<String> {
        let devices = self.drivers.values().flatten().filter(|device| device.is_for(request));
        devices.flat_map(|device| device.cdi_device_ids.iter().cloned()).collect()
    }
}

/// By namespace and name.
pub(crate) type Claims = BTreeMap<(String, String), Claim>;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct File {
    entries: Vec<Claim>,
}

/// The file's place.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Disk {
    pub(super) fn of(root_dir: &Path) -> Self {
        Disk(root_dir.join(FILE))
    }

    pub(super) fn read(&self) -> Claims {
        let Ok(bytes) = std::fs::read(&self.0) else { return Claims::new() };
        match serde_json::from_slice::<File>(&bytes) {
            Ok(file) => {
                let keyed = |claim: Claim| ((claim.namespace.clone(), claim.name.clone()), claim);
                file.entries.into_iter().map(keyed).collect()
            }
            Err(error) => {
                tracing::warn!(%error, "the state of resource claims cannot be read: drivers are not told of those of before");
                Claims::new()
            }
        }
    }

    pub(super) fn write(&self, claims: &Claims) -> io::Result<()> {
        saved::replace(&self.0, &File { entries: claims.values().cloned().collect() })
    }
}
