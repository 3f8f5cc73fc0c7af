//! The typed form of an object that was judged: dear to make, and whoever looks at the object next wants the same.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// Where a strategy leaves the typed form of the object that it validates. It is the object as it is stored, but for
/// `metadata.managedFields`, which it lacks, and `metadata.resourceVersion`, which it has yet to get.
#[derive(Default)]
pub struct Judged(OnceLock<Arc<dyn Any + Send + Sync>>);

impl std::fmt::Debug for Judged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Judged").field(&self.0.get().is_some()).finish()
    }
}

impl Judged {
    /// Leaves an object. The first one stays.
    pub(crate) fn leave(&self, object: impl Any + Send + Sync) {
        let _ = self.0.set(Arc::new(object));
    }

    /// What was left, if the kind's strategy does so.
    pub fn into_inner(self) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.into_inner()
    }
}
