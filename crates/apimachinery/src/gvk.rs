//! Groups, versions, kinds and resources: the coordinates of every API object.
//! Parses and writes `apiVersion`; the texts are those of upstream's `runtime/schema`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is usually known at compile time.
pub type Name = Cow<'static, str>;

macro_rules! coordinates {
    ($(#[$doc:meta])* $name:ident { $($field:ident),+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $(pub $field: Name),+ }

        impl $name {
            /// Built from names, static or owned.
            pub fn new($($field: impl Into<Name>),+) -> Self {
                Self { $($field: $field.into()),+ }
            }

            /// Built at compile time.
            pub const fn from_static($($field: &'static str),+) -> Self {
                Self { $($field: Cow::Borrowed($field)),+ }
            }

            /// True when no part is set.
            pub fn is_empty(&self) -> bool {
                $(self.$field.is_empty())&&+
            }
        }
    };
}

coordinates! {
    /// A group and a version; written as `apiVersion`.
    GroupVersion { group, version }
}
coordinates! {
    /// A group and a kind, any version.
    GroupKind { group, kind }
}
coordinates! {
    /// A group and a resource, any version; what messages name.
    GroupResource { group, resource }
}
coordinates! {
    /// One version of a kind.
    GroupVersionKind { group, version, kind }
}
coordinates! {
    /// One version of a resource.
    GroupVersionResource { group, version, resource }
}

/// An `apiVersion` with more than one slash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unexpected GroupVersion string: {0}")]
pub struct ParseGroupVersionError(pub String);

impl FromStr for GroupVersion {
    type Err = ParseGroupVersionError;

    fn from_str(api_version: &str) -> Result<Self, Self::Err> {
        // Upstream takes "" and "/" for the empty group and version.
        if api_version.is_empty() || api_version == "/" {
            return Ok(Self::default());
        }
        match api_version.split_once('/') {
            None => Ok(Self::new("", api_version.to_owned())),
            Some((_, version)) if version.contains('/') => {
                Err(ParseGroupVersionError(api_version.to_owned()))
            }
            Some((group, version)) => Ok(Self::new(group.to_owned(), version.to_owned())),
        }
    }
}

impl GroupVersion {
    /// The kind `kind` of this group and version.
    pub fn with_kind(&self, kind: impl Into<Name>) -> GroupVersionKind {
        GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: kind.into() }
    }

    /// The resource `resource` of this group and version.
    pub fn with_resource(&self, resource: impl Into<Name>) -> GroupVersionResource {
        GroupVersionResource {
            group: self.group.clone(),
            version: self.version.clone(),
            resource: resource.into(),
        }
    }
}

impl GroupVersionKind {
    /// The coordinates that an object's `apiVersion` and `kind` name.
    pub fn from_api_version(api_version: &str, kind: &str) -> Result<Self, ParseGroupVersionError> {
        Ok(api_version.parse::<GroupVersion>()?.with_kind(kind.to_owned()))
    }

    /// The `apiVersion` of such an object.
    pub fn api_version(&self) -> String {
        join_group_version(&self.group, &self.version)
    }

    /// Without the kind.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// Without the version.
    pub fn group_kind(&self) -> GroupKind {
        GroupKind { group: self.group.clone(), kind: self.kind.clone() }
    }
}

impl GroupVersionResource {
    /// Without the resource.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }

    /// Without the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }
}

impl GroupResource {
    /// Upstream's `ParseGroupResource`: `deployments.apps`, or `pods`.
    pub fn parse(text: &str) -> Self {
        match text.split_once('.') {
            None => Self::new("", text.to_owned()),
            Some((resource, group)) => Self::new(group.to_owned(), resource.to_owned()),
        }
    }
}

fn join_group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn write_qualified(f: &mut fmt::Formatter<'_>, name: &str, group: &str) -> fmt::Result {
    f.write_str(name)?;
    if group.is_empty() { Ok(()) } else { write!(f, ".{group}") }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join_group_version(&self.group, &self.version))
    }
}

impl fmt::Display for GroupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.kind, &self.group)
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_qualified(f, &self.resource, &self.group)
    }
}

impl fmt::Display for GroupVersionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

impl fmt::Display for GroupVersionResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Resource={}", self.group, self.version, self.resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_version_reads_and_writes() {
        for (text, group, version) in
            [("", "", ""), ("/", "", ""), ("v1", "", "v1"), ("apps/v1", "apps", "v1")]
        {
            let gv: GroupVersion = text.parse().unwrap();
            assert_eq!((&*gv.group, &*gv.version), (group, version));
            if text != "/" {
                assert_eq!(gv.to_string(), text);
            }
        }
        assert_eq!(
            "a/b/c".parse::<GroupVersion>().unwrap_err().to_string(),
            "unexpected GroupVersion string: a/b/c"
        );
        assert_eq!(GroupResource::parse("deployments.apps").to_string(), "deployments.apps");
        assert_eq!(
            GroupVersionKind::from_static("apps", "v1", "Deployment").to_string(),
            "apps/v1, Kind=Deployment"
        );
    }
}
