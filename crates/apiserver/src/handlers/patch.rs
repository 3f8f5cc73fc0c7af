//! The four kinds of patch, each a function from the current object to the patched one.

use crate::resources::Served;
use crate::server::Call;
use apimachinery::status::Status;
use apimachinery::time::Time;
use bytes::Bytes;
use schema::decode::FieldValidation;
use schema::patch::{JsonPatch, PatchError, PatchFailure, merge, parse_object, strategic};
use serde_json::Value;

const MEDIA: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A patch as it came.
#[derive(Debug)]
pub enum Patch {
    Json(JsonPatch),
    Merge(Value),
    Strategic(Value),
}

fn failure(resource: &Served, name: &str, error: PatchError) -> Status {
    match error.failure {
        PatchFailure::BadRequest => Status::bad_request(error.to_string()),
        PatchFailure::TooLarge => Status::request_entity_too_large(error),
        PatchFailure::Internal => Status::internal_error(error),
        PatchFailure::Unprocessable => {
            let mut status = Status::invalid(&resource.group_kind(), name, &Default::default());
            status.message =
                format!("the server rejected our request due to an error in our request: {error}");
            status
        }
    }
}

impl Patch {
    pub fn parse(media: &str, bytes: Bytes, call: &Call, resource: &Served) -> Result<Self, Status> {
        let fail = |e| failure(resource, &call.info.name, e);
        match media {
            "application/json-patch+json" => {
                JsonPatch::parse(&bytes, FieldValidation::Ignore).map(Patch::Json).map_err(fail)
            }
            "application/merge-patch+json" => {
                parse_object(&bytes, FieldValidation::Ignore).map(|d| Patch::Merge(d.value)).map_err(fail)
            }
            "application/strategic-merge-patch+json" => {
                parse_object(&bytes, FieldValidation::Ignore).map(|d| Patch::Strategic(d.value)).map_err(fail)
            }
            _ => Err(Status::unsupported_media_type(&MEDIA)),
        }
    }

    /// Whether the patch makes the object where there is none.
    pub fn creates(&self) -> bool {
        false
    }

    /// The patched document, for documents that are no rows of the table; strategic patches act as merge patches.
    pub fn apply_free(&self, resource: &Served, mut document: Value) -> Result<Value, Status> {
        match self {
            Patch::Json(patch) => patch.apply(document).map_err(|e| failure(resource, "", e)),
            Patch::Merge(patch) | Patch::Strategic(patch) => {
                merge(&mut document, patch);
                Ok(document)
            }
        }
    }

    /// The patched object in the served version.
    pub fn apply(
        &self,
        resource: &Served,
        current: Option<&Value>,
        _manager: &str,
        _subresource: &str,
        _now: Time,
    ) -> Result<Value, Status> {
        let Some(current) = current else { return Err(resource.not_found("")) };
        let name = crate::object::name(current);
        let fail = |e| failure(resource, name, e);
        match self {
            Patch::Json(patch) => patch.apply(current.clone()).map_err(fail),
            Patch::Merge(patch) => {
                let mut value = current.clone();
                merge(&mut value, patch);
                Ok(value)
            }
            Patch::Strategic(patch) => {
                strategic(&resource.table, resource.ty, current.clone(), patch.clone()).map_err(fail)
            }
        }
    }
}
