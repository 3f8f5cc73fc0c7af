//! Who owns which field: every write leaves its traces in `metadata.managedFields`.

use super::WriteContext;
use crate::object;
use crate::resources::{Resources, Served};
use apimachinery::time::Time;
use schema::apply::{self, ApplyError, Converted, FieldSet, Typed, Versions};
use serde_json::Value;
use std::cell::OnceCell;
use std::sync::Arc;

/// How a write comes by its managed fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ownership {
    /// What changed is noted under the manager.
    #[default]
    Track,
    /// The change was an apply, which has settled it already.
    Settled,
}

/// The versions of a resource, for entries that were written in another than the request's.
struct OtherVersions<'a> {
    resources: &'a Resources,
    served: &'a Served,
    /// All versions of the resource, looked up when one is needed.
    versions: OnceCell<Vec<Arc<Served>>>,
}

impl OtherVersions<'_> {
    fn versions(&self) -> &[Arc<Served>] {
        let own = &self.served.row;
        self.versions.get_or_init(|| {
            let mut all = self.resources.all();
            all.retain(|s| (&s.row.group, &s.row.resource) == (&own.group, &own.resource));
            all
        })
    }
}

impl Versions for OtherVersions<'_> {
    fn convert(&self, value: &Value, api_version: &str) -> Converted<'_> {
        if api_version == self.served.api_version {
            return Converted::Same;
        }
        let Some(other) = self.versions().iter().find(|other| other.api_version == api_version) else {
            return Converted::Missing;
        };
        let hub = self.served.to_hub(value.clone());
        Converted::Into(other.to_served(hub), Typed { table: &other.table, ty: Some(other.ty) })
    }
}

/// Runs `work` with the request that the managed fields are settled by.
fn with_request<T>(
    resources: &Resources,
    context: &WriteContext<'_>,
    now: Time,
    work: impl FnOnce(&apply::Request<'_>) -> T,
) -> T {
    let served = context.resource;
    let fields =
        hooks::reset_fields(&served.row.group, &served.row.kind, context.subresource, served.has_status());
    let reset = (!fields.is_empty()).then(|| FieldSet::of_fields(fields));
    work(&apply::Request {
        table: &served.table,
        ty: Some(served.ty),
        api_version: &served.api_version,
        kind: &served.row.kind,
        subresource: context.subresource,
        manager: &context.field_manager,
        now,
        reset_fields: reset.as_ref(),
        versions: &OtherVersions { resources, served, versions: OnceCell::new() },
    })
}

/// Notes what `value` changes against `live`; both are in the hub version.
pub(super) fn track(
    resources: &Resources,
    context: &WriteContext<'_>,
    live: Option<&Value>,
    value: &mut Value,
    now: Time,
) {
    let served = context.resource;
    if context.ownership == Ownership::Settled {
        return;
    }
    with_request(resources, context, now, |request| {
        if served.is_hub() {
            return apply::update(request, live, value);
        }
        let live = live.map(|live| served.to_served(live.clone()));
        let mut there = served.to_served(value.clone());
        apply::update(request, live.as_ref(), &mut there);
        object::copy_meta(value, &there, "managedFields");
    });
}

/// Merges an applied object into the current one; both are in the served version.
pub fn merge(
    resources: &Resources,
    context: &WriteContext<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    now: Time,
) -> Result<Value, ApplyError> {
    with_request(resources, context, now, |request| apply::apply(request, live, applied, force))
}

/// A write that changes nothing but the times of its traces changes nothing.
pub(super) fn keep_times(value: &mut Value, old: &Value) {
    let entries = |v: &Value| v["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (new, was) = (entries(value), entries(old));
    if new == was || new.len() != was.len() {
        return;
    }
    let timeless = |mut entries: Vec<Value>| {
        for entry in &mut entries {
            if let Some(map) = entry.as_object_mut() {
                map.remove("time");
            }
        }
        entries
    };
    if timeless(new) != timeless(was) {
        return;
    }
    let mut candidate = value.clone();
    object::copy_meta(&mut candidate, old, "managedFields");
    object::copy_meta(&mut candidate, old, "resourceVersion");
    if candidate == *old {
        *value = candidate;
    }
}
