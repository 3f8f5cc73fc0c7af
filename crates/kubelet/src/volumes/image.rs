//! `image`: the content of a container image. The runtime mounts it when a container starts; here is nothing to be made.

use super::{Plugin, Ready, Request};
use api::core::v1::Volume;
use futures::future::BoxFuture;
use std::path::PathBuf;

pub(super) struct Image;

impl Plugin for Image {
    fn supports(&self, volume: &Volume) -> bool {
        volume.image.is_some()
    }

    fn name(&self, _: &Volume) -> Option<&'static str> {
        Some("kubernetes.io/image")
    }

    fn set_up<'a>(&'a self, _: &'a Request<'a>) -> BoxFuture<'a, Result<Ready, String>> {
        let ready = Ready { host_path: PathBuf::new(), read_only: true, mode: 0o755, refresh_at: None };
        Box::pin(std::future::ready(Ok(ready)))
    }
}
