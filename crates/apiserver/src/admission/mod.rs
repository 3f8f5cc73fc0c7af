//! Admission: an ordered list of plugins that may change a request's object, then may refuse it.
//!
//! Where to add one: a file here that implements [`Plugin`], or [`immediate::Immediate`] if it waits for nothing, and a line in
//! [`roster::ROSTER`].

mod always;
mod always_pull_images;
mod certificates;
mod claim_resize;
mod claim_status;
mod configuration;
mod default_classes;
mod default_toleration_seconds;
mod deny_service_external_ips;
mod event_rate_limit;
mod extended_resource_toleration;
mod image_policy_webhook;
mod immediate;
mod job_validation;
mod limit_ranger;
mod lookup;
mod matching;
mod measures;
mod namespace_auto_provision;
mod namespace_exists;
mod namespace_lifecycle;
mod node_declared_features;
mod node_restriction;
mod options;
mod owner_references;
mod pod_anti_affinity;
mod pod_group_workload;
mod pod_node_selector;
mod pod_resize;
mod pod_secrets;
mod pod_security;
mod pod_toleration_restriction;
mod pod_topology_labels;
mod policy;
mod priority;
mod resource_quota;
mod roster;
mod runtime_class;
mod service_account;
mod simple;
mod webhook;
mod when;

use crate::authz::Authorizer;
use crate::authz::rbac::Rbac;
use crate::outbound::Outbound;
use crate::registry::Registry;
use crate::resources::{Resources, Served};
use crate::user::User;
use apimachinery::status::Status;
use apimachinery::value::Value;
use futures::future::BoxFuture;
use measures::{Measures, Stopwatch};
pub use options::Options;
use schema::{Table, TypeId};
use std::sync::Arc;
use store::Store;
pub use when::When;
use when::{PLACES, Step, place};

/// What plugins look things up in.
pub struct Deps {
    pub store: Arc<dyn Store>,
    pub resources: Arc<Resources>,
    pub rbac: Rbac,
    pub authorizers: Vec<Arc<dyn Authorizer>>,
    /// How webhooks are reached.
    pub outbound: Arc<Outbound>,
    /// Where calls of webhooks are counted.
    pub metrics: Arc<component::metrics::Registry>,
    /// Whether a feature gate is on.
    pub gates: Arc<dyn Fn(&str) -> bool + Send + Sync>,
}

/// The plugins that run, in upstream's order.
///
/// # Errors
///
/// Says what of the configuration cannot be read, or does not hold.
pub fn plugins(deps: &Deps, options: &Options) -> Result<Vec<Arc<dyn Plugin>>, String> {
    roster::plugins(deps, options)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    Connect,
}

impl Operation {
    pub const ALL: &[Operation] =
        &[Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

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
    /// What was asked, as authorizers name it.
    pub verb: &'a str,
    pub user: &'a User,
    pub resource: &'a Arc<Served>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub subresource: &'a str,
    /// The new object; absent for deletes.
    pub object: Option<&'a mut Value>,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// Where the request writes.
    pub registry: &'a Registry,
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

    /// What a request that creates or updates one of the resource, and not a part of it, writes.
    pub fn written(&self, group: &str, resource: &str) -> Option<&Value> {
        self.object.as_deref().filter(|_| self.is_of(group, resource, ""))
    }

    /// The same, to be changed.
    pub fn written_mut(&mut self, group: &str, resource: &str) -> Option<&mut Value> {
        let concerned = self.is_of(group, resource, "");
        self.object.as_deref_mut().filter(|_| concerned)
    }

    /// Refuses the request: 403, with a plugin's reason.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> Status {
        Status::forbidden(&self.resource.group_resource(), self.name, why)
    }

    /// Whether the request is about this resource (core group when `group` is empty), whatever the subresource.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        self.resource.row.group == group && self.resource.row.resource == resource
    }

    /// Whether it is about this subresource of it; the empty one is the resource itself.
    pub fn is_of(&self, group: &str, resource: &str, subresource: &str) -> bool {
        self.is(group, resource) && self.subresource == subresource
    }
}

/// An admission plugin. Refusals are `Status`es; [`Status::forbidden`] with the plugin's reason is the usual one.
pub trait Plugin: Send + Sync {
    /// Upstream's name, as `--enable-admission-plugins` spells it.
    fn name(&self) -> &'static str;

    /// When it is asked.
    fn when(&self) -> When {
        When::ALWAYS
    }

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
pub struct Chain(Arc<Parts>);

#[derive(Default)]
struct Parts {
    plugins: Vec<Arc<dyn Plugin>>,
    /// Which of them are asked, by [`place`].
    asked: [Vec<usize>; PLACES],
    measures: Option<Measures>,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.plugins.iter().map(|p| p.name())).finish()
    }
}

impl Chain {
    pub fn new(plugins: Vec<Arc<dyn Plugin>>) -> Self {
        Chain::of(plugins, None)
    }

    /// Plugins whose time is measured.
    pub fn measured(plugins: Vec<Arc<dyn Plugin>>, registry: &component::metrics::Registry) -> Self {
        let names = plugins.iter().map(|plugin| plugin.name()).collect();
        Chain::of(plugins, Some(Measures::new(names, registry)))
    }

    fn of(plugins: Vec<Arc<dyn Plugin>>, measures: Option<Measures>) -> Self {
        let concerned = |place| (0..plugins.len()).filter(|i| plugins[*i].when().has(place)).collect();
        let asked = std::array::from_fn(concerned);
        Chain(Arc::new(Parts { plugins, asked, measures }))
    }

    /// Every concerned plugin's `admit`, in order.
    pub async fn admit(&self, attributes: &mut Attributes<'_>) -> Result<(), Status> {
        let (mut watch, asked) = self.step(Step::Admit, attributes.operation);
        for i in asked {
            let judged = self.0.plugins[*i].admit(attributes).await;
            watch.lap(*i, judged.is_ok());
            judged?;
        }
        watch.stop();
        Ok(())
    }

    /// Every concerned plugin's `validate`, in order.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> Result<(), Status> {
        let (mut watch, asked) = self.step(Step::Validate, attributes.operation);
        for i in asked {
            let judged = self.0.plugins[*i].validate(attributes).await;
            watch.lap(*i, judged.is_ok());
            judged?;
        }
        watch.stop();
        Ok(())
    }

    /// A step's measure, and who is asked in it.
    fn step(&self, step: Step, operation: Operation) -> (Stopwatch<'_>, &[usize]) {
        let asked = &self.0.asked[place(step, operation)];
        (Stopwatch::start(self.0.measures.as_ref(), step, operation), asked)
    }
}
