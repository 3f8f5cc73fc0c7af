//! Values at rest: an engine saves what a transform makes of a value, and its view holds what the transform makes of
//! the saved bytes. Encryption and upstream's encodings stand behind this.

use bytes::Bytes;

use crate::model::Key;

/// Why a value could not be saved or loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TransformError(pub String);

/// A value that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The value as readers see it.
    pub value: Bytes,
    /// Whether saving it today would give another form, so that a write without a change is worth while.
    pub stale: bool,
}

/// From values to bytes at rest, and back. Called where writes are ordered: it must be quick, and may block only for
/// a key that it meets for the first time.
pub trait Transform: Send + Sync + 'static {
    /// The bytes to keep.
    fn save(&self, key: &Key, value: &Bytes) -> Result<Bytes, TransformError>;
    /// The value of kept bytes.
    fn load(&self, key: &Key, kept: Bytes) -> Result<Loaded, TransformError>;
}

/// Loads a value; one that cannot be read is kept as it stands, so that it spoils no other. Its readers are told.
pub(crate) fn load(transform: &dyn Transform, key: &Key, kept: Bytes) -> Loaded {
    transform.load(key, kept.clone()).unwrap_or_else(|error| {
        tracing::error!(%key, %error, "a stored value cannot be read");
        Loaded { value: kept, stale: false }
    })
}

/// Keeps values as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Transform for Identity {
    fn save(&self, _key: &Key, value: &Bytes) -> Result<Bytes, TransformError> {
        Ok(value.clone())
    }

    fn load(&self, _key: &Key, kept: Bytes) -> Result<Loaded, TransformError> {
        Ok(Loaded { value: kept, stale: false })
    }
}
