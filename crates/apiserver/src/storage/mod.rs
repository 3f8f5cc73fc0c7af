//! Objects at rest: upstream's encodings in etcd (`form`), and encryption (`encryption`) on any engine. Both are
//! transforms between the store's view, which holds plain resident bodies, and what is kept.

mod encryption;
mod form;
pub mod measures;
pub mod metrics;

pub use encryption::{ConfigError, Configuration, Encryption};
pub use form::UpstreamForm;
pub(crate) use form::empties;

use crate::resources::Resources;
use std::collections::HashMap;
use std::sync::Arc;

/// The key prefix of every resource: where the store's buckets end.
pub fn prefixes(resources: &Resources) -> Vec<Arc<str>> {
    resources.all().iter().map(|served| served.prefix.clone()).filter(|prefix| !prefix.is_empty()).collect()
}

/// Group and resource of every bucket. Of cohabiting resources the one counts in whose group they are stored.
pub fn resources_by_prefix(resources: &Resources) -> HashMap<Arc<str>, (String, String)> {
    let stored = resources.all().into_iter().filter(|served| !served.prefix.is_empty());
    stored
        .map(|served| {
            let group = served.hub_api_version.split_once('/').map_or("", |(group, _)| group);
            (served.prefix.clone(), (group.to_owned(), served.row.resource.to_string()))
        })
        .collect()
}
