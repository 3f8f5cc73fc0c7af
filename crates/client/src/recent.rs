//! Typed objects that were decoded lately. Where many informers of one process look at the same version of an object, the
//! first decodes it for all; what is kept is little, and not for long.

use crate::error::Result;
use crate::source::Raw;
use api::Kind;
use bytes::Bytes;
use parking_lot::Mutex;
use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many objects are kept: informers of one process are rarely further apart.
const KEPT: usize = 128;
/// How long. They go when another comes.
const AGE: Duration = Duration::from_secs(1);

/// A version of an object, as a type. Its bytes stand by their address, which is theirs alone while they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Id {
    kind: TypeId,
    bytes: usize,
    revision: u64,
}

#[derive(Default)]
struct State {
    objects: HashMap<Id, (Bytes, Arc<dyn Any + Send + Sync>)>,
    order: VecDeque<(Instant, Id)>,
}

/// See the module.
#[derive(Default)]
pub struct Recent(Mutex<State>);

impl std::fmt::Debug for Recent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recent").field("objects", &self.0.lock().objects.len()).finish()
    }
}

impl Recent {
    /// The typed object, decoded here unless another was faster.
    pub fn decode<K: Kind>(&self, raw: &Raw) -> Result<Arc<K>> {
        let id = Id { kind: TypeId::of::<K>(), bytes: raw.bytes.as_ptr() as usize, revision: raw.revision };
        let known = self.0.lock().objects.get(&id).map(|(_, object)| object.clone());
        if let Some(object) = known.and_then(|object| object.downcast::<K>().ok()) {
            return Ok(object);
        }
        let object: Arc<K> = Arc::new(raw.decode()?);
        self.keep(id, raw.bytes.clone(), object.clone());
        Ok(object)
    }

    fn keep(&self, id: Id, bytes: Bytes, object: Arc<dyn Any + Send + Sync>) {
        let now = Instant::now();
        let mut gone = Vec::new();
        let mut state = self.0.lock();
        while let Some((at, old)) = state.order.front().copied()
            && (state.order.len() >= KEPT || now.duration_since(at) > AGE)
        {
            state.order.pop_front();
            gone.extend(state.objects.remove(&old));
        }
        if state.objects.insert(id, (bytes, object)).is_none() {
            state.order.push_back((now, id));
        }
        // Trees are freed outside the lock.
        drop(state);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ObjectKey;
    use api::core::v1::{ConfigMap, Pod};

    fn raw(name: &str, revision: u64) -> Raw {
        let bytes = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        Raw { key: ObjectKey::new("a", name), revision, bytes: bytes.into() }
    }

    #[test]
    fn a_version_is_decoded_once_for_each_type() {
        let recent = Recent::default();
        let first = raw("one", 7);
        let object = recent.decode::<ConfigMap>(&first).unwrap();
        assert_eq!((object.metadata.name.as_str(), object.metadata.resource_version.as_str()), ("one", "7"));
        assert!(Arc::ptr_eq(&object, &recent.decode::<ConfigMap>(&first).unwrap()));
        assert_eq!(recent.decode::<Pod>(&first).unwrap().metadata.name, "one");
        let deleted = Raw { revision: 9, ..first.clone() };
        assert_eq!(recent.decode::<ConfigMap>(&deleted).unwrap().metadata.resource_version, "9");
        assert!(recent.decode::<Pod>(&Raw { bytes: "[".into(), ..first.clone() }).is_err());

        let all: Vec<_> = (0..3 * KEPT as u64).map(|n| raw("many", n)).collect();
        all.iter().for_each(|raw| drop(recent.decode::<ConfigMap>(raw).unwrap()));
        assert!(recent.0.lock().objects.len() <= KEPT);
        assert!(!Arc::ptr_eq(&object, &recent.decode::<ConfigMap>(&first).unwrap()), "it was forgotten");
    }
}
