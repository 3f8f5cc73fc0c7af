//! GET of one object, and LIST.

use super::Media;
use super::list_body::ListBody;
use super::respond::{
    CREATED, Form, accepted, columns, head, line, message, partial, row, table, type_meta, write,
};
use crate::body::{self, Answer};
use crate::cache::{Selection, list};
use crate::registry::{self, Stored};
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::gvk::GroupKind;
use apimachinery::meta::ListMeta;
use apimachinery::meta::options::ListOptions;
use apimachinery::meta::validation::{set_list_options_defaults, validate_list_options};
use apimachinery::status::Status;
use apimachinery::value::to_json_vec;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use schema::encode::ListHead;
use schema::protobuf;
use std::sync::Arc;
use store::{Entry, Revision};

impl Server {
    pub(super) async fn get(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let (form, media) = accepted(resource, &call)?;
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
        let entry = resource.present(entry).await?;
        if form == Form::Object {
            // Bytes in, bytes out.
            let stored = registry::body(&entry)?;
            let revision = entry.mod_revision.0;
            let meta = type_meta(resource);
            if media == Media::Protobuf {
                let message = message(resource, &stored, revision);
                return Ok(protobuf(protobuf::wrap(&message, meta.kind(), meta.api_version())));
            }
            let mut out = BytesMut::with_capacity(stored.max_len(Some(&meta)) + 1);
            write(resource, &stored, Some(&meta), revision, &mut out);
            out.extend_from_slice(b"\n");
            return Ok(body::json(StatusCode::OK, out.freeze()));
        }
        let stored = registry::decode(resource, &entry)?;
        Ok(self.object(resource, &stored, StatusCode::OK, form))
    }

    pub(super) async fn list(&self, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
        let (form, media) = accepted(resource, &call)?;
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
            limit: limit(&options),
            continue_token: parameter("continue"),
        };
        let listed = list::list(&*self.registry.store, resource, &selection, &page).await?;
        self.listed(resource, listed, form, media)
    }

    /// Answers a list of objects that are not stored, in the form that the request asks for.
    pub(crate) fn list_of(
        &self,
        resource: &Arc<Served>,
        call: &Call,
        objects: Vec<Stored>,
    ) -> Result<Answer, Status> {
        let (form, media) = accepted(resource, call)?;
        let query = &call.info.query;
        let parameter = |name| query.get(name).unwrap_or_default();
        let selection =
            Selection::parse(resource, "", parameter("labelSelector"), parameter("fieldSelector"))?;
        let entry = |stored: Stored| {
            Arc::new(Entry {
                name: crate::object::name(&stored.value).into(),
                value: stored.body.stored().clone(),
                create_revision: Revision(0),
                mod_revision: Revision(0),
                version: 0,
                lease: None,
                expires_ms: None,
                stale: false,
                projection: Default::default(),
            })
        };
        let mut entries: Vec<Arc<Entry>> = objects.into_iter().map(entry).collect();
        entries.retain(|entry| selection.matches(resource, entry));
        let listed =
            list::Listed { entries, revision: 0, continue_token: String::new(), remaining: None, seen: 0 };
        self.listed(resource, listed, form, media)
    }

    pub(super) fn listed(
        &self,
        resource: &Arc<Served>,
        listed: list::Listed,
        form: Form,
        media: Media,
    ) -> Result<Answer, Status> {
        let metadata = ListMeta {
            resource_version: if listed.revision == 0 { String::new() } else { listed.revision.to_string() },
            continue_token: listed.continue_token.clone(),
            remaining_item_count: listed.remaining,
            ..Default::default()
        };
        match form {
            Form::Object if media == Media::Protobuf => protobuf_list(resource, &listed, &metadata),
            Form::Object => json_list(resource, listed),
            Form::Table(include, version) => {
                let now = self.registry.now();
                let rows = rows(resource, &listed, |object| row(resource, object, (include, version), now))?;
                let columns = columns(resource);
                // Upstream has no rows, not none of them, where nothing but names and times are shown.
                let plain = matches!(columns.as_slice(), [_, second] if second.name == CREATED.name);
                let rows = Some(&*rows).filter(|rows| !plain || !rows.is_empty());
                Ok(body::json(StatusCode::OK, line(table(Some(columns), &metadata, rows, version))))
            }
            Form::Metadata(_) => {
                let ty = format!("{}List", resource.go_type());
                Err(Status::not_acceptable_form("PartialObjectMetadata", true, &ty))
            }
            Form::MetadataList(version) => {
                let items = rows(resource, &listed, |object| partial(resource, object, version))?;
                let mut out = head("PartialObjectMetadataList", version);
                out.extend(to_json_vec(&metadata).map_err(Status::internal_error)?);
                out.extend_from_slice(br#","items":["#);
                out.extend(items.join(&b','));
                out.extend_from_slice(b"]}\n");
                Ok(body::json(StatusCode::OK, out))
            }
        }
    }
}

fn rows(
    resource: &Served,
    listed: &list::Listed,
    mut write: impl FnMut(&apimachinery::value::Value) -> Vec<u8>,
) -> Result<Vec<Vec<u8>>, Status> {
    listed.entries.iter().map(|entry| Ok(write(&registry::decode(resource, entry)?.value))).collect()
}

fn protobuf(bytes: Vec<u8>) -> Answer {
    let mut answer = body::json(StatusCode::OK, bytes);
    let media = http::HeaderValue::from_static(protobuf::CONTENT_TYPE);
    answer.headers_mut().insert(http::header::CONTENT_TYPE, media);
    answer
}

fn protobuf_list(resource: &Served, listed: &list::Listed, metadata: &ListMeta) -> Result<Answer, Status> {
    let mut items = Vec::with_capacity(listed.entries.len());
    for entry in &listed.entries {
        let stored = registry::body(entry)?;
        items.push(message(resource, &stored, entry.mod_revision.0));
    }
    let metadata = apimachinery::value::to_value(metadata).map_err(Status::internal_error)?;
    let list = api::protobuf().list(&metadata, &items);
    Ok(protobuf(protobuf::wrap(&list, &resource.list_kind(), &resource.api_version)))
}

/// A list of whole objects, as JSON.
fn json_list(resource: &Served, listed: list::Listed) -> Result<Answer, Status> {
    let kind = resource.list_kind();
    let head = ListHead {
        kind: &kind,
        api_version: &resource.api_version,
        revision: listed.revision,
        continue_token: &listed.continue_token,
        remaining_item_count: listed.remaining,
        sorted: resource.custom.is_some(),
    };
    if resource.is_verbatim() {
        let list = ListBody::new(&head, listed.entries)?;
        return Ok(body::json(StatusCode::OK, Bytes::new()).map(|_| body::stream(list)));
    }
    let mut out = BytesMut::new();
    head.write_head(&mut out);
    for (i, entry) in listed.entries.iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(b",");
        }
        write(resource, &registry::body(entry)?, None, entry.mod_revision.0, &mut out);
    }
    head.write_tail(&mut out);
    out.extend_from_slice(b"\n");
    Ok(body::json(StatusCode::OK, out.freeze()))
}

/// The parameters of a list or watch, judged.
pub(super) fn list_options(query: &crate::request::Query) -> Result<ListOptions, Status> {
    let mut options = query.list_options().map_err(|e| Status::bad_request(e.to_string()))?;
    set_list_options_defaults(&mut options);
    let errors = validate_list_options(&options, true);
    if errors.is_empty() {
        return Ok(options);
    }
    Err(Status::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", &errors))
}

/// The most objects of a page.
pub(super) fn limit(options: &ListOptions) -> usize {
    usize::try_from(options.limit).unwrap_or(0)
}
