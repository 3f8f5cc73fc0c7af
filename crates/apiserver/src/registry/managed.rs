//! Who owns which field: every write leaves its traces in `metadata.managedFields`.

use super::WriteContext;
use crate::object;
use crate::resources::{Custom, Resources, Served};
use apimachinery::status::Status;
use apimachinery::time::Time;
use apimachinery::value::{Key, Value};
use schema::apply::{self, Converted, FieldSet, OneShape, Typed, Versions};
use schema::{Table, TypeId};
use std::cell::{OnceCell, RefCell};
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
    /// Conversions that somebody had to be asked for.
    answers: &'a Answers,
    /// Conversions that somebody has to be asked for.
    questions: RefCell<Vec<(Value, String)>>,
}

/// Objects, the versions they were wanted in, and what they are there.
type Answers = Vec<(Value, String, Value)>;

impl OtherVersions<'_> {
    fn versions(&self) -> &[Arc<Served>] {
        let own = &self.served.row;
        self.versions.get_or_init(|| {
            let mut all = self.resources.all();
            all.retain(|s| (&s.row.group, &s.row.resource) == (&own.group, &own.resource));
            all
        })
    }

    fn custom(&self, custom: &Custom, value: &Value, api_version: &str) -> Converted<'_> {
        let version = self.served.custom.as_ref().and_then(|c| c.conversion.version(api_version));
        let Some(version) = version else { return Converted::Missing };
        let typed = Typed { table: version, ty: Some(self.served.ty) };
        let known = self.answers.iter().find(|(object, to, _)| to == api_version && object == value);
        if let Some((_, _, answer)) = known {
            return Converted::Into(answer.clone(), typed);
        }
        if !custom.conversion.asks() {
            let mut there = value.clone();
            there["apiVersion"] = api_version.into();
            return Converted::Into(there, typed);
        }
        self.questions.borrow_mut().push((value.clone(), api_version.to_owned()));
        Converted::Same
    }
}

impl Versions for OtherVersions<'_> {
    fn convert(&self, value: &Value, api_version: &str) -> Converted<'_> {
        if api_version == self.served.api_version {
            return Converted::Same;
        }
        if let Some(custom) = &self.served.custom {
            return self.custom(custom, value, api_version);
        }
        let Some(other) = self.versions().iter().find(|other| other.api_version == api_version) else {
            return Converted::Missing;
        };
        let hub = self.served.to_hub(value.clone());
        Converted::Into(other.to_served(hub), Typed { table: &other.table, ty: Some(other.ty) })
    }
}

/// Runs `work` with the request that the managed fields are settled by. Where conversions have to be asked for, it runs
/// again when they are known.
async fn with_request<T>(
    resources: &Resources,
    context: &WriteContext<'_>,
    now: Time,
    mut work: impl FnMut(&apply::Request<'_>) -> T,
) -> Result<T, Status> {
    let served = context.resource;
    let fields = match (&served.custom, context.subresource) {
        (Some(_), "status") => hooks::OF_CUSTOM_STATUS,
        (_, subresource) => {
            hooks::reset_fields(&served.row.group, &served.row.kind, subresource, served.has_status())
        }
    };
    let reset = (!fields.is_empty()).then(|| FieldSet::of_fields(fields));
    let mut answers = Answers::new();
    loop {
        let versions = OtherVersions {
            resources,
            served,
            versions: OnceCell::new(),
            answers: &answers,
            questions: RefCell::default(),
        };
        let done = work(&apply::Request {
            table: &served.table,
            ty: Some(served.ty),
            api_version: &served.api_version,
            kind: &served.row.kind,
            subresource: context.subresource,
            manager: &context.field_manager,
            now,
            reset_fields: reset.as_ref(),
            versions: &versions,
        });
        let questions = versions.questions.into_inner();
        let Some(custom) = served.custom.as_ref().filter(|_| !questions.is_empty()) else {
            return Ok(done);
        };
        drop(done);
        for (object, to) in questions {
            let answer = custom.conversion.convert_one(object.clone(), &to).await?;
            answers.push((object, to, answer));
        }
    }
}

/// Notes what `value` changes against `live`; both are in the hub version.
pub(super) async fn track(
    resources: &Resources,
    context: &WriteContext<'_>,
    live: Option<&Value>,
    value: &mut Value,
    now: Time,
) -> Result<(), Status> {
    let served = context.resource;
    if context.ownership == Ownership::Settled {
        return Ok(());
    }
    if served.custom.as_ref().is_some_and(|c| c.conversion.asks()) {
        let tracked = with_request(resources, context, now, |request| {
            let mut tracked = value.clone();
            apply::update(request, live, &mut tracked);
            tracked
        });
        *value = tracked.await?;
        return Ok(());
    }
    with_request(resources, context, now, |request| {
        if served.is_hub() {
            return apply::update(request, live, value);
        }
        let live = live.map(|live| served.to_served(live.clone()));
        let mut there = served.to_served(value.clone());
        apply::update(request, live.as_ref(), &mut there);
        object::copy_meta(value, &there, "managedFields");
    })
    .await
}

/// Notes the fields of what is kept nowhere, and is of another type than the resource: its type, apiVersion and kind.
pub(super) fn track_as(
    context: &WriteContext<'_>,
    (table, ty): (&Table, TypeId),
    (api_version, kind): (&str, &str),
    value: &mut Value,
    now: Time,
) {
    let request = apply::Request {
        table,
        ty: Some(ty),
        api_version,
        kind,
        subresource: context.subresource,
        manager: &context.field_manager,
        now,
        reset_fields: None,
        versions: &OneShape,
    };
    apply::update(&request, None, value);
}

/// Merges an applied object into the current one; both are in the served version.
pub async fn merge(
    resources: &Resources,
    context: &WriteContext<'_>,
    live: Option<&Value>,
    applied: &Value,
    force: bool,
    now: Time,
) -> Result<Value, Status> {
    let merge = |request: &apply::Request<'_>| apply::apply(request, live, applied, force);
    with_request(resources, context, now, merge).await?.map_err(|e| e.status())
}

/// A write that changes nothing but the times of its traces changes nothing.
pub(super) fn keep_times(value: &mut Value, old: &Value) {
    fn entries(object: &Value) -> &[Value] {
        object["metadata"]["managedFields"].as_array().map_or(&[], Vec::as_slice)
    }
    fn timeless(entry: &Value) -> impl Iterator<Item = (&Key, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time")
    }
    let (new, was) = (entries(value), entries(old));
    let same =
        new.len() == was.len() && new.iter().zip(was).all(|(new, was)| timeless(new).eq(timeless(was)));
    if !same || new == was {
        return;
    }
    if same_but_for_times(value, old) {
        object::copy_meta(value, old, "managedFields");
        object::copy_meta(value, old, "resourceVersion");
    }
}

/// Whether two objects differ in their managed fields and resourceVersion alone.
fn same_but_for_times(value: &Value, old: &Value) -> bool {
    fn others<'a>(object: &'a Value, without: &'a [&str]) -> impl Iterator<Item = (&'a Key, &'a Value)> {
        object.as_object().into_iter().flatten().filter(|(key, _)| !without.contains(&key.as_str()))
    }
    const OF_TIMES: &[&str] = &["managedFields", "resourceVersion"];
    others(value, &["metadata"]).eq(others(old, &["metadata"]))
        && others(&value["metadata"], OF_TIMES).eq(others(&old["metadata"], OF_TIMES))
}
