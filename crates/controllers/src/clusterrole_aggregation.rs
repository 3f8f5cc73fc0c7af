//! Fills the rules of ClusterRoles that take in those of others. Upstream: `clusterrole-aggregation-controller`.

use crate::Context;
use crate::support::queue;
use api::rbac::v1::{ClusterRole, PolicyRule};
use apimachinery::json;
use apimachinery::labels::Selector;
use client::controller::{Outcome, Writes, run as work};
use client::{Error, Informer, Patch, PatchParams, Projection};
use std::collections::BTreeMap;

const NAME: &str = "clusterrole-aggregation-controller";
const WORKERS: usize = 5;

/// What is kept of a role: whom it takes in, and by what others do. Rules are decoded when they are needed.
struct Facts {
    labels: BTreeMap<String, String>,
    takes_in: Option<Vec<Selector>>,
}

impl Projection for Facts {
    type Kind = ClusterRole;

    fn project(role: &ClusterRole) -> Self {
        let selectors = |rule: &api::rbac::v1::AggregationRule| {
            let all = rule.cluster_role_selectors.iter();
            all.map(|s| Selector::from_label_selector(Some(s)).unwrap_or_else(|_| Selector::nothing()))
                .collect()
        };
        Facts {
            labels: role.metadata.labels.clone(),
            takes_in: role.aggregation_rule.as_ref().map(selectors),
        }
    }
}

/// The rules of the parts, which are in the order of the selectors and of names, each rule once.
fn aggregate(parts: impl Iterator<Item = Vec<PolicyRule>>) -> Vec<PolicyRule> {
    let mut rules: Vec<PolicyRule> = Vec::new();
    for rule in parts.flatten() {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Runs until shutdown. Keys are roles that take in others.
pub(crate) async fn run(context: Context) {
    let roles: Informer<Facts> = context.informers.get();
    let queue = queue();
    roles.synced().await;
    let (all, changed) = (roles.clone(), queue.clone());
    roles.subscribe(move |change| {
        let role = change.object();
        if role.takes_in.is_some() {
            changed.add(role.key().clone());
        }
        // A role that got into the selection, or out of it.
        for taker in all.list() {
            let selects = |labels| taker.takes_in.iter().flatten().any(|selector| selector.matches(labels));
            let concerned = change.old().into_iter().chain([role]).any(|role| selects(&role.labels));
            if concerned {
                changed.add(taker.key().clone());
            }
        }
    });
    let writes = Writes::default();
    let noted = writes.clone();
    let client = context.client;
    work("ClusterRoleAggregator", queue, writes, WORKERS, context.shutdown, move |key| {
        let (roles, client, noted) = (roles.clone(), client.clone(), noted.clone());
        async move {
            let Some(role) = roles.get(&key) else { return Ok(Outcome::Done) };
            let Some(selectors) = &role.takes_in else { return Ok(Outcome::Done) };
            let mut others = roles.list();
            others.retain(|other| other.name() != role.name());
            others.sort_by(|a, b| a.name().cmp(b.name()));
            let mut parts = Vec::new();
            for selector in selectors {
                for part in others.iter().filter(|other| selector.matches(&other.labels)) {
                    parts.push(part.decode()?.rules);
                }
            }
            let rules = aggregate(parts.into_iter());
            if role.decode()?.rules == rules {
                return Ok(Outcome::Done);
            }
            let apply = Patch::Apply(json!({
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": key.name},
                "rules": rules,
            }));
            let params = PatchParams { field_manager: NAME.into(), force: true, ..Default::default() };
            let api = client.all::<ClusterRole>();
            let written = api.patch(&key.name, &apply, &params).await?;
            noted.note(&key, &roles, &written.metadata.resource_version);
            Ok::<_, Error>(Outcome::Done)
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_stands_once() {
        let rule = |verb: &str| PolicyRule { verbs: vec![verb.into()], ..Default::default() };
        let parts = [vec![rule("get"), rule("list")], vec![rule("list"), rule("watch")]];
        assert_eq!(aggregate(parts.into_iter()), [rule("get"), rule("list"), rule("watch")]);
    }
}
