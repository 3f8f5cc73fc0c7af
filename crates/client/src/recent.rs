//! Typed objects that were decoded lately. Where many informers of one process look at the same version of an object, the
//! first decodes it for all; who wrote it in this process may have offered it before. What is kept is little, and not for
//! long.

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
    /// [`OFFERED`] until there is one.
    revision: u64,
}

/// The revision of what is about to be written.
const OFFERED: u64 = 0;

type Object = Arc<dyn Any + Send + Sync>;

#[derive(Default)]
struct State {
    objects: HashMap<Id, (Bytes, Object)>,
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
    /// The typed object, decoded here unless another was faster, or its writer has offered it.
    pub fn decode<K: Kind>(&self, raw: &Raw) -> Result<Arc<K>> {
        let id = Id { kind: TypeId::of::<K>(), bytes: raw.bytes.as_ptr() as usize, revision: raw.revision };
        let mut state = self.0.lock();
        if let Some(object) =
            state.objects.get(&id).and_then(|(_, object)| object.clone().downcast::<K>().ok())
        {
            return Ok(object);
        }
        let (object, gone) = match state.take_offer::<K>(id) {
            Some(object) => {
                debug_assert!(same(&*object, raw), "what was offered is not what was written: {}", raw.key);
                let gone = state.keep(id, raw.bytes.clone(), object.clone());
                (object, gone)
            }
            None => {
                drop(state);
                let object: Arc<K> = Arc::new(raw.decode()?);
                state = self.0.lock();
                let gone = state.keep(id, raw.bytes.clone(), object.clone());
                (object, gone)
            }
        };
        // Trees are freed outside the lock.
        drop(state);
        drop(gone);
        Ok(object)
    }

    /// Keeps the typed form of an object whose `bytes` are about to be written, for the first who decodes them. It may
    /// lack `metadata.managedFields`, and gets its resourceVersion when it is taken. Objects that are not of a [`Kind`],
    /// and those that are not written after all, are forgotten with time.
    pub fn offer(&self, bytes: Bytes, object: Arc<dyn Any + Send + Sync>) {
        let id = Id { kind: (*object).type_id(), bytes: bytes.as_ptr() as usize, revision: OFFERED };
        let gone = self.0.lock().keep(id, bytes, object);
        drop(gone);
    }
}

impl State {
    /// What is not kept any longer comes back.
    #[must_use]
    fn keep(&mut self, id: Id, bytes: Bytes, object: Object) -> Vec<(Bytes, Object)> {
        let now = Instant::now();
        let mut gone = Vec::new();
        while let Some((at, old)) = self.order.front().copied()
            && (self.order.len() >= KEPT || now.duration_since(at) > AGE)
        {
            self.order.pop_front();
            gone.extend(self.objects.remove(&old));
        }
        match self.objects.insert(id, (bytes, object)) {
            Some(other) => gone.push(other),
            None => self.order.push_back((now, id)),
        }
        gone
    }

    fn take_offer<K: Kind>(&mut self, id: Id) -> Option<Arc<K>> {
        let (_, object) = self.objects.remove(&Id { revision: OFFERED, ..id })?;
        let mut object = object.downcast::<K>().ok()?;
        Arc::get_mut(&mut object)?.metadata_mut().resource_version = id.revision.to_string();
        Some(object)
    }
}

/// Whether an object is what its bytes say, but for its managed fields.
fn same<K: Kind>(object: &K, raw: &Raw) -> bool {
    raw.decode::<K>().is_ok_and(|mut decoded| {
        decoded.metadata_mut().managed_fields = object.metadata().managed_fields.clone();
        format!("{decoded:?}") == format!("{object:?}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ObjectKey;
    use api::core::v1::{ConfigMap, Pod};
    use apimachinery::meta::ObjectMeta;

    fn raw(name: &str, revision: u64) -> Raw {
        let bytes = format!(r#"{{"metadata":{{"name":"{name}"}}}}"#);
        Raw { key: ObjectKey::new("a", name), revision, bytes: bytes.into() }
    }

    #[test]
    fn what_its_writer_offers_is_taken_once_and_has_the_revision() {
        let recent = Recent::default();
        let written = raw("one", 7);
        let pod = || Pod {
            metadata: ObjectMeta { name: "one".into(), ..Default::default() },
            ..Default::default()
        };
        recent.offer(written.bytes.clone(), Arc::new(pod()));
        let first = recent.decode::<Pod>(&written).unwrap();
        assert_eq!((first.metadata.name.as_str(), first.metadata.resource_version.as_str()), ("one", "7"));
        assert!(Arc::ptr_eq(&first, &recent.decode::<Pod>(&written).unwrap()));
        assert_eq!(
            recent.decode::<ConfigMap>(&written).unwrap().metadata.resource_version,
            "7",
            "of another type"
        );
        let ended = recent.decode::<Pod>(&Raw { revision: 9, ..written.clone() }).unwrap();
        assert_eq!(
            (first.metadata.resource_version.as_str(), ended.metadata.resource_version.as_str()),
            ("7", "9")
        );

        // An offer that comes to nothing is forgotten, and is nobody's who has the same words in other bytes.
        let lost = raw("two", 0);
        recent.offer(lost.bytes.clone(), Arc::new(pod()));
        assert_eq!(recent.decode::<Pod>(&raw("two", 12)).unwrap().metadata.name, "two");
        (20..20 + KEPT as u64).for_each(|n| drop(recent.decode::<ConfigMap>(&raw("many", n)).unwrap()));
        assert!(recent.0.lock().objects.keys().all(|id| id.revision != OFFERED));
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
