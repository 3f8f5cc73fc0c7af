//! GET of one object, and LIST.

use super::list_body::ListBody;
use super::respond::{Form, columns, form, partial, row, table};
use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::registry;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use schema::encode::{ListHead, TypeMeta};
use serde_json::json;
use std::sync::Arc;
use store::Entry;

impl Server {
    pub(super) async fn get(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let version = call.info.query.get("resourceVersion").unwrap_or_default();
        let asked = list::parse_revision(version)?.unwrap_or(0);
        if asked > 0 {
            list::wait_for(&*self.registry.store, asked).await?;
        }
        let (namespace, name) = (&call.info.namespace, &call.info.name);
        // Without a revision the newest is meant, whoever wrote it; zero is content with what is here.
        let entry = match version {
            "" => self.registry.latest(resource, namespace, name).await?,
            _ => self.registry.entry(resource, namespace, name)?,
        };
        if form == Form::Object {
            // Bytes in, bytes out.
            let stored = registry::body(&entry)?;
            return Ok(body::json(StatusCode::OK, self.bytes(resource, &stored, None, entry.mod_revision.0)));
        }
        let stored = registry::decode(resource, &entry)?;
        Ok(self.object(resource, &stored, StatusCode::OK, form))
    }

    pub(super) async fn list(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let form = form(&call.parts.headers, &call.info.query)?;
        let query = &call.info.query;
        let parameter = |name| query.get(name).unwrap_or_default();
        let options = list_options(query)?;
        let selection = Selection::parse(
            resource,
            &call.info.namespace,
            parameter("labelSelector"),
            parameter("fieldSelector"),
        )?;
        let page = list::Page {
            resource_version: parameter("resourceVersion"),
            resource_version_match: parameter("resourceVersionMatch"),
            limit: options.limit,
            continue_token: parameter("continue"),
        };
        let listed = list::list(&*self.registry.store, resource, &selection, &page).await?;
        let kind = resource.list_kind();
        let head = ListHead {
            kind: &kind,
            api_version: &resource.api_version,
            revision: listed.revision,
            continue_token: &listed.continue_token,
            remaining_item_count: listed.remaining,
            sorted: resource.custom.is_some(),
        };
        if form == Form::Object {
            return self.objects(resource, &head, listed.entries);
        }
        let mut metadata = json!({"resourceVersion": listed.revision.to_string()});
        if !listed.continue_token.is_empty() {
            metadata["continue"] = listed.continue_token.as_str().into();
        }
        if let Some(remaining) = listed.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let now = self.registry.now();
        let mut items = Vec::with_capacity(listed.entries.len());
        for entry in &listed.entries {
            let stored = registry::decode(resource, entry)?;
            items.push(match form {
                Form::Table(include) => row(resource, &stored.value, include, now),
                _ => partial(&stored.value),
            });
        }
        let document = match form {
            Form::Table(_) => table(Some(columns(resource)), metadata, items),
            _ => {
                json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": items})
            }
        };
        Ok(body::document(StatusCode::OK, &document))
    }

    /// A list of whole objects.
    fn objects(
        &self,
        resource: &Served,
        head: &ListHead<'_>,
        entries: Vec<Arc<Entry>>,
    ) -> Result<Answer, Status> {
        let mut verbatim = true;
        for entry in &entries {
            verbatim &= resource.is_verbatim(&registry::body(entry)?);
        }
        if verbatim {
            let list = ListBody::new(head, entries)?;
            return Ok(body::json(StatusCode::OK, Bytes::new()).map(|_| body::stream(list)));
        }
        let mut out = BytesMut::new();
        head.write_head(&mut out);
        for (i, entry) in entries.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b",");
            }
            let stored = registry::body(entry)?;
            out.extend_from_slice(&self.bytes(resource, &stored, None, entry.mod_revision.0));
        }
        head.write_tail(&mut out);
        Ok(body::json(StatusCode::OK, out.freeze()))
    }
}

/// The validated parameters of a list or watch.
pub(super) struct Options {
    pub limit: usize,
    pub timeout: Option<u64>,
}

pub(super) fn list_options(query: &crate::request::Query) -> Result<Options, Status> {
    use apimachinery::field::{Error, ErrorList, Path};
    let get = |name| query.get(name).unwrap_or_default();
    let number = |name: &'static str| -> Result<Option<i64>, Status> {
        match get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))
            }),
        }
    };
    let mut errors = ErrorList::default();
    let version_match = get("resourceVersionMatch");
    let path = Path::new("resourceVersionMatch");
    if !version_match.is_empty() && !query.flag("watch") {
        if get("resourceVersion").is_empty() {
            errors.push(Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !get("continue").is_empty() {
            errors
                .push(Error::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !matches!(version_match, "Exact" | "NotOlderThan") {
            errors.push(Error::not_supported(&path, version_match, &["Exact", "NotOlderThan", ""]));
        }
        if version_match == "Exact" && get("resourceVersion") == "0" {
            errors.push(Error::forbidden(
                &path,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if !errors.is_empty() {
        return Err(Status::invalid(
            &apimachinery::gvk::GroupKind::new("meta.k8s.io", "ListOptions"),
            "",
            &errors,
        ));
    }
    Ok(Options {
        limit: usize::try_from(number("limit")?.unwrap_or(0)).unwrap_or(0),
        timeout: number("timeoutSeconds")?.and_then(|t| u64::try_from(t).ok()),
    })
}

/// The type metadata of a resource in its served version.
pub(super) fn type_meta(resource: &Served) -> TypeMeta {
    TypeMeta::new(&resource.row.kind, &resource.api_version)
}
