//! Whether a rule allows a request (RBAC's PolicyRule semantics).

use super::Attributes;
use api::rbac::v1::PolicyRule;

/// Whether any of the rules allows the request.
pub fn allow<'a>(rules: impl IntoIterator<Item = &'a PolicyRule>, attributes: &Attributes<'_>) -> bool {
    rules.into_iter().any(|rule| allows(rule, attributes))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

/// Whether one rule allows the request.
pub fn allows(rule: &PolicyRule, attributes: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, attributes.verb) {
        return false;
    }
    if !attributes.is_resource {
        return rule.non_resource_urls.iter().any(|url| match url.strip_suffix('*') {
            Some(prefix) => attributes.path.starts_with(prefix),
            None => url == attributes.path,
        });
    }
    has(&rule.api_groups, attributes.group)
        && rule.resources.iter().any(|r| covers(r, attributes.resource, attributes.subresource))
        && (rule.resource_names.is_empty() || rule.resource_names.iter().any(|n| n == attributes.name))
}

/// `*`, `pods`, `pods/log`, `*/scale`.
fn covers(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((r, s)) => s == subresource && !s.is_empty() && (r == "*" || r == resource),
    }
}
