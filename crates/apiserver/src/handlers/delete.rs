//! DELETE of one object and of a collection.

use super::context;
use super::respond::form;
use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::registry::{DeleteOutcome, delete_message, returns_object};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::meta::options::DeleteOptions;
use apimachinery::status::Status;
use http::StatusCode;
use std::sync::Arc;

/// Options from the body, and from the query where there is none.
async fn options(call: &Call) -> Result<DeleteOptions, Status> {
    let bytes = call.body.read().await?;
    let mut options = if bytes.is_empty() {
        let query = &call.info.query;
        DeleteOptions {
            grace_period_seconds: query.get("gracePeriodSeconds").map(str::parse).transpose().map_err(
                |_| Status::bad_request("strconv.ParseInt: parsing \"gracePeriodSeconds\": invalid syntax"),
            )?,
            propagation_policy: query.get("propagationPolicy").map(Into::into),
            orphan_dependents: query.get("orphanDependents").map(|_| query.flag("orphanDependents")),
            ..Default::default()
        }
    } else if super::media(call) == "application/vnd.kubernetes.protobuf" {
        let ty = api::table().kind("", "v1", "DeleteOptions").ok_or_else(Status::path_not_found)?;
        let value = api::protobuf().decode(ty, &bytes).map_err(|e| Status::bad_request(e.to_string()))?;
        serde_json::from_value(value).map_err(|e| Status::bad_request(e.to_string()))?
    } else if schema::decode::looks_like_json(&bytes) {
        serde_json::from_slice(&bytes).map_err(|e| Status::bad_request(e.to_string()))?
    } else {
        let text = std::str::from_utf8(&bytes).map_err(|e| Status::bad_request(e.to_string()))?;
        let decoded = schema::decode::free_yaml(text, schema::decode::FieldValidation::Ignore)
            .map_err(|e| Status::bad_request(e.to_string()))?;
        serde_json::from_value(decoded.value).map_err(|e| Status::bad_request(e.to_string()))?
    };
    options.dry_run.extend(call.info.query.all("dryRun").map(Into::into));
    Ok(options)
}

impl Server {
    pub(super) async fn delete(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let options = options(&call).await?;
        let mut context = context(&call, resource)?;
        context.dry_run |= !options.dry_run.is_empty();
        if resource.row.kind == "Namespace" {
            context.namespace = "";
        }
        match self.registry.delete(&context, &call.info.name, &options).await? {
            DeleteOutcome::Pending(stored) => Ok(self.object(resource, &stored, StatusCode::OK, form)),
            DeleteOutcome::Gone(stored) if returns_object(&resource.row.group, &resource.row.resource) => {
                Ok(self.object(resource, &stored, StatusCode::OK, form))
            }
            DeleteOutcome::Gone(stored) => {
                Ok(body::document(StatusCode::OK, &delete_message(&context, &stored)))
            }
        }
    }

    pub(super) async fn delete_collection(
        &self,
        resource: &Arc<Served>,
        call: Call,
    ) -> Result<Answer, Status> {
        let options = options(&call).await?;
        let query = &call.info.query;
        let parameter = |name| query.get(name).unwrap_or_default();
        let selection = Selection::parse(
            resource,
            &call.info.namespace,
            parameter("labelSelector"),
            parameter("fieldSelector"),
        )?;
        let limit = super::read::list_options(query)?.limit;
        let page = list::Page { limit, continue_token: parameter("continue"), ..Default::default() };
        let listed = list::list(&*self.registry.store, resource, &selection, &page).await?;
        let mut base = context(&call, resource)?;
        base.dry_run |= !options.dry_run.is_empty();
        // Together, so that one sync of the store serves many.
        let deletes = listed.entries.iter().map(|entry| {
            let (namespace, name) = entry.name.split_once('/').unwrap_or(("", &entry.name));
            let mut context = base.clone();
            context.namespace = namespace;
            let options = &options;
            async move {
                match self.registry.delete(&context, name, options).await {
                    Ok(_) => Ok(()),
                    Err(status) if status.is_not_found() => Ok(()),
                    Err(status) => Err(status),
                }
            }
        });
        for result in futures::future::join_all(deletes).await {
            result?;
        }
        let items: Vec<serde_json::Value> = listed
            .entries
            .iter()
            .filter_map(|e| crate::registry::decode(resource, e).ok())
            .map(|s| s.value)
            .collect();
        Ok(body::document(
            StatusCode::OK,
            &serde_json::json!({
                "kind": resource.list_kind(),
                "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": listed.revision.to_string()},
                "items": items,
            }),
        ))
    }
}
