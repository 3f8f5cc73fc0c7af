//! MutatingAdmissionPolicy: changes objects as a policy's expressions say.

use super::authorizer::Asked;
use super::evaluate::{Bindings, Request, conditions_hold, visible_namespace};
use super::measures::{Measures, error_type};
use super::{FailurePolicy, Prepared, params, patch};
use crate::admission::matching::{Lookup, is_exempt};
use crate::admission::{Attributes, Deps, Operation, Plugin, When};
use crate::authz::Authorizer;
use crate::resources::Served;
use api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy as Object, MutatingAdmissionPolicyBinding as Binding, ParamKind,
};
use apimachinery::status::{Status, StatusCause, StatusReason};
use apimachinery::value::Value;
use cel::cost::RUNTIME_BUDGET;
use futures::future::BoxFuture;
use hooks::expressions::{Expression, Variables, Wanted};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

/// The plugin.
pub(in crate::admission) struct MutatingAdmissionPolicy {
    policies: Prepared<Policy>,
    bindings: Prepared<Binding>,
    lookup: Lookup,
    authorizers: Vec<Arc<dyn Authorizer>>,
    measures: Measures,
}

/// A policy, compiled.
struct Policy {
    name: String,
    failure_policy: FailurePolicy,
    /// Whether it runs again after another policy has changed the object.
    again: bool,
    param_kind: Option<ParamKind>,
    constraints: Option<MatchResources>,
    variables: Variables,
    conditions: Vec<Expression>,
    mutations: Vec<Mutation>,
}

enum Mutation {
    Apply(Expression),
    Patch(Expression),
}

impl Policy {
    fn new(object: Object) -> Self {
        let spec = object.spec;
        let variables = Variables::new(&spec.variables, spec.param_kind.is_some()).composed();
        let mutations = spec.mutations.iter().filter_map(|mutation| {
            match (&mutation.apply_configuration, &mutation.json_patch) {
                (Some(apply), _) if mutation.patch_type == "ApplyConfiguration" => {
                    Some(Mutation::Apply(variables.expression(&apply.expression, Wanted::Object, true)))
                }
                (_, Some(patch)) if mutation.patch_type == "JSONPatch" => {
                    Some(Mutation::Patch(variables.expression(&patch.expression, Wanted::JsonPatches, true)))
                }
                _ => None,
            }
        });
        Policy {
            name: object.metadata.name,
            failure_policy: FailurePolicy::of(spec.failure_policy.as_deref()),
            again: spec.reinvocation_policy == "IfNeeded",
            conditions: variables.conditions(&spec.match_conditions),
            mutations: mutations.collect(),
            param_kind: spec.param_kind,
            constraints: spec.match_constraints,
            variables,
        }
    }
}

/// A policy to be run on a request.
struct Invocation {
    policy: Arc<Policy>,
    binding: String,
    matched: Arc<Served>,
    param: Option<Value>,
}

/// Why a request is refused.
struct Refusal {
    message: String,
    reason: StatusReason,
}

impl MutatingAdmissionPolicy {
    pub(in crate::admission) fn new(deps: &Deps) -> Option<Self> {
        let resource = |name| deps.resources.get("admissionregistration.k8s.io", "v1", name);
        Some(MutatingAdmissionPolicy {
            policies: Prepared::new(deps.store.clone(), resource("mutatingadmissionpolicies")?),
            bindings: Prepared::new(deps.store.clone(), resource("mutatingadmissionpolicybindings")?),
            lookup: Lookup::new(deps)?,
            authorizers: deps.authorizers.clone(),
            measures: Measures::mutating(&deps.metrics),
        })
    }

    async fn run(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        if is_exempt(a) {
            return Ok(());
        }
        let compile = |object| self.measures.compiling(|| Policy::new(object));
        let policies = self.policies.all(compile)?;
        if policies.is_empty() {
            return Ok(());
        }
        let mut refusals = Vec::new();
        let invocations = self.invocations(a, policies, &mut refusals).await?;
        let mut changed_after: BTreeSet<usize> = BTreeSet::new();
        for (at, invocation) in invocations.iter().enumerate() {
            if self.invoke(a, invocation, &mut refusals).await? {
                changed_after.extend(0..at);
            }
        }
        // Once more for those that want to see what later ones did.
        for at in changed_after {
            if invocations[at].policy.again {
                self.invoke(a, &invocations[at], &mut refusals).await?;
            }
        }
        refused(a, refusals)
    }

    /// The policies that are about the request, with their bindings and parameters, in order.
    async fn invocations(
        &self,
        a: &Attributes<'_>,
        policies: Vec<Arc<Policy>>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<Vec<Invocation>, Status> {
        let bindings = self.bindings.all(|binding: Binding| binding)?;
        let mut invocations = Vec::new();
        for policy in policies {
            let mut misconfigured = |binding: Option<&str>, why: &str| {
                let message = match binding {
                    Some(binding) => format!(
                        "policy '{}' with binding '{binding}' denied request: failed to configure binding: {why}",
                        policy.name
                    ),
                    None => {
                        format!("policy {:?} denied request: failed to configure policy: {why}", policy.name)
                    }
                };
                if policy.failure_policy == FailurePolicy::Fail {
                    refusals.push(Refusal { message, reason: StatusReason::Unknown });
                }
            };
            let Some(constraints) = &policy.constraints else {
                misconfigured(None, "policy contained no match constraints, a required field");
                continue;
            };
            let bound: Vec<&Arc<Binding>> =
                bindings.iter().filter(|binding| binding.spec.policy_name == policy.name).collect();
            if bound.is_empty() {
                continue;
            }
            let matched = match self.lookup.matches(a, constraints) {
                Ok(Some(matched)) => matched,
                Ok(None) => continue,
                Err(status) => {
                    misconfigured(None, &status.message);
                    continue;
                }
            };
            for binding in bound {
                let name = &binding.metadata.name;
                match binding.spec.match_resources.as_ref().map(|resources| self.lookup.matches(a, resources))
                {
                    None | Some(Ok(Some(_))) => {}
                    Some(Ok(None)) => continue,
                    Some(Err(status)) => {
                        misconfigured(Some(name), &status.message);
                        continue;
                    }
                }
                let collected = params::collect(
                    &self.lookup.store,
                    &self.lookup.resources,
                    policy.param_kind.as_ref(),
                    binding.spec.param_ref.as_ref(),
                    a.namespace,
                );
                match collected.await {
                    Err(why) => misconfigured(Some(name), &why),
                    Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                        policy: policy.clone(),
                        binding: name.clone(),
                        matched: matched.clone(),
                        param,
                    })),
                }
            }
        }
        Ok(invocations)
    }

    /// Runs one policy's mutations; whether they changed the object.
    async fn invoke(
        &self,
        a: &mut Attributes<'_>,
        invocation: &Invocation,
        refusals: &mut Vec<Refusal>,
    ) -> Result<bool, Status> {
        let policy = &*invocation.policy;
        let namespace = self.lookup.namespace_of(a)?.map(visible_namespace);
        let mut refuse = |why: String| {
            if policy.failure_policy == FailurePolicy::Fail {
                let message = format!(
                    "policy '{}' with binding '{}' denied request: {why}",
                    policy.name, invocation.binding
                );
                refusals.push(Refusal { message, reason: StatusReason::Invalid });
            }
        };
        let holds = {
            let request = Request::new(a, &invocation.matched).await?;
            let asked = Asked { authorizers: &self.authorizers, user: a.user };
            let asking: &dyn cel::library::authz::Authorizer = &asked;
            let bindings =
                Bindings::new(&request, None, invocation.param.as_ref(), Some(asking), &policy.variables);
            conditions_hold(&bindings, &policy.conditions, policy.failure_policy)
        };
        match holds {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => {
                refuse(error);
                return Ok(false);
            }
        }
        let mut changed = false;
        for mutation in &policy.mutations {
            let start = Instant::now();
            let mutated = {
                let request = Request::new(a, &invocation.matched).await?;
                let Some(object) = request.object.as_deref() else { continue };
                let asked = Asked { authorizers: &self.authorizers, user: a.user };
                let asking: &dyn cel::library::authz::Authorizer = &asked;
                let bindings = Bindings::new(
                    &request,
                    namespace.as_ref(),
                    invocation.param.as_ref(),
                    Some(asking),
                    &policy.variables,
                );
                mutate(&bindings, mutation, object, &invocation.matched)
            };
            self.measures.evaluated(start);
            let error = mutated.as_ref().map_or_else(|error| error_type(error), |_| "no_error");
            self.measures.checked(&[&policy.name, &invocation.binding, error], start.elapsed());
            match mutated {
                Err(error) => refuse(error),
                Ok(mutated) => changed |= replace(a, mutated, &invocation.matched).await?,
            }
        }
        Ok(changed)
    }
}

fn mutate(
    bindings: &Bindings<'_>,
    mutation: &Mutation,
    object: &Value,
    matched: &Served,
) -> Result<Value, String> {
    let (Mutation::Apply(expression) | Mutation::Patch(expression)) = mutation;
    if let Err(error) = &expression.program {
        return Err(error.clone());
    }
    let made = bindings.evaluate(expression, &mut { RUNTIME_BUDGET })??;
    match mutation {
        Mutation::Apply(_) => patch::apply_configuration(object, &made, matched),
        Mutation::Patch(_) => patch::json_patch(object, &made),
    }
}

/// Puts the mutated object, defaulted again, in the place of the one that was; whether it differs.
async fn replace(a: &mut Attributes<'_>, mutated: Value, matched: &Served) -> Result<bool, Status> {
    let resource = a.resource;
    let mut mutated = mutated;
    if a.is_whole() {
        mutated = resource.taken_from(matched, mutated).await?;
        schema::defaults::apply(&resource.table, resource.hub_ty, &mut mutated);
        resource.strategy.default(&mut mutated);
    }
    Ok(match a.object.as_deref_mut() {
        Some(object) if *object != mutated => {
            *object = mutated;
            true
        }
        _ => false,
    })
}

fn refused(a: &Attributes<'_>, refusals: Vec<Refusal>) -> Result<(), Status> {
    let Some(first) = refusals.first() else { return Ok(()) };
    let mut status =
        Status::forbidden(&a.resource.group_resource(), a.name, "admission request denied by policy");
    status.message = first.message.clone();
    if first.reason != StatusReason::Unknown {
        status.reason = first.reason.clone();
    }
    let cause =
        |refusal: &Refusal| StatusCause { message: refusal.message.clone(), ..StatusCause::default() };
    Err(refusals.iter().map(cause).fold(status, Status::with_cause))
}

impl Plugin for MutatingAdmissionPolicy {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update, Operation::Connect])
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(self.run(attributes))
    }
}
