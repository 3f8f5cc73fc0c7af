//! ImageLocality: nodes that have a pod's images score higher, by size, and by how many nodes have them, so that a new
//! image does not heat the first node that pulls it.

use crate::framework::{Candidate, Cycle, MAX_SCORE, Plugin, Scale, Score, ranking};

const MIN: i64 = 23 << 20;
const MAX_PER_CONTAINER: i64 = 1000 << 20;

pub(super) struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn weight(&self) -> i64 {
        1
    }

    fn score<'a>(&self, cycle: Cycle<'a>, _: &[Candidate<'a>]) -> Option<Box<dyn Score + 'a>> {
        let spec = &cycle.pod.pod.spec;
        let containers = spec.init_containers.iter().chain(&spec.containers).map(|c| c.image.as_str());
        let volumes = spec.volumes.iter().filter_map(|v| v.image.as_ref()).map(|i| i.reference.as_str());
        // Each image with the share of nodes that have it.
        let nodes = cycle.cache.len() as f64;
        let images: Vec<(String, f64)> = containers
            .chain(volumes)
            .map(normalized)
            .map(|name| {
                let spread = cycle.cache.nodes_with_image(&name) as f64 / nodes;
                (name, spread)
            })
            .filter(|(_, spread)| *spread > 0.0)
            .collect();
        if images.is_empty() {
            return None;
        }
        let max = MAX_PER_CONTAINER * (spec.init_containers.len() + spec.containers.len()) as i64;
        let locality = move |node: Candidate<'_>| {
            let present = images.iter().filter_map(|(n, spread)| Some((*node.facts.images.get(n)?, *spread)));
            let sum: i64 = present.map(|(size, spread)| (size as f64 * spread) as i64).sum();
            MAX_SCORE * (sum.clamp(MIN, max) - MIN) / (max - MIN)
        };
        ranking(locality, Scale::Raw)
    }
}

/// The name as nodes report it: an image without a tag is its `latest`.
fn normalized(name: &str) -> String {
    let tagged = name.rfind(':').is_some_and(|colon| name.rfind('/').is_none_or(|slash| colon > slash));
    if tagged { name.into() } else { format!("{name}:latest") }
}
