//! `gitRepo`: a clone by the node, as root, of whatever a pod names, with the hooks that come with it (CVE-2024-10220,
//! CVE-2025-1767). Refused in upstream's words; there is no gate that lets it in.

use super::{Plugin, Ready, Request};
use api::core::v1::Volume;
use futures::future::BoxFuture;

pub(super) struct GitRepo;

impl Plugin for GitRepo {
    fn supports(&self, volume: &Volume) -> bool {
        volume.git_repo.is_some()
    }

    fn name(&self, _: &Volume) -> Option<&'static str> {
        Some("kubernetes.io/git-repo")
    }

    fn set_up<'a>(&'a self, _: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        let why = "git-repo volume plugin has been disabled; if necessary, it may be re-enabled by enabling the feature-gate `GitRepoVolumeDriver`";
        Box::pin(async move { Err(why.into()) })
    }
}
