//! `serviceaccounts/token`: a token for a service account, bound to an object where asked (TokenRequest).

use crate::admission::{Attributes, Operation};
use crate::authn::service_account::{Bound, Claims, Kubernetes};
use crate::body::{self, Answer};
use crate::handlers::{self, WriteOptions};
use crate::object;
use crate::registry::ensure_namespace;
use crate::resources::Served;
use crate::server::{Call, Server};
use api::authentication::v1::BoundObjectReference;
use apimachinery::decode::Decode as _;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::gvk::{GroupKind, GroupResource, GroupVersionKind};
use apimachinery::json;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::time::{Duration, Time};
use apimachinery::value::Value;
use http::StatusCode;
use std::sync::Arc;

const GROUP: &str = "authentication.k8s.io";
const API_VERSION: &str = "authentication.k8s.io/v1";
const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const DEFAULT: i64 = 3600;
/// What pods' mounted tokens ask for; their real life is longer, for clients that do not reload (upstream's extension).
pub const MOUNTED: i64 = 3607;
/// How long they live then.
pub const EXTENDED: std::time::Duration = std::time::Duration::from_secs(365 * 24 * 3600);

pub(crate) async fn create(server: &Server, accounts: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let Some(issuer) = server.rooms.issuer.clone() else {
        return Err(Status::service_unavailable("this API server issues no tokens"));
    };
    let mut request = crate::handlers::read_kind(&call, GROUP, "v1", "TokenRequest").await?;
    let options = WriteOptions::for_create(&call)?;
    let context = handlers::context(&call, accounts, &options);
    ensure_namespace(&context, &mut request)?;
    if request["spec"]["expirationSeconds"].is_null() {
        request["spec"]["expirationSeconds"] = DEFAULT.into();
    }
    let table = api::table();
    let ty = table.kind(GROUP, "v1", "TokenRequest").ok_or_else(Status::path_not_found)?;
    server.registry.note_fields_as(&context, (table, ty), (API_VERSION, "TokenRequest"), &mut request);
    // Admission sees what was asked, before audiences are filled in.
    let admission = &server.registry.admission;
    admission.admit(&mut attributes(server, accounts, &call, &mut request)).await?;
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    let given = object::meta_str(&request, "name");
    if !given.is_empty() && given != name {
        let why = "must match the service account name if specified";
        return Err(invalid(name, Error::invalid(&Path::new("metadata").child("name"), given, why)));
    }
    let account = server.registry.get(accounts, namespace, name)?.value;
    let (asked_uid, uid) = (object::uid(&request).to_owned(), object::uid(&account).to_owned());
    if !asked_uid.is_empty() && asked_uid != uid {
        let why = format!(
            "the UID in the token request ({asked_uid}) does not match the UID of the service account ({uid})"
        );
        return Err(Status::conflict(&GroupResource::new(GROUP, "TokenRequest"), name, why));
    }
    let now = server.registry.now();
    for (key, value) in [("name", name), ("uid", &uid), ("creationTimestamp", &now.to_string())] {
        object::set_meta(&mut request, key, value);
    }
    if request["spec"]["audiences"].as_array().is_none_or(Vec::is_empty) {
        request["spec"]["audiences"] = json!(issuer.audiences);
    }
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT);
    check_life(asked)?;
    admission.validate(&attributes(server, accounts, &call, &mut request)).await?;

    let mut kubernetes = Kubernetes {
        namespace: namespace.to_owned(),
        serviceaccount: Bound { name: name.to_owned(), uid },
        ..Default::default()
    };
    if request["spec"]["boundObjectRef"].is_object() {
        let reference = BoundObjectReference::from_value(&request["spec"]["boundObjectRef"])
            .map_err(|e| Status::bad_request(e.to_string()))?;
        bind(server, &mut kubernetes, &reference, namespace, name)?;
        request["spec"]["boundObjectRef"] = json!(reference);
    }
    let audiences: Vec<String> =
        apimachinery::value::from_value(request["spec"]["audiences"].clone()).unwrap_or_default();
    let own = audiences.iter().all(|a| issuer.audiences.contains(a));
    let longest = issuer.longest.and_then(|longest| i64::try_from(longest.as_secs()).ok());
    let asked = match longest.filter(|longest| asked > *longest) {
        Some(longest) => {
            crate::context::warn(format!(
                "requested expiration of {asked} seconds shortened to {longest} seconds"
            ));
            request["spec"]["expirationSeconds"] = longest.into();
            longest
        }
        None => asked,
    };
    let mut life = asked;
    if let Some(extended) = issuer.extends.filter(|_| asked == MOUNTED && kubernetes.pod.is_some() && own) {
        kubernetes.warnafter = Some(now.unix() + asked);
        life = i64::try_from(extended.as_secs()).unwrap_or(asked);
    }
    let claims = Claims {
        aud: audiences,
        exp: now.unix() + life,
        iat: now.unix(),
        nbf: now.unix(),
        iss: issuer.name.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        kubernetes,
    };
    crate::context::annotate(
        "authentication.kubernetes.io/issued-credential-id".into(),
        format!("JTI={}", claims.jti),
    );
    let signed = issuer.signer.sign(&claims).await;
    let token = signed.map_err(|e| Status::internal_error(format!("failed to generate token: {e}")))?;
    let expires: Time = now.plus(Duration::from_seconds(asked));
    request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
    let mut bytes = schema::encode::json(table, ty, &request);
    bytes.push(b'\n');
    Ok(body::json(StatusCode::CREATED, bytes))
}

fn invalid(name: &str, error: Error) -> Status {
    Status::invalid(&GroupKind::new(GROUP, "TokenRequest"), name, &ErrorList::from(error))
}

fn check_life(seconds: i64) -> Result<(), Status> {
    let why = match seconds {
        ..SHORTEST => "may not specify a duration less than 10 minutes",
        SHORTEST..=LONGEST => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    let path = Path::new("spec").child("expirationSeconds");
    Err(invalid("", Error::invalid(&path, seconds, why)))
}

/// The request as admission sees it: a create on the account's subresource.
fn attributes<'a>(
    server: &'a Server,
    accounts: &'a Arc<Served>,
    call: &'a Call,
    request: &'a mut Value,
) -> Attributes<'a> {
    Attributes {
        operation: Operation::Create,
        verb: &call.info.verb,
        user: &call.user,
        resource: accounts,
        namespace: &call.info.namespace,
        name: &call.info.name,
        subresource: "token",
        object: Some(request),
        old: None,
        dry_run: call.info.query.get("dryRun").is_some(),
        registry: &server.registry,
    }
}

/// Binds the token to the object it names, which must exist.
fn bind(
    server: &Server,
    claims: &mut Kubernetes,
    reference: &BoundObjectReference,
    namespace: &str,
    account: &str,
) -> Result<(), Status> {
    // The version does not count.
    let group = match reference.api_version.matches('/').count() {
        1 => reference.api_version.split('/').next().unwrap_or_default(),
        _ => "",
    };
    let resource = match (group, reference.kind.as_str()) {
        ("", "Pod") => "pods",
        ("", "Secret") => "secrets",
        ("", "Node") => "nodes",
        (_, kind) => {
            let version = reference.api_version.as_str();
            let given = GroupVersionKind::from_api_version(version, kind)
                .map_or_else(|_| kind.to_owned(), |gvk| gvk.to_string());
            return Err(Status::bad_request(format!("cannot bind token to object of type {given}")));
        }
    };
    let get = |resource: &str, name: &str| {
        let served = server.registry.resources.get("", "v1", resource).ok_or_else(Status::path_not_found)?;
        let scope = if resource == "nodes" { "" } else { namespace };
        server.registry.get(&served, scope, name).map(|stored| stored.value)
    };
    let found = get(resource, &reference.name)?;
    if resource == "pods" && found["spec"]["serviceAccountName"] != account {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {} to pod running with different serviceaccount name.",
            quote(account)
        )));
    }
    let (wanted, uid) = (&reference.uid, object::uid(&found));
    if !wanted.is_empty() && wanted != uid {
        let why = format!(
            "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&GroupResource::new("", reference.kind.clone()), &reference.name, why));
    }
    let bound = Some(Bound { name: reference.name.clone(), uid: uid.to_owned() });
    match resource {
        "pods" => {
            claims.pod = bound;
            let name = found["spec"]["nodeName"].as_str().unwrap_or_default();
            if !name.is_empty() {
                // A node that is gone is named all the same.
                let uid = get("nodes", name).map_or_else(|_| String::new(), |n| object::uid(&n).to_owned());
                claims.node = Some(Bound { name: name.to_owned(), uid });
            }
        }
        "secrets" => claims.secret = bound,
        _ => claims.node = bound,
    }
    Ok(())
}
