//! What is to become of an object, from the state of its owners. Pure.

use apimachinery::meta::{ObjectMeta, OwnerReference};

pub(super) const FOREGROUND: &str = "foregroundDeletion";
pub(super) const ORPHAN: &str = "orphan";

/// What is known of an owner that an object names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnerState {
    Solid,
    /// It does not exist.
    Dangling,
    /// It is being deleted in the foreground and waits for its dependents.
    Waiting,
}

impl OwnerState {
    /// The state of an owner that exists.
    pub(super) fn of(owner: &ObjectMeta) -> Self {
        let foreground = owner.finalizers.iter().any(|finalizer| finalizer == FOREGROUND);
        match owner.deletion_timestamp {
            Some(_) if foreground => OwnerState::Waiting,
            _ => OwnerState::Solid,
        }
    }
}

/// What to do about an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Keep,
    /// Drop the references with these uids: others keep the object.
    DropReferences(Vec<String>),
    /// Delete it; before that, with `unblock`, let it block none of its owners.
    Delete {
        policy: &'static str,
        unblock: bool,
    },
}

/// `owners` are the object's references with their states. `dependents` tells of each dependent in the graph whether it
/// waits for dependents of its own.
pub(super) fn decide(
    object: &ObjectMeta,
    owners: &[(&OwnerReference, OwnerState)],
    dependents: &[bool],
) -> Step {
    let having = |state| owners.iter().filter(move |(_, s)| *s == state).map(|(owner, _)| owner.uid.clone());
    let solid = having(OwnerState::Solid).count();
    let waiting = having(OwnerState::Waiting).count();
    if solid > 0 {
        // References to owners that wait go as well, or these would wait for ever.
        let gone: Vec<String> = having(OwnerState::Dangling).chain(having(OwnerState::Waiting)).collect();
        return if gone.is_empty() { Step::Keep } else { Step::DropReferences(gone) };
    }
    if waiting > 0 && !dependents.is_empty() {
        // A dependent that waits itself may be waiting for this object: a circle, which is broken here.
        return Step::Delete { policy: "Foreground", unblock: dependents.contains(&true) };
    }
    let has = |name: &str| object.finalizers.iter().any(|finalizer| finalizer == name);
    let policy = if has(ORPHAN) {
        "Orphan"
    } else if has(FOREGROUND) {
        "Foreground"
    } else {
        "Background"
    };
    Step::Delete { policy, unblock: false }
}

#[cfg(test)]
mod tests {
    use super::OwnerState::{Dangling, Solid, Waiting};
    use super::*;
    use expect_test::{Expect, expect};

    fn check(finalizers: &[&str], owners: &[OwnerState], dependents: &[bool], expected: Expect) {
        let references: Vec<OwnerReference> =
            (0..owners.len()).map(|i| OwnerReference { uid: i.to_string(), ..Default::default() }).collect();
        let owners: Vec<_> = references.iter().zip(owners.iter().copied()).collect();
        let object = ObjectMeta {
            finalizers: finalizers.iter().map(|f| f.to_string()).collect(),
            ..Default::default()
        };
        expected.assert_eq(&format!("{:?}", decide(&object, &owners, dependents)));
    }

    #[test]
    fn owners_decide() {
        check(&[], &[Solid], &[], expect!["Keep"]);
        check(&[], &[Solid, Dangling, Waiting], &[], expect![[r#"DropReferences(["1", "2"])"#]]);
        check(&[], &[Dangling], &[], expect![[r#"Delete { policy: "Background", unblock: false }"#]]);
        check(&[ORPHAN], &[Dangling], &[], expect![[r#"Delete { policy: "Orphan", unblock: false }"#]]);
        check(
            &[FOREGROUND],
            &[Dangling],
            &[true],
            expect![[r#"Delete { policy: "Foreground", unblock: false }"#]],
        );
        check(&[], &[Waiting], &[], expect![[r#"Delete { policy: "Background", unblock: false }"#]]);
        check(
            &[],
            &[Waiting, Dangling],
            &[false],
            expect![[r#"Delete { policy: "Foreground", unblock: false }"#]],
        );
        check(
            &[],
            &[Waiting],
            &[false, true],
            expect![[r#"Delete { policy: "Foreground", unblock: true }"#]],
        );
    }
}
