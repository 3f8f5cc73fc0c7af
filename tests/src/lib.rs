//! Whole-cluster tests, driven by real kubectl: a real `tiphys server` with its node, in a network namespace of its own.
//! A file of `tests/` is one capability; its scenarios share a cluster, each with a Kubernetes namespace of its own.
#![allow(clippy::unwrap_used)]

/// A node that joined a cluster.
pub mod agent;
/// A cluster: started, killed, started again, ended.
pub mod cluster;
/// Another runtime than our own.
pub mod containerd;
/// Disks that are files.
pub mod disk;
/// HTTP as a client of Services sees it.
pub mod http;
/// kubectl, as one types it.
pub mod kubectl;
/// What an ended cluster must not leave behind.
mod leaks;
/// Manifests that more than one file applies.
pub mod manifests;
/// The network namespace in which all of it happens.
pub mod net;
/// A registry to pull from.
pub mod registry;
/// Scenarios by name: run, explained when they fail, and the cluster's end as the last of them.
pub mod suite;

pub use cluster::{Cluster, Engine};
pub use kubectl::{Kubectl, Stream, client};
pub use suite::{Room, Scenario, Suite};

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const USUAL: Duration = Duration::from_secs(60);

/// How long anything may take that a test waits for; a healthy cluster needs a fraction of it. `TIPHYS_PATIENCE` says
/// otherwise, in seconds, where the machine itself is emulated.
pub fn patience() -> Duration {
    static PATIENCE: OnceLock<Duration> = OnceLock::new();
    let told = || std::env::var("TIPHYS_PATIENCE").ok().and_then(|text| text.parse().ok());
    *PATIENCE.get_or_init(|| told().map_or(USUAL, Duration::from_secs))
}

/// As much longer than `usual` as this machine's patience is longer than the usual one.
pub fn patiently(usual: Duration) -> Duration {
    usual.mul_f64(patience().as_secs_f64() / USUAL.as_secs_f64())
}

/// Asks until the answer is yes; each question takes as long as it takes.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + patience();
    while !done() {
        assert!(Instant::now() < end, "never {what}");
    }
}

/// The top of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
