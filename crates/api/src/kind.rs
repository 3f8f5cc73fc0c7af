//! What every typed kind can say of itself.

use apimachinery::decode::Decode;
use apimachinery::meta::ObjectMeta;
use serde::Serialize;

/// A stored kind in its hub version.
pub trait Kind: Serialize + Decode + Clone + Default + std::fmt::Debug + Send + Sync + 'static {
    const GROUP: &'static str;
    const VERSION: &'static str;
    const KIND: &'static str;
    /// Plural resource name.
    const RESOURCE: &'static str;
    const NAMESPACED: bool;

    fn metadata(&self) -> &ObjectMeta;
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// An empty object with `kind` and `apiVersion` set.
    fn new() -> Self;

    /// `v1` or `apps/v1`.
    fn api_version() -> String {
        if Self::GROUP.is_empty() {
            Self::VERSION.to_owned()
        } else {
            format!("{}/{}", Self::GROUP, Self::VERSION)
        }
    }
}
