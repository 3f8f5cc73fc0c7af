//! `serviceaccounts/token`: a token for a service account, bound to an object where asked (TokenRequest).

use crate::authn::service_account::{Bound, Claims, Kubernetes};
use crate::body::{self, Answer};
use crate::object;
use crate::resources::Served;
use crate::server::{Call, Server};
use apimachinery::status::Status;
use apimachinery::time::{Duration, Time};
use http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const SHORTEST: i64 = 600;
const LONGEST: i64 = 1 << 32;
const DEFAULT: i64 = 3600;
/// What pods' mounted tokens ask for; their real life is longer, for clients that do not reload (upstream's extension).
const MOUNTED: i64 = 3607;
const EXTENDED: i64 = 365 * 24 * 3600;

pub(crate) async fn create(server: &Server, accounts: &Arc<Served>, call: Call) -> Result<Answer, Status> {
    let Some(issuer) = server.rooms.issuer.clone() else {
        return Err(Status::service_unavailable("this API server issues no tokens"));
    };
    let mut request =
        crate::handlers::read_kind(&call, "authentication.k8s.io", "v1", "TokenRequest").await?;
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    let account = server.registry.get(accounts, namespace, name)?.value;
    let asked = request["spec"]["expirationSeconds"].as_i64().unwrap_or(DEFAULT);
    let kind = apimachinery::gvk::GroupKind::new("authentication.k8s.io", "TokenRequest");
    let path = apimachinery::field::Path::new("spec").child("expirationSeconds");
    if !(SHORTEST..=LONGEST).contains(&asked) {
        let why = if asked < SHORTEST {
            "may not specify a duration less than 10 minutes"
        } else {
            "may not specify a duration larger than 2^32 seconds"
        };
        return Err(Status::invalid(
            &kind,
            "",
            &apimachinery::field::Error::invalid(&path, asked, why).into(),
        ));
    }
    let audiences: Vec<String> = match request["spec"]["audiences"].as_array() {
        Some(list) if !list.is_empty() => list.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => issuer.audiences.clone(),
    };
    let mut kubernetes = Kubernetes {
        namespace: namespace.to_owned(),
        serviceaccount: Bound { name: name.to_owned(), uid: object::uid(&account).to_owned() },
        ..Default::default()
    };
    if let Some(reference) = request["spec"]["boundObjectRef"].as_object() {
        bind(server, &mut kubernetes, &Value::Object(reference.clone()), namespace, name)?;
    }
    let now = server.registry.now();
    let mut life = asked;
    if asked == MOUNTED && kubernetes.pod.is_some() && audiences == issuer.audiences {
        kubernetes.warnafter = Some(now.unix() + asked);
        life = EXTENDED;
    }
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.unix() + life,
        iat: now.unix(),
        nbf: now.unix(),
        iss: issuer.name.clone(),
        jti: uuid::Uuid::new_v4().to_string(),
        sub: format!("system:serviceaccount:{namespace}:{name}"),
        kubernetes,
    };
    let token = issuer.signer.sign(&claims).map_err(Status::internal_error)?;
    let expires: Time = now.plus(Duration::from_seconds(asked));
    request["kind"] = "TokenRequest".into();
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["metadata"] = json!({"name": name, "namespace": namespace, "creationTimestamp": now.to_string()});
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = asked.into();
    request["status"] = json!({"token": token, "expirationTimestamp": expires.to_string()});
    Ok(body::document(StatusCode::CREATED, &request))
}

/// Binds the token to the object it names, which must exist.
fn bind(
    server: &Server,
    claims: &mut Kubernetes,
    reference: &Value,
    namespace: &str,
    account: &str,
) -> Result<(), Status> {
    let text = |key: &str| reference[key].as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text("kind"), text("name"));
    let resource = match kind.as_str() {
        "Pod" => "pods",
        "Secret" => "secrets",
        "Node" => "nodes",
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {} {kind}",
                text("apiVersion")
            )));
        }
    };
    let served =
        server.registry.resources.get("", "v1", resource).cloned().ok_or_else(Status::path_not_found)?;
    let scope = if resource == "nodes" { "" } else { namespace };
    let found = server.registry.get(&served, scope, &name)?.value;
    let uid = text("uid");
    if !uid.is_empty() && uid != object::uid(&found) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        );
        return Err(Status::conflict(&served.group_resource(), &name, why));
    }
    let bound = Some(Bound { name, uid: object::uid(&found).to_owned() });
    match kind.as_str() {
        "Pod" => {
            if found["spec"]["serviceAccountName"] != account {
                return Err(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                )));
            }
            claims.pod = bound;
            let node = found["spec"]["nodeName"].as_str().unwrap_or_default();
            let nodes = server.registry.resources.get("", "v1", "nodes").cloned();
            claims.node = nodes
                .and_then(|n| server.registry.get(&n, "", node).ok())
                .map(|n| Bound { name: node.to_owned(), uid: object::uid(&n.value).to_owned() });
        }
        "Secret" => claims.secret = bound,
        _ => claims.node = bound,
    }
    Ok(())
}
