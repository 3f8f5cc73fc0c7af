//! Whether a webhook is concerned by a request, and in which version it wants to see the object.

use super::config::{Hook, Rule};
use crate::admission::Attributes;
use crate::resources::{Resources, Served};
use apimachinery::value::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a webhook is called: the version that its rule names.
pub(super) struct Invocation {
    pub resource: Arc<Served>,
}

fn names(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

fn matches(rule: &Rule, a: &Attributes<'_>, resource: &Served) -> bool {
    let row = &resource.row;
    // A namespace is in itself, but not namespaced.
    let namespaced = !a.namespace.is_empty() && !a.is("", "namespaces");
    let scope = match rule.scope.as_str() {
        "Namespaced" => namespaced,
        "Cluster" => !namespaced,
        _ => true,
    };
    let named = rule.resources.iter().any(|pattern| {
        let (wanted, subresource) = pattern.split_once('/').unwrap_or((pattern, ""));
        (wanted == "*" || wanted == row.resource) && (subresource == "*" || subresource == a.subresource)
    });
    scope
        && named
        && names(&rule.operations, a.operation.name())
        && names(&rule.groups, &row.group)
        && names(&rule.versions, &row.version)
}

/// How the webhook is called for the request, if any of its rules names it.
pub(super) fn invocation(hook: &Hook, a: &Attributes<'_>, resources: &Resources) -> Option<Invocation> {
    if hook.rules.iter().any(|rule| matches(rule, a, a.resource)) {
        return Some(Invocation { resource: a.resource.clone() });
    }
    if !hook.equivalent {
        return None;
    }
    let row = &a.resource.row;
    hook.rules.iter().find_map(|rule| {
        // Only versions that a rule names outright can be others than that of the request.
        let versions = rule.versions.iter().filter(|v| *v != "*" && **v != row.version);
        versions
            .filter_map(|version| resources.get(&row.group, version, &row.resource))
            .find(|other| matches(rule, a, other))
            .map(|resource| Invocation { resource })
    })
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter()
        .flatten()
        .map(|(k, v)| (k.to_string(), v.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Whether the selectors of the webhook choose the request. `namespace` is the labels of its namespace, if it has one.
pub(super) fn selected(hook: &Hook, a: &Attributes<'_>, namespace: Option<&Value>) -> bool {
    if let Some(namespace) = namespace
        && !hook.namespaces.matches(&labels(Some(namespace)))
    {
        return false;
    }
    if hook.objects.is_empty() {
        return true;
    }
    let of = |object: &Value| hook.objects.matches(&labels(object["metadata"].get("labels")));
    a.object.as_deref().is_some_and(of) || a.old.is_some_and(of)
}
