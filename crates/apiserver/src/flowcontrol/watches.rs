//! How many watches a change concerns (upstream's watch tracker): those of all objects of its resource, of its namespace,
//! and of the object itself.

use crate::request::RequestInfo;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

type Key = (String, String, String, String);

/// Counts watches.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<HashMap<Key, u32>>);

/// A watch that is counted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Counted {
    watches: Arc<Watches>,
    key: Key,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut watches = self.watches.0.lock();
        if let Some(count) = watches.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                watches.remove(&self.key);
            }
        }
    }
}

impl Watches {
    /// Counts a watch; not one of what is on a node: a change concerns one of those at most.
    pub(super) fn count(self: &Arc<Self>, info: &RequestInfo) -> Option<Counted> {
        if info.query.get("fieldSelector").is_some_and(|s| s.contains("spec.nodeName=")) {
            return None;
        }
        let key = key(info, &info.namespace, &info.name);
        *self.0.lock().entry(key.clone()).or_default() += 1;
        Some(Counted { watches: self.clone(), key })
    }

    /// How many watches a write concerns.
    pub(super) fn interested(&self, info: &RequestInfo) -> u32 {
        let watches = self.0.lock();
        if watches.is_empty() {
            return 0;
        }
        let count =
            |namespace: &str, name: &str| watches.get(&key(info, namespace, name)).copied().unwrap_or(0);
        let mut found = count("", "");
        if !info.namespace.is_empty() {
            found += count(&info.namespace, "");
        }
        if !info.name.is_empty() {
            found += count(&info.namespace, &info.name);
        }
        found
    }
}

fn key(info: &RequestInfo, namespace: &str, name: &str) -> Key {
    (info.group.clone(), info.resource.clone(), namespace.to_owned(), name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn counts() {
        let watches = Arc::new(Watches::default());
        let info = |method: Method, uri: &str| RequestInfo::parse(&method, &uri.parse().unwrap());
        let watch = |uri: &str| watches.count(&info(Method::GET, uri));
        let held = [
            watch("/api/v1/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1"),
            watch("/api/v1/namespaces/a/pods?watch=1&fieldSelector=metadata.name%3Dx"),
            watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn"),
            watch("/api/v1/configmaps?watch=1"),
        ];
        let check = |method: Method, uri: &str, expected| {
            assert_eq!(watches.interested(&info(method, uri)), expected, "{uri}");
        };
        check(Method::PUT, "/api/v1/namespaces/a/pods/x", 3);
        check(Method::PUT, "/api/v1/namespaces/a/pods/y", 2);
        check(Method::POST, "/api/v1/namespaces/b/pods", 1);
        drop(held);
        check(Method::PUT, "/api/v1/namespaces/a/pods/x", 0);
    }
}
