//! Server-side apply: who owns which field, what an applied object changes, and where it conflicts.
//!
//! [`update`] notes what any other write changed; [`apply`] merges an applied object. Both work on trees in canonical
//! form, leave `metadata.managedFields` in the result, and know neither kinds nor the store. The result of an apply
//! still goes through decoding and defaulting, as any write does.

use crate::decode::zero;
use crate::row::{Type, TypeId};
use crate::table::Table;
use apimachinery::json;
use apimachinery::status::{Status, StatusCause, cause};
use apimachinery::time::Time;
use apimachinery::value::{Key, Map, Value};
use managed::{Entry, Operation};
use set::print_path;
use std::cell::OnceCell;
use std::sync::LazyLock;

mod managed;
pub mod scale;
mod set;
mod typed;

pub use set::FieldSet;
pub use typed::{Comparison, Typed};

/// Client-side apply keeps the last applied object there.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What a write says of itself.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub table: &'a Table,
    /// The type in the version of the request; none for objects without a schema.
    pub ty: Option<TypeId>,
    /// Of the request: `apps/v1`.
    pub api_version: &'a str,
    pub kind: &'a str,
    /// `status`, `scale`, or empty.
    pub subresource: &'a str,
    /// Who writes; empty counts as `unknown`.
    pub manager: &'a str,
    pub now: Time,
    /// Fields that the write cannot set (the status through the main resource and the reverse): nobody owns them by it.
    pub reset_fields: Option<&'a FieldSet>,
    pub versions: &'a dyn Versions,
}

/// Conversion of an object into the version in which another manager wrote.
pub trait Versions {
    fn convert(&self, value: &Value, api_version: &str) -> Converted<'_>;
}

/// An object in another version.
#[derive(Debug)]
pub enum Converted<'a> {
    /// The versions have the same shape.
    Same,
    /// There is no such version any more: the manager's entry is dropped.
    Missing,
    Into(Value, Typed<'a>),
}

/// For kinds whose versions have the same shape.
#[derive(Debug, Clone, Copy)]
pub struct OneShape;

impl Versions for OneShape {
    fn convert(&self, _: &Value, _: &str) -> Converted<'_> {
        Converted::Same
    }
}

/// A field that another manager owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// As messages name the manager: `"kubectl-client-side-apply" using apps/v1`.
    pub manager: String,
    path: Vec<Key>,
}

impl Conflict {
    /// `.spec.replicas`.
    pub fn path(&self) -> String {
        print_path(&self.path)
    }
}

/// Why an apply was refused; the words are upstream's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("{0}")]
    BadRequest(String),
    #[error("{}", conflict_message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object does not fit its type.
    #[error("{0}")]
    Invalid(String),
}

impl ApplyError {
    /// The answer to the client.
    pub fn status(&self) -> Status {
        match self {
            ApplyError::BadRequest(message) => Status::bad_request(message.clone()),
            // Upstream answers this mistake of the client as if it were its own.
            ApplyError::Invalid(message) => Status::bad_request(message.clone()),
            ApplyError::Conflicts(conflicts) => {
                let causes = conflicts
                    .iter()
                    .map(|c| StatusCause {
                        reason: cause::FIELD_MANAGER_CONFLICT.into(),
                        message: format!("conflict with {}", c.manager),
                        field: c.path(),
                    })
                    .collect();
                Status::apply_conflict(causes, conflict_message(conflicts))
            }
        }
    }
}

fn conflict_message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", only.manager, only.path());
    }
    let mut managers: Vec<&str> = conflicts.iter().map(|c| c.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.path())));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}

/// Fields of every object that nobody owns.
static STRIPPED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

fn managed_of(value: &Value) -> Value {
    value.get("metadata").and_then(|m| m.get("managedFields")).cloned().unwrap_or_default()
}

/// A copy of an object without its managed fields, which are the longer half of most.
fn unmanaged(object: &Value) -> Value {
    fn without(map: &Map) -> Value {
        let others = map.iter().filter(|(name, _)| *name != "managedFields");
        others.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
    let Value::Object(members) = object else { return object.clone() };
    let copy = |(name, value): (&Key, &Value)| match (name.as_str(), value) {
        ("metadata", Value::Object(metadata)) => (name.clone(), without(metadata)),
        _ => (name.clone(), value.clone()),
    };
    members.iter().map(copy).collect()
}

fn take_managed(value: &mut Value) -> Value {
    value
        .get_mut("metadata")
        .and_then(Value::as_object_mut)
        .and_then(|m| m.remove("managedFields"))
        .unwrap_or_default()
}

fn set_managed(value: &mut Value, entries: Vec<Entry>) {
    let list = managed::write(entries);
    if !list.is_null()
        && let Some(Value::Object(metadata)) = value.get_mut("metadata")
    {
        metadata.insert("managedFields", list);
    }
}

/// An empty list entry or list says: forget all managers.
fn is_reset(managed: &Value) -> bool {
    match managed.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(only)]) => only.is_empty(),
        _ => false,
    }
}

/// Notes in `new.metadata.managedFields` what the write changed against `live`. For a create `live` is none.
pub fn update(request: &Request<'_>, live: Option<&Value>, new: &mut Value) {
    let given = take_managed(new);
    // Nothing is tracked of an object that cannot be taken apart.
    if !request.typed().has_steps(new) {
        return;
    }
    let live_managed = || live.map(managed_of).unwrap_or_default();
    let entries = if !request.subresource.is_empty() {
        managed::read(live_managed()).unwrap_or_default()
    } else if is_reset(&given) {
        Vec::new()
    } else {
        match managed::read(given) {
            Ok(entries) if !entries.is_empty() => entries,
            _ => managed::read(live_managed()).unwrap_or_default(),
        }
    };
    // An object that is not tracked stays so until it is applied.
    if entries.is_empty() && live.is_some() {
        return;
    }
    let empty;
    let live = match live {
        Some(live) => live,
        None => {
            empty = request.empty();
            &empty
        }
    };
    let mut entries = request.track(live, new, entries, request.manager);
    managed::cap(&mut entries);
    set_managed(new, entries);
}

/// Merges an applied object into `live` (none for a create), and takes away what this manager applied before and no
/// longer does.
pub fn apply(
    request: &Request<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
) -> Result<Value, ApplyError> {
    let version = applied["apiVersion"].as_str().unwrap_or_default();
    let kind = applied["kind"].as_str().unwrap_or_default();
    if (version, kind) != (request.api_version, request.kind) {
        return Err(ApplyError::BadRequest(format!(
            "invalid object type: {}, Kind={kind}",
            with_slash(version)
        )));
    }
    if applied["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    let (base, managed) = match live {
        Some(live) => (unmanaged(live), managed_of(live)),
        None => (request.empty(), Value::Null),
    };
    let mut entries = managed::read(managed)
        .map_err(|e| ApplyError::Invalid(format!("failed to decode managed fields: {e}")))?;
    if entries.is_empty() && live.is_some() {
        entries = request.track(&request.empty(), &base, entries, "before-first-apply");
        managed::cap(&mut entries);
    }
    request.typed().validate(applied).map_err(|errors| {
        let text = match errors.as_slice() {
            [only] => only.clone(),
            many => format!("errors:\n  {}", many.join("\n  ")),
        };
        ApplyError::Invalid(format!(
            "failed to create typed patch object ({}): {text}",
            request.describe(applied)
        ))
    })?;
    // kubectl takes over what its client-side apply last wrote.
    let takes_over = request.manager == "kubectl" && request.subresource.is_empty();
    let again = takes_over.then(|| entries.clone());
    let outcome = request.merge(&base, applied, entries, force);
    let (mut value, entries) = match (outcome, again) {
        (Err(ApplyError::Conflicts(conflicts)), Some(entries)) => {
            let Some(allowed) = request.last_applied(&base) else {
                return Err(ApplyError::Conflicts(conflicts));
            };
            let refused: Vec<Conflict> = conflicts.into_iter().filter(|c| !allowed.has(&c.path)).collect();
            if !refused.is_empty() {
                return Err(ApplyError::Conflicts(refused));
            }
            request.merge(&base, applied, entries, true)?
        }
        (outcome, _) => outcome?,
    };
    if takes_over {
        refresh_last_applied(&mut value, applied);
    }
    set_managed(&mut value, entries);
    Ok(value)
}

/// Keeps client-side apply's annotation, where there is one, up to date.
fn refresh_last_applied(value: &mut Value, applied: &Value) {
    let Some(Value::String(annotation)) = value
        .get_mut("metadata")
        .and_then(|m| m.get_mut("annotations"))
        .and_then(|a| a.get_mut(LAST_APPLIED))
    else {
        return;
    };
    if annotation.is_empty() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(annotations)) =
        applied.get_mut("metadata").and_then(|m| m.get_mut("annotations"))
    {
        annotations.remove(LAST_APPLIED);
    }
    let mut text = Vec::new();
    crate::encode::write_value(&mut text, &applied);
    text.push(b'\n');
    *annotation = String::from_utf8(text).unwrap_or_default();
}

impl<'a> Request<'a> {
    fn typed(&self) -> Typed<'a> {
        Typed { table: self.table, ty: self.ty }
    }

    fn empty(&self) -> Value {
        let mut empty = match self.ty {
            Some(id) => zero(self.table, &Type::Ref(id)),
            None => json!({}),
        };
        empty["apiVersion"] = self.api_version.into();
        empty["kind"] = self.kind.into();
        empty
    }

    /// The object and its type, as messages name them.
    pub fn describe(&self, object: &Value) -> String {
        let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
        format!(
            "{}/{}; {}, Kind={}",
            text("namespace"),
            text("name"),
            with_slash(self.api_version),
            self.kind
        )
    }

    fn entry(&self, manager: &str, operation: Operation, fields: FieldSet) -> Entry {
        Entry {
            manager: if manager.is_empty() { "unknown".into() } else { manager.into() },
            operation,
            api_version: self.api_version.into(),
            subresource: self.subresource.into(),
            // Upstream keeps no time for what was written through a scale.
            time: (self.subresource != "scale").then(|| self.now.to_string()),
            fields,
        }
    }

    fn filter(&self, mut comparison: Comparison) -> Comparison {
        if let Some(reset) = self.reset_fields {
            comparison.removed = comparison.removed.recursive_difference(reset);
            comparison.modified = comparison.modified.recursive_difference(reset);
            comparison.added = comparison.added.recursive_difference(reset);
        }
        comparison
    }

    /// Takes from each entry what changed under it; tells what was taken although its value was another's.
    fn settle(
        &self,
        old: &Value,
        new: &Value,
        entries: &mut [Entry],
        own: Option<usize>,
    ) -> (Comparison, Vec<(usize, FieldSet)>) {
        let compared = self.typed().compare(old, new);
        let filtered = OnceCell::new();
        // Who is alone has nobody to take fields from.
        let here = || match self.reset_fields {
            None => &compared,
            Some(_) => filtered.get_or_init(|| self.filter(compared.clone())),
        };
        let mut others: Vec<(String, Option<Comparison>)> = Vec::new();
        let mut conflicts = Vec::new();
        let mut dropped = Vec::new();
        for (i, entry) in entries.iter().enumerate() {
            if own == Some(i) {
                continue;
            }
            let comparison = if entry.api_version == self.api_version {
                Some(here())
            } else {
                if !others.iter().any(|(v, _)| *v == entry.api_version) {
                    let there = match (
                        self.versions.convert(old, &entry.api_version),
                        self.versions.convert(new, &entry.api_version),
                    ) {
                        (Converted::Into(old, typed), Converted::Into(new, _)) => {
                            Some(self.filter(typed.compare(&old, &new)))
                        }
                        (Converted::Missing, _) | (_, Converted::Missing) => None,
                        _ => Some(here().clone()),
                    };
                    others.push((entry.api_version.clone(), there));
                }
                others.iter().find(|(v, _)| *v == entry.api_version).and_then(|(_, c)| c.as_ref())
            };
            let Some(comparison) = comparison else {
                dropped.push(i);
                continue;
            };
            let taken = entry
                .fields
                .intersection(&comparison.modified)
                .union(&entry.fields.intersection(&comparison.added));
            let gone = if comparison.removed.is_empty() {
                FieldSet::new()
            } else {
                entry.fields.intersection(&comparison.removed)
            };
            if !taken.is_empty() || !gone.is_empty() {
                conflicts.push((i, taken, gone));
            }
        }
        let mut contested = Vec::new();
        for (i, taken, gone) in conflicts {
            entries[i].fields = std::mem::take(&mut entries[i].fields).difference(&taken).difference(&gone);
            if !taken.is_empty() {
                contested.push((i, taken));
            }
        }
        for i in dropped {
            entries[i].fields = FieldSet::new();
        }
        (compared, contested)
    }

    /// What any write but an apply does to the entries.
    fn track(&self, old: &Value, new: &Value, mut entries: Vec<Entry>, manager: &str) -> Vec<Entry> {
        let (compared, _) = self.settle(old, new, &mut entries, None);
        entries.retain(|e| !e.fields.is_empty());
        let mut fields = match compared.modified.is_empty() {
            true => compared.added,
            false => compared.modified.union(&compared.added),
        };
        if let Some(reset) = self.reset_fields {
            fields = fields.recursive_difference(reset);
        }
        let fields = fields.difference(&STRIPPED);
        if fields.is_empty() {
            return entries;
        }
        let entry = self.entry(manager, Operation::Update, fields);
        match entries.iter_mut().find(|e| e.is_same(&entry)) {
            Some(earlier) => {
                earlier.fields = entry.fields.union(&earlier.fields);
                earlier.time = entry.time;
            }
            None => entries.push(entry),
        }
        entries
    }

    fn merge(
        &self,
        live: &Value,
        applied: &Value,
        mut entries: Vec<Entry>,
        force: bool,
    ) -> Result<(Value, Vec<Entry>), ApplyError> {
        let typed = self.typed();
        let mut fields = typed.to_set(applied);
        let mut entry = self.entry(self.manager, Operation::Apply, FieldSet::new());
        let place = entries.iter().position(|e| e.is_same(&entry));
        let mut last = place.map(|i| std::mem::take(&mut entries[i].fields)).unwrap_or_default();
        if let Some(reset) = self.reset_fields {
            fields = fields.recursive_difference(reset);
            last = last.recursive_difference(reset);
        }
        entry.fields = fields;
        entry.time = place.and_then(|i| entries[i].time.clone());
        let own = match place {
            Some(i) => {
                entries[i] = entry;
                i
            }
            None => {
                entries.push(entry);
                entries.len() - 1
            }
        };
        let merged = typed.merge(live, applied);
        let value = self.prune(merged, &entries, own, &last);
        let before: Vec<String> = entries.iter().map(Entry::describe).collect();
        let (_, contested) = self.settle(live, &value, &mut entries, Some(own));
        if !force && !contested.is_empty() {
            let mut conflicts: Vec<Conflict> = contested
                .into_iter()
                .flat_map(|(i, fields)| {
                    let manager = before[i].clone();
                    fields.paths().into_iter().map(move |path| Conflict { manager: manager.clone(), path })
                })
                .collect();
            // Upstream's order is that of a map; clients group the causes by manager.
            // The fields of a manager stay in the order of their set: those of a level before those below it.
            conflicts.sort_by(|a, b| a.manager.cmp(&b.manager));
            return Err(ApplyError::Conflicts(conflicts));
        }
        let own_entry = &mut entries[own];
        own_entry.fields = std::mem::take(&mut own_entry.fields).difference(&STRIPPED);
        if value != *live && self.subresource != "scale" {
            own_entry.time = Some(self.now.to_string());
        }
        entries.retain(|e| !e.fields.is_empty());
        Ok((value, entries))
    }

    /// Takes away what this manager applied last time, not this time, and nobody else owns.
    fn prune(&self, merged: Value, entries: &[Entry], own: usize, last: &FieldSet) -> Value {
        if last.clone().difference(&entries[own].fields).is_empty() {
            return merged;
        }
        let typed = self.typed();
        let last = typed.with_named_fields(last);
        let pruned = typed.remove(&merged, &last);
        let owned = entries.iter().fold(FieldSet::new(), |all, e| all.union(&e.fields));
        let all = typed.with_named_fields(&typed.to_set(&merged));
        let kept = typed.with_named_fields(&typed.to_set(&pruned)).union(&typed.with_named_fields(&owned));
        let pruned = typed.remove(&merged, &all.clone().difference(&kept));
        // What was never this manager's stays, though it hangs below something that was.
        let kept = typed.with_named_fields(&typed.to_set(&pruned));
        typed.remove(&merged, &all.difference(&kept).intersection(&last))
    }

    /// The fields that client-side apply last wrote and that still have its values.
    fn last_applied(&self, live: &Value) -> Option<FieldSet> {
        let text = live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|t| !t.is_empty())?;
        let last: Value = serde_json::from_str(text).ok()?;
        if last["apiVersion"] != self.api_version {
            return None;
        }
        let typed = self.typed();
        let differs = typed.compare(&last, live);
        let set = typed.to_set(&last);
        Some(set.difference(&differs.modified).difference(&differs.added).difference(&differs.removed))
    }
}

/// Go prints the core group's version with its slash in this one place: `/v1, Kind=Pod`.
fn with_slash(api_version: &str) -> String {
    if api_version.contains('/') { api_version.to_owned() } else { format!("/{api_version}") }
}
