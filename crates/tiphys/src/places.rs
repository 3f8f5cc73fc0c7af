//! Where a server keeps what, and what its things in the kernel are called. With a data directory that is not the
//! default everything moves beneath it or carries its name, so that two servers share a machine.

use apimachinery::rand_name::fnv32a;
use std::path::{Path, PathBuf};

/// The default data directory.
pub(crate) const DATA_DIR: &str = "/var/lib/tiphys";

/// Directories and names of one server.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    pub data_dir: PathBuf,
    /// The kubelet's.
    pub root_dir: PathBuf,
    pub pod_logs: PathBuf,
    pub container_logs: PathBuf,
    /// Sockets and namespaces; short, for the sockets' sake.
    pub run_dir: PathBuf,
    /// Where CNI configurations are looked for.
    pub cni_conf: PathBuf,
    /// Mirrors, credentials and certificates of image registries: a file in k3s' form that need not be there.
    pub registries: PathBuf,
    /// The cgroup beneath which `kubepods` is.
    pub pods_cgroup: String,
    /// The cgroup of shims.
    pub shims_cgroup: String,
}

impl Places {
    pub(crate) fn of(data_dir: &Path, root_dir: Option<&Path>) -> std::io::Result<Places> {
        let data_dir = std::path::absolute(data_dir)?;
        let root_dir = root_dir.map(std::path::absolute).transpose()?;
        if data_dir == Path::new(DATA_DIR) {
            return Ok(Places {
                root_dir: root_dir.unwrap_or_else(|| "/var/lib/kubelet".into()),
                pod_logs: "/var/log/pods".into(),
                container_logs: "/var/log/containers".into(),
                run_dir: "/run/tiphys".into(),
                cni_conf: "/etc/cni/net.d".into(),
                registries: "/etc/tiphys/registries.yaml".into(),
                pods_cgroup: "/".into(),
                shims_cgroup: "/tiphys".into(),
                data_dir,
            });
        }
        let name = format!("tiphys-{:08x}", fnv32a(data_dir.as_os_str().as_encoded_bytes()));
        Ok(Places {
            root_dir: root_dir.unwrap_or_else(|| data_dir.join("kubelet")),
            pod_logs: data_dir.join("log/pods"),
            container_logs: data_dir.join("log/containers"),
            run_dir: Path::new("/run").join(&name),
            cni_conf: data_dir.join("cni/net.d"),
            registries: data_dir.join("registries.yaml"),
            pods_cgroup: format!("/{name}"),
            shims_cgroup: format!("/{name}/shims"),
            data_dir,
        })
    }

    /// Where a running server answers `tiphys image`.
    pub(crate) fn images_socket(&self) -> PathBuf {
        self.run_dir.join("images.sock")
    }

    /// Where `tiphys runtime` speaks CRI unless told otherwise.
    pub(crate) fn cri_socket(&self) -> PathBuf {
        self.run_dir.join("cri.sock")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.data_dir.join("runtime")
    }

    pub(crate) fn network(&self) -> PathBuf {
        self.data_dir.join("network")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_share_nothing() {
        let default = Places::of(Path::new(DATA_DIR), None).unwrap();
        assert_eq!(default.root_dir, Path::new("/var/lib/kubelet"));
        let (a, b) = (Places::of(Path::new("/a"), None).unwrap(), Places::of(Path::new("/b"), None).unwrap());
        assert_eq!(a.root_dir, Path::new("/a/kubelet"));
        for (a, b) in [
            (&a.run_dir, &b.run_dir),
            (&a.pod_logs, &b.pod_logs),
            (&a.run_dir, &default.run_dir),
            (&a.cni_conf, &default.cni_conf),
        ] {
            assert_ne!(a, b);
        }
        assert_ne!(a.pods_cgroup, b.pods_cgroup);
        assert!(a.run_dir.as_os_str().len() <= 50);
    }
}
