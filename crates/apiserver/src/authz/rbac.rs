//! RBAC: bindings indexed by subject, so that a decision looks only at the user's own.

use super::rules::allow;
use super::{Attributes, Authorizer, Decision};
use crate::user::User;
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use client::informer::Index;
use client::{Cached, Informer, Informers, Projection};
use futures::future::BoxFuture;

/// What is kept of a role.
#[derive(Debug)]
pub struct Rules<K> {
    pub rules: Vec<PolicyRule>,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// What is kept of a binding.
#[derive(Debug)]
pub struct Grant<K> {
    pub role: RoleRef,
    subjects: Vec<String>,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// The index value of a subject: `user:a`, `group:b`; service accounts by their user name.
fn subject(subject: &Subject, namespace: &str) -> String {
    match subject.kind.as_str() {
        "ServiceAccount" => {
            let namespace = if subject.namespace.is_empty() { namespace } else { &subject.namespace };
            format!("user:system:serviceaccount:{namespace}:{}", subject.name)
        }
        "Group" => format!("group:{}", subject.name),
        _ => format!("user:{}", subject.name),
    }
}

macro_rules! rules {
    ($kind:ty) => {
        impl Projection for Rules<$kind> {
            type Kind = $kind;
            fn project(role: &$kind) -> Self {
                Rules { rules: role.rules.clone(), kind: std::marker::PhantomData }
            }
        }
    };
}
macro_rules! grant {
    ($kind:ty) => {
        impl Projection for Grant<$kind> {
            type Kind = $kind;
            fn project(binding: &$kind) -> Self {
                let namespace = &binding.metadata.namespace;
                Grant {
                    role: binding.role_ref.clone(),
                    subjects: binding.subjects.iter().map(|s| subject(s, namespace)).collect(),
                    kind: std::marker::PhantomData,
                }
            }
            fn indices() -> &'static [Index<Self>] {
                &[("subject", |grant| grant.subjects.clone())]
            }
        }
    };
}
rules!(Role);
rules!(ClusterRole);
grant!(RoleBinding);
grant!(ClusterRoleBinding);

/// The RBAC authorizer.
#[derive(Debug, Clone)]
pub struct Rbac {
    roles: Informer<Rules<Role>>,
    cluster_roles: Informer<Rules<ClusterRole>>,
    bindings: Informer<Grant<RoleBinding>>,
    cluster_bindings: Informer<Grant<ClusterRoleBinding>>,
}

fn subjects(user: &User) -> impl Iterator<Item = String> + '_ {
    std::iter::once(format!("user:{}", user.name)).chain(user.groups.iter().map(|g| format!("group:{g}")))
}

impl Rbac {
    pub fn new(informers: &Informers) -> Self {
        Rbac {
            roles: informers.get(),
            cluster_roles: informers.get(),
            bindings: informers.get(),
            cluster_bindings: informers.get(),
        }
    }

    /// Waits until all roles and bindings are known.
    pub async fn synced(&self) {
        self.roles.synced().await;
        self.cluster_roles.synced().await;
        self.bindings.synced().await;
        self.cluster_bindings.synced().await;
    }

    fn with_cluster_role<T>(&self, name: &str, read: impl FnOnce(&[PolicyRule]) -> T) -> Option<T> {
        self.cluster_roles.named("", name).map(|role| read(&role.rules))
    }

    /// Calls `visit` with the rules of everything the user is granted, until it returns true.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&[PolicyRule], &str) -> bool,
    ) -> bool {
        for subject in subjects(user) {
            for binding in self.cluster_bindings.by_index("subject", &subject) {
                let source = describe("ClusterRoleBinding", &binding, &binding.role, &subject);
                if self.with_cluster_role(&binding.role.name, |rules| visit(rules, &source)) == Some(true) {
                    return true;
                }
            }
            if namespace.is_empty() {
                continue;
            }
            for binding in self.bindings.by_index("subject", &subject) {
                if binding.namespace() != namespace {
                    continue;
                }
                let source = describe("RoleBinding", &binding, &binding.role, &subject);
                let found = if binding.role.kind == "ClusterRole" {
                    self.with_cluster_role(&binding.role.name, |rules| visit(rules, &source))
                } else {
                    self.roles.named(namespace, &binding.role.name).map(|role| visit(&role.rules, &source))
                };
                if found == Some(true) {
                    return true;
                }
            }
        }
        false
    }

    /// All rules a user has in a namespace (empty: those that hold everywhere).
    pub fn rules_for(&self, user: &User, namespace: &str) -> Vec<PolicyRule> {
        let mut all = Vec::new();
        self.visit(user, namespace, |rules, _| {
            all.extend_from_slice(rules);
            false
        });
        all
    }
}

fn describe<P: Projection>(kind: &str, binding: &Cached<P>, role: &RoleRef, subject: &str) -> String {
    let (what, who) = subject.split_once(':').unwrap_or(("", subject));
    let what = match what {
        "group" => "Group",
        _ if who.starts_with("system:serviceaccount:") => "ServiceAccount",
        _ => "User",
    };
    let who = match what {
        "ServiceAccount" => who.trim_start_matches("system:serviceaccount:").replacen(':', "/", 1),
        _ => who.to_owned(),
    };
    format!(
        "RBAC: allowed by {kind} \"{}\" of {} \"{}\" to {what} \"{who}\"",
        binding.key(),
        role.kind,
        role.name
    )
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        let mut reason = String::new();
        let allowed = self.visit(attributes.user, attributes.namespace, |rules, source| {
            let allowed = allow(rules, attributes);
            if allowed {
                reason = source.to_owned();
            }
            allowed
        });
        let decision =
            if allowed { Decision::Allow { reason } } else { Decision::NoOpinion { reason: String::new() } };
        Box::pin(std::future::ready(decision))
    }
}
