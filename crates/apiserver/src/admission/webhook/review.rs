//! AdmissionReview: what a webhook is asked, and what its answer means.

use super::Phase;
use super::config::Hook;
use super::matching::Invocation;
use crate::admission::{Attributes, Operation};
use crate::resources::Served;
use apimachinery::json;
use apimachinery::status::Status;
use apimachinery::value::Value;
use base64::Engine as _;
use schema::patch::JsonPatch;

/// A webhook's answer.
pub(super) struct Verdict {
    pub allowed: bool,
    status: Value,
    pub patch: Option<JsonPatch>,
    /// The patch as it came, for the audit log.
    pub patch_text: Vec<u8>,
    pub warnings: Vec<String>,
    /// What is to be said in the audit log.
    pub annotations: Vec<(String, String)>,
}

fn kind_of(resource: &Served, subresource: &str) -> Value {
    let row = resource.subresources.get(subresource).unwrap_or(&resource.row);
    let (group, version) = match &row.kind_group_version {
        Some((group, version)) => (group.as_ref(), version.as_ref()),
        None => (row.group.as_ref(), row.version.as_ref()),
    };
    json!({"group": group, "version": version, "kind": row.kind})
}

fn resource_of(resource: &Served) -> Value {
    json!({"group": resource.row.group, "version": resource.row.version, "resource": resource.row.resource})
}

/// An object as the webhook wants to see it; one of a kind that only the subresource has is what it is.
async fn shown(invocation: &Invocation, object: Option<&Value>, a: &Attributes<'_>) -> Result<Value, Status> {
    match object {
        None => Ok(Value::Null),
        Some(object) if !a.is_whole() => Ok(object.clone()),
        Some(object) => {
            let seen = a.resource.seen_as(&invocation.resource, object.clone()).await;
            seen.map_err(|status| Status::internal_error(status.message))
        }
    }
}

/// The members of a request, as conditions see them too.
pub(super) async fn request_of(invocation: &Invocation, a: &Attributes<'_>) -> Result<Value, Status> {
    let options = match a.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "",
    };
    let mut user = json!({"username": a.user.name, "groups": a.user.groups});
    if !a.user.uid.is_empty() {
        user["uid"] = a.user.uid.as_str().into();
    }
    if !a.user.extra.is_empty() {
        user["extra"] = json!(a.user.extra);
    }
    let mut request = json!({
        "uid": uuid::Uuid::new_v4().to_string(),
        "kind": kind_of(&invocation.resource, a.subresource),
        "resource": resource_of(&invocation.resource),
        "requestKind": kind_of(a.resource, a.subresource),
        "requestResource": resource_of(a.resource),
        "operation": a.operation.name(),
        "userInfo": user,
        "object": shown(invocation, a.object.as_deref(), a).await?,
        "oldObject": shown(invocation, a.old, a).await?,
        "dryRun": a.dry_run,
        "options": match options {
            "" => Value::Null,
            kind => json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"}),
        },
    });
    for (key, value) in [
        ("name", a.name),
        ("namespace", a.namespace),
        ("subResource", a.subresource),
        ("requestSubResource", a.subresource),
    ] {
        if !value.is_empty() {
            request[key] = value.into();
        }
    }
    Ok(request)
}

/// The review that is sent.
pub(super) fn request(hook: &Hook, request: Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": format!("admission.k8s.io/{}", hook.review_version),
        "request": request,
    })
}

/// Reads an answer, which has to be one to this request.
pub(super) fn verdict(request: &Value, answer: &Value, phase: Phase) -> Result<Verdict, String> {
    let response = &answer["response"];
    if !response.is_object() {
        return Err("webhook response was absent".into());
    }
    let v1 = request["apiVersion"] == "admission.k8s.io/v1";
    if v1 {
        let (want, got) = (&request["apiVersion"], answer["apiVersion"].as_str().unwrap_or_default());
        if *want != got || answer["kind"] != "AdmissionReview" {
            let kind = answer["kind"].as_str().unwrap_or_default();
            let wanted = want.as_str().unwrap_or_default();
            return Err(format!(
                "expected webhook response of {wanted}, Kind=AdmissionReview, got {got}, Kind={kind}"
            ));
        }
        let uid = response["uid"].as_str().unwrap_or_default();
        let wanted = request["request"]["uid"].as_str().unwrap_or_default();
        if uid != wanted {
            return Err(format!("expected response.uid={wanted:?}, got {uid:?}"));
        }
    }
    let text = response["patch"].as_str().unwrap_or_default();
    let ty = response["patchType"].as_str().unwrap_or_default();
    if phase == Phase::Validating && v1 && (!text.is_empty() || !ty.is_empty()) {
        return Err("webhook returned response.patch, which is not supported by validating webhooks".into());
    }
    let (mut patch, mut patch_text) = (None, Vec::new());
    if phase == Phase::Mutating && !text.is_empty() {
        if v1 && ty != "JSONPatch" {
            return Err(match ty {
                "" => "webhook returned response.patch but not response.patchType".into(),
                _ => format!("webhook returned invalid response.patchType of {ty:?}"),
            });
        }
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())?;
        let parsed = JsonPatch::parse(&bytes, schema::decode::FieldValidation::Ignore);
        patch = Some(parsed.map_err(|e| e.to_string())?);
        patch_text = bytes;
    }
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let annotations = response["auditAnnotations"].as_object().into_iter().flatten();
    let annotations =
        annotations.filter_map(|(key, value)| Some((key.to_string(), value.as_str()?.to_owned())));
    Ok(Verdict {
        annotations: annotations.collect(),
        patch_text,
        allowed: response["allowed"] == true,
        status: response["status"].clone(),
        patch,
        warnings: warnings.map(str::to_owned).collect(),
    })
}

/// A refusal, in the webhook's words.
pub(super) fn refusal(hook: &str, verdict: &Verdict) -> Status {
    let mut status: Status = apimachinery::value::from_value(verdict.status.clone()).unwrap_or_default();
    if status.code < 400 {
        status.code = 400;
    }
    let denied = format!("admission webhook {hook:?} denied the request");
    let text = |key: &str| verdict.status[key].as_str().unwrap_or_default();
    status.message = match (text("message"), text("reason")) {
        ("", "") => format!("{denied} without explanation"),
        ("", reason) => format!("{denied}: {reason}"),
        (message, _) => format!("{denied}: {message}"),
    };
    let failure = Status::bad_request("");
    status.status = failure.status;
    status
}
