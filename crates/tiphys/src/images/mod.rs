//! `tiphys image`: a Unix socket of the running server, because one process keeps the images.

pub(crate) mod command;
pub(crate) mod server;

use serde::{Deserialize, Serialize};

/// An image as the socket lists it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Listed {
    pub id: String,
    pub names: Vec<String>,
    pub size: u64,
}

impl From<&cri::v1::Image> for Listed {
    fn from(image: &cri::v1::Image) -> Self {
        let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
        Listed { id: image.id.clone(), names: names.clone(), size: image.size }
    }
}
