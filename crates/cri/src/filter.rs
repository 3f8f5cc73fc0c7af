//! Which sandboxes, containers and images a list request asks for; every runtime here filters with these.

use crate::v1::{Container, ContainerFilter, Image, ImageFilter, PodSandbox, PodSandboxFilter};
use std::collections::HashMap;

fn id_matches(wanted: &str, id: &str) -> bool {
    wanted.is_empty() || id.starts_with(wanted)
}

fn labels_match(wanted: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// Id (or a prefix of it), state and labels.
pub fn sandbox_matches(filter: Option<&PodSandboxFilter>, sandbox: &PodSandbox) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &sandbox.id)
            && filter.state.is_none_or(|state| state.state == sandbox.state)
            && labels_match(&filter.label_selector, &sandbox.labels)
    })
}

/// Id (or a prefix of it), sandbox id, state and labels.
pub fn container_matches(filter: Option<&ContainerFilter>, container: &Container) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &container.id)
            && id_matches(&filter.pod_sandbox_id, &container.pod_sandbox_id)
            && filter.state.is_none_or(|state| state.state == container.state)
            && labels_match(&filter.label_selector, &container.labels)
    })
}

/// Any name or digest of the image.
pub fn image_matches(filter: Option<&ImageFilter>, image: &Image) -> bool {
    let wanted = filter.and_then(|filter| filter.image.as_ref()).map_or("", |spec| spec.image.as_str());
    wanted.is_empty()
        || wanted == image.id
        || image.repo_tags.iter().chain(&image.repo_digests).any(|name| name == wanted)
}
