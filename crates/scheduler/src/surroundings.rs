//! What a decision reads beside pods and nodes: labels of namespaces, what selects pods, and disruption budgets.
//! Projections of informers, and the maps that keep them.

use crate::facts::{Labels, PodInfo};
use crate::framework::Event;
use api::apps::v1::{ReplicaSet, StatefulSet};
use api::core::v1::{
    Namespace, NodeSelector, PersistentVolume, PersistentVolumeClaim, ReplicationController, Service,
};
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
    claims: HashMap<ObjectKey, Claim>,
    /// Where the nodes are that reach a volume; anywhere without a selector.
    volumes: HashMap<Arc<str>, Option<NodeSelector>>,
}

/// What is kept of a PersistentVolumeClaim.
#[derive(Debug, Clone, Default)]
pub struct Claim {
    pub bound: bool,
    pub lost: bool,
    pub deleting: bool,
    /// The volume it has.
    pub volume: String,
    /// Its name and owners, and nothing else.
    pub owned: PersistentVolumeClaim,
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

    /// A claim of a namespace.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Claim> {
        self.claims.get(&ObjectKey::new(namespace, name))
    }

    pub fn set_claim(&mut self, claim: &PersistentVolumeClaim) {
        let key = ObjectKey::new(&claim.metadata.namespace, &claim.metadata.name);
        self.claims.insert(key, Claim::project(claim));
    }

    /// Where a volume is, if it is there.
    pub fn volume(&self, name: &str) -> Option<&Option<NodeSelector>> {
        self.volumes.get(name)
    }

    pub fn set_volume(&mut self, name: &str, affinity: Option<NodeSelector>) {
        self.volumes.insert(name.into(), affinity);
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
trait Neighbour: Projection {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>);
    fn remove(surroundings: &mut Surroundings, key: &ObjectKey);

    /// What its coming or changing may be to pods that were refused.
    fn helps() -> Option<Event<'static>> {
        None
    }
}

/// Keeps the surroundings current. `changed` gives access to them, and is told what that may help pods with.
pub(crate) async fn follow<F>(informers: &Informers, changed: F)
where
    F: Fn(&mut dyn FnMut(&mut Surroundings), Option<Event<'static>>) + Clone + Send + Sync + 'static,
{
    async fn one<N: Neighbour, F>(informers: &Informers, changed: F)
    where
        F: Fn(&mut dyn FnMut(&mut Surroundings), Option<Event<'static>>) + Send + Sync + 'static,
    {
        let informer = informers.get::<N>();
        informer.subscribe(move |change| match change {
            Change::Deleted(object) => changed(&mut |s| N::remove(s, object.key()), None),
            Change::Added(object) | Change::Updated { new: object, .. } => {
                changed(&mut |s| N::put(s, object), N::helps());
            }
        });
        informer.synced().await;
    }
    one::<NamespaceLabels, _>(informers, changed.clone()).await;
    one::<ServiceSelector, _>(informers, changed.clone()).await;
    one::<OwnerSelector<ReplicationController>, _>(informers, changed.clone()).await;
    one::<OwnerSelector<ReplicaSet>, _>(informers, changed.clone()).await;
    one::<OwnerSelector<StatefulSet>, _>(informers, changed.clone()).await;
    one::<Budget, _>(informers, changed.clone()).await;
    one::<Claim, _>(informers, changed.clone()).await;
    one::<VolumePlace, _>(informers, changed).await;
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

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        surroundings.namespaces.remove(&*key.name);
    }

    fn helps() -> Option<Event<'static>> {
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

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        if let Some(services) = surroundings.services.get_mut(&*key.namespace) {
            services.remove(&*key.name);
            if services.is_empty() {
                surroundings.services.remove(&*key.namespace);
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

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        surroundings.owners.remove(&(K::NAME, key.clone()));
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

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        surroundings.budgets.remove(key);
    }
}

impl Projection for Claim {
    type Kind = PersistentVolumeClaim;

    fn project(claim: &PersistentVolumeClaim) -> Self {
        let (from, phase) = (&claim.metadata, claim.status.phase.as_str());
        let mut owned = PersistentVolumeClaim::default();
        owned.metadata.name = from.name.clone();
        owned.metadata.namespace = from.namespace.clone();
        owned.metadata.owner_references = from.owner_references.clone();
        let bound_fully = from.annotations.contains_key("pv.kubernetes.io/bind-completed");
        Claim {
            bound: !claim.spec.volume_name.is_empty() && (phase == "Bound" || bound_fully),
            lost: phase == "Lost",
            deleting: from.deletion_timestamp.is_some(),
            volume: claim.spec.volume_name.clone(),
            owned,
        }
    }
}

impl Neighbour for Claim {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.claims.insert(object.key().clone(), object.projection.clone());
    }

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        surroundings.claims.remove(key);
    }

    fn helps() -> Option<Event<'static>> {
        Some(Event::Volumes)
    }
}

struct VolumePlace(Option<NodeSelector>);

impl Projection for VolumePlace {
    type Kind = PersistentVolume;

    fn project(volume: &PersistentVolume) -> Self {
        VolumePlace(volume.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone()))
    }
}

impl Neighbour for VolumePlace {
    fn put(surroundings: &mut Surroundings, object: &Cached<Self>) {
        surroundings.set_volume(object.name(), object.projection.0.clone());
    }

    fn remove(surroundings: &mut Surroundings, key: &ObjectKey) {
        surroundings.volumes.remove(&*key.name);
    }

    fn helps() -> Option<Event<'static>> {
        Some(Event::Volumes)
    }
}
