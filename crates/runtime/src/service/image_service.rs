//! The image service over the image store.

use super::{Runtime, blocking, stats};
use crate::images::registry::Credentials;
use crate::record::now;
use cri::filter;
use cri::v1::*;
use cri::{ImageService, Result};
use std::collections::HashMap;

fn name(spec: Option<ImageSpec>) -> String {
    spec.map(|spec| spec.image).unwrap_or_default()
}

#[async_trait::async_trait]
impl ImageService for Runtime {
    async fn list_images(&self, request: ListImagesRequest) -> Result<ListImagesResponse> {
        let wanted = request.filter.as_ref().and_then(|filter| filter.image.clone());
        let wanted = name(wanted);
        if !wanted.is_empty() {
            let images = self.inner.images.find(&wanted).iter().map(|image| image.to_cri()).collect();
            return Ok(ListImagesResponse { images });
        }
        let all = self.inner.images.list();
        let images = all.iter().map(|image| image.to_cri());
        Ok(ListImagesResponse {
            images: images.filter(|image| filter::image_matches(request.filter.as_ref(), image)).collect(),
        })
    }

    async fn image_status(&self, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
        let image = self.inner.images.find(&name(request.image));
        let mut info = HashMap::new();
        if let (true, Some(image)) = (request.verbose, &image) {
            let text =
                serde_json::json!({"chainID": image.chain.last(), "imageSpec": {"config": image.config}});
            info.insert("info".to_owned(), text.to_string());
        }
        Ok(ImageStatusResponse { image: image.map(|image| image.to_cri()), info })
    }

    async fn pull_image(&self, request: PullImageRequest) -> Result<PullImageResponse> {
        let (images, name) = (self.inner.images.clone(), name(request.image));
        let credentials = request.auth.and_then(Credentials::from_cri);
        let pull = async move {
            let pulled = images.pull(&name, credentials).await.map_err(cri::Error::from);
            // containerd's words, which people search for.
            pulled.map_err(|e| {
                cri::Error::new(e.code, format!("failed to pull and unpack image {name:?}: {}", e.message))
            })
        };
        let image = super::survive(pull).await?;
        Ok(PullImageResponse { image_ref: image.id.to_string() })
    }

    async fn remove_image(&self, request: RemoveImageRequest) -> Result<RemoveImageResponse> {
        let (images, name) = (self.inner.images.clone(), name(request.image));
        super::survive(blocking(move || Ok(images.remove(&name)?))).await?;
        Ok(RemoveImageResponse {})
    }

    async fn image_fs_info(&self, _: ImageFsInfoRequest) -> Result<ImageFsInfoResponse> {
        let inner = self.inner.clone();
        let usage = |mountpoint: &std::path::Path, bytes: u64, inodes: u64| FilesystemUsage {
            timestamp: now(),
            fs_id: Some(FilesystemIdentifier { mountpoint: mountpoint.to_string_lossy().into_owned() }),
            used_bytes: Some(UInt64Value { value: bytes }),
            inodes_used: Some(UInt64Value { value: inodes }),
        };
        blocking(move || {
            let images = inner.images.usage();
            let (bytes, inodes) = stats::disk_usage(&inner.containers_dir());
            Ok(ImageFsInfoResponse {
                image_filesystems: vec![usage(inner.images.dir(), images.bytes, images.inodes)],
                container_filesystems: vec![usage(&inner.containers_dir(), bytes, inodes)],
            })
        })
        .await
    }
}
