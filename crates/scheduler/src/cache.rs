//! Nodes with what runs on them: fed by the informers, with pods counted from the moment they are assigned, before the
//! binding comes back (assumed). A snapshot shares the nodes that did not change.

use crate::facts::{Amounts, HostPort, NodeFacts, PodFacts};
use client::Cached;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A node and the sums of its pods.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    pub name: Arc<str>,
    /// Absent while pods are known on a node that is not (yet, or any more).
    pub facts: Option<NodeFacts>,
    pub requested: Amounts,
    pub non_zero: (i64, i64),
    pub ports: Vec<HostPort>,
    pub pods: HashMap<Arc<str>, Arc<Cached<PodFacts>>>,
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
        }
    }

    fn add(&mut self, pod: &Arc<Cached<PodFacts>>) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests);
        self.non_zero.0 += pod.non_zero.0;
        self.non_zero.1 += pod.non_zero.1;
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.insert(pod.uid.clone(), pod.clone());
    }

    fn remove(&mut self, uid: &str) {
        let Some(pod) = self.pods.remove(uid) else { return };
        self.requested.sub(&pod.requests);
        self.non_zero.0 -= pod.non_zero.0;
        self.non_zero.1 -= pod.non_zero.1;
        for port in &pod.ports {
            if let Some(i) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(i);
            }
        }
    }
}

/// All nodes, and where each pod is counted.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<Arc<str>, Arc<NodeInfo>>,
    placed: HashMap<Arc<str>, Arc<str>>,
    /// Pods assigned here whose binding the informer has not shown yet.
    assumed: HashMap<Arc<str>, Arc<str>>,
}

impl Cache {
    fn node(&mut self, name: &str) -> &mut NodeInfo {
        let node = self.nodes.entry(name.into()).or_insert_with(|| Arc::new(NodeInfo::new(name)));
        Arc::make_mut(node)
    }

    pub fn set_node(&mut self, name: &str, facts: &NodeFacts) {
        self.node(name).facts = Some(facts.clone());
    }

    pub fn remove_node(&mut self, name: &str) {
        self.node(name).facts = None;
        self.nodes.retain(|_, n| n.facts.is_some() || !n.pods.is_empty());
    }

    /// Takes in what the informer says of a pod.
    pub fn set_pod(&mut self, pod: &Arc<Cached<PodFacts>>) {
        if pod.node_name.is_empty() {
            // Older than our own assignment, or not assigned at all.
            if !self.assumed.contains_key(&pod.uid) {
                self.remove_pod(&pod.uid);
            }
            return;
        }
        self.assumed.remove(&pod.uid);
        if pod.terminal {
            return self.remove_pod(&pod.uid);
        }
        self.place(pod, &pod.node_name.clone());
    }

    fn place(&mut self, pod: &Arc<Cached<PodFacts>>, node: &str) {
        if self.placed.get(&pod.uid).is_some_and(|at| **at != *node) {
            self.take_off(&pod.uid);
        }
        self.node(node).add(pod);
        self.placed.insert(pod.uid.clone(), node.into());
    }

    fn take_off(&mut self, uid: &str) {
        if let Some(node) = self.placed.remove(uid) {
            self.node(&node).remove(uid);
        }
    }

    pub fn remove_pod(&mut self, uid: &str) {
        self.assumed.remove(uid);
        self.take_off(uid);
    }

    /// Counts a pod on the node it was just assigned to.
    pub fn assume(&mut self, pod: &Arc<Cached<PodFacts>>, node: &str) {
        self.place(pod, node);
        self.assumed.insert(pod.uid.clone(), node.into());
    }

    /// Takes an assignment back whose binding failed.
    pub fn forget(&mut self, uid: &str) {
        if self.assumed.contains_key(uid) {
            self.remove_pod(uid);
        }
    }

    pub fn is_assumed(&self, uid: &str) -> bool {
        self.assumed.contains_key(uid)
    }

    /// The known nodes, ordered by name.
    pub fn snapshot(&self) -> Vec<Arc<NodeInfo>> {
        self.nodes.values().filter(|n| n.facts.is_some()).cloned().collect()
    }
}
