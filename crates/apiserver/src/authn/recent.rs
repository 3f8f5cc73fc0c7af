//! What was verified lately, by digest, so that a client does not pay for signatures with every request. Bounded: two
//! generations, the older is dropped when the younger is full.

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;
use std::collections::HashMap;

/// How many results a generation holds.
const GENERATION: usize = 4096;

type Digest = [u8; 32];
type Generation<V> = HashMap<Digest, (V, i64)>;

/// The digest of some credentials.
pub(crate) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut context = Context::new(&SHA256);
    parts.into_iter().for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

pub(crate) struct Recent<V>(Mutex<(Generation<V>, Generation<V>)>);

impl<V> Default for Recent<V> {
    fn default() -> Self {
        Recent(Mutex::default())
    }
}

impl<V: Clone> Recent<V> {
    /// The result for a digest that still holds at `now` (seconds).
    pub(crate) fn get(&self, digest: &Digest, now: i64) -> Option<V> {
        let (young, old) = &*self.0.lock();
        young
            .get(digest)
            .or_else(|| old.get(digest))
            .filter(|(_, until)| now < *until)
            .map(|(v, _)| v.clone())
    }

    /// Keeps a result until some time.
    pub(crate) fn put(&self, digest: Digest, value: V, until: i64) {
        let (young, old) = &mut *self.0.lock();
        if young.len() >= GENERATION {
            *old = std::mem::take(young);
        }
        young.insert(digest, (value, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_bounded_in_time_and_number() {
        let recent = Recent::default();
        let key = |i: usize| digest([i.to_string().as_bytes()]);
        for i in 0..3 * GENERATION {
            recent.put(key(i), i, 10);
        }
        assert_eq!(recent.get(&key(0), 0), None);
        assert_eq!(recent.get(&key(3 * GENERATION - 1), 9), Some(3 * GENERATION - 1));
        assert_eq!(recent.get(&key(3 * GENERATION - 1), 10), None);
    }
}
