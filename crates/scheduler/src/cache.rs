//! Nodes with what runs on them: fed by the informers, with pods counted from the moment they are assigned, before the
//! binding comes back (assumed), and with the pods for which preemption made room (nominated).

use crate::facts::{Amounts, HostPort, NodeFacts, PodFacts};
use crate::framework::Candidate;
use crate::surroundings::Surroundings;
use client::{Cached, ObjectKey};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A pod as it is known.
pub type Pod = Arc<Cached<PodFacts>>;

/// A node and the sums of its pods.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// Absent while pods are known on a node that is not (yet, or any more).
    facts: Option<NodeFacts>,
    pub requested: Amounts,
    pub non_zero: (i64, i64),
    pub ports: Vec<HostPort>,
    pub pods: HashMap<Arc<str>, Pod>,
    /// How many of its pods have affinity of any sort to other pods.
    pub affine: usize,
    /// How many of its pods keep other pods away.
    pub anti_affine: usize,
}

impl NodeInfo {
    fn new(name: &str) -> Self {
        NodeInfo {
            name: name.into(),
            facts: None,
            requested: Amounts::default(),
            non_zero: (0, 0),
            ports: Vec::new(),
            pods: HashMap::new(),
            affine: 0,
            anti_affine: 0,
        }
    }

    /// Itself, if it is a node that is known.
    pub fn candidate(&self) -> Option<Candidate<'_>> {
        Some(Candidate { info: self, facts: self.facts.as_ref()? })
    }

    /// Puts a pod here, in place of its earlier version.
    pub fn add(&mut self, pod: &Pod) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests, 1);
        self.non_zero.0 += pod.non_zero.0;
        self.non_zero.1 += pod.non_zero.1;
        self.ports.extend(pod.ports.iter().cloned());
        self.affine += usize::from(pod.terms.is_some());
        self.anti_affine += usize::from(keeps_others_away(pod));
        self.pods.insert(pod.uid.clone(), pod.clone());
    }

    /// Takes a pod away, if it is here.
    pub fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.add(&pod.requests, -1);
        self.non_zero.0 -= pod.non_zero.0;
        self.non_zero.1 -= pod.non_zero.1;
        self.affine -= usize::from(pod.terms.is_some());
        self.anti_affine -= usize::from(keeps_others_away(&pod));
        for port in &pod.ports {
            if let Some(i) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(i);
            }
        }
    }
}

fn claims(pod: &Pod) -> impl Iterator<Item = ObjectKey> + '_ {
    let named = pod.claims.iter().filter(|used| !used.ephemeral);
    named.map(|used| ObjectKey::new(pod.namespace(), &used.name))
}

fn keeps_others_away(pod: &PodFacts) -> bool {
    pod.terms.as_ref().is_some_and(|t| !t.anti_affinity.is_empty())
}

/// How much a cache holds. Assumed pods are among the pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub nodes: usize,
    pub pods: usize,
    pub assumed: usize,
}

/// All nodes, and where each pod is counted.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<Arc<str>, NodeInfo>,
    /// How many of them are known nodes.
    known: usize,
    placed: HashMap<Arc<str>, Arc<str>>,
    /// Pods assigned here whose binding the informer has not shown yet.
    assumed: HashMap<Arc<str>, Arc<str>>,
    nominated: HashMap<Arc<str>, (Arc<str>, Pod)>,
    /// How many nodes have an image, by its name.
    images: HashMap<String, usize>,
    /// How many pods on nodes use a claim, not counting those that it was made with.
    claims: HashMap<ObjectKey, usize>,
    pub surroundings: Surroundings,
}

impl Cache {
    fn node_mut(&mut self, name: &str) -> &mut NodeInfo {
        self.nodes.entry(name.into()).or_insert_with(|| NodeInfo::new(name))
    }

    pub fn set_node(&mut self, name: &str, facts: &NodeFacts) {
        for image in facts.images.keys() {
            *self.images.entry(image.clone()).or_default() += 1;
        }
        match self.node_mut(name).facts.replace(facts.clone()) {
            Some(old) => self.forget_images(&old),
            None => self.known += 1,
        }
    }

    pub fn remove_node(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let old = node.facts.take();
        if node.pods.is_empty() {
            self.nodes.remove(name);
        }
        if let Some(old) = old {
            self.known -= 1;
            self.surroundings.devices.forget_node(name);
            self.forget_images(&old);
        }
    }

    fn forget_images(&mut self, facts: &NodeFacts) {
        for image in facts.images.keys() {
            if let Some(nodes) = self.images.get_mut(image) {
                *nodes -= 1;
                if *nodes == 0 {
                    self.images.remove(image);
                }
            }
        }
    }

    /// Takes in what the informer says of a pod, whose version before is `old`.
    pub fn set_pod(&mut self, pod: &Pod, old: Option<&PodFacts>) {
        if pod.node_name.is_empty() {
            // Older than our own assignment, by which it is counted already.
            if self.assumed.contains_key(&pod.uid) {
                return;
            }
            self.take_off(&pod.uid);
            // Absent from status, a nomination of ours may still be on its way there; taken from it, it is gone.
            if !pod.nominated_node.is_empty() {
                self.nominate(pod, &pod.nominated_node.clone());
            } else if old.is_some_and(|old| !old.nominated_node.is_empty()) {
                self.nominated.remove(&pod.uid);
            }
            return;
        }
        self.assumed.remove(&pod.uid);
        self.nominated.remove(&pod.uid);
        if pod.terminal {
            return self.take_off(&pod.uid);
        }
        self.place(pod, &pod.node_name.clone());
    }

    fn place(&mut self, pod: &Pod, node: &str) {
        if self.placed.get(&pod.uid).is_some_and(|at| **at != *node) {
            self.take_off(&pod.uid);
        }
        self.node_mut(node).add(pod);
        if self.placed.insert(pod.uid.clone(), node.into()).is_none() {
            for claim in claims(pod) {
                *self.claims.entry(claim).or_default() += 1;
            }
        }
    }

    fn take_off(&mut self, uid: &str) {
        let Some(name) = self.placed.remove(uid) else { return };
        let Some(node) = self.nodes.get_mut(&name) else { return };
        for claim in node.pods.get(uid).into_iter().flat_map(claims) {
            if let Some(uses) = self.claims.get_mut(&claim) {
                *uses -= 1;
                if *uses == 0 {
                    self.claims.remove(&claim);
                }
            }
        }
        node.remove(uid);
        if node.facts.is_none() && node.pods.is_empty() {
            self.nodes.remove(&name);
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.assumed.remove(uid);
        self.nominated.remove(uid);
        self.take_off(uid);
    }

    /// Counts a pod on the node it was just assigned to.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        self.nominated.remove(&pod.uid);
        self.place(pod, node);
        self.assumed.insert(pod.uid.clone(), node.into());
    }

    /// Takes an assignment back whose binding failed.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.remove(uid).is_some() {
            self.take_off(uid);
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    /// Keeps room on a node for a pod.
    pub fn nominate(&mut self, pod: &Pod, node: &str) {
        self.nominated.insert(pod.uid.clone(), (node.into(), pod.clone()));
    }

    /// Takes a nomination back.
    pub fn denominate(&mut self, uid: &str) {
        self.nominated.remove(uid);
    }

    /// The node where a pod was nominated.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominated.get(uid).map(|(node, _)| &**node)
    }

    /// The pods for which room is kept on a node.
    pub fn nominated_to<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Pod> {
        self.nominated.values().filter(move |(at, _)| **at == *node).map(|(_, pod)| pod)
    }

    /// The known nodes, ordered by name.
    pub fn nodes(&self) -> impl Iterator<Item = Candidate<'_>> {
        self.nodes.values().filter_map(NodeInfo::candidate)
    }

    /// A known node.
    pub fn node(&self, name: &str) -> Option<Candidate<'_>> {
        self.nodes.get(name)?.candidate()
    }

    /// How many nodes are known.
    pub fn len(&self) -> usize {
        self.known
    }

    /// How much is known.
    pub fn size(&self) -> Size {
        Size { nodes: self.known, pods: self.placed.len(), assumed: self.assumed.len() }
    }

    pub fn is_empty(&self) -> bool {
        self.known == 0
    }

    /// Whether a pod on a node uses a claim.
    pub fn uses_claim(&self, namespace: &str, name: &str) -> bool {
        self.claims.contains_key(&ObjectKey::new(namespace, name))
    }

    pub fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }
}
