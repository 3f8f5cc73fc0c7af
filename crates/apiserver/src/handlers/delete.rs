//! DELETE of one object and of a collection.

use super::respond::{accepted, form};
use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::registry::{DeleteOutcome, Ownership, WriteContext, delete_message};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupKind;
use apimachinery::meta::options::DeleteOptions;
use apimachinery::meta::validation::validate_delete_options;
use apimachinery::status::Status;
use apimachinery::value::Value;
use http::StatusCode;
use std::sync::Arc;

/// Options from the body, and from the query where there is none.
async fn options(call: &Call) -> Result<DeleteOptions, Status> {
    let bytes = call.body.read().await?;
    let sent = !bytes.is_empty();
    let mut options = if !sent {
        call.info.query.delete_options().map_err(|e| Status::bad_request(e.to_string()))?
    } else {
        super::input::delete_options(call, &bytes)?
    };
    // As long as nothing that cannot be read may be deleted, nobody says so.
    options.ignore_store_read_error_with_cluster_breaking_potential = None;
    if sent && let Some(record) = crate::context::record() {
        record.request_object(&Value::Null, || {
            let mut json = br#"{"kind":"DeleteOptions","apiVersion":"v1""#.to_vec();
            let members = apimachinery::value::to_json_vec(&options).unwrap_or_default();
            // The options' own members follow, if there are any.
            match members.strip_prefix(b"{") {
                Some(rest) if rest != b"}" => {
                    json.push(b',');
                    json.extend_from_slice(rest);
                }
                _ => json.push(b'}'),
            }
            json
        });
    }
    let errors = validate_delete_options(&options);
    if errors.is_empty() {
        return Ok(options);
    }
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", &errors))
}

/// Tells of what becomes of what belongs to the object, where the options do not say.
fn warn(resource: &Served, options: &DeleteOptions) {
    if options.orphan_dependents.is_some() || options.propagation_policy.is_some() {
        return;
    }
    if let Some(text) = hooks::deletion_warning(&resource.row.group, &resource.row.kind) {
        crate::context::warn(text.to_owned());
    }
}

fn delete_context<'a>(
    call: &'a Call,
    resource: &'a Arc<Served>,
    options: &DeleteOptions,
) -> WriteContext<'a> {
    WriteContext {
        user: &call.user,
        verb: &call.info.verb,
        resource,
        namespace: if resource.is_namespace() { "" } else { &call.info.namespace },
        subresource: &call.info.subresource,
        dry_run: !options.dry_run.is_empty(),
        field_manager: "".into(),
        ownership: Ownership::Track,
        side: None,
    }
}

impl Server {
    pub(super) async fn delete(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(resource, &call)?;
        let options = options(&call).await?;
        warn(resource, &options);
        let context = delete_context(&call, resource, &options);
        match self.registry.delete(&context, &call.info.name, &options).await? {
            DeleteOutcome::Pending(stored) => Ok(self.object(resource, &stored, StatusCode::OK, form)),
            DeleteOutcome::Gone(stored) if resource.row.returns_deleted => {
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
        let (form, media) = accepted(resource, &call)?;
        let options = options(&call).await?;
        warn(resource, &options);
        let query = &call.info.query;
        let parameter = |name| query.get(name).unwrap_or_default();
        let selection = Selection::parse(
            resource,
            &call.info.namespace,
            parameter("labelSelector"),
            parameter("fieldSelector"),
        )?;
        let limit = super::read::limit(&super::read::list_options(query)?);
        let page = list::Page {
            resource_version: parameter("resourceVersion"),
            resource_version_match: parameter("resourceVersionMatch"),
            limit,
            continue_token: parameter("continue"),
        };
        let listed = list::list(&*self.registry.store, resource, &selection, &page).await?;
        let base = delete_context(&call, resource, &options);
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
        self.listed(resource, listed, form, media)
    }
}
