//! Claims whose volumes are mounted, and how full those are. Upstream: `volume_stats` of the metrics collectors.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claimed {
    pub namespace: String,
    pub claim: String,
    pub path: PathBuf,
}

/// A volume's file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filled {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

/// By pod uid and volume.
#[derive(Debug, Default)]
pub(crate) struct Claims(Mutex<HashMap<(String, String), Claimed>>);

impl Claims {
    pub(super) fn note(&self, uid: &str, volume: &str, claimed: Claimed) {
        self.0.lock().insert((uid.to_owned(), volume.to_owned()), claimed);
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().retain(|(pod, _), _| pod != uid);
    }

    /// Each claim once, however many pods use it. Blocks.
    pub(crate) fn filled(&self) -> Vec<(Claimed, Filled)> {
        let mut all: Vec<Claimed> = self.0.lock().values().cloned().collect();
        all.sort_by(|a, b| (&a.namespace, &a.claim).cmp(&(&b.namespace, &b.claim)));
        all.dedup_by(|a, b| (&a.namespace, &a.claim) == (&b.namespace, &b.claim));
        all.into_iter()
            .filter_map(|claimed| Some((filled(&claimed.path)?, claimed)))
            .map(|(f, c)| (c, f))
            .collect()
    }
}

fn filled(path: &Path) -> Option<Filled> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Filled {
        capacity: stat.f_blocks * stat.f_frsize,
        available: stat.f_bavail * stat.f_frsize,
        used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
        inodes: stat.f_files,
        inodes_free: stat.f_ffree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_claim_once() {
        let claims = Claims::default();
        let claimed = |name: &str, path: &str| Claimed {
            namespace: "ns".into(),
            claim: name.into(),
            path: path.into(),
        };
        claims.note("p", "v", claimed("data", "/tmp"));
        claims.note("q", "v", claimed("data", "/tmp"));
        claims.note("q", "w", claimed("gone", "/nowhere"));
        let all = claims.filled();
        assert_eq!(all.iter().map(|(claimed, _)| claimed.claim.as_str()).collect::<Vec<_>>(), ["data"]);
        assert!(all[0].1.capacity >= all[0].1.used && all[0].1.capacity > 0);
        claims.forget("p");
        claims.forget("q");
        assert!(claims.filled().is_empty());
    }
}
