//! Reviews: who is this, and may they? Nothing is stored.

use crate::authz::{Attributes, Decision};
use crate::body::{self, Answer};
use crate::handlers::{self, WriteOptions};
use crate::registry::ensure_namespace;
use crate::resources::Served;
use crate::server::{Call, Server};
use crate::user::{ALL_AUTHENTICATED, User};
use api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReviewSpec,
};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::fields::escape_value;
use apimachinery::gvk::GroupKind;
use apimachinery::status::Status;
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) async fn create(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let row = &resource.row;
    let mut review = crate::handlers::read_kind(&call, &row.group, &row.version, &row.kind).await?;
    review["kind"] = row.kind.as_ref().into();
    review["apiVersion"] = resource.api_version.as_str().into();
    let options = WriteOptions::for_create(&call)?;
    let context = handlers::context(&call, resource, &options);
    ensure_namespace(&context, &mut review)?;
    server.registry.note_fields(&context, &mut review).await?;
    let status = match row.kind.as_ref() {
        "TokenReview" => token(server, &review["spec"])?,
        "SelfSubjectReview" => {
            review["metadata"] = json!({"creationTimestamp": server.registry.now().to_string()});
            json!({"userInfo": user_info(&call.user)})
        }
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].take();
            review["spec"] = json!({});
            rules(server, &call.user, namespace.as_str().unwrap_or_default())?
        }
        kind => {
            let spec: SubjectAccessReviewSpec = serde_json::from_value(review["spec"].clone())
                .map_err(|e| Status::bad_request(e.to_string()))?;
            let mut shown = Vec::new();
            let metadata = &review["metadata"];
            schema::encode::write_metadata(&resource.table, resource.ty, metadata, &mut shown);
            let shown = String::from_utf8(shown).unwrap_or_default();
            let errors = validate(kind, &spec, metadata, BadValue::verbatim(shown));
            if !errors.is_empty() {
                // Upstream knows the group of such an object, and not its kind.
                let group = GroupKind::new(row.group.to_string(), String::new());
                return Err(Status::invalid(&group, "", &errors));
            }
            let reviewed = User {
                name: spec.user.clone(),
                uid: spec.uid.clone(),
                groups: spec.groups.clone(),
                extra: spec.extra.clone(),
            };
            let user = if kind == "SelfSubjectAccessReview" { &call.user } else { &reviewed };
            access(server, user, &spec).await
        }
    };
    review["status"] = status;
    Ok(body::json(StatusCode::CREATED, schema::encode::json(&resource.table, resource.ty, &review)))
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn token(server: &Server, spec: &Value) -> Result<Value, Status> {
    let text = spec["token"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let Some(tokens) = &server.rooms.tokens else {
        return Ok(json!({"authenticated": false, "user": {}}));
    };
    let asked: Vec<String> = serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
    let audiences = if asked.is_empty() { &tokens.audiences } else { &asked };
    Ok(match tokens.check(text, audiences) {
        Ok(Some((mut user, audiences))) => {
            user.groups.push(ALL_AUTHENTICATED.into());
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Ok(None) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(why) => json!({"user": {}, "error": format!("[invalid bearer token, {why}]")}),
    })
}

/// Upstream's struct has no names of JSON.
fn shown(paths: &NonResourceAttributes) -> BadValue {
    let [path, verb] = [&paths.path, &paths.verb].map(|text| Value::from(text.as_str()));
    BadValue::verbatim(format!("{{\"Path\":{path},\"Verb\":{verb}}}"))
}

/// What is wrong with the spec of an access review.
fn validate(
    kind: &str,
    spec: &SubjectAccessReviewSpec,
    metadata: &Value,
    shown_metadata: BadValue,
) -> ErrorList {
    let path = Path::new("spec");
    let mut errors = ErrorList::default();
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), Some(paths)) => errors.push(Error::invalid(
            &path.child("nonResourceAttributes"),
            shown(paths),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(Error::invalid(
            &path.child("resourceAttributes"),
            BadValue::json(&Value::Null),
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if kind != "SelfSubjectAccessReview" && spec.user.is_empty() && spec.groups.is_empty() {
        errors.push(Error::invalid(
            &path.child("user"),
            "",
            "at least one of user or group must be specified",
        ));
    }
    if let Some(attributes) = &spec.resource_attributes {
        let path = path.child("resourceAttributes");
        if let Some(FieldSelectorAttributes { raw_selector, requirements }) = &attributes.field_selector {
            selector(&path.child("fieldSelector"), raw_selector, requirements.len(), &mut errors);
        }
        if let Some(LabelSelectorAttributes { raw_selector, requirements }) = &attributes.label_selector {
            selector(&path.child("labelSelector"), raw_selector, requirements.len(), &mut errors);
        }
    }
    let local = kind == "LocalSubjectAccessReview";
    let stray = metadata.as_object().is_some_and(|members| {
        members
            .iter()
            .any(|(key, value)| !value.is_null() && key != "managedFields" && !(local && key == "namespace"))
    });
    if stray {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(Error::invalid(&Path::new("metadata"), shown_metadata, why));
    }
    if local {
        let namespace = metadata["namespace"].as_str().unwrap_or_default();
        if let Some(attributes) = spec.resource_attributes.as_ref().filter(|a| a.namespace != namespace) {
            errors.push(Error::invalid(
                &path.child("resourceAttributes").child("namespace"),
                attributes.namespace.as_str(),
                "must match metadata.namespace",
            ));
        }
        if let Some(paths) = &spec.non_resource_attributes {
            errors.push(Error::invalid(
                &path.child("nonResourceAttributes"),
                shown(paths),
                "disallowed on this kind of request",
            ));
        }
    }
    errors
}

fn selector(path: &Path, raw: &str, requirements: usize, errors: &mut ErrorList) {
    match (raw.is_empty(), requirements) {
        (false, 1..) => errors.push(Error::invalid(
            &path.child("rawSelector"),
            raw,
            "may not specified at the same time as requirements",
        )),
        (true, 0) => errors.push(Error::required(
            &path.child("requirements"),
            format!("when {path} is specified, requirements or rawSelector is required"),
        )),
        _ => {}
    }
}

/// The field selector a review asks about, as a request would have it. What cannot be said in one is left out, which
/// asks for more.
fn field_selector(attributes: &FieldSelectorAttributes) -> String {
    if !attributes.raw_selector.is_empty() {
        return attributes.raw_selector.clone();
    }
    let terms = attributes.requirements.iter().filter_map(|r| {
        let operator = match r.operator.as_str() {
            "In" => "=",
            "NotIn" => "!=",
            _ => return None,
        };
        match r.values.as_slice() {
            [value] => Some(format!("{}{operator}{}", r.key, escape_value(value))),
            _ => None,
        }
    });
    terms.collect::<Vec<_>>().join(",")
}

async fn access(server: &Server, user: &User, spec: &SubjectAccessReviewSpec) -> Value {
    let resource = spec.resource_attributes.clone();
    let is_resource = resource.is_some();
    let r: ResourceAttributes = resource.unwrap_or_default();
    let p: NonResourceAttributes = spec.non_resource_attributes.clone().unwrap_or_default();
    let fields = r.field_selector.as_ref().map(field_selector).unwrap_or_default();
    let labels = r.label_selector.as_ref().map(|l| l.raw_selector.as_str()).unwrap_or_default();
    let attributes = Attributes {
        user,
        verb: if is_resource { &r.verb } else { &p.verb },
        is_resource,
        group: &r.group,
        version: if r.version.is_empty() { "*" } else { &r.version },
        resource: &r.resource,
        subresource: &r.subresource,
        namespace: &r.namespace,
        name: &r.name,
        path: &p.path,
        label_selector: labels,
        field_selector: &fields,
    };
    match server.decide(&attributes).await {
        Decision::Allow { reason } => json!({"allowed": true, "reason": reason}),
        Decision::Deny { reason } => json!({"allowed": false, "denied": true, "reason": reason}),
        Decision::NoOpinion { reason } => json!({"allowed": false, "reason": reason}),
    }
}

fn rules(server: &Server, user: &User, namespace: &str) -> Result<Value, Status> {
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let Some(rbac) = &server.rooms.rbac else {
        return Ok(json!({"resourceRules": [], "nonResourceRules": [], "incomplete": true}));
    };
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let (granted, mut errors) = rbac.rules_for(user, namespace);
    for rule in granted {
        if !rule.resources.is_empty() {
            resources.push(json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources, "resourceNames": rule.resource_names}));
        }
        if !rule.non_resource_urls.is_empty() {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    // What a node may do depends on the objects: it cannot be listed.
    let incomplete = user.node_name().is_some();
    if incomplete {
        errors.insert(0, "node authorizer does not support user rule resolution".into());
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if let Some(errors) = apimachinery::field::aggregate(errors) {
        status["evaluationError"] = errors.into();
    }
    Ok(status)
}
