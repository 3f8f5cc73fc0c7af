//! What is to become of the bundles of a signer. Pure.

use sha2::{Digest as _, Sha256};

/// What is to be written and removed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan<'a> {
    /// What the bundle is called that there should be.
    pub name: String,
    pub put: Option<Put>,
    pub delete: Vec<&'a str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Create,
    Update,
}

/// The bundles of the signer by name, with what they hold. A new authority gets a new bundle, so that nobody sees less than
/// one of both on the way.
pub(super) fn plan<'a>(signer: &str, authority: &str, published: &[(&'a str, &str)]) -> Plan<'a> {
    let name = name(signer, authority);
    let put = match published.iter().find(|(of, _)| *of == name) {
        Some((_, bundle)) if *bundle == authority => None,
        Some(_) => Some(Put::Update),
        None => Some(Put::Create),
    };
    let delete = published.iter().map(|(of, _)| *of).filter(|of| *of != name).collect();
    Plan { name, put, delete }
}

/// The signer, and the first twelve bytes of what is published.
fn name(signer: &str, authority: &str) -> String {
    let hash = Sha256::digest(authority);
    let hash: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("{}:{hash}", signer.replace('/', ":"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
    /// Of `a`, as `sha256sum` has it.
    const A: &str = "kubernetes.io:kube-apiserver-serving:ca978112ca1bbdcafac231b3";

    #[track_caller]
    fn check(published: &[(&str, &str)], put: Option<Put>, delete: &[&str]) {
        assert_eq!(plan(SIGNER, "a", published), Plan { name: A.into(), put, delete: delete.to_vec() });
    }

    #[test]
    fn one_bundle_is_published_and_older_ones_go() {
        check(&[], Some(Put::Create), &[]);
        check(&[(A, "a")], None, &[]);
        check(&[(A, "changed")], Some(Put::Update), &[]);
        check(&[("old", "b"), (A, "a"), ("older", "c")], None, &["old", "older"]);
        check(&[("old", "a")], Some(Put::Create), &["old"]);
    }
}
