//! Whether rules cover others (upstream's `Covers`): for who grants rights, and for what a new server puts back.

use api::rbac::v1::PolicyRule;

/// What of `wanted` the rules of `own` do not cover, broken down into single permissions.
pub(crate) fn uncovered(own: &[PolicyRule], wanted: &[PolicyRule]) -> Vec<PolicyRule> {
    let mut single: Vec<PolicyRule> = wanted.iter().flat_map(broken_down).collect();
    single.retain(|rule| !own.iter().any(|own| covers(own, rule)));
    single
}

/// A rule as rules of one verb, and one resource or path, and at most one name each.
fn broken_down(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |word: &String| vec![word.clone()];
    let mut single = Vec::new();
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let rest = PolicyRule {
                    api_groups: one(group),
                    resources: one(resource),
                    verbs: one(verb),
                    ..PolicyRule::default()
                };
                if rule.resource_names.is_empty() {
                    single.push(rest);
                    continue;
                }
                let named = rule.resource_names.iter();
                single.extend(named.map(|name| PolicyRule { resource_names: one(name), ..rest.clone() }));
            }
        }
    }
    for url in &rule.non_resource_urls {
        for verb in &rule.verbs {
            single.push(PolicyRule {
                non_resource_urls: one(url),
                verbs: one(verb),
                ..PolicyRule::default()
            });
        }
    }
    single
}

/// Whether one rule covers a single permission.
fn covers(own: &PolicyRule, single: &PolicyRule) -> bool {
    let all = |own: &[String], wanted: &[String]| wanted.iter().all(|wanted| has(own, wanted));
    let names = match single.resource_names.is_empty() {
        true => own.resource_names.is_empty(),
        false => {
            own.resource_names.is_empty()
                || single.resource_names.iter().all(|name| own.resource_names.contains(name))
        }
    };
    names
        && all(&own.verbs, &single.verbs)
        && all(&own.api_groups, &single.api_groups)
        && single.resources.iter().all(|resource| resource_covers(&own.resources, resource))
        && single
            .non_resource_urls
            .iter()
            .all(|url| own.non_resource_urls.iter().any(|u| path_covers(u, url)))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn resource_covers(own: &[String], resource: &str) -> bool {
    let any = resource.split_once('/').map(|(_, sub)| format!("*/{sub}"));
    has(own, resource) || any.is_some_and(|any| own.contains(&any))
}

fn path_covers(own: &str, path: &str) -> bool {
    own == path || own.ends_with('*') && path.starts_with(own.trim_end_matches('*'))
}
