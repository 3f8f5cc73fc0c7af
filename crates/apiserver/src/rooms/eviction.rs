//! `pods/eviction`: a deletion that asks the disruption budgets first (policy/v1).

use super::creation;
use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::handlers;
use crate::object;
use crate::registry::WriteContext;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::decode::Decode;
use apimachinery::gvk::{GroupKind, GroupResource};
use apimachinery::json;
use apimachinery::labels::Selector;
use apimachinery::meta::LabelSelector;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::meta::validation::validate_delete_options;
use apimachinery::status::{Status, StatusCause};
use apimachinery::time::Time;
use apimachinery::value::Value;
use http::StatusCode;
use std::sync::Arc;

/// Evictions that the controller has not confirmed yet; with more of them no budget is spent.
const MAX_DISRUPTED: usize = 2000;
const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

pub(crate) async fn create(server: &Server, pods: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let mut eviction = handlers::read_either(&call, "policy", ("v1", "v1beta1"), "Eviction").await?;
    let written = handlers::WriteOptions::for_create(&call)?;
    let admission = &server.registry.admission;
    admission
        .admit(&mut creation(server, pods, &call, &call.info.name, &mut eviction, written.dry_run))
        .await?;
    let name = call.info.name.clone();
    if object::name(&eviction) != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    if let Some(dry) = eviction["deleteOptions"]["dryRun"].as_array()
        && written.dry_run
        && dry.iter().any(|stage| stage != "All")
    {
        let stages: Vec<&str> = dry.iter().filter_map(Value::as_str).collect();
        return Err(Status::bad_request(format!(
            "Non-matching dry-run options in request and content: [All] and [{}]",
            stages.join(" ")
        )));
    }
    admission
        .validate(&creation(server, pods, &call, &call.info.name, &mut eviction, written.dry_run))
        .await?;
    let mut options: DeleteOptions = match eviction.get("deleteOptions") {
        Some(options) => Decode::from_value(options).map_err(|e| Status::bad_request(e.to_string()))?,
        None => DeleteOptions::default(),
    };
    let errors = validate_delete_options(&options);
    if !errors.is_empty() {
        return Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", &errors));
    }
    let mut context = handlers::context(&call, pods, &written);
    context.dry_run |= !options.dry_run.is_empty();
    let pod = server.registry.get(pods, &call.info.namespace, &name)?.value;
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let counts = !matches!(phase, "Succeeded" | "Failed" | "Pending") && !object::is_being_deleted(&pod);
    if counts {
        match spend_budget(server, &call, &pod).await? {
            Spent::Nothing => {}
            // The budget was not asked because of the state that the pod is in: only in that state may it go.
            Spent::Unhealthy(budget) => {
                if options.preconditions.as_ref().is_none_or(|p| p.resource_version.is_none()) {
                    let preconditions = options.preconditions.get_or_insert_default();
                    preconditions.resource_version = Some(object::meta_str(&pod, "resourceVersion").into());
                    let gone = evict(server, &context, &name, &mut options).await;
                    return match gone {
                        Err(status) if status.code == 409 => Err(being_processed(&budget)),
                        gone => gone,
                    };
                }
            }
        }
    }
    evict(server, &context, &name, &mut options).await
}

/// Says on the pod that it goes, and deletes it.
async fn evict(
    server: &Server,
    context: &WriteContext<'_>,
    name: &str,
    options: &mut DeleteOptions,
) -> Result<Answer, Status> {
    if !context.dry_run {
        let wanted = options.preconditions.clone().unwrap_or_default();
        let now = server.registry.now();
        let mark = |pod: &mut Value| {
            let resource = context.resource.group_resource();
            for (what, wanted, have) in [
                ("UID", &wanted.uid, object::uid(pod)),
                ("ResourceVersion", &wanted.resource_version, object::meta_str(pod, "resourceVersion")),
            ] {
                if let Some(wanted) = wanted.as_deref().filter(|wanted| !wanted.is_empty() && *wanted != have)
                {
                    let why = format!(
                        "the {what} in the precondition ({wanted}) does not match the {what} in record ({have})."
                    );
                    let end = if what == "UID" { "deleted and then recreated" } else { "modified" };
                    return Err(Status::conflict(
                        &resource,
                        name,
                        format!("{why} The object might have been {end}"),
                    ));
                }
            }
            mark_disrupted(pod, now);
            Ok(())
        };
        let marked = server.registry.edit(context, name, &mark).await?;
        if let Some(version) = options.preconditions.as_mut().and_then(|p| p.resource_version.as_mut()) {
            *version = marked.revision.to_string();
        }
    }
    server.registry.delete(context, name, options).await?;
    let mut status = Status::success();
    status.code = 201;
    Ok(body::document(StatusCode::CREATED, &status))
}

/// Sets the condition that says why the pod goes.
fn mark_disrupted(pod: &mut Value, now: Time) {
    let new = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": now.to_string(),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    });
    let status = &mut pod["status"];
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|condition| condition["type"] == new["type"]) {
        Some(old) => {
            let since = (old["status"] == "True").then(|| old["lastTransitionTime"].clone());
            *old = new;
            if let Some(since) = since {
                old["lastTransitionTime"] = since;
            }
        }
        None => conditions.push(new),
    }
}

/// What a pod's eviction cost.
enum Spent {
    Nothing,
    /// A pod that is not ready is no loss to this budget.
    Unhealthy(String),
}

fn cause(message: String) -> StatusCause {
    StatusCause { reason: "DisruptionBudget".into(), message, field: String::new() }
}

fn being_processed(budget: &str) -> Status {
    let message = format!("The disruption budget {budget} is still being processed by the server.");
    Status::too_many_requests(VIOLATION, 10).with_cause(cause(message))
}

/// Takes one disruption from the pod's budget, or refuses.
async fn spend_budget(server: &Server, call: &Call, pod: &Value) -> Result<Spent, Status> {
    let Some(budgets) = server.registry.resources.get("policy", "v1", "poddisruptionbudgets") else {
        return Ok(Spent::Nothing);
    };
    let selection = Selection::parse(&budgets, &call.info.namespace, "", "")?;
    let listed = list::list(&*server.registry.store, &budgets, &selection, &list::Page::default()).await?;
    let labels = pod["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    let mut matching = Vec::new();
    for entry in &listed.entries {
        let budget = crate::registry::decode(&budgets, entry)?.value;
        let selector = LabelSelector::from_value(&budget["spec"]["selector"]).ok();
        let Ok(selector) = Selector::from_label_selector(selector.as_ref()) else { continue };
        if selector.matches(&labels) {
            matching.push(budget);
        }
    }
    if matching.len() > 1 {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::plain_error(message));
    }
    let Some(budget) = matching.pop() else { return Ok(Spent::Nothing) };
    let ready = pod["status"]["conditions"].as_array().into_iter().flatten();
    let is_ready = ready.into_iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
    let name = object::name(&budget).to_owned();
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let spare = number("currentHealthy") >= number("desiredHealthy") && number("desiredHealthy") > 0;
    if !is_ready && (budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" || spare) {
        return Ok(Spent::Unhealthy(name));
    }
    let pod_name = object::name(pod).to_owned();
    let now = server.registry.now();
    let options = handlers::WriteOptions::for_create(call)?;
    let mut context = handlers::context(call, &budgets, &options);
    context.subresource = "status";
    server
        .registry
        .edit(&context, &name, &|budget| {
            let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
            if number("observedGeneration") < object::generation(budget) {
                return Err(being_processed(&name));
            }
            let allowed = number("disruptionsAllowed");
            let forbidden = |why: &str| {
                let resource = GroupResource::new("policy", "poddisruptionbudget");
                Err(Status::forbidden(&resource, &name, why))
            };
            if allowed < 0 {
                return forbidden("pdb disruptions allowed is negative");
            }
            if budget["status"]["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MAX_DISRUPTED) {
                return forbidden(
                    "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
                );
            }
            if allowed == 0 {
                return Err(Status::too_many_requests(VIOLATION, 0).with_cause(cause(why_not(budget))));
            }
            let left = number("disruptionsAllowed") - 1;
            budget["status"]["disruptionsAllowed"] = left.into();
            if left == 0 {
                nothing_left(budget, now);
            }
            if !budget["status"]["disruptedPods"].is_object() {
                budget["status"]["disruptedPods"] = json!({});
            }
            budget["status"]["disruptedPods"][&pod_name] = now.to_string().into();
            Ok(())
        })
        .await
        .map(|_| Spent::Nothing)
}

/// Why a budget allows no disruption.
fn why_not(budget: &Value) -> String {
    let name = object::name(budget);
    let number = |key: &str| budget["status"][key].as_i64().unwrap_or(0);
    let (healthy, desired) = (number("currentHealthy"), number("desiredHealthy"));
    let mut conditions = budget["status"]["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|c| c["type"] == "DisruptionAllowed" && c["status"] == "False");
    let text = |key: &str| condition.and_then(|c| c[key].as_str()).unwrap_or_default();
    let (reason, message) = (text("reason"), text("message"));
    if !message.is_empty() && reason == "SyncFailed" {
        format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {message}"
        )
    } else if healthy <= desired {
        format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
    } else if !message.is_empty() {
        format!("The disruption budget {name} does not allow evicting pods currently ({reason}): {message}")
    } else {
        format!("The disruption budget {name} does not allow evicting pods currently")
    }
}

/// Says that the last disruption is spent.
fn nothing_left(budget: &mut Value, now: Time) {
    let generation = budget["status"]["observedGeneration"].clone();
    let Some(conditions) = budget["status"]["conditions"].as_array_mut() else { return };
    for condition in conditions.iter_mut().filter(|condition| condition["type"] == "DisruptionAllowed") {
        if condition["status"] != "False" {
            condition["lastTransitionTime"] = now.to_string().into();
        }
        condition["status"] = "False".into();
        condition["reason"] = "InsufficientPods".into();
        condition["message"] = "".into();
        condition["observedGeneration"] = generation.clone();
    }
}
