//! Which FlowSchema a request is of: the first, in the order of their precedence, that has a rule for its user and for what
//! it asks.

use crate::request::RequestInfo;
use crate::user::User;
use api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

/// Whether a schema is for a request.
pub(super) fn matches(schema: &FlowSchema, user: &User, info: &RequestInfo) -> bool {
    schema.spec.rules.iter().any(|rule| of_rule(rule, user, info))
}

fn of_rule(rule: &PolicyRulesWithSubjects, user: &User, info: &RequestInfo) -> bool {
    // What is asked first: that is cheaper to say no to.
    let asked = match info.is_resource {
        true => rule.resource_rules.iter().any(|rule| of_resource(rule, info)),
        false => rule.non_resource_rules.iter().any(|rule| of_path(rule, info)),
    };
    asked && rule.subjects.iter().any(|subject| of_subject(subject, user))
}

fn of_subject(subject: &Subject, user: &User) -> bool {
    match subject.kind.as_str() {
        "User" => subject.user.as_ref().is_some_and(|s| s.name == "*" || s.name == user.name),
        "Group" => subject.group.as_ref().is_some_and(|s| s.name == "*" || user.in_group(&s.name)),
        "ServiceAccount" => subject.service_account.as_ref().is_some_and(|s| {
            let name = user.name.strip_prefix("system:serviceaccount:");
            let name = name.and_then(|rest| rest.strip_prefix(s.namespace.as_str()));
            name.and_then(|rest| rest.strip_prefix(':')).is_some_and(|name| s.name == "*" || name == s.name)
        }),
        _ => false,
    }
}

/// Whether a list names something; `*` alone stands for everything.
fn names(list: &[String], wanted: &str) -> bool {
    matches!(list, [one] if one == "*") || list.iter().any(|one| one == wanted)
}

fn of_resource(rule: &ResourcePolicyRule, info: &RequestInfo) -> bool {
    names(&rule.verbs, &info.verb)
        && names_resource(&rule.resources, info)
        && names(&rule.api_groups, &info.group)
        && match info.namespace.as_str() {
            "" => rule.cluster_scope,
            namespace => names(&rule.namespaces, namespace),
        }
}

fn names_resource(list: &[String], info: &RequestInfo) -> bool {
    if info.subresource.is_empty() {
        return names(list, &info.resource);
    }
    let whole = |one: &String| one.split_once('/') == Some((&info.resource, &info.subresource));
    matches!(list, [one] if one == "*") || list.iter().any(whole)
}

fn of_path(rule: &NonResourcePolicyRule, info: &RequestInfo) -> bool {
    let covers = |url: &String| {
        let beneath = url.strip_suffix('*').unwrap_or(url).trim_end_matches('/');
        let rest = info.path.strip_prefix(beneath);
        url == "*" || *url == info.path || rest.is_some_and(|rest| rest.starts_with('/'))
    };
    names(&rule.verbs, &info.verb) && rule.non_resource_urls.iter().any(covers)
}

#[cfg(test)]
mod tests {
    use super::super::defaults;
    use super::*;
    use http::Method;

    /// The default schema that a request is of.
    fn check(user: &str, groups: &[&str], method: Method, uri: &str, expected: &str) {
        let mut schemas = defaults::flow_schemas();
        schemas.sort_by_key(|schema| schema.spec.matching_precedence);
        let info = RequestInfo::parse(&method, &uri.parse().unwrap());
        let mut groups = groups.to_vec();
        groups.push("system:authenticated");
        let user = User::new(user, &groups);
        let found = schemas.iter().find(|schema| matches(schema, &user, &info));
        assert_eq!(found.map(|schema| schema.metadata.name.as_str()), Some(expected), "{uri}");
    }

    #[test]
    fn defaults() {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n";
        let nodes = ["system:nodes"];
        check("admin", &["system:masters"], Method::GET, "/api/v1/pods", "exempt");
        check("jo", &[], Method::GET, "/readyz", "probes");
        check("jo", &[], Method::GET, "/readyz/ping", "probes");
        check("jo", &[], Method::GET, "/readyzz", "global-default");
        check("jo", &[], Method::GET, "/api/v1/pods", "global-default");
        check("system:node:n", &nodes, Method::PUT, leases, "system-node-high");
        check("system:node:n", &nodes, Method::PATCH, "/api/v1/nodes/n/status", "system-node-high");
        check("system:node:n", &nodes, Method::GET, "/api/v1/pods", "system-nodes");
        check("system:kube-scheduler", &[], Method::PUT, leases, "system-leader-election");
        check("system:kube-scheduler", &[], Method::PATCH, leases, "kube-scheduler");
        check(
            "system:serviceaccount:kube-system:x",
            &["system:serviceaccounts"],
            Method::GET,
            "/api/v1/pods",
            "kube-system-service-accounts",
        );
        check(
            "system:serviceaccount:kube-systems:x",
            &["system:serviceaccounts"],
            Method::GET,
            "/api/v1/pods",
            "service-accounts",
        );
    }
}
