//! Reviews: who is this, and may they? Nothing is stored.

use crate::authz::{Attributes, Decision};
use crate::body::{self, Answer};
use crate::handlers::{self, WriteOptions};
use crate::registry::ensure_namespace;
use crate::resources::Served;
use crate::server::{Call, Server};
use crate::user::{ALL_AUTHENTICATED, ANONYMOUS, User};
use api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReviewSpec,
};
use apimachinery::decode::Decode as _;
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::fields::{self, escape_value};
use apimachinery::gvk::GroupKind;
use apimachinery::json;
use apimachinery::labels;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::validation::{is_qualified_name, is_valid_label_value};
use apimachinery::value::Value;
use http::StatusCode;
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
        "TokenReview" => token(server, &review["spec"]).await?,
        "SelfSubjectReview" => {
            review["metadata"] = json!({"creationTimestamp": server.registry.now().to_string()});
            json!({"userInfo": user_info(&call.user)})
        }
        "SelfSubjectRulesReview" => {
            let namespace = review["spec"]["namespace"].take();
            review["metadata"] = json!({});
            review["spec"] = json!({});
            rules(server, &call.user, namespace.as_str().unwrap_or_default())?
        }
        kind => {
            let spec = SubjectAccessReviewSpec::from_value(&review["spec"])
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
                pin: None,
            };
            let user = if kind == "SelfSubjectAccessReview" { &call.user } else { &reviewed };
            access(server, user, &spec).await
        }
    };
    review["status"] = status;
    let mut bytes = schema::encode::json(&resource.table, resource.ty, &review);
    bytes.push(b'\n');
    Ok(body::json(StatusCode::CREATED, bytes))
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

async fn token(server: &Server, spec: &Value) -> Result<Value, Status> {
    let text = spec["token"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let Some(tokens) = &server.rooms.tokens else {
        return Ok(json!({"authenticated": false, "user": {}}));
    };
    let asked: Vec<String> = apimachinery::value::from_value(spec["audiences"].clone()).unwrap_or_default();
    let audiences: &[String] = if asked.is_empty() { &tokens.audiences } else { &asked };
    Ok(match tokens.review(text, audiences).await {
        Ok(mut known) => {
            if known.user.name != ANONYMOUS && !known.user.in_group(ALL_AUTHENTICATED) {
                known.user.groups.push(ALL_AUTHENTICATED.into());
            }
            json!({"authenticated": true, "user": user_info(&known.user), "audiences": known.audiences})
        }
        Err(why) => json!({"user": {}, "error": why}),
    })
}

/// The attributes as upstream's messages show them: by the names of its internal type.
fn shown(attributes: &NonResourceAttributes) -> BadValue {
    BadValue::verbatim(format!(
        "{{\"Path\":{},\"Verb\":{}}}",
        quote(&attributes.path),
        quote(&attributes.verb)
    ))
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
            let path = path.child("fieldSelector");
            selector(&path, raw_selector, requirements.len(), &mut errors);
            for (at, r) in requirements.iter().enumerate() {
                let path = path.child("requirements").index(at);
                if r.key.is_empty() {
                    errors.push(Error::required(&path.child("key"), "must be specified"));
                }
                values(&path, &r.operator, &r.values, &mut errors);
            }
        }
        if let Some(LabelSelectorAttributes { raw_selector, requirements }) = &attributes.label_selector {
            let path = path.child("labelSelector");
            selector(&path, raw_selector, requirements.len(), &mut errors);
            for (at, r) in requirements.iter().enumerate() {
                let path = path.child("requirements").index(at);
                values(&path, &r.operator, &r.values, &mut errors);
                let wrong = is_qualified_name(&r.key);
                errors
                    .extend(wrong.iter().map(|why| Error::invalid(&path.child("key"), &r.key, why.as_str())));
                for (at, value) in r.values.iter().enumerate() {
                    let path = path.child("values").index(at);
                    let wrong = is_valid_label_value(value);
                    errors.extend(wrong.iter().map(|why| Error::invalid(&path, value, why.as_str())));
                }
            }
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

/// Whether a requirement has values where its operator needs some. An operator that is not known here may be known
/// elsewhere: what it would narrow is left as wide as it is.
fn values(path: &Path, operator: &str, values: &[String], errors: &mut ErrorList) {
    match (operator, values.is_empty()) {
        ("In" | "NotIn", true) => errors.push(Error::required(
            &path.child("values"),
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        ("Exists" | "DoesNotExist", false) => errors.push(Error::forbidden(
            &path.child("values"),
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        _ => {}
    }
}

/// A selector that a review asks about, as a request would have it, and whether all of it could be read. What cannot be
/// is left out, which asks for more.
struct Selected {
    text: String,
    error: Option<&'static str>,
}

impl Selected {
    fn new(terms: Vec<String>, complete: bool) -> Self {
        let error = match (complete, terms.is_empty()) {
            (true, _) => None,
            (false, false) => Some("partially ignored due to parse error"),
            (false, true) => Some("ignored due to parse error"),
        };
        Selected { text: terms.join(","), error }
    }

    fn raw(text: &str, valid: bool) -> Self {
        if valid { Selected { text: text.to_owned(), error: None } } else { Selected::new(Vec::new(), false) }
    }

    fn fields(attributes: &FieldSelectorAttributes) -> Self {
        let raw = &attributes.raw_selector;
        if !raw.is_empty() {
            return Self::raw(raw, fields::Selector::parse(raw).is_ok());
        }
        let terms: Vec<String> = attributes
            .requirements
            .iter()
            .filter_map(|r| {
                let operator = match r.operator.as_str() {
                    "In" => "=",
                    "NotIn" => "!=",
                    _ => return None,
                };
                match r.values.as_slice() {
                    [value] => Some(format!("{}{operator}{}", r.key, escape_value(value))),
                    _ => None,
                }
            })
            .collect();
        let complete = terms.len() == attributes.requirements.len();
        Self::new(terms, complete)
    }

    fn labels(attributes: &LabelSelectorAttributes) -> Self {
        let raw = &attributes.raw_selector;
        if !raw.is_empty() {
            return Self::raw(raw, labels::Selector::parse(raw).is_ok());
        }
        let terms: Vec<String> = attributes
            .requirements
            .iter()
            .filter_map(|r| {
                let operator = match r.operator.as_str() {
                    "In" => labels::Operator::In,
                    "NotIn" => labels::Operator::NotIn,
                    "Exists" => labels::Operator::Exists,
                    "DoesNotExist" => labels::Operator::DoesNotExist,
                    _ => return None,
                };
                let requirement =
                    labels::Requirement::new(r.key.as_str(), operator, r.values.clone(), &Path::default());
                requirement.ok().map(|r| r.to_string())
            })
            .collect();
        let complete = terms.len() == attributes.requirements.len();
        Self::new(terms, complete)
    }
}

async fn access(server: &Server, user: &User, spec: &SubjectAccessReviewSpec) -> Value {
    let resource = spec.resource_attributes.clone();
    let is_resource = resource.is_some();
    let r: ResourceAttributes = resource.unwrap_or_default();
    let p: NonResourceAttributes = spec.non_resource_attributes.clone().unwrap_or_default();
    let fields = r.field_selector.as_ref().map(Selected::fields);
    let labels = r.label_selector.as_ref().map(Selected::labels);
    let attributes = Attributes {
        user,
        verb: if is_resource { &r.verb } else { &p.verb },
        is_resource,
        group: &r.group,
        version: match (is_resource, r.version.is_empty()) {
            (true, true) => "*",
            _ => &r.version,
        },
        resource: &r.resource,
        subresource: &r.subresource,
        namespace: &r.namespace,
        name: &r.name,
        path: &p.path,
        label_selector: labels.as_ref().map_or("", |l| &l.text),
        field_selector: fields.as_ref().map_or("", |f| &f.text),
    };
    let mut errors = Vec::new();
    let mut status = match server.decide(&attributes).await {
        Decision::Allow { reason } => json!({"allowed": true, "reason": reason}),
        Decision::Deny { reason } => json!({"allowed": false, "denied": true, "reason": reason}),
        Decision::NoOpinion { reason } => json!({"allowed": false, "reason": reason}),
        Decision::Error { denies, reason, error } => {
            errors.push(error);
            let mut status = json!({"allowed": false, "reason": reason});
            if denies {
                status["denied"] = true.into();
            }
            status
        }
    };
    for (name, selected) in [("fieldSelector", &fields), ("labelSelector", &labels)] {
        if let Some(error) = selected.as_ref().and_then(|s| s.error) {
            errors.push(format!("spec.resourceAttributes.{name} {error}"));
        }
    }
    if !errors.is_empty() {
        status["evaluationError"] = errors.join("; ").into();
    }
    status
}

fn rules(server: &Server, user: &User, namespace: &str) -> Result<Value, Status> {
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    let (mut incomplete, mut errors) = (false, Vec::new());
    for authorizer in &server.authorizers {
        let listed = authorizer.rules_for(user, namespace);
        incomplete |= listed.incomplete;
        errors.extend(listed.errors);
        for rule in listed.rules {
            if !rule.resources.is_empty() {
                resources.push(json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources, "resourceNames": rule.resource_names}));
            }
            if !rule.non_resource_urls.is_empty() {
                paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            }
        }
    }
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if let Some(errors) = apimachinery::field::aggregate(errors) {
        status["evaluationError"] = errors.into();
    }
    Ok(status)
}
