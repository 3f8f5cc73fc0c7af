//! Reviews: who is this, and may they? Nothing is stored.

use crate::authz::{Attributes, Decision};
use crate::body::{self, Answer};
use crate::resources::Served;
use crate::server::{Call, Server};
use crate::user::User;
use apimachinery::status::Status;
use http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) async fn create(server: &Server, resource: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let row = resource.row;
    let mut review = crate::handlers::read_kind(&call, &row.group, &row.version, &row.kind).await?;
    review["kind"] = resource.row.kind.as_ref().into();
    review["apiVersion"] = resource.api_version.as_str().into();
    let status = match resource.row.kind.as_ref() {
        "TokenReview" => token(server, &review["spec"])?,
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "SelfSubjectRulesReview" => {
            rules(server, &call.user, review["spec"]["namespace"].as_str().unwrap_or_default())?
        }
        "SelfSubjectAccessReview" => access(server, &call.user, &review["spec"]).await?,
        _ => {
            let user = reviewed(&review["spec"])?;
            if resource.row.kind == "LocalSubjectAccessReview"
                && review["spec"]["resourceAttributes"]["namespace"].as_str().unwrap_or_default()
                    != call.info.namespace
            {
                return Err(Status::bad_request(format!(
                    "spec.resourceAttributes.namespace must match namespace: {}",
                    call.info.namespace
                )));
            }
            access(server, &user, &review["spec"]).await?
        }
    };
    review["status"] = status;
    Ok(body::json(StatusCode::CREATED, schema::encode::json(resource.table, resource.ty, &review)))
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
    let asked: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(Into::into)
        .collect();
    let audiences = if asked.is_empty() { &tokens.audiences } else { &asked };
    Ok(match tokens.check(text, audiences) {
        Ok(Some((mut user, audiences))) => {
            user.groups.push(crate::user::ALL_AUTHENTICATED.into());
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Ok(None) => json!({"user": {}}),
        Err(_) => {
            json!({"user": {}, "error": "[invalid bearer token, service account token could not be verified]"})
        }
    })
}

/// The user a review asks about.
fn reviewed(spec: &Value) -> Result<User, Status> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
    };
    let user = User {
        name: spec["user"].as_str().unwrap_or_default().to_owned(),
        uid: spec["uid"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&spec["groups"]),
        extra: spec["extra"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.clone(), texts(v)))
            .collect::<BTreeMap<_, _>>(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        return Err(Status::bad_request(
            "spec.user: Invalid value: \"\": at least one of user or group must be specified",
        ));
    }
    Ok(user)
}

async fn access(server: &Server, user: &User, spec: &Value) -> Result<Value, Status> {
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() == path.is_object() {
        return Err(Status::bad_request(
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    let of = |value: &'_ Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let source = if resource.is_object() { resource } else { path };
    let texts: Vec<String> =
        ["verb", "group", "version", "resource", "subresource", "namespace", "name", "path"]
            .iter()
            .map(|k| of(source, k))
            .collect();
    let attributes = Attributes {
        user,
        verb: &texts[0],
        is_resource: resource.is_object(),
        group: &texts[1],
        version: &texts[2],
        resource: &texts[3],
        subresource: &texts[4],
        namespace: &texts[5],
        name: &texts[6],
        path: &texts[7],
        label_selector: "",
        field_selector: "",
    };
    Ok(match server.decide(&attributes).await {
        Decision::Allow { reason } => json!({"allowed": true, "reason": reason}),
        Decision::Deny { reason } => json!({"allowed": false, "denied": true, "reason": reason}),
        Decision::NoOpinion { reason } => json!({"allowed": false, "reason": reason}),
    })
}

fn rules(server: &Server, user: &User, namespace: &str) -> Result<Value, Status> {
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let Some(rbac) = &server.rooms.rbac else {
        return Ok(json!({"resourceRules": [], "nonResourceRules": [], "incomplete": true}));
    };
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rbac.rules_for(user, namespace) {
        if rule.non_resource_urls.is_empty() {
            resources.push(json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources, "resourceNames": rule.resource_names}));
        } else {
            paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
        }
    }
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}
