//! Admission: an ordered list of plugins that may change a request's object, then may refuse it.
//!
//! Where to add one: a file here that implements [`Plugin`], and a line in [`plugins`].

mod certificates;
mod claim_resize;
mod default_classes;
mod default_toleration_seconds;
mod limit_ranger;
mod lookup;
mod matching;
mod measures;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod owner_references;
mod pod_resize;
mod pod_security;
mod pod_topology_labels;
mod policy;
mod priority;
mod resource_quota;
mod runtime_class;
mod service_account;
mod simple;
mod webhook;

use crate::authz::Authorizer;
use crate::authz::escalation::Escalation;
use crate::authz::rbac::Rbac;
use crate::outbound::Outbound;
use crate::resources::{Resources, Served};
use crate::user::User;
use apimachinery::status::Status;
use certificates::{Certificates, Check};
use component::metrics::Registry;
use default_classes::DefaultClass;
use futures::future::BoxFuture;
use lookup::Objects;
use measures::{Measures, Step, Stopwatch};
use schema::{Table, TypeId};
use serde_json::Value;
use std::sync::Arc;
use store::Store;
use webhook::{Phase, Webhooks};

/// What plugins look things up in.
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub resources: Arc<Resources>,
    pub rbac: Rbac,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// How webhooks are reached.
    pub outbound: Arc<Outbound>,
    /// Where calls of webhooks are counted.
    pub metrics: Arc<Registry>,
    /// Whether a feature gate is on.
    pub gates: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// The plugins of a cluster without configuration, in upstream's order.
pub fn plugins(deps: Deps) -> Vec<Arc<dyn Plugin>> {
    let (store, resources) = (&deps.store, &deps.resources);
    let objects = |group: &str, version: &str, resource: &str| {
        let resource = resources.get(group, version, resource)?;
        Some(Arc::new(Objects::new(store.clone(), resource)))
    };
    let certificates = |check| Certificates { check, authorizers: deps.authorizers.clone() };
    let mut all: Vec<Arc<dyn Plugin>> = Vec::new();
    let namespaces = objects("", "v1", "namespaces");
    if let Some(namespaces) = namespaces.clone() {
        all.push(Arc::new(namespace_lifecycle::NamespaceLifecycle(namespaces)));
    }
    if let Some(ranges) = objects("", "v1", "limitranges") {
        all.push(Arc::new(limit_ranger::LimitRanger(ranges)));
    }
    if let Some(accounts) = objects("", "v1", "serviceaccounts") {
        all.push(Arc::new(service_account::ServiceAccount(accounts)));
    }
    all.extend(node_restriction::NodeRestriction::new(store, resources, &deps.authorizers).map(boxed));
    all.push(Arc::new(simple::TaintNodesByCondition));
    if let (Some(namespaces), Some(pods)) = (namespaces, objects("", "v1", "pods")) {
        let measures = pod_security::Measures::new(&deps.metrics);
        all.push(Arc::new(pod_security::PodSecurity { namespaces, pods, measures }));
    }
    if let Some(classes) = objects("scheduling.k8s.io", "v1", "priorityclasses") {
        all.push(Arc::new(priority::Priority(classes)));
    }
    all.push(Arc::new(default_toleration_seconds::DefaultTolerationSeconds));
    if let Some(classes) = objects("storage.k8s.io", "v1", "storageclasses") {
        all.push(Arc::new(DefaultClass {
            name: "DefaultStorageClass",
            classes,
            of: ("", "persistentvolumeclaims"),
            member: "storageClassName",
            annotation: "volume.beta.kubernetes.io/storage-class",
            marks: default_classes::STORAGE_MARKS,
        }));
    }
    all.push(Arc::new(simple::StorageObjectInUseProtection));
    all.push(Arc::new(owner_references::OwnerReferencesPermissionEnforcement {
        authorizers: deps.authorizers.clone(),
        resources: resources.clone(),
    }));
    if let Some(classes) = objects("storage.k8s.io", "v1", "storageclasses") {
        all.push(Arc::new(claim_resize::PersistentVolumeClaimResize(classes)));
    }
    if let Some(classes) = objects("node.k8s.io", "v1", "runtimeclasses") {
        all.push(Arc::new(runtime_class::RuntimeClass(classes)));
    }
    for check in [Check::Approval, Check::Signing, Check::Attest, Check::Subject] {
        all.push(Arc::new(certificates(check)));
    }
    if let Some(classes) = objects("networking.k8s.io", "v1", "ingressclasses") {
        all.push(Arc::new(DefaultClass {
            name: "DefaultIngressClass",
            classes,
            of: ("networking.k8s.io", "ingresses"),
            member: "ingressClassName",
            annotation: "kubernetes.io/ingress.class",
            marks: default_classes::INGRESS_MARKS,
        }));
    }
    if let Some(nodes) = objects("", "v1", "nodes") {
        if (deps.gates)("PodTopologyLabelsAdmission") {
            all.push(Arc::new(pod_topology_labels::PodTopologyLabels(nodes.clone())));
        }
        if (deps.gates)("NodeDeclaredFeatures") {
            all.push(Arc::new(node_declared_features::NodeDeclaredFeatureValidator(nodes.clone())));
        }
        all.push(Arc::new(pod_resize::PodResizeValidator(nodes)));
    }
    all.push(Arc::new(policy::ParamAccess::new(&deps)));
    // What policies change, webhooks see.
    all.extend(policy::MutatingAdmissionPolicy::new(&deps).map(boxed));
    all.extend(Webhooks::new(Phase::Mutating, &deps).map(boxed));
    all.extend(policy::ValidatingAdmissionPolicy::new(&deps).map(boxed));
    all.extend(Webhooks::new(Phase::Validating, &deps).map(boxed));
    let quotas = objects("", "v1", "resourcequotas");
    // Behind all that change objects: what is checked is what is written.
    all.push(Arc::new(Escalation {
        rbac: deps.rbac,
        authorizers: deps.authorizers,
        store: deps.store,
        resources: deps.resources,
    }));
    // The last: what is charged is what nobody else refuses.
    if let Some(quotas) = quotas {
        all.push(Arc::new(resource_quota::ResourceQuota(quotas)));
    }
    all
}

fn boxed(plugin: impl Plugin + 'static) -> Arc<dyn Plugin> {
    Arc::new(plugin)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    /// As rules and expressions spell it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A request as admission sees it. Objects are in the hub version.
#[derive(Debug)]
pub struct Attributes<'a> {
    pub operation: Operation,
    pub user: &'a User,
    pub resource: &'a Arc<Served>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// The new object; absent for deletes.
    pub object: Option<&'a mut Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// Whether the request's object is one of the resource, whole or seen from one side, rather than one of a kind that
    /// only the subresource has.
    pub fn is_whole(&self) -> bool {
        let row = self.resource.subresources.get(self.subresource);
        let same = row.is_none_or(|r| r.kind == self.resource.row.kind && r.kind_group_version.is_none());
        self.operation != Operation::Connect && (self.subresource.is_empty() || same)
    }

    /// The type of the request's object, in the version of the resource that is asked about.
    pub fn object_type<'s>(&self, matched: &'s Served) -> (&'s Table, TypeId) {
        let own = (&*matched.table, matched.ty);
        let Some(row) = matched.subresources.get(self.subresource).filter(|_| !self.is_whole()) else {
            return own;
        };
        let (group, version) = match &row.kind_group_version {
            Some((group, version)) => (group, version),
            None => (&row.group, &row.version),
        };
        api::table().kind(group, version, &row.kind).map_or(own, |ty| (api::table(), ty))
    }

    /// Whether the request is about this resource (core group when `group` is empty), whatever the subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.row.group == group && self.resource.row.resource == resource
    }
}

/// An admission plugin. Refusals are `Status`es; [`Status::forbidden`] with the plugin's reason is the usual one.
pub trait Plugin: Send + Sync {
    /// Upstream's name, as `--enable-admission-plugins` spells it.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses the request.
    fn admit<'a>(&'a self, _attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Refuses the request, or lets it pass.
    fn validate<'a>(&'a self, _attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The plugins, in order.
#[derive(Clone, Default)]
pub struct Chain {
    plugins: Arc<[Arc<dyn Plugin>]>,
    measures: Option<Arc<Measures>>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.plugins.iter().map(|p| p.name())).finish()
    }
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Chain { plugins: plugins.into(), measures: None }
    }

    /// Plugins whose time is measured.
    pub fn measured(plugins: Vec<Arc<dyn Plugin>>, registry: &Registry) -> Self {
        let names = plugins.iter().map(|plugin| plugin.name()).collect();
        Chain { plugins: plugins.into(), measures: Some(Arc::new(Measures::new(names, registry))) }
    }

    /// Every plugin's `admit`, in order.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let operation = attributes.operation;
        let mut watch = Stopwatch::start(self.measures.as_deref(), Step::Admit, operation);
        for (i, plugin) in self.plugins.iter().enumerate() {
            let judged = plugin.admit(attributes).await;
            watch.lap(i, judged.is_ok());
            judged?;
        }
        watch.stop();
        Ok(())
    }

    /// Every plugin's `validate`, in order.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let mut watch = Stopwatch::start(self.measures.as_deref(), Step::Validate, attributes.operation);
        for (i, plugin) in self.plugins.iter().enumerate() {
            let judged = plugin.validate(attributes).await;
            watch.lap(i, judged.is_ok());
            judged?;
        }
        watch.stop();
        Ok(())
    }
}
