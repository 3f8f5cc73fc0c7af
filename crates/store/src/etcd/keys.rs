//! From the model's keys to etcd's and back. In etcd the first part, `/registry`, is the operator's choice.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::model::Key;

/// The first part of every key of the model.
pub const ROOT: &str = "/registry/";

/// Where a key's bucket ends: the length of its prefix, closing slash included.
pub type Split = Arc<dyn Fn(&str) -> usize + Send + Sync>;

/// How keys are laid out.
#[derive(Clone)]
pub(super) struct Keys {
    /// Stands in place of `/registry/`.
    root: Arc<str>,
    split: Split,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.root).finish()
    }
}

impl Keys {
    /// `prefix` is `--etcd-prefix`, with or without slashes at its ends.
    pub(super) fn new(prefix: &str, split: Split) -> Self {
        Self { root: format!("/{}/", prefix.trim_matches('/')).into(), split }
    }

    /// The prefix of all our keys.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// What stands for a key or prefix in etcd.
    pub(super) fn outer(&self, inner: &str) -> Bytes {
        match inner.strip_prefix(ROOT) {
            Some(rest) => format!("{}{rest}", self.root).into(),
            None => Bytes::copy_from_slice(inner.as_bytes()),
        }
    }

    pub(super) fn key(&self, key: &Key) -> Bytes {
        self.outer(&format!("{}{}", key.prefix, key.name))
    }

    /// The key of what stands in etcd; nothing when it is not one of ours.
    pub(super) fn inner(&self, outer: &[u8]) -> Option<Key> {
        let rest = std::str::from_utf8(outer).ok()?.strip_prefix(&*self.root)?;
        let whole = format!("{ROOT}{rest}");
        let (prefix, name) = whole.split_at_checked((self.split)(&whole))?;
        Some(Key::new(prefix, name))
    }
}

/// Splits behind the longest of `prefixes` that begins a key; what none begins (custom resources, and what upstream
/// keeps beside resources) behind its second part below the root, or its first when there are only two.
pub fn split_by(mut prefixes: Vec<Arc<str>>) -> Split {
    prefixes.retain(|prefix| !prefix.is_empty());
    prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.len()));
    Arc::new(move |key| {
        if let Some(known) = prefixes.iter().find(|prefix| key.starts_with(&***prefix)) {
            return known.len();
        }
        let rest = key.strip_prefix(ROOT).unwrap_or(key);
        let base = key.len() - rest.len();
        let mut slashes = rest.match_indices('/').map(|(at, _)| at);
        let (first, second) = (slashes.next(), slashes.next());
        base + second.or(first).map_or(0, |at| at + 1)
    })
}

/// The end of the range of keys that begin with `prefix`.
pub(super) fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    // Everything.
    Bytes::from_static(&[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_buckets_end() {
        let split = split_by(vec!["/registry/pods/".into(), "/registry/services/specs/".into()]);
        let keys = Keys::new("/elsewhere/", split);
        for (outer, prefix, name) in [
            ("/elsewhere/pods/default/a", "/registry/pods/", "default/a"),
            ("/elsewhere/services/specs/default/a", "/registry/services/specs/", "default/a"),
            ("/elsewhere/stable.example.com/crontabs/ns/a", "/registry/stable.example.com/crontabs/", "ns/a"),
            ("/elsewhere/ranges/serviceips", "/registry/ranges/", "serviceips"),
            ("/elsewhere/health", "/registry/", "health"),
        ] {
            let key = keys.inner(outer.as_bytes()).unwrap();
            assert_eq!((&*key.prefix, &*key.name), (prefix, name));
            assert_eq!(keys.key(&key), outer);
        }
        assert!(keys.inner(b"compact_rev_key").is_none());
        assert_eq!(end_of(b"/registry/"), "/registry0");
        assert_eq!(end_of(&[1, 0xff]), &[2][..]);
    }
}
