//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: the objections and changes of others, over HTTPS.
//!
//! Which webhooks there are is in [`config`], whether one is concerned in [`matching`], what it is asked and what its
//! answer means in [`review`].

mod annotations;
mod conditions;
mod config;
mod configuration;
mod matching;
mod measures;
mod review;

use super::roster::{Fault, Room};
use super::{Attributes, Operation, Plugin, When};
use crate::outbound::Outbound;
use crate::resources::{Resources, Served};
use crate::spans::{Span, text};
use annotations::Annotator;
use apimachinery::status::Status;
use apimachinery::value::Value;
use config::{Configs, Hook};
use configuration::Callers;
use futures::future::BoxFuture;
use matching::Invocation;
use measures::{Measures, Outcome};
use review::Verdict;
use std::sync::Arc;
use store::Store;

/// Which of the two plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Mutating,
    Validating,
}

/// A webhook that a request concerns.
struct Concerned {
    hook: Arc<Hook>,
    invocation: Invocation,
    /// Its place among all webhooks.
    index: usize,
}

pub(super) struct Webhooks {
    phase: Phase,
    configs: Configs,
    namespaces: Option<Arc<Served>>,
    store: Arc<dyn Store>,
    resources: Arc<Resources>,
    outbound: Arc<Outbound>,
    callers: Callers,
    conditions: conditions::Compiled,
    measures: Measures,
}

impl Webhooks {
    /// The plugin, unless its configurations are not served.
    pub(super) fn new(phase: Phase, room: &Room<'_>) -> Result<Option<Self>, Fault> {
        let callers = Callers::read(room.configuration.as_deref())?;
        let deps = room.deps;
        let (store, resources) = (&deps.store, &deps.resources);
        let name = match phase {
            Phase::Mutating => "mutatingwebhookconfigurations",
            Phase::Validating => "validatingwebhookconfigurations",
        };
        let Some(configurations) = resources.get("admissionregistration.k8s.io", "v1", name) else {
            return Ok(None);
        };
        Ok(Some(Webhooks {
            phase,
            configs: Configs::new(store.clone(), configurations),
            namespaces: resources.get("", "v1", "namespaces"),
            store: store.clone(),
            resources: resources.clone(),
            outbound: deps.outbound.clone(),
            callers,
            conditions: conditions::Compiled::new(deps.authorizers.clone()),
            measures: Measures::new(phase, &deps.metrics),
        }))
    }

    /// The webhooks' own configuration is nobody's to refuse.
    fn exempt(a: &Attributes<'_>) -> bool {
        a.resource.row.group == "admissionregistration.k8s.io"
    }

    /// The labels of the request's namespace; none for what is in no namespace.
    fn namespace_labels(&self, a: &Attributes<'_>) -> Result<Option<Value>, Status> {
        if a.is("", "namespaces") {
            let object = match (a.operation, a.subresource) {
                (Operation::Create | Operation::Update, "") => a.object.as_deref().or(a.old),
                _ => a.old.or(a.object.as_deref()),
            };
            return Ok(object.map(|o| o["metadata"]["labels"].clone()));
        }
        let Some(namespaces) = self.namespaces.as_ref().filter(|_| !a.namespace.is_empty()) else {
            return Ok(None);
        };
        let entry = self.store.pending(&namespaces.key("", a.namespace));
        let entry = entry.ok_or_else(|| namespaces.not_found(a.namespace))?;
        Ok(Some(crate::registry::decode(namespaces, &entry)?.value["metadata"]["labels"].clone()))
    }

    /// The webhooks that are concerned, with the version in which they want to see the object, and each one's place among
    /// all.
    fn concerned(&self, a: &Attributes<'_>) -> Result<Vec<Concerned>, Status> {
        let hooks = self.configs.hooks();
        if hooks.is_empty() || Self::exempt(a) {
            return Ok(Vec::new());
        }
        let mut labels: Option<Option<Value>> = None;
        let mut concerned = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            let Some(invocation) = matching::invocation(hook, a, &self.resources) else { continue };
            let labels = match &labels {
                Some(known) => known,
                None => labels.insert(self.namespace_labels(a)?),
            };
            if matching::selected(hook, a, labels.as_ref()) {
                concerned.push(Concerned { hook: hook.clone(), invocation, index });
            }
        }
        Ok(concerned)
    }

    /// Asks one webhook, and measures it.
    async fn ask(
        &self,
        concerned: &Concerned,
        annotator: &Annotator<'_>,
        a: &Attributes<'_>,
    ) -> Result<Option<Verdict>, Status> {
        let (start, mut outcome) = (std::time::Instant::now(), None);
        let answer = self.ask_once(concerned, annotator, a, &mut outcome).await;
        if let Some(outcome) = outcome {
            self.measures.took(&concerned.hook.name, a.operation, outcome, start.elapsed());
        }
        answer
    }

    /// Asks one webhook; what became of that is told beside. None when it could not be asked and that does not matter, or when its conditions do not hold.
    async fn ask_once(
        &self,
        Concerned { hook, invocation, .. }: &Concerned,
        annotator: &Annotator<'_>,
        a: &Attributes<'_>,
        outcome: &mut Option<Outcome>,
    ) -> Result<Option<Verdict>, Status> {
        if a.dry_run && !hook.is_free_of_side_effects {
            *outcome = Some(Outcome::Broken);
            let why = format!("admission webhook {:?} does not support dry run", hook.name);
            return Err(Status::bad_request(why));
        }
        match self.conditions.hold(hook, invocation, a).await? {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(why) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "match conditions could not be evaluated");
                return Ok(None);
            }
            Err(why) => {
                return Err(Status::forbidden(&a.resource.group_resource(), a.name, why));
            }
        }
        let request = review::request(hook, review::request_of(invocation, a).await?);
        let asked = async {
            let target = self.outbound.target_as(&hook.client_config, |host| self.callers.of_target(host))?;
            let body = serde_json::to_vec(&request).map_err(|e| e.to_string())?;
            let called = std::time::Instant::now();
            let mut span = self.span(hook, &request["request"], a);
            let answer = span.around(self.outbound.post(&target, body, hook.timeout)).await;
            crate::context::exclude(called.elapsed());
            let answer = answer?;
            span.event("Request completed");
            review::verdict(&request, &answer, self.phase)
        };
        match asked.await {
            Ok(verdict) => {
                annotator.said(&verdict);
                for warning in &verdict.warnings {
                    crate::context::warn(warning.clone());
                }
                if verdict.allowed {
                    *outcome = Some(Outcome::Allowed);
                    return Ok(Some(verdict));
                }
                let refusal = review::refusal(&hook.name, &verdict);
                *outcome = Some(Outcome::Denied(refusal.code));
                Err(refusal)
            }
            Err(why) if hook.fails_open => {
                tracing::warn!(webhook = hook.name, why, "failed calling webhook, failing open");
                annotator.failed_open();
                *outcome = Some(Outcome::FailedOpen);
                Ok(None)
            }
            Err(why) => {
                *outcome = Some(Outcome::Failed);
                let why = format!("failed calling webhook {:?}: failed to call webhook: {why}", hook.name);
                Err(Status::internal_error(why))
            }
        }
    }

    fn span(&self, hook: &Hook, request: &Value, a: &Attributes<'_>) -> Span {
        let name = match self.phase {
            Phase::Mutating => "Call mutating webhook",
            Phase::Validating => "Call validating webhook",
        };
        Span::part(name, || {
            let row = &a.resource.row;
            vec![
                text("configuration", &*hook.configuration),
                text("webhook", &*hook.name),
                text(
                    "resource",
                    format!("{}/{}, Resource={}", row.group, row.version, a.resource.row.split().0),
                ),
                text("subresource", a.subresource),
                text("operation", a.operation.name()),
                text("UID", request["uid"].as_str().unwrap_or_default()),
            ]
        })
    }

    async fn mutate(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let concerned = self.concerned(a)?;
        // What the object was after each webhook had its say; those that want to see later changes are asked again, once.
        let mut seen: Vec<Option<Value>> = Vec::with_capacity(concerned.len());
        for concerned in &concerned {
            self.mutate_in_round(0, concerned, a).await?;
            seen.push(a.object.as_deref().filter(|_| concerned.hook.reinvoke).cloned());
        }
        for (concerned, seen) in concerned.iter().zip(&seen) {
            let changed = seen.as_ref().is_some_and(|seen| a.object.as_deref() != Some(seen));
            if changed {
                self.mutate_in_round(1, concerned, a).await?;
            }
        }
        Ok(())
    }

    async fn mutate_in_round(
        &self,
        round: usize,
        concerned: &Concerned,
        a: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        let annotator =
            Annotator { phase: Phase::Mutating, round, index: concerned.index, hook: &concerned.hook };
        // Whether anything changed is of interest to the audit log alone.
        let before = crate::context::record().and(a.object.as_deref().cloned());
        let mutated = self.mutate_once(concerned, &annotator, a).await;
        annotator.mutated(before.is_some() && before.as_ref() != a.object.as_deref());
        mutated
    }

    async fn mutate_once(
        &self,
        concerned: &Concerned,
        annotator: &Annotator<'_>,
        a: &mut Attributes<'_>,
    ) -> Result<(), Status> {
        let Concerned { hook, invocation, .. } = concerned;
        let Some(verdict) = self.ask(concerned, annotator, a).await? else { return Ok(()) };
        // The options of a connection are what its address says.
        let patch = verdict.patch.filter(|_| a.operation != Operation::Connect);
        let (whole, (table, ty)) = (a.is_whole(), a.object_type(&invocation.resource));
        let (Some(patch), Some(object)) = (patch, a.object.as_deref_mut()) else { return Ok(()) };
        let failed = |why: String| {
            Status::internal_error(format!(
                "failed calling webhook {:?}: failed to call webhook: {why}",
                hook.name
            ))
        };
        let resource = &invocation.resource;
        let served =
            if whole { a.resource.seen_as(resource, object.clone()).await } else { Ok(object.clone()) };
        let served = served.map_err(|status| failed(status.message))?;
        let patched = patch.apply(served).map_err(|e| failed(e.to_string()))?;
        let ignore = schema::decode::FieldValidation::Ignore;
        let read = schema::decode::normalise(table, ty, patched, ignore);
        let read = read.map_err(|e| failed(e.to_string()))?.value;
        let back = if whole { a.resource.taken_from(resource, read).await } else { Ok(read) };
        *object = back.map_err(|status| failed(status.message))?;
        if whole {
            a.registry.default(a.resource, object);
        }
        Ok(())
    }

    async fn check(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let concerned = self.concerned(a)?;
        let annotators: Vec<_> = concerned
            .iter()
            .enumerate()
            .map(|(index, concerned)| Annotator {
                phase: Phase::Validating,
                round: 0,
                index,
                hook: &concerned.hook,
            })
            .collect();
        let asked =
            concerned.iter().zip(&annotators).map(|(concerned, annotator)| self.ask(concerned, annotator, a));
        for verdict in futures::future::join_all(asked).await {
            verdict?;
        }
        Ok(())
    }
}

impl Plugin for Webhooks {
    fn name(&self) -> &'static str {
        match self.phase {
            Phase::Mutating => "MutatingAdmissionWebhook",
            Phase::Validating => "ValidatingAdmissionWebhook",
        }
    }

    fn when(&self) -> When {
        match self.phase {
            Phase::Mutating => When::admit(Operation::ALL),
            Phase::Validating => When::validate(Operation::ALL),
        }
    }

    fn admit<'a>(&'a self, a: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        // There is nothing to change in what is deleted.
        let deletes = a.operation == Operation::Delete;
        Box::pin(async move { if deletes { self.check(a).await } else { self.mutate(a).await } })
    }

    fn validate<'a>(&'a self, a: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.check(a))
    }
}
