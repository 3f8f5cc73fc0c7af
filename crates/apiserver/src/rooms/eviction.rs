//! `pods/eviction`: a deletion that asks the disruption budgets first (policy/v1).

use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::handlers;
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::labels::Selector;
use apimachinery::meta::LabelSelector;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::{Status, StatusCause};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) async fn create(server: &Server, pods: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let eviction = handlers::read_kind(&call, "policy", "v1", "Eviction").await?;
    let name = call.info.name.clone();
    if object::name(&eviction) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let options: DeleteOptions = match eviction.get("deleteOptions") {
        Some(options) => {
            serde_json::from_value(options.clone()).map_err(|e| Status::bad_request(e.to_string()))?
        }
        None => DeleteOptions::default(),
    };
    let context = handlers::context(&call, pods)?;
    let pod = server.registry.get(pods, &call.info.namespace, &name)?.value;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let counts = !matches!(phase, "Succeeded" | "Failed" | "Pending") && !object::is_being_deleted(&pod);
    if counts {
        spend_budget(server, &call, &pod).await?;
    }
    server.registry.delete(&context, &name, &options).await?;
    let mut status = Status::success();
    status.code = 201;
    Ok(body::document(StatusCode::CREATED, &status))
}

/// Takes one disruption from the pod's budget, or refuses.
async fn spend_budget(server: &Server, call: &Call, pod: &Value) -> Result<(), Status> {
    let Some(budgets) = server.registry.resources.get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(());
    };
    let selection = Selection::parse(&budgets, &call.info.namespace, "", "")?;
    let listed = list::list(&*server.registry.store, &budgets, &selection, &list::Page::default()).await?;
    let labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let mut matching = Vec::new();
    for entry in &listed.entries {
        let budget = crate::registry::decode(&budgets, entry)?.value;
        let selector: Option<LabelSelector> = serde_json::from_value(budget["spec"]["selector"].clone()).ok();
        let Ok(selector) = Selector::from_label_selector(selector.as_ref()) else { continue };
        if selector.matches(&labels) {
            matching.push(budget);
        }
    }
    if matching.len() > 1 {
        return Err(Status::internal_error(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    let Some(budget) = matching.pop() else { return Ok(()) };
    let ready = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    if !is_ready && budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return Ok(());
    }
    let name = object::name(&budget).to_owned();
    let pod_name = object::name(pod).to_owned();
    let now = server.registry.now();
    let mut context = handlers::context(call, &budgets)?;
    context.subresource = "status";
    server
        .registry
        .edit(&context, &name, &|budget| {
            let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
            if number("observedGeneration") < object::generation(budget) {
                let mut status = Status::too_many_requests(VIOLATION, 10);
                status = status.with_cause(StatusCause {
                    reason: "DisruptionBudget".into(),
                    message: format!("The disruption budget {name} is still being processed by the server."),
                    field: String::new(),
                });
                return Err(status);
            }
            if number("disruptionsAllowed") <= 0 {
                let message = format!(
                    "The disruption budget {name} needs {} healthy pods and has {} currently",
                    number("desiredHealthy"),
                    number("currentHealthy")
                );
                return Err(Status::too_many_requests(VIOLATION, 0).with_cause(StatusCause {
                    reason: "DisruptionBudget".into(),
                    message,
                    field: String::new(),
                }));
            }
            let left = number("disruptionsAllowed") - 1;
            budget["status"]["disruptionsAllowed"] = left.into();
            if !budget["status"]["disruptedPods"].is_object() {
                budget["status"]["disruptedPods"] = json!({});
            }
            budget["status"]["disruptedPods"][&pod_name] = now.to_string().into();
            Ok(())
        })
        .await
        .map(|_| ())
}
