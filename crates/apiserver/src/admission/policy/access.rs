//! Whoever makes a policy read parameters must be able to read them: writes of policies that name a kind of parameters,
//! and of bindings that name parameters, are checked against the writer's rights (upstream: `authz.go` of their
//! strategies). An admission plugin beside those of the policies.

use crate::admission::{Attributes, Deps, Operation, Plugin, When};
use crate::authz::{self, Authorizer, Decision};
use crate::resources::Resources;
use crate::user::{MASTERS, User};
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::sync::Arc;
use store::Store;

const GROUP: &str = "admissionregistration.k8s.io";

/// See the module.
pub(in crate::admission) struct ParamAccess {
    authorizers: Vec<Arc<dyn Authorizer>>,
    resources: Arc<Resources>,
    store: Arc<dyn Store>,
}

/// What a kind of parameters comes to: group, version and resource, `*` where that is not known, and why it is not.
struct Params {
    group: String,
    version: String,
    resource: String,
    unknown: Option<Unknown>,
}

enum Unknown {
    Policy,
    GroupVersion(String),
    Kind(String),
}

impl ParamAccess {
    pub(in crate::admission) fn new(deps: &Deps) -> Self {
        ParamAccess {
            authorizers: deps.authorizers.clone(),
            resources: deps.resources.clone(),
            store: deps.store.clone(),
        }
    }

    fn params(&self, kind: &Value) -> Params {
        let any = || "*".to_owned();
        let text = |key: &str| kind[key].as_str().unwrap_or_default();
        let (api_version, name) = (text("apiVersion"), text("kind"));
        let shown = || format!("&{{{name} {api_version}}}");
        let mut params = Params { group: any(), version: any(), resource: any(), unknown: None };
        let parsed = match api_version.split('/').collect::<Vec<_>>().as_slice() {
            [version] => Some(("", *version)),
            [group, version] => Some((*group, *version)),
            _ => None,
        };
        let Some((group, version)) = parsed else {
            params.unknown = Some(Unknown::GroupVersion(shown()));
            return params;
        };
        (params.group, params.version) = (group.to_owned(), version.to_owned());
        match self.resources.of_kind(api_version, name) {
            Some(served) => params.resource = served.row.resource.to_string(),
            None => params.unknown = Some(Unknown::Kind(shown())),
        }
        params
    }

    async fn decide(
        &self,
        user: &User,
        verb: &str,
        params: &Params,
        namespace: &str,
        name: &str,
    ) -> Decision {
        let of = (&*params.group, &*params.version, &*params.resource);
        let attributes = authz::Attributes { namespace, name, ..authz::Attributes::about(user, verb, of) };
        authz::decide(&self.authorizers, &attributes).await
    }

    async fn policy(&self, user: &User, new: &Value, old: Option<&Value>) -> Result<(), String> {
        let kind = &new["spec"]["paramKind"];
        if !kind.is_object() || old.is_some_and(|old| old["spec"]["paramKind"] == *kind) {
            return Ok(());
        }
        match self.decide(user, "get", &self.params(kind), "*", "*").await {
            Decision::Allow { .. } => Ok(()),
            Decision::Error { error, .. } => Err(error),
            _ => Err(format!(
                "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
                shown(user),
                kind["kind"].as_str().unwrap_or_default(),
                kind["apiVersion"].as_str().unwrap_or_default()
            )),
        }
    }

    async fn binding(&self, user: &User, new: &Value, policies: &str) -> Result<(), String> {
        let reference = &new["spec"]["paramRef"];
        if !reference.is_object() {
            return Ok(());
        }
        let name = new["spec"]["policyName"].as_str().unwrap_or_default();
        let policy = self.resources.get(GROUP, "v1", policies).and_then(|served| {
            let entry = self.store.pending(&served.key("", name))?;
            crate::registry::decode(&served, &entry).ok()
        });
        let any = || "*".to_owned();
        let unknown = |unknown| Params { group: any(), version: any(), resource: any(), unknown };
        let params = match policy.map(|policy| policy.value["spec"]["paramKind"].clone()) {
            None => unknown(Some(Unknown::Policy)),
            Some(kind) if kind.is_object() => self.params(&kind),
            Some(_) => unknown(None),
        };
        let text = |key: &str| reference[key].as_str().unwrap_or_default();
        let verb = if text("name").is_empty() { "list" } else { "get" };
        match self.decide(user, verb, &params, text("namespace"), text("name")).await {
            Decision::Allow { .. } => return Ok(()),
            Decision::Error { error, .. } if policies.starts_with("validating") => {
                return Err(format!("failed to authorize request: {error}"));
            }
            Decision::Error { error, .. } => return Err(error),
            _ => {}
        }
        let user = shown(user);
        let least = format!(
            "to determine minimum required permissions and user {user} does not have \"{verb}\" permission for all groups, versions and resources"
        );
        Err(match params.unknown {
            Some(Unknown::Policy) => format!("unable to get policy {name} {least}"),
            Some(Unknown::GroupVersion(kind)) => format!("unable to parse paramKind {kind} {least}"),
            Some(Unknown::Kind(kind)) => format!("unable to resolve paramKind {kind} {least}"),
            None => format!(
                "user {user} does not have \"{verb}\" permission on the object referenced by paramRef"
            ),
        })
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let row = &a.resource.row;
        let concerned = row.group == GROUP && a.subresource.is_empty();
        let Some(new) = a.object.as_deref().filter(|_| concerned) else { return Ok(()) };
        if a.user.in_group(MASTERS) {
            return Ok(());
        }
        let (member, checked) = match row.resource.as_ref() {
            "validatingadmissionpolicies" | "mutatingadmissionpolicies" => {
                ("paramKind", self.policy(a.user, new, a.old).await)
            }
            "validatingadmissionpolicybindings" => {
                ("paramRef", self.binding(a.user, new, "validatingadmissionpolicies").await)
            }
            "mutatingadmissionpolicybindings" => {
                ("paramRef", self.binding(a.user, new, "mutatingadmissionpolicies").await)
            }
            _ => return Ok(()),
        };
        checked.map_err(|why| {
            let error = Error::forbidden(&Path::new("spec").child(member), why);
            Status::invalid(&a.resource.group_kind(), crate::object::name(new), &ErrorList::from(error))
        })
    }
}

/// A user as upstream's messages show one.
fn shown(user: &User) -> String {
    let extra: Vec<String> =
        user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.name, user.uid, user.groups.join(" "), extra.join(" "))
}

impl Plugin for ParamAccess {
    fn name(&self) -> &'static str {
        "ParamAccess"
    }

    fn when(&self) -> When {
        When::validate(&[Operation::Create, Operation::Update])
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(attributes))
    }
}
