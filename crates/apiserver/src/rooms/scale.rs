//! `…/scale`: the number of replicas of anything that has one, as an `autoscaling/v1` Scale.

use crate::body::{self, Answer};
use crate::handlers::{self, Patch, WriteOptions};
use crate::object;
use crate::registry::UpdateOptions;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use futures::future::BoxFuture;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn at<'v>(object: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(object, |value, name| &value[name.as_str()])
}

/// The Scale of an object.
fn scale_of(resource: &Served, object: &Value) -> Value {
    let mut metadata = Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    if let Some(paths) = resource.strategy.scale_paths() {
        let mut status = json!({"replicas": at(object, &paths.status_replicas).as_i64().unwrap_or(0)});
        if let Some(selector) = paths.selector.as_ref().and_then(|p| at(object, p).as_str()) {
            status["selector"] = selector.into();
        }
        return json!({
            "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
            "spec": {"replicas": at(object, &paths.spec_replicas).as_i64().unwrap_or(0)},
            "status": status,
        });
    }
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
    if let Ok(typed) = serde_json::from_value::<apimachinery::meta::LabelSelector>(selector.clone())
        && selector.get("matchLabels").or(selector.get("matchExpressions")).is_some()
        && let Ok(selector) = apimachinery::labels::Selector::from_label_selector(Some(&typed))
    {
        terms = vec![selector.to_string()];
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata,
        "spec": {"replicas": object["spec"]["replicas"].as_i64().unwrap_or(0)},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": terms.join(",")},
    })
}

pub(crate) async fn serve(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let name = call.info.name.clone();
    if call.info.verb == "get" {
        let stored = server.registry.read(resource, &call.info.namespace, &name).await?;
        return Ok(body::document(StatusCode::OK, &scale_of(resource, &stored.value)));
    }
    let (patch, put, options) = match call.info.verb.as_str() {
        "patch" => {
            let media = Patch::media(&call)?;
            let bytes = call.body.read().await?;
            let options = WriteOptions::for_patch(&call, media.kind())?;
            let patch = Patch { media, bytes, validation: options.field_validation, force: options.force };
            (Some(patch), None, options)
        }
        _ => {
            let scale = handlers::read_body(&call, "autoscaling", "v1", "Scale").await?;
            (None, Some(scale), WriteOptions::for_update(&call)?)
        }
    };
    let context = handlers::context(&call, resource, &options);
    let change = |current: Option<&Value>| {
        let result = (|| {
            let current = current.ok_or_else(|| resource.not_found(&name))?;
            let scale = match (&put, &patch) {
                (Some(scale), _) => scale.clone(),
                (None, Some(patch)) => patch.apply_free(scale_of(resource, current))?,
                (None, None) => scale_of(resource, current),
            };
            if object::name(&scale) != name {
                return Err(Status::bad_request(format!(
                    "the name of the object ({}) does not match the name on the URL ({name})",
                    object::name(&scale)
                )));
            }
            let replicas = &scale["spec"]["replicas"];
            let wanted = if replicas.is_null() { 0 } else { replicas.as_i64().unwrap_or(-1) };
            if wanted < 0 {
                return Err(Status::invalid(
                    &apimachinery::gvk::GroupKind::new("autoscaling", "Scale"),
                    &name,
                    &apimachinery::field::Error::invalid(
                        &apimachinery::field::Path::new("spec").child("replicas"),
                        replicas,
                        "must be greater than or equal to 0",
                    )
                    .into(),
                ));
            }
            let mut value = current.clone();
            match resource.strategy.scale_paths() {
                Some(paths) => {
                    *paths.spec_replicas.iter().fold(&mut value, |v, name| &mut v[name.as_str()]) =
                        wanted.into();
                }
                None => value["spec"]["replicas"] = wanted.into(),
            }
            match object::meta_str(&scale, "resourceVersion") {
                "" => object::remove_meta(&mut value, "resourceVersion"),
                asked => object::set_meta(&mut value, "resourceVersion", asked),
            }
            Ok(value)
        })();
        Box::pin(std::future::ready(result)) as BoxFuture<'_, _>
    };
    let options = UpdateOptions { create: false, replace: put.is_some() };
    let updated = server.registry.update(&context, &name, options, &change).await?;
    Ok(body::document(StatusCode::OK, &scale_of(resource, &updated.stored.value)))
}
