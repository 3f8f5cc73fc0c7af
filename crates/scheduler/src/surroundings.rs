//! What a decision reads beside pods and nodes: labels of namespaces, what selects pods, disruption budgets,
//! storage, and devices.
//! Projections of informers, and the maps that keep them.

use crate::devices::{Devices, Features, rows as devices, taint_rules::RuleRow};
use crate::facts::{Labels, PodInfo};
use crate::framework::Event;
use crate::storage::{Storage, rows};
use api::apps::v1::{ReplicaSet, StatefulSet};
use api::core::v1::{Namespace, ReplicationController, Service};
use api::policy::v1::PodDisruptionBudget;
use apimachinery::labels::Selector;
use client::{Cached, Change, Informers, ObjectKey, Projection};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// A controller that pods belong to, by kind and key.
type Owner = (&'static str, ObjectKey);

/// Read by decisions.
#[derive(Debug, Default)]
pub struct Surroundings {
    namespaces: HashMap<Arc<str>, Labels>,
    services: HashMap<Arc<str>, BTreeMap<Arc<str>, Labels>>,
    owners: HashMap<Owner, Selector>,
    budgets: HashMap<ObjectKey, Budget>,
    pub storage: Storage,
    pub devices: Devices,
}

/// What is kept of a PodDisruptionBudget.
#[derive(Debug, Clone)]
pub struct Budget {
    pub selector: Selector,
    pub allowed: i32,
    /// Pods whose disruption is counted already.
    pub disrupted: BTreeSet<String>,
}

impl Surroundings {
    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    pub fn set_namespace(&mut self, name: &str, labels: Labels) {
        self.namespaces.insert(name.into(), labels);
    }

    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Labels) {
        self.services.entry(namespace.into()).or_default().insert(name.into(), selector);
    }

    pub fn set_budget(&mut self, key: ObjectKey, budget: Budget) {
        self.budgets.insert(key, budget);
    }

    /// Every budget of a namespace, with how many disruptions it allows.
    pub fn budgets(&self, namespace: &str) -> impl Iterator<Item = (&ObjectKey, &Budget)> {
        self.budgets.iter().filter(move |(key, _)| *key.namespace == *namespace)
    }

    /// What the Services and the controller of a pod select it by. Empty when nothing does. Upstream: `DefaultSelector`.
    pub fn selector_of(&self, pod: &PodInfo) -> Selector {
        let mut labels = Labels::new();
        for selector in self.services.get(pod.namespace()).into_iter().flatten().map(|(_, selector)| selector)
        {
            if !selector.is_empty() && selector.iter().all(|(k, v)| pod.facts.labels.get(k) == Some(v)) {
                labels.extend(selector.clone());
            }
        }
        let selector = Selector::from_set(&labels);
        let owner = pod.pod.metadata.owner_references.iter().find(|o| o.controller == Some(true));
        let owner = owner.and_then(|owner| {
            let kind = OWNERS.into_iter().find(|k| *k == owner.kind)?;
            self.owners.get(&(kind, ObjectKey::new(pod.namespace(), &owner.name)))
        });
        match owner.and_then(Selector::requirements) {
            Some(requirements) => selector.and(requirements.iter().cloned()),
            None => selector,
        }
    }
}

const OWNERS: [&str; 3] = ["ReplicationController", "ReplicaSet", "StatefulSet"];

/// Anything that selects pods, or is otherwise looked at by decisions: how a change is taken in.
pub(crate) trait Neighbour: Projection {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>);
    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>);

    /// What its coming or changing may be to pods that were refused.
    fn helps<'a>(_old: Option<&'a Cached<Self>>, _new: &'a Cached<Self>) -> Option<Event<'a>> {
        None
    }

    /// What its going may be to them.
    fn gone() -> Option<Event<'static>> {
        None
    }
}

/// Keeps the surroundings current, as far as features need them. `changed` gives access to them, and is told what that may
/// help pods with.
pub(crate) async fn follow<F>(informers: &Informers, features: Features, changed: F)
where
    F: Fn(&mut dyn FnMut(&mut Surroundings), Option<Event<'_>>) + Clone + Send + Sync + 'static,
{
    async fn one<N: Neighbour, F>(informers: &Informers, changed: F)
    where
        F: Fn(&mut dyn FnMut(&mut Surroundings), Option<Event<'_>>) + Send + Sync + 'static,
    {
        let informer = informers.get::<N>();
        informer.subscribe(move |change| match change {
            Change::Deleted(object) => changed(&mut |s| N::remove(s, object), N::gone()),
            Change::Added(object) => changed(&mut |s| N::put(s, object), N::helps(None, object)),
            Change::Updated { old, new } => changed(&mut |s| N::put(s, new), N::helps(Some(old), new)),
        });
        informer.synced().await;
    }
    one::<NamespaceLabels, _>(informers, changed.clone()).await;
    one::<ServiceSelector, _>(informers, changed.clone()).await;
    one::<OwnerSelector<ReplicationController>, _>(informers, changed.clone()).await;
    one::<OwnerSelector<ReplicaSet>, _>(informers, changed.clone()).await;
    one::<OwnerSelector<StatefulSet>, _>(informers, changed.clone()).await;
    one::<Budget, _>(informers, changed.clone()).await;
    one::<rows::VolumeRow, _>(informers, changed.clone()).await;
    one::<rows::ClaimRow, _>(informers, changed.clone()).await;
    one::<rows::ClassRow, _>(informers, changed.clone()).await;
    one::<rows::DriverRow, _>(informers, changed.clone()).await;
    one::<rows::CapacityRow, _>(informers, changed.clone()).await;
    one::<rows::NodeRow, _>(informers, changed.clone()).await;
    one::<rows::AttachmentRow, _>(informers, changed.clone()).await;
    if features.taint_rules {
        one::<RuleRow, _>(informers, changed.clone()).await;
    }
    one::<devices::ClassRow, _>(informers, changed.clone()).await;
    one::<devices::SliceRow, _>(informers, changed.clone()).await;
    one::<devices::ClaimRow, _>(informers, changed).await;
}

struct NamespaceLabels(Labels);

impl Projection for NamespaceLabels {
    type Kind = Namespace;

    fn project(namespace: &Namespace) -> Self {
        NamespaceLabels(namespace.metadata.labels.clone())
    }
}

impl Neighbour for NamespaceLabels {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.set_namespace(object.name(), object.projection.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.namespaces.remove(object.name());
    }

    fn helps<'a>(_: Option<&'a Cached<Self>>, _: &'a Cached<Self>) -> Option<Event<'a>> {
        Some(Event::Namespace)
    }
}

struct ServiceSelector(Labels);

impl Projection for ServiceSelector {
    type Kind = Service;

    fn project(service: &Service) -> Self {
        ServiceSelector(service.spec.selector.clone())
    }
}

impl Neighbour for ServiceSelector {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.set_service(object.namespace(), object.name(), object.projection.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        if let Some(services) = surroundings.services.get_mut(object.namespace()) {
            services.remove(object.name());
            if services.is_empty() {
                surroundings.services.remove(object.namespace());
            }
        }
    }
}

/// A kind that owns pods and selects them.
trait OwnerKind: api::Kind {
    const NAME: &'static str;
    fn selector(&self) -> Selector;
}

impl OwnerKind for ReplicationController {
    const NAME: &'static str = OWNERS[0];
    fn selector(&self) -> Selector {
        Selector::from_set(&self.spec.selector)
    }
}

impl OwnerKind for ReplicaSet {
    const NAME: &'static str = OWNERS[1];
    fn selector(&self) -> Selector {
        Selector::from_label_selector(self.spec.selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
    }
}

impl OwnerKind for StatefulSet {
    const NAME: &'static str = OWNERS[2];
    fn selector(&self) -> Selector {
        Selector::from_label_selector(self.spec.selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
    }
}

struct OwnerSelector<K>(Selector, std::marker::PhantomData<fn() -> K>);

impl<K: OwnerKind + 'static> Projection for OwnerSelector<K> {
    type Kind = K;

    fn project(owner: &K) -> Self {
        OwnerSelector(owner.selector(), std::marker::PhantomData)
    }
}

impl<K: OwnerKind + 'static> Neighbour for OwnerSelector<K> {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.owners.insert((K::NAME, object.key().clone()), object.projection.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.owners.remove(&(K::NAME, object.key().clone()));
    }
}

impl Projection for Budget {
    type Kind = PodDisruptionBudget;

    fn project(budget: &PodDisruptionBudget) -> Self {
        let selector = Selector::from_label_selector(budget.spec.selector.as_ref());
        Budget {
            selector: selector.unwrap_or_else(|_| Selector::nothing()),
            allowed: budget.status.disruptions_allowed,
            disrupted: budget.status.disrupted_pods.keys().cloned().collect(),
        }
    }
}

impl Neighbour for Budget {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.set_budget(object.key().clone(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.budgets.remove(object.key());
    }
}
