//! Objects at rest: upstream's encodings in etcd (`form`). They are
//! transforms between the store's view, which holds plain resident bodies, and what is kept.

mod form;

pub use form::UpstreamForm;

use crate::resources::Resources;
use std::sync::Arc;

/// The key prefix of every resource: where the store's buckets end.
pub fn prefixes(resources: &Resources) -> Vec<Arc<str>> {
    resources.all().iter().map(|served| served.prefix.clone()).filter(|prefix| !prefix.is_empty()).collect()
}
