//! Says of ValidatingAdmissionPolicies what is wrong with the types of their expressions. Upstream:
//! `validatingadmissionpolicy-status-controller`. The kinds that a policy names are read from discovery and OpenAPI when it
//! changes: nothing of them is kept.

mod check;

use crate::Context;
use crate::support::queue;
use api::admissionregistration::v1::ValidatingAdmissionPolicy;
use apimachinery::gvk::GroupVersionKind;
use apimachinery::json;
use apimachinery::value::Value;
use bytes::Bytes;
use cel::schema::{DeclType, Schema};
use check::Known;
use client::controller::{Outcome, Writes, run as work};
use client::{Client, Error, Informer, Patch, PatchParams, Projection};
use std::collections::HashMap;
use std::sync::Arc;

const NAME: &str = "validatingadmissionpolicy-status";
const WORKERS: usize = 5;

/// Which policies are yet to be looked at.
struct Facts {
    generation: i64,
    observed: i64,
}

impl Projection for Facts {
    type Kind = ValidatingAdmissionPolicy;

    fn project(policy: &ValidatingAdmissionPolicy) -> Self {
        Facts { generation: policy.metadata.generation, observed: policy.status.observed_generation }
    }
}

/// Runs until shutdown.
pub(crate) async fn run(context: Context) {
    let policies: Informer<Facts> = context.informers.get();
    let queue = queue();
    policies.synced().await;
    let changed = queue.clone();
    policies.subscribe(move |change| {
        let policy = change.object();
        if policy.generation > policy.observed {
            changed.add(policy.key().clone());
        }
    });
    let writes = Writes::default();
    let noted = writes.clone();
    let client = context.client;
    work(NAME, queue, writes, WORKERS, context.shutdown, move |key| {
        let (policies, client, noted) = (policies.clone(), client.clone(), noted.clone());
        async move {
            let Some(policy) = policies.get(&key).filter(|p| p.generation > p.observed) else {
                return Ok(Outcome::Done);
            };
            let policy = policy.decode()?;
            let known = Documents::new(&client).known(&policy).await;
            let warnings = check::warnings(&policy, &known);
            let checking = match warnings.is_empty() {
                true => json!({}),
                false => json!({"expressionWarnings": warnings}),
            };
            let apply = Patch::Apply(json!({
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": key.name},
                "status": {"observedGeneration": policy.metadata.generation, "typeChecking": checking},
            }));
            let params = PatchParams { field_manager: NAME.into(), force: true, ..Default::default() };
            let api = client.all::<ValidatingAdmissionPolicy>();
            let written = api.patch_status(&key.name, &apply, &params).await?;
            noted.note(&key, &policies, &written.metadata.resource_version);
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

/// Documents of the API, each read at most once for a policy.
struct Documents<'a> {
    client: &'a Client,
    read: HashMap<String, Value>,
}

impl<'a> Documents<'a> {
    fn new(client: &'a Client) -> Self {
        Documents { client, read: HashMap::new() }
    }

    /// A document; nothing where it cannot be had.
    async fn read(&mut self, path: String) -> &Value {
        if !self.read.contains_key(&path) {
            let answer = self.client.raw(http::Method::GET, &path, &[], "", Bytes::new()).await;
            let document = answer.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            self.read.insert(path.clone(), document.unwrap_or_default());
        }
        &self.read[&path]
    }

    async fn known(&mut self, policy: &ValidatingAdmissionPolicy) -> Known {
        let mut known = Known::default();
        for [group, version, resource] in check::named(policy) {
            let Some(kind) = self.kind(&group, &version, &resource).await else { continue };
            let gvk = GroupVersionKind::new(group, version, kind);
            if known.matched.iter().any(|(matched, _)| *matched == gvk) {
                continue;
            }
            // Of what has no schema nothing is said.
            if let Some(decl) = self.decl(&gvk).await {
                known.matched.push((gvk, decl));
            }
        }
        known
            .matched
            .sort_by(|(a, _), (b, _)| (&a.group, &a.version, &a.kind).cmp(&(&b.group, &b.version, &b.kind)));
        if let Some(params) = &policy.spec.param_kind {
            let (group, version) = params.api_version.split_once('/').unwrap_or(("", &params.api_version));
            let gvk = GroupVersionKind::new(group.to_owned(), version.to_owned(), params.kind.clone());
            known.params = Some(self.decl(&gvk).await.flatten());
        }
        known
    }

    /// The kind of a resource.
    async fn kind(&mut self, group: &str, version: &str, resource: &str) -> Option<String> {
        let list = self.read(format!("/{}", root(group, version))).await;
        let resources = list["resources"].as_array()?;
        let found = resources.iter().find(|r| r["name"] == resource)?;
        found["kind"].as_str().map(str::to_owned)
    }

    /// The type of a kind, if it has a schema; without a type where the schema says nothing.
    async fn decl(&mut self, gvk: &GroupVersionKind) -> Option<Option<Arc<DeclType>>> {
        let path = format!("/openapi/v3/{}", root(&gvk.group, &gvk.version));
        let schemas = self.read(path).await["components"]["schemas"].as_object()?;
        let is = |named: &Value| {
            let names = [("group", &gvk.group), ("version", &gvk.version), ("kind", &gvk.kind)];
            names.iter().all(|(key, wanted)| named[*key] == wanted.as_ref())
        };
        let of = |schema: &Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|all| all.iter().any(is))
        };
        let schema = schemas.values().find(|schema| of(schema))?;
        let resolve =
            |reference: &str| schemas.get(reference.strip_prefix("#/components/schemas/")?).cloned();
        let schema = Schema::from_json(schema, &resolve).with_type_and_object_meta();
        Some(schema.decl().map(|decl| decl.named(&gvk.kind)))
    }
}

/// Where a version of a group is.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}
