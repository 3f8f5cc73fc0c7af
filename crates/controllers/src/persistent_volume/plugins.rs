//! The volume plugins that the controller manager has: what it can delete, empty or make itself. All others are served
//! by CSI drivers, those of old by the driver that took their place.

use api::core::v1::PersistentVolume;

/// A plugin of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    HostPath,
    Nfs,
}

impl Plugin {
    pub(super) fn name(self) -> &'static str {
        match self {
            Plugin::HostPath => "kubernetes.io/host-path",
            Plugin::Nfs => "kubernetes.io/nfs",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        [Plugin::HostPath, Plugin::Nfs].into_iter().find(|plugin| plugin.name() == name)
    }
}

/// The plugin of a volume.
pub(super) fn of(volume: &PersistentVolume) -> Option<Plugin> {
    if volume.spec.host_path.is_some() {
        return Some(Plugin::HostPath);
    }
    volume.spec.nfs.as_ref().map(|_| Plugin::Nfs)
}

/// Plugins that are no more, and the CSI drivers in their place.
const DRIVERS: [(&str, &str); 7] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/azure-file", "file.csi.azure.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];

/// The driver that took a plugin's place.
pub(super) fn driver_of(plugin: &str) -> Option<&'static str> {
    DRIVERS.iter().find(|(name, _)| *name == plugin).map(|(_, driver)| *driver)
}

/// The plugin of a volume that is served by the driver in its place, and that driver.
pub(super) fn migrated(volume: &PersistentVolume) -> Option<(&'static str, &'static str)> {
    let spec = &volume.spec;
    let given = [
        spec.aws_elastic_block_store.is_some(),
        spec.gce_persistent_disk.is_some(),
        spec.azure_file.is_some(),
        spec.azure_disk.is_some(),
        spec.cinder.is_some(),
        spec.vsphere_volume.is_some(),
        spec.portworx_volume.is_some(),
    ];
    given.iter().position(|given| *given).map(|at| DRIVERS[at])
}

/// Whether a name is that of a plugin of Kubernetes' own, which nobody outside serves.
pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("kubernetes.io/")
}

/// Who is to delete a volume: a plugin here, somebody else, or nobody can, and why.
pub(super) fn deleter(volume: &PersistentVolume) -> Result<Option<Plugin>, String> {
    let annotations = &volume.metadata.annotations;
    let made_by = annotations.get(rules::volumes::PROVISIONED_BY).filter(|name| !name.is_empty());
    if let Some(name) = made_by {
        return match Plugin::named(name) {
            Some(Plugin::HostPath) => Ok(Some(Plugin::HostPath)),
            _ if !is_ours(name) => Ok(None),
            Some(Plugin::Nfs) => Err("no deletable volume plugin matched".into()),
            None => Err(format!("no volume plugin matched name: {name}")),
        };
    }
    if annotations.contains_key(rules::volumes::MIGRATED_TO) || volume.spec.csi.is_some() {
        return Ok(None);
    }
    let why = match of(volume) {
        Some(Plugin::HostPath) => return Ok(Some(Plugin::HostPath)),
        Some(Plugin::Nfs) => "no deletable volume plugin matched",
        None => "no volume plugin matched",
    };
    Err(format!("error getting deleter volume plugin for volume {:?}: {why}", volume.metadata.name))
}
