//! Hooks of `rbac.authorization.k8s.io`.

use super::check::{Check, path_segment, subdomain};
use super::plain::Plain;
use super::shown::shown;
use super::templates::{AGE, NAME};
use super::tree::{column, each, list, name, object_age, or, text, typed, with};
use super::{Column, Row};
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Subject};
use apimachinery::field::{BadValue, Error, ErrorList, Path};
use apimachinery::labels::Selector;
use apimachinery::meta::validation::{SelectorLeniency, validate_label_selector};
use apimachinery::time::Time;
use apimachinery::value::Value;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) const STRATEGIES: &[Row] = &[
    (GROUP, "ClusterRole", &CLUSTER_ROLES),
    (GROUP, "ClusterRoleBinding", &CLUSTER_BINDINGS),
    (GROUP, "Role", &ROLES),
    (GROUP, "RoleBinding", &BINDINGS),
];

#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Cluster,
    Namespace,
}

const CREATED_AT: Column = column(
    "Created At",
    "date",
    0,
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
);

static ROLES: Plain = Plain {
    validate: |role| validate_rules(role, Scope::Namespace),
    columns: &[NAME, CREATED_AT],
    cells: |role, _| vec![name(role), text(role, &["metadata", "creationTimestamp"]).into()],
    ..Plain::NEW
};
static CLUSTER_ROLES: Plain = Plain {
    validate: validate_cluster_role,
    columns: &[NAME, CREATED_AT],
    cells: |role, _| vec![name(role), text(role, &["metadata", "creationTimestamp"]).into()],
    ..Plain::NEW
};
/// Whom a binding names, and what.
const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Role",
        "string",
        0,
        "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    column("Users", "string", 1, "Users in the roleBinding"),
    column("Groups", "string", 1, "Groups in the roleBinding"),
    column("ServiceAccounts", "string", 1, "ServiceAccounts in the roleBinding"),
];

/// The same of a binding for the whole cluster.
const CLUSTER_COLUMNS: &[Column] = &[
    NAME,
    column(
        "Role",
        "string",
        0,
        "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
    ),
    AGE,
    column("Users", "string", 1, "Users in the clusterRoleBinding"),
    column("Groups", "string", 1, "Groups in the clusterRoleBinding"),
    column("ServiceAccounts", "string", 1, "ServiceAccounts in the clusterRoleBinding"),
];

static BINDINGS: Plain = Plain {
    default: default_binding,
    validate: |binding| validate_binding(binding, Scope::Namespace),
    validate_update: |binding, old, _| validate_role_ref(binding, old),
    columns: COLUMNS,
    cells: binding_cells,
    ..Plain::NEW
};

static CLUSTER_BINDINGS: Plain = Plain {
    default: default_binding,
    validate: |binding| validate_binding(binding, Scope::Cluster),
    validate_update: |binding, old, _| validate_role_ref(binding, old),
    columns: CLUSTER_COLUMNS,
    cells: binding_cells,
    ..Plain::NEW
};

fn default_binding(binding: &mut Value) {
    with(binding, "roleRef", |role| or(role, "apiGroup", GROUP));
    each(binding, "subjects", |subject| {
        if matches!(text(subject, &["kind"]), "User" | "Group") {
            or(subject, "apiGroup", GROUP);
        }
    });
}

fn binding_cells(binding: &Value, now: Time) -> Vec<Value> {
    let of = |kind: &str| {
        let subjects = list(binding, &["subjects"]).iter().filter(|s| text(s, &["kind"]) == kind);
        let names: Vec<String> = subjects
            .map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(s, &["namespace"]), text(s, &["name"])),
                _ => text(s, &["name"]).to_owned(),
            })
            .collect();
        Value::from(names.join(", "))
    };
    let role = format!("{}/{}", text(binding, &["roleRef", "kind"]), text(binding, &["roleRef", "name"]));
    vec![
        name(binding),
        role.into(),
        object_age(binding, now).into(),
        of("User"),
        of("Group"),
        of("ServiceAccount"),
    ]
}

fn validate_rules(role: &Value, scope: Scope) -> ErrorList {
    let mut check = Check::default();
    let rules: Vec<PolicyRule> = typed::<Option<Vec<PolicyRule>>>(&role["rules"]).unwrap_or_default();
    for (i, rule) in rules.iter().enumerate() {
        let path = Path::new("rules").index(i);
        if rule.verbs.is_empty() {
            check.required(&path.child("verbs"), "verbs must contain at least one value");
        }
        if !rule.non_resource_urls.is_empty() {
            let at = path.child("nonResourceURLs");
            if scope == Scope::Namespace {
                let why = "namespaced rules cannot apply to non-resource URLs";
                check.invalid(&at, &rule.non_resource_urls, why);
            }
            let regular = [&rule.api_groups, &rule.resources, &rule.resource_names];
            if regular.iter().any(|list| !list.is_empty()) {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                check.invalid(&at, &rule.non_resource_urls, why);
            }
            continue;
        }
        if rule.api_groups.is_empty() {
            check.required(&path.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.resources.is_empty() {
            check.required(&path.child("resources"), "resource rules must supply at least one resource");
        }
    }
    check.0
}

fn validate_cluster_role(role: &Value) -> ErrorList {
    let mut check = Check(validate_rules(role, Scope::Cluster));
    let role: ClusterRole = typed(role);
    let Some(rule) = &role.aggregation_rule else { return check.0 };
    let path = Path::new("aggregationRule").child("clusterRoleSelectors");
    if rule.cluster_role_selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        check.required(&path, why);
    }
    for (i, selector) in rule.cluster_role_selectors.iter().enumerate() {
        let at = path.index(i);
        check.extend(validate_label_selector(Some(selector), SelectorLeniency::default(), &at));
        if Selector::from_label_selector(Some(selector)).is_err() {
            check.invalid(&at, BadValue::verbatim("null"), "invalid label selector.");
        }
    }
    check.0
}

fn validate_binding(binding: &Value, scope: Scope) -> ErrorList {
    let mut check = Check::default();
    let binding: ClusterRoleBinding = typed(binding);
    let path = Path::new("roleRef");
    let role = &binding.role_ref;
    check.one_of(&path.child("apiGroup"), &role.api_group, &[GROUP]);
    let kinds: &[&str] = if scope == Scope::Namespace { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    check.one_of(&path.child("kind"), &role.kind, kinds);
    check.present_and_keeps(&path.child("name"), &role.name, "", path_segment);
    for (i, subject) in binding.subjects.iter().enumerate() {
        validate_subject(&mut check, &Path::new("subjects").index(i), subject, scope);
    }
    check.0
}

fn validate_subject(check: &mut Check, path: &Path, subject: &Subject, scope: Scope) {
    let group = path.child("apiGroup");
    let named = check.present(&path.child("name"), &subject.name, "");
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if named {
                check.keeps(&path.child("name"), &subject.name, subdomain);
            }
            if !subject.api_group.is_empty() {
                check.0.push(Error::not_supported(&group, subject.api_group.as_str(), &[""]));
            }
            if scope == Scope::Cluster {
                check.present(&path.child("namespace"), &subject.namespace, "");
            }
        }
        "User" | "Group" => check.one_of(&group, &subject.api_group, &[GROUP]),
        other => check.one_of(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

/// What a binding grants does not change.
fn validate_role_ref(binding: &Value, old: &Value) -> ErrorList {
    let mut check = Check::default();
    if binding["roleRef"] != old["roleRef"] {
        check.invalid(&Path::new("roleRef"), shown(binding, &["roleRef"]), "cannot change roleRef");
    }
    check.0
}
