//! The Scale of an object, and the object with what a Scale says.

use crate::custom::accessor;
use crate::registry::Side;
use crate::resources::{Resources, Served};
use apimachinery::decode::Decode as _;
use apimachinery::field::{Error, Path};
use apimachinery::gvk::GroupKind;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::{Map, Value};
use hooks::ScalePaths;
use schema::apply::scale::of_scale;
use std::collections::HashMap;
use std::sync::Arc;

/// Stands for replicas that an object says nothing of, while a patch may yet do so.
const UNSET: i32 = i32::MIN;

/// A Scale, and whether its object says how many replicas it wants.
pub(super) struct Scale {
    pub(super) value: Value,
    pub(super) counted: bool,
}

/// The Scale of an object. The error is for those whose numbers or selector are something else: only custom kinds may
/// have such.
pub(super) fn scale(resource: &Served, object: &Value) -> Result<Scale, String> {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key, value.clone());
        }
    }
    let (wanted, status) = match resource.strategy.scale_paths() {
        Some(paths) => (accessor::int64(object, &paths.spec_replicas)?, custom_status(paths, object)?),
        None => (object["spec"]["replicas"].as_i64(), status(object)),
    };
    let value = json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": wanted.unwrap_or(0) as i32}, "status": status,
    });
    Ok(Scale { value, counted: wanted.is_some() || resource.strategy.scale_paths().is_none() })
}

fn custom_status(paths: &ScalePaths, object: &Value) -> Result<Value, String> {
    let replicas = accessor::int64(object, &paths.status_replicas)?.unwrap_or(0) as i32;
    let selector = paths.selector.as_ref().map(|path| accessor::string(object, path)).transpose()?;
    let mut status = json!({"replicas": replicas});
    if let Some(selector) = selector.flatten() {
        status["selector"] = selector.into();
    }
    Ok(status)
}

fn status(object: &Value) -> Value {
    let selector = &object["spec"]["selector"];
    let labels = selector
        .get("matchLabels")
        .or_else(|| selector.get("matchExpressions").is_none().then_some(selector));
    let mut terms: Vec<String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    if let Ok(typed) = apimachinery::meta::LabelSelector::from_value(selector)
        && selector.get("matchLabels").or(selector.get("matchExpressions")).is_some()
        && let Ok(selector) = apimachinery::labels::Selector::from_label_selector(Some(&typed))
    {
        terms = vec![selector.to_string()];
    }
    json!({"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": terms.join(",")})
}

/// Where the versions of a resource keep their number of replicas.
pub(super) struct Replicas(HashMap<String, Vec<String>>);

impl Replicas {
    pub(super) fn of(resources: &Resources, resource: &Served) -> Self {
        if resource.custom.is_none() {
            return Replicas(HashMap::new());
        }
        let is_same = |other: &Served| {
            (&other.row.group, &other.row.resource) == (&resource.row.group, &resource.row.resource)
        };
        let versions = resources.all().into_iter().filter(|other| is_same(other));
        let path = |version: &Served| version.strategy.scale_paths().map(|paths| paths.spec_replicas.clone());
        Replicas(
            versions.filter_map(|version| Some((version.api_version.clone(), path(&version)?))).collect(),
        )
    }

    /// The path in a version; none where that has no Scale. All versions of built-in kinds have the same.
    pub(super) fn path(&self, api_version: &str) -> Option<Vec<String>> {
        match self.0.is_empty() {
            true => Some(vec!["spec".into(), "replicas".into()]),
            false => self.0.get(api_version).cloned(),
        }
    }
}

/// The Scale of an object with those who manage it, for a patch to change.
pub(super) fn managed_scale(resource: &Served, replicas: &Replicas, object: &Value) -> Result<Value, Status> {
    let Scale { value: mut live, counted } = scale(resource, object).map_err(Status::plain_error)?;
    if !counted {
        live["spec"]["replicas"] = UNSET.into();
    }
    let managed = of_scale(&object["metadata"]["managedFields"], &|version| replicas.path(version));
    if !managed.is_null() {
        live["metadata"]["managedFields"] = managed;
    }
    Ok(live)
}

/// The Scale is what admission sees and may change.
#[derive(Debug)]
pub(super) struct OfScale(pub(super) Arc<Served>);

impl Side for OfScale {
    fn shown(&self, object: &Value) -> Value {
        // One that has no Scale was refused when it was read.
        scale(&self.0, object).map(|scale| scale.value).unwrap_or_default()
    }

    fn take(&self, object: &mut Value, scale: &Value) -> Result<(), Status> {
        let replicas = &scale["spec"]["replicas"];
        let wanted = if replicas.is_null() { 0 } else { replicas.as_i64().unwrap_or(-1) };
        let Some(paths) = self.0.strategy.scale_paths() else {
            if wanted < 0 {
                return Err(negative(object, replicas));
            }
            object["spec"]["replicas"] = wanted.into();
            return Ok(());
        };
        // Custom kinds judge for themselves what may be there.
        if wanted == i64::from(UNSET) {
            let path = accessor::dotted(&paths.spec_replicas);
            return Err(Status::bad_request(format!("the spec replicas field {path:?} cannot be empty")));
        }
        accessor::set(object, &paths.spec_replicas, wanted.into()).map_err(Status::plain_error)
    }
}

fn negative(object: &Value, replicas: &Value) -> Status {
    let at = Path::new("spec").child("replicas");
    let error = Error::invalid(&at, replicas, "must be greater than or equal to 0");
    Status::invalid(&GroupKind::new("autoscaling", "Scale"), crate::object::name(object), &error.into())
}
