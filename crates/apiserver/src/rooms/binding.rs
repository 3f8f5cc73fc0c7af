//! `pods/binding` and `bindings`: gives a pod its node (upstream's BindingREST).

use super::creation;
use crate::body::{self, Answer};
use crate::handlers;
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::gvk::GroupResource;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use http::StatusCode;
use std::sync::Arc;

/// Assigns the pod named in the address (or in the body) to the node in the body.
pub(crate) async fn create(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let mut binding = handlers::read_kind(&call, "", "v1", "Binding").await?;
    let pods = server.registry.resources.get("", "v1", "pods").ok_or_else(Status::path_not_found)?;
    let pod_resource = GroupResource::new("", "pods");
    let name = object::name(&binding).to_owned();
    if call.info.name.is_empty() && name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    if !call.info.name.is_empty() && call.info.name != name {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    let options = handlers::WriteOptions::for_create(&call)?;
    let admission = &server.registry.admission;
    admission.admit(&mut creation(server, resource, &call, &name, &mut binding, options.dry_run)).await?;
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default().to_owned();
    let errors = validate(target["kind"].as_str().unwrap_or_default(), &node);
    if !errors.is_empty() {
        return Err(Status::invalid(&resource.group_kind(), &name, &errors));
    }
    admission.validate(&creation(server, resource, &call, &name, &mut binding, options.dry_run)).await?;
    let uid = object::uid(&binding).to_owned();
    let now = server.registry.now();
    let context = handlers::context(&call, &pods, &options);
    let clears = (server.registry.gates)("ClearingNominatedNodeNameAfterBinding");
    let given = |key: &str| binding["metadata"][key].as_object().cloned().unwrap_or_default();
    let (annotations, mut labels) = (given("annotations"), given("labels"));
    if !(server.registry.gates)("PodTopologyLabelsAdmission") {
        labels.clear();
    }
    server
        .registry
        .edit(&context, &name, &|pod| {
            if !uid.is_empty() && uid != object::uid(pod) {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                    object::uid(pod)
                );
                return Err(Status::conflict(&pod_resource, &name, why));
            }
            if object::is_being_deleted(pod) {
                let why = format!("pod {name} is being deleted, cannot be assigned to a host");
                return Err(Status::conflict(&GroupResource::new("", "pods/binding"), &name, why));
            }
            let current = pod["spec"]["nodeName"].as_str().unwrap_or_default();
            if !current.is_empty() {
                let why = format!("pod {name} is already assigned to node \"{current}\"");
                return Err(Status::conflict(&GroupResource::new("", "pods/binding"), &name, why));
            }
            if pod["spec"]["schedulingGates"].as_array().is_some_and(|g| !g.is_empty()) {
                let why = format!("pod {name} has non-empty .spec.schedulingGates");
                return Err(Status::conflict(&GroupResource::new("", "pods/binding"), &name, why));
            }
            pod["spec"]["nodeName"] = node.as_str().into();
            // Where it was to go is no news to anybody any more.
            if let Some(status) = pod["status"].as_object_mut().filter(|_| clears) {
                status.remove("nominatedNodeName");
            }
            for (member, brought) in [("annotations", &annotations), ("labels", &labels)] {
                for (key, value) in brought {
                    object::metadata_mut(pod).entry(member).or_insert_with(|| json!({}))[key] = value.clone();
                }
            }
            let condition = json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": now.to_string(),
            });
            set_condition(pod, condition);
            Ok(())
        })
        .await?;
    Ok(body::document(StatusCode::CREATED, &created()))
}

/// What a pod may be bound to.
fn validate(kind: &str, node: &str) -> ErrorList {
    let (mut errors, path) = (ErrorList::new(), Path::new("target"));
    if !matches!(kind, "" | "Node") {
        errors.push(Error::not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&path.child("name"), ""));
    }
    errors
}

fn created() -> Status {
    let mut status = Status::success();
    status.code = 201;
    status
}

/// Puts a condition in the place of the one with its type.
fn set_condition(object: &mut Value, condition: Value) {
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(list) = object["status"]["conditions"].as_array_mut() else { return };
    match list.iter_mut().find(|c| c["type"] == condition["type"]) {
        Some(old) => *old = condition,
        None => list.push(condition),
    }
}
