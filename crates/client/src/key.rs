//! Names of things: a resource, and an object of it.

use api::Kind;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// Group, version and plural resource name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    pub group: String,
    pub version: String,
    pub resource: String,
}

impl Resource {
    pub fn new(group: &str, version: &str, resource: &str) -> Self {
        Resource { group: group.into(), version: version.into(), resource: resource.into() }
    }

    /// The resource that stores kind `K`.
    pub fn of<K: Kind>() -> Self {
        Resource::new(K::GROUP, K::VERSION, K::RESOURCE)
    }

    /// `/api/v1/namespaces/default/pods/web-0/status`; empty parts are left out.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>, subresource: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        let parts = [namespace.map(|n| ("namespaces", n))].into_iter().flatten();
        for (word, value) in parts {
            path.push('/');
            path.push_str(word);
            path.push('/');
            path.push_str(value);
        }
        for part in [Some(self.resource.as_str()), name, subresource].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.group.is_empty() {
            write!(f, "{}/{}", self.version, self.resource)
        } else {
            write!(f, "{}/{}/{}", self.group, self.version, self.resource)
        }
    }
}

/// Namespace and name of an object; the namespace is empty for what has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// By namespace, then by name. Most keys that are compared share the namespace's very text.
impl Ord for ObjectKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let namespaces = if Arc::ptr_eq(&self.namespace, &other.namespace) {
            Ordering::Equal
        } else {
            self.namespace.cmp(&other.namespace)
        };
        namespaces.then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for ObjectKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl ObjectKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        ObjectKey { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a typed object.
    pub fn of<K: Kind>(object: &K) -> Self {
        ObjectKey::new(&object.metadata().namespace, &object.metadata().name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}
