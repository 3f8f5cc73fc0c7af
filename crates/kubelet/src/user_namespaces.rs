//! The users of pods with `hostUsers: false`: each pod gets 65,536 of the node's for itself, which a file in its directory
//! remembers. Upstream: `pkg/kubelet/userns`.

use crate::config::Config;
use api::core::v1::Pod;
use cri::v1;
use parking_lot::Mutex;
use std::collections::BTreeMap;

/// Users of a pod.
const LENGTH: u32 = 65536;
const FILE: &str = "userns";

/// The ranges in use: which one, by the pod's uid. The first range is the node's own users.
#[derive(Debug, Default)]
pub(crate) struct UserNamespaces {
    ranges: Mutex<BTreeMap<String, u32>>,
}

impl UserNamespaces {
    /// Reads what the pods on disk have.
    pub(crate) fn load(config: &Config) -> Self {
        let mut ranges = BTreeMap::new();
        for entry in std::fs::read_dir(config.root_dir.join("pods")).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path().join(FILE)).unwrap_or_default();
            if let (Ok(range), Ok(uid)) = (text.trim().parse(), entry.file_name().into_string()) {
                ranges.insert(uid, range);
            }
        }
        UserNamespaces { ranges: Mutex::new(ranges) }
    }

    /// The pod's user namespace; nothing for a pod among the node's users.
    pub(crate) fn of(&self, config: &Config, pod: &Pod) -> Result<Option<v1::UserNamespace>, String> {
        if pod.spec.host_users != Some(false) {
            return Ok(None);
        }
        let uid = &pod.metadata.uid;
        let range = {
            let mut ranges = self.ranges.lock();
            let taken = |range: u32| ranges.values().any(|known| *known == range);
            let known = ranges.get(uid).copied();
            let free = || (1..u32::MAX / LENGTH).find(|range| !taken(*range));
            let range =
                known.or_else(free).ok_or("could not find an empty slot to allocate a user namespace")?;
            ranges.insert(uid.clone(), range);
            range
        };
        let dir = config.pod_dir(uid);
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(dir.join(FILE), range.to_string()))
            .map_err(|error| format!("could not remember the pod's user namespace: {error}"))?;
        let map = vec![v1::IdMapping { host_id: range * LENGTH, container_id: 0, length: LENGTH }];
        Ok(Some(v1::UserNamespace { mode: v1::NamespaceMode::Pod.into(), uids: map.clone(), gids: map }))
    }

    /// The pod is gone.
    pub(crate) fn release(&self, uid: &str) {
        self.ranges.lock().remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_shares_users() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new("n", "127.0.0.1");
        config.root_dir = dir.path().to_owned();
        let pod = |uid: &str| {
            let mut pod = Pod::default();
            pod.metadata.uid = uid.into();
            pod.spec.host_users = Some(false);
            pod
        };
        let first =
            |all: &UserNamespaces, uid: &str| all.of(&config, &pod(uid)).unwrap().unwrap().uids[0].host_id;
        let all = UserNamespaces::load(&config);
        assert_eq!(all.of(&config, &Pod::default()).unwrap(), None);
        assert_eq!([first(&all, "a"), first(&all, "b"), first(&all, "a")], [65536, 131_072, 65536]);
        all.release("a");
        std::fs::remove_dir_all(config.pod_dir("a")).unwrap();
        let all = UserNamespaces::load(&config);
        assert_eq!([first(&all, "c"), first(&all, "b")], [65536, 131_072]);
    }
}
