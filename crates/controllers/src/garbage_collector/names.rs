//! Names of objects, small: uids as their bits, kinds and namespaces shared.

use apimachinery::meta::OwnerReference;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

/// A uid. The server makes UUIDs; a reference may hold anything.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Uid {
    Uuid([u8; 16]),
    Other(Arc<str>),
}

/// The bits of a UUID that is written as servers write it.
fn canonical(text: &str) -> Option<[u8; 16]> {
    let mut bits = [0; 16];
    let mut digits = 0;
    for (i, byte) in text.bytes().enumerate() {
        if matches!(i, 8 | 13 | 18 | 23) {
            if byte != b'-' {
                return None;
            }
            continue;
        }
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        let at: &mut u8 = bits.get_mut(digits / 2)?;
        *at = *at << 4 | digit;
        digits += 1;
    }
    (digits == 32).then_some(bits)
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        canonical(text).map_or_else(|| Uid::Other(text.into()), Uid::Uuid)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Uid::Other(text) => f.write_str(text),
            Uid::Uuid(bits) => {
                for (i, byte) in bits.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A kind as objects name it.
#[derive(Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct KindName {
    pub api_version: String,
    pub kind: String,
}

/// Where an object is, or is said to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Coordinates {
    pub kind: Arc<KindName>,
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    pub uid: Uid,
}

impl fmt::Display for Coordinates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coordinates { kind, namespace, name, uid } = self;
        let KindName { api_version, kind } = &**kind;
        write!(f, "[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]")
    }
}

/// Kinds and namespaces, each held once.
#[derive(Debug, Default)]
pub(super) struct Names {
    kinds: HashSet<Arc<KindName>>,
    namespaces: HashSet<Arc<str>>,
}

impl Names {
    pub(super) fn kind(&mut self, api_version: &str, kind: &str) -> Arc<KindName> {
        let name = KindName { api_version: api_version.into(), kind: kind.into() };
        if let Some(known) = self.kinds.get(&name) {
            return known.clone();
        }
        let new = Arc::new(name);
        self.kinds.insert(new.clone());
        new
    }

    pub(super) fn namespace(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.namespaces.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.namespaces.insert(new.clone());
        new
    }

    pub(super) fn owner(&mut self, reference: &OwnerReference) -> super::graph::Owner {
        super::graph::Owner {
            kind: self.kind(&reference.api_version, &reference.kind),
            name: reference.name.as_str().into(),
            uid: reference.uid.as_str().into(),
            blocks: reference.block_owner_deletion == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uids_read_as_they_were_written() {
        for text in [
            "0b3f1c1e-7a8d-4c55-9d3e-00ff00ff00ff",
            "0B3F1C1E-7A8D-4C55-9D3E-00FF00FF00FF",
            "0b3f1c1e-7a8d-4c55-9d3e-00ff00ff00f",
            "0b3f1c1e-7a8d-4c55-9d3e-00ff00ff00ff0",
            "0b3f1c1e07a8d04c5509d3e000ff00ff00ff",
            "",
            "anything",
        ] {
            assert_eq!(Uid::from(text).to_string(), text);
        }
        assert!(matches!(Uid::from("0b3f1c1e-7a8d-4c55-9d3e-00ff00ff00ff"), Uid::Uuid(_)));
    }
}
