//! What the deletion of objects of a kind does beyond what it does to all.

use apimachinery::value::Value;

/// Whether what belongs to an object is orphaned when its deletion says nothing of that.
pub fn orphans_by_default(group: &str, kind: &str) -> bool {
    matches!((group, kind), ("", "ReplicationController") | ("batch", "Job"))
}

/// What whoever deletes an object of a kind is told, unless the delete says what is to become of what belongs to it.
pub fn deletion_warning(group: &str, kind: &str) -> Option<&'static str> {
    const JOBS: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning";
    ((group, kind) == ("batch", "Job")).then_some(JOBS)
}

/// Whether a completed deletion shows when and how gracefully it was done.
pub fn shows_end(group: &str, kind: &str) -> bool {
    (group, kind) == ("", "Pod")
}

/// What upstream names in a conflict with the preconditions of a delete: the kind, but for kinds with storage of their own.
pub fn precondition_resource<'a>(group: &'a str, kind: &'a str) -> (&'a str, &'a str) {
    match (group, kind) {
        ("", "Namespace") => ("", "namespaces"),
        // Events are stored in the core group.
        ("events.k8s.io", _) => ("", kind),
        _ => (group, kind),
    }
}

/// Whether a conflict with the preconditions of a delete is told in the words of storage, not of the deletion.
pub fn precondition_of_storage(group: &str, kind: &str) -> bool {
    (group, kind) == ("", "Namespace")
}

/// Whether an object stays while its spec has finalizers.
pub fn holds_itself(group: &str, kind: &str, value: &Value) -> bool {
    (group, kind) == ("", "Namespace")
        && value["spec"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// Says in an object that it is being deleted, beyond what its metadata says.
pub fn mark_deleted(group: &str, kind: &str, value: &mut Value) {
    if (group, kind) == ("", "Namespace") {
        value["status"]["phase"] = "Terminating".into();
        // It ends when it is empty, whatever the time.
        super::tree::with(value, "metadata", |metadata| {
            super::tree::remove(metadata, "deletionGracePeriodSeconds");
        });
    }
}
