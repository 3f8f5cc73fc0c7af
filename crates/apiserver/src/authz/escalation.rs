//! Nobody grants more than they have: writes of roles and bindings are checked against the writer's own rules, unless
//! they may `escalate` the role or `bind` it. An admission plugin behind all others that change objects.

use super::cover::uncovered;
use super::rbac::Rbac;
use super::{Attributes, Authorizer, Decision};
use crate::admission::{self, Operation, Plugin, When};
use crate::object;
use crate::resources::Resources;
use crate::user::{MASTERS, User};
use api::rbac::v1::{PolicyRule, RoleRef};
use apimachinery::decode::Decode;
use apimachinery::quote::quote;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use store::Store;

const RBAC: &str = "rbac.authorization.k8s.io";

/// The check of roles and bindings.
pub struct Escalation {
    pub rbac: Rbac,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    pub store: Arc<dyn Store>,
    pub resources: Arc<Resources>,
}

impl Escalation {
    async fn check(&self, a: &admission::Attributes<'_>) -> Result<(), Status> {
        let Some(object) = a.object.as_deref() else { return Ok(()) };
        let row = &a.resource.row;
        if row.group != RBAC || !a.subresource.is_empty() || a.user.in_group(MASTERS) {
            return Ok(());
        }
        match row.resource.as_ref() {
            "roles" | "clusterroles" => self.role(a, object).await,
            "rolebindings" | "clusterrolebindings" => self.binding(a, object).await,
            _ => Ok(()),
        }
    }

    async fn may(&self, user: &User, verb: &str, resource: &str, namespace: &str, name: &str) -> bool {
        let attributes =
            Attributes { namespace, name, ..Attributes::about(user, verb, (RBAC, "*", resource)) };
        matches!(super::decide(&self.authorizers, &attributes).await, Decision::Allow { .. })
    }

    async fn role(&self, a: &admission::Attributes<'_>, role: &Value) -> Result<(), Status> {
        // The name of a new object is not in the address, so that `escalate` on a name does not help to create it.
        let name = if a.operation == Operation::Create { "" } else { a.name };
        if self.may(a.user, "escalate", &a.resource.row.resource, a.namespace, name).await
            || a.old.is_some_and(|old| only_collector_fields(role, old))
        {
            return Ok(());
        }
        let forbidden =
            |why: String| Status::forbidden(&a.resource.group_resource(), object::name(role), why);
        let (own, errors) = self.rbac.rules_for(a.user, a.namespace);
        confirm(a.user, &own, &errors, &rules(role)).map_err(forbidden)?;
        let aggregates = |role: &Value| {
            role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|s| !s.is_empty())
        };
        if (aggregates(role) || a.old.is_some_and(aggregates)) && !covers(&own, &full_authority()).is_empty()
        {
            return Err(forbidden("must have cluster-admin privileges to use the aggregationRule".into()));
        }
        Ok(())
    }

    async fn binding(&self, a: &admission::Attributes<'_>, binding: &Value) -> Result<(), Status> {
        let Ok(role) = RoleRef::from_value(&binding["roleRef"]) else { return Ok(()) };
        if a.old.is_some_and(|old| only_collector_fields(binding, old)) {
            return Ok(());
        }
        let resource = match role.kind.as_str() {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            // Validation says what is wrong with it.
            _ => return Ok(()),
        };
        if self.may(a.user, "bind", resource, a.namespace, &role.name).await {
            return Ok(());
        }
        let Some(served) = self.resources.get(RBAC, "v1", resource) else { return Ok(()) };
        let scope = if resource == "roles" { a.namespace } else { "" };
        if resource == "roles" && scope.is_empty() {
            return Err(Status::bad_request("Namespace parameter required."));
        }
        let entry = self.store.pending(&served.key(scope, &role.name));
        // As upstream: of the role that is missing, the binding's resource is named.
        let entry = entry.ok_or_else(|| a.resource.not_found(&role.name))?;
        let granted = rules(&crate::registry::decode(&served, &entry)?.value);
        let (own, errors) = self.rbac.rules_for(a.user, a.namespace);
        confirm(a.user, &own, &errors, &granted)
            .map_err(|why| Status::forbidden(&a.resource.group_resource(), object::name(binding), why))
    }
}

impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn when(&self) -> When {
        When::admit(&[Operation::Create, Operation::Update])
    }

    fn admit<'a>(&'a self, a: &'a mut admission::Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move { self.check(a).await })
    }
}

fn rules(role: &Value) -> Vec<PolicyRule> {
    Decode::from_value(&role["rules"]).unwrap_or_default()
}

/// Whether only what the garbage collector writes differs.
pub(crate) fn only_collector_fields(new: &Value, old: &Value) -> bool {
    let without = |object: &Value| {
        let mut object = object.clone();
        for key in ["ownerReferences", "finalizers", "selfLink", "managedFields"] {
            object::remove_meta(&mut object, key);
        }
        object
    };
    without(new) == without(old)
}

fn full_authority() -> Vec<PolicyRule> {
    let any = || vec!["*".to_owned()];
    vec![
        PolicyRule { verbs: any(), api_groups: any(), resources: any(), ..Default::default() },
        PolicyRule { verbs: any(), non_resource_urls: any(), ..Default::default() },
    ]
}

/// Refuses what the user's own rules do not cover.
fn confirm(user: &User, own: &[PolicyRule], errors: &[String], granted: &[PolicyRule]) -> Result<(), String> {
    let missing = covers(own, granted);
    if missing.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "user {} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        quote(&user.name),
        list(&user.groups),
        missing.iter().cloned().collect::<Vec<_>>().join("\n")
    );
    if !errors.is_empty() {
        let errors = apimachinery::field::aggregate(errors.to_vec()).unwrap_or_default();
        text.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(text)
}

/// Go's `%q` of a list.
fn list(values: &[String]) -> String {
    format!("[{}]", values.iter().map(|v| quote(v)).collect::<Vec<_>>().join(" "))
}

/// What of `granted` the owner's rules do not cover: put together by resource, described.
fn covers(own: &[PolicyRule], granted: &[PolicyRule]) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    let mut by_resource: BTreeMap<(String, String, Option<String>), Vec<String>> = BTreeMap::new();
    for rule in uncovered(own, granted) {
        let first = |list: Vec<String>| list.into_iter().next();
        let verb = first(rule.verbs).unwrap_or_default();
        match first(rule.non_resource_urls) {
            Some(url) => {
                missing.insert(format!("{{NonResourceURLs:[{}], Verbs:[{}]}}", quote(&url), quote(&verb)));
            }
            None => {
                let group = first(rule.api_groups).unwrap_or_default();
                let resource = first(rule.resources).unwrap_or_default();
                by_resource.entry((group, resource, first(rule.resource_names))).or_default().push(verb);
            }
        }
    }
    missing.extend(by_resource.into_iter().map(|((group, resource, name), verbs)| {
        let name = name.map_or_else(String::new, |n| format!(", ResourceNames:[{}]", quote(&n)));
        format!(
            "{{APIGroups:[{}], Resources:[{}]{name}, Verbs:{}}}",
            quote(&group),
            quote(&resource),
            list(&verbs)
        )
    }));
    missing
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// A rule as `verbs groups resources names`, words separated by commas; `core` is the empty group.
    fn rule(text: &str) -> PolicyRule {
        let words: Vec<Vec<String>> = text
            .split(' ')
            .map(|w| w.split(',').filter(|w| !w.is_empty()).map(|w| w.replace("core", "")).collect())
            .collect();
        let word = |i: usize| words.get(i).cloned().unwrap_or_default();
        if text.contains('/') && text.contains(" /") {
            return PolicyRule { verbs: word(0), non_resource_urls: word(1), ..Default::default() };
        }
        PolicyRule {
            verbs: word(0),
            api_groups: word(1),
            resources: word(2),
            resource_names: word(3),
            ..Default::default()
        }
    }

    fn check(own: &[&str], granted: &[&str], expected: Expect) {
        let rules = |texts: &[&str]| texts.iter().map(|t| rule(t)).collect::<Vec<_>>();
        let user = User::new("eve", &["dev", "system:authenticated"]);
        let result = confirm(&user, &rules(own), &[], &rules(granted));
        expected.assert_eq(&result.map_or_else(|why| why, |()| "covered".into()));
    }

    #[test]
    fn nobody_grants_more_than_they_have() {
        let covered = || expect!["covered"];
        check(&["* * *"], &["get,list core pods a", "delete apps deployments/scale"], covered());
        check(&["get,list core pods"], &["get core pods x,y"], covered());
        check(&["get core */status"], &["get core pods/status"], covered());
        check(&["get /healthz*"], &["get /healthz/ping"], covered());
        check(&["get core pods", "list core pods"], &["get,list core pods"], covered());
        check(&["get core pods a"], &["get core pods a"], covered());
        check(
            &["get core pods a"],
            &["get,list core pods", "get apps deployments b"],
            expect![[r#"
                user "eve" (groups=["dev" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:
                {APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}
                {APIGroups:["apps"], Resources:["deployments"], ResourceNames:["b"], Verbs:["get"]}"#]],
        );
        check(
            &["get core pods"],
            &["get /metrics", "get core pods/log"],
            expect![[r#"
                user "eve" (groups=["dev" "system:authenticated"]) is attempting to grant RBAC permissions not currently held:
                {APIGroups:[""], Resources:["pods/log"], Verbs:["get"]}
                {NonResourceURLs:["/metrics"], Verbs:["get"]}"#]],
        );
    }
}
