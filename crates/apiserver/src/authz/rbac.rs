//! RBAC: who is granted what, kept ready for decisions: bindings by subject, roles by name, both fed by informers.
//! A decision looks only at the user's own bindings and allocates nothing until it has an answer.

use super::rules::allows;
use super::{Attributes, Authorizer, Decision};
use crate::bootstrap::Revisions;
use crate::user::User;
use api::Kind as _;
use api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use client::informer::Change;
use client::{Cached, Informer, Informers, Projection};
use futures::future::BoxFuture;
use parking_lot::RwLock;
use std::collections::{BTreeSet, HashMap};
use std::marker::PhantomData;
use std::sync::Arc;

/// What is kept of a role.
#[derive(Debug)]
struct Rules<K> {
    rules: Arc<[PolicyRule]>,
    kind: PhantomData<fn() -> K>,
}

/// What is kept of a binding.
#[derive(Debug)]
struct Grant<K> {
    grant: Arc<Granted>,
    kind: PhantomData<fn() -> K>,
}

/// A binding, read.
#[derive(Debug)]
struct Granted {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

macro_rules! project {
    ($role:ty, $binding:ty) => {
        impl Projection for Rules<$role> {
            type Kind = $role;
            fn project(role: &$role) -> Self {
                Rules { rules: role.rules.clone().into(), kind: PhantomData }
            }
        }
        impl Projection for Grant<$binding> {
            type Kind = $binding;
            fn project(binding: &$binding) -> Self {
                let meta = &binding.metadata;
                let grant = Granted {
                    namespace: meta.namespace.clone(),
                    name: meta.name.clone(),
                    role: binding.role_ref.clone(),
                    subjects: binding.subjects.clone(),
                };
                Grant { grant: Arc::new(grant), kind: PhantomData }
            }
        }
    };
}
project!(Role, RoleBinding);
project!(ClusterRole, ClusterRoleBinding);

/// The grants of one namespace (or of the cluster), by subject. Service accounts stand with the users, by user name.
#[derive(Debug, Default)]
struct Grants {
    users: HashMap<String, Vec<Arc<Granted>>>,
    groups: HashMap<String, Vec<Arc<Granted>>>,
}

impl Grants {
    fn change(&mut self, grant: &Arc<Granted>, add: bool) {
        for subject in &grant.subjects {
            let (list, name) = match subject.kind.as_str() {
                "User" => (&mut self.users, subject.name.clone()),
                "Group" => (&mut self.groups, subject.name.clone()),
                "ServiceAccount" => match account_namespace(subject, &grant.namespace) {
                    "" => continue,
                    namespace => {
                        (&mut self.users, format!("system:serviceaccount:{namespace}:{}", subject.name))
                    }
                },
                _ => continue,
            };
            if add {
                list.entry(name).or_default().push(grant.clone());
            } else if let Some(grants) = list.get_mut(&name) {
                grants.retain(|g| !Arc::ptr_eq(g, grant));
                if grants.is_empty() {
                    list.remove(&name);
                }
            }
        }
    }

    fn of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = &'a Arc<Granted>> {
        let by_group = user.groups.iter().filter_map(|g| self.groups.get(g));
        self.users.get(&user.name).into_iter().chain(by_group).flatten()
    }
}

/// A service account's namespace; that of the binding where the subject names none.
fn account_namespace<'a>(subject: &'a Subject, binding: &'a str) -> &'a str {
    if subject.namespace.is_empty() { binding } else { &subject.namespace }
}

#[derive(Debug, Default)]
struct Tables {
    cluster: Grants,
    namespaces: HashMap<String, Grants>,
    cluster_roles: HashMap<String, Arc<[PolicyRule]>>,
    roles: HashMap<String, HashMap<String, Arc<[PolicyRule]>>>,
}

/// What became of an object, and which: `None` where there was none or is none.
fn before_and_after<P>(change: &Change<P>) -> (Option<&Arc<Cached<P>>>, Option<&Arc<Cached<P>>>) {
    match change {
        Change::Added(new) => (None, Some(new)),
        Change::Updated { old, new } => (Some(old), Some(new)),
        Change::Deleted(old) => (Some(old), None),
    }
}

impl Tables {
    fn grants(&mut self, namespace: &str) -> &mut Grants {
        if namespace.is_empty() {
            return &mut self.cluster;
        }
        self.namespaces.entry(namespace.to_owned()).or_default()
    }

    /// Puts a grant in the place of the one that had its name.
    fn put(
        &mut self,
        known: &mut HashMap<(String, String), Arc<Granted>>,
        name: (String, String),
        new: Option<Arc<Granted>>,
    ) {
        let old = match &new {
            Some(new) => known.insert(name, new.clone()),
            None => known.remove(&name),
        };
        if let Some(old) = old {
            self.grants(&old.namespace).change(&old, false);
        }
        if let Some(new) = new {
            self.grants(&new.namespace).change(&new, true);
        }
    }

    fn rules(&self, grant: &Granted) -> Option<&Arc<[PolicyRule]>> {
        match grant.role.kind.as_str() {
            "ClusterRole" => self.cluster_roles.get(&grant.role.name),
            "Role" => self.roles.get(&grant.namespace)?.get(&grant.role.name),
            _ => None,
        }
    }

    /// Calls `visit` with the rules of everything the user is granted, until it returns true.
    fn visit(
        &self,
        user: &User,
        namespace: &str,
        mut visit: impl FnMut(&Granted, Option<&Arc<[PolicyRule]>>) -> bool,
    ) -> bool {
        let local = self.namespaces.get(namespace).filter(|_| !namespace.is_empty());
        [Some(&self.cluster), local]
            .into_iter()
            .flatten()
            .flat_map(|grants| grants.of(user))
            .any(|grant| visit(grant, self.rules(grant)))
    }
}

/// The RBAC authorizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rbac {
    tables: Arc<RwLock<Tables>>,
    roles: Informer<Rules<Role>>,
    cluster_roles: Informer<Rules<ClusterRole>>,
    bindings: Informer<Grant<RoleBinding>>,
    cluster_bindings: Informer<Grant<ClusterRoleBinding>>,
}

impl Rbac {
    pub fn new(informers: &Informers) -> Self {
        let rbac = Rbac {
            tables: Arc::default(),
            roles: informers.get(),
            cluster_roles: informers.get(),
            bindings: informers.get(),
            cluster_bindings: informers.get(),
        };
        let tables = rbac.tables.clone();
        rbac.roles.subscribe(move |change| {
            let key = change.object().key().clone();
            let roles = &mut tables.write().roles;
            match before_and_after(change).1 {
                Some(new) => {
                    let namespace = roles.entry(key.namespace.to_string()).or_default();
                    namespace.insert(key.name.to_string(), new.rules.clone());
                }
                None => {
                    let Some(namespace) = roles.get_mut(&*key.namespace) else { return };
                    namespace.remove(&*key.name);
                    if namespace.is_empty() {
                        roles.remove(&*key.namespace);
                    }
                }
            }
        });
        let tables = rbac.tables.clone();
        rbac.cluster_roles.subscribe(move |change| {
            let name = change.object().name().to_owned();
            let roles = &mut tables.write().cluster_roles;
            match before_and_after(change).1 {
                Some(new) => drop(roles.insert(name, new.rules.clone())),
                None => drop(roles.remove(&name)),
            }
        });
        subscribe(&rbac.bindings, &rbac.tables);
        subscribe(&rbac.cluster_bindings, &rbac.tables);
        rbac
    }

    /// Waits until all roles and bindings are known, those that were written at the start included.
    pub async fn synced(&self, written: &Revisions) {
        async fn reached<P: Projection>(informer: &Informer<P>, written: &Revisions) {
            let revision = written.of(P::Kind::GROUP, P::Kind::RESOURCE);
            informer.reached(revision.max(1)).await;
        }
        reached(&self.roles, written).await;
        reached(&self.cluster_roles, written).await;
        reached(&self.bindings, written).await;
        reached(&self.cluster_bindings, written).await;
    }

    /// All rules a user has in a namespace (empty: those that hold everywhere), and the roles that are granted but
    /// missing.
    pub fn rules_for(&self, user: &User, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        self.tables.read().visit(user, namespace, |grant, rules| {
            match rules {
                Some(rules) => all.extend_from_slice(rules),
                None => errors.push(missing(&grant.role)),
            }
            false
        });
        (all, errors)
    }

    fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let tables = self.tables.read();
        let mut allowed = String::new();
        let mut errors = BTreeSet::new();
        tables.visit(attributes.user, attributes.namespace, |grant, rules| {
            let Some(rules) = rules else {
                errors.insert(missing(&grant.role));
                return false;
            };
            let found = rules.iter().any(|rule| allows(rule, attributes));
            if found {
                allowed = format!("RBAC: allowed by {}", describe(grant, attributes.user));
            }
            found
        });
        if !allowed.is_empty() {
            return Decision::Allow { reason: allowed };
        }
        let reason =
            apimachinery::field::aggregate(errors).map_or_else(String::new, |all| format!("RBAC: {all}"));
        Decision::NoOpinion { reason }
    }
}

fn subscribe<K>(informer: &Informer<Grant<K>>, tables: &Arc<RwLock<Tables>>)
where
    Grant<K>: Projection,
{
    let tables = tables.clone();
    // What is in the tables, by name: the last state that a deletion tells may be one that was never added.
    let known = parking_lot::Mutex::new(HashMap::new());
    informer.subscribe(move |change| {
        let key = change.object().key();
        let name = (key.namespace.to_string(), key.name.to_string());
        let new = before_and_after(change).1.map(|new| new.grant.clone());
        tables.write().put(&mut known.lock(), name, new);
    });
}

/// What is said of a role that is granted but missing.
fn missing(role: &RoleRef) -> String {
    match role.kind.as_str() {
        "ClusterRole" | "Role" => {
            format!("{}.rbac.authorization.k8s.io \"{}\" not found", role.kind.to_lowercase(), role.name)
        }
        kind => format!("unsupported role reference kind: \"{kind}\""),
    }
}

/// Names a binding, its role and the first of its subjects that is the user.
fn describe(grant: &Granted, user: &User) -> String {
    let is_user = |subject: &&Subject| match subject.kind.as_str() {
        "User" => user.name == subject.name,
        "Group" => user.in_group(&subject.name),
        _ => {
            let account = user.name.strip_prefix("system:serviceaccount:").and_then(|u| u.split_once(':'));
            account == Some((account_namespace(subject, &grant.namespace), subject.name.as_str()))
        }
    };
    let who =
        grant.subjects.iter().find(is_user).map_or_else(String::new, |subject| match subject.kind.as_str() {
            "ServiceAccount" => {
                let namespace = account_namespace(subject, &grant.namespace);
                format!("ServiceAccount \"{}/{namespace}\"", subject.name)
            }
            kind => format!("{kind} \"{}\"", subject.name),
        });
    let RoleRef { kind, name, .. } = &grant.role;
    if grant.namespace.is_empty() {
        format!("ClusterRoleBinding \"{}\" of {kind} \"{name}\" to {who}", grant.name)
    } else {
        format!("RoleBinding \"{}/{}\" of {kind} \"{name}\" to {who}", grant.name, grant.namespace)
    }
}

impl Authorizer for Rbac {
    fn authorize<'a>(&'a self, attributes: &'a Attributes<'a>) -> BoxFuture<'a, Decision> {
        Box::pin(std::future::ready(self.decide(attributes)))
    }

    fn rules_for(&self, user: &User, namespace: &str) -> super::Rules {
        let (rules, errors) = Rbac::rules_for(self, user, namespace);
        super::Rules { rules, incomplete: false, errors }
    }
}
