//! Who depends on whom: a node per object of the cluster, by uid. Pure: changes come in, what is to be looked at goes
//! out. Upstream: `GraphBuilder`.
//!
//! An owner that is referred to and was never seen has a virtual node, with the coordinates its dependents claim for it,
//! until it is seen or found to be absent. Dependents may claim different ones for the same uid.

use super::absent::AbsentOwners;
use super::names::{Coordinates, KindName, Names, Uid};
use apimachinery::meta::OwnerReference;
use client::ObjectKey;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is read of an object.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub deleting: bool,
    /// The finalizer `foregroundDeletion`.
    pub foreground: bool,
    /// The finalizer `orphan`.
    pub orphan: bool,
    pub owners: Vec<OwnerReference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub kind: Arc<KindName>,
    pub name: Arc<str>,
    pub uid: Uid,
    /// `blockOwnerDeletion`.
    pub blocks: bool,
}

/// What the change of an object makes necessary.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Todo {
    /// Look whether the object may be deleted.
    Delete(Uid),
    /// The same, but not at once: it was just found to be elsewhere.
    DeleteLater(Uid),
    /// Let the object's dependents go.
    Orphan(Uid),
    /// Tell that the object names an owner that is in another namespace.
    Report { dependent: Coordinates, owner: Coordinates },
}

#[derive(Debug, Default)]
struct Node {
    kind: Arc<KindName>,
    namespace: Arc<str>,
    name: Arc<str>,
    owners: Box<[Owner]>,
    /// Eight bytes in the many nodes that have none.
    #[expect(clippy::box_collection)]
    dependents: Option<Box<HashSet<Uid>>>,
    /// Never seen, only referred to.
    is_virtual: bool,
    deleting: bool,
    /// It waits for its dependents to be deleted; once so, always so.
    deleting_dependents: bool,
    /// What its last version said.
    was_foreground: bool,
    was_orphan: bool,
}

/// A node as the workers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub at: Coordinates,
    pub is_virtual: bool,
    pub deleting: bool,
    pub deleting_dependents: bool,
}

#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    pub(super) names: Names,
    pub(super) absent: AbsentOwners,
}

impl Node {
    fn at(&self, uid: &Uid) -> Coordinates {
        Coordinates {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uid: uid.clone(),
        }
    }

    fn view(&self, uid: &Uid) -> View {
        View {
            at: self.at(uid),
            is_virtual: self.is_virtual,
            deleting: self.deleting,
            deleting_dependents: self.deleting_dependents,
        }
    }

    fn dependents(&self) -> impl Iterator<Item = &Uid> {
        self.dependents.iter().flat_map(|dependents| dependents.iter())
    }
}

impl Owner {
    /// Whether the reference speaks of what stands at these coordinates, but for the namespace, which it cannot name.
    fn matches(&self, at: &Coordinates) -> bool {
        self.uid == at.uid && self.name == at.name && self.kind == at.kind
    }

    fn at(&self, namespace: &Arc<str>) -> Coordinates {
        Coordinates {
            kind: self.kind.clone(),
            namespace: namespace.clone(),
            name: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

impl Graph {
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn look(&self, uid: &Uid) -> Option<View> {
        self.nodes.get(uid).map(|node| node.view(uid))
    }

    pub(super) fn dependents(&self, uid: &Uid) -> Vec<View> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        node.dependents().filter_map(|dependent| self.look(dependent)).collect()
    }

    /// The dependents that keep an owner, which is deleted in the foreground, from going.
    pub(super) fn blocking(&self, uid: &Uid) -> Vec<View> {
        let Some(node) = self.nodes.get(uid) else { return Vec::new() };
        let blocks = |dependent: &&Uid| {
            let node = self.nodes.get(*dependent);
            node.is_some_and(|node| node.owners.iter().any(|owner| owner.uid == *uid && owner.blocks))
        };
        node.dependents().filter(blocks).filter_map(|dependent| self.look(dependent)).collect()
    }

    /// An object was seen.
    pub(super) fn put(&mut self, kind: &Arc<KindName>, key: &ObjectKey, uid: Uid, seen: Seen) -> Vec<Todo> {
        let mut todo = Vec::new();
        let owners: Box<[Owner]> = seen.owners.iter().map(|owner| self.names.owner(owner)).collect();
        let namespace = self.names.namespace(&key.namespace);
        if self.nodes.get(&uid).is_some_and(|node| node.is_virtual) {
            self.observed(kind, &namespace, &key.name, &uid, &mut todo);
        }
        let Some(node) = self.nodes.get_mut(&uid) else {
            let node = Node {
                kind: kind.clone(),
                namespace,
                name: key.name.clone(),
                owners,
                deleting: seen.deleting,
                deleting_dependents: seen.deleting && seen.foreground,
                ..Default::default()
            };
            self.nodes.insert(uid.clone(), node);
            self.join(&uid, None, &mut todo);
            self.transit(&uid, &seen, &mut todo);
            return todo;
        };
        if node.owners != owners {
            let old = std::mem::replace(&mut node.owners, owners.clone());
            self.owners_changed(&uid, &old, &owners, &mut todo);
        }
        if let Some(node) = self.nodes.get_mut(&uid) {
            node.deleting |= seen.deleting;
        }
        self.transit(&uid, &seen, &mut todo);
        todo
    }

    /// What was only referred to is there: dependents that place it elsewhere may be wrong.
    fn observed(
        &mut self,
        kind: &Arc<KindName>,
        namespace: &Arc<str>,
        name: &Arc<str>,
        uid: &Uid,
        todo: &mut Vec<Todo>,
    ) {
        let at = Coordinates {
            kind: kind.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
        };
        let Some(node) = self.nodes.get_mut(uid) else { return };
        node.is_virtual = false;
        if node.at(uid) == at {
            return;
        }
        (node.kind, node.namespace, node.name) = (kind.clone(), namespace.clone(), name.clone());
        for dependent in self.partition(uid, &at).1 {
            self.report_foreign(&dependent, &at, todo);
            todo.push(Todo::Delete(dependent));
        }
    }

    fn report_foreign(&self, dependent: &Uid, owner: &Coordinates, todo: &mut Vec<Todo>) {
        let Some(node) = self.nodes.get(dependent) else { return };
        if owner.namespace.is_empty() || node.namespace == owner.namespace {
            return;
        }
        if let Some(reference) = node.owners.iter().find(|reference| reference.uid == owner.uid) {
            let owner = reference.at(&node.namespace);
            todo.push(Todo::Report { dependent: node.at(dependent), owner });
        }
    }

    /// The dependents whose references match these coordinates, and those with one that does not.
    fn partition(&self, uid: &Uid, at: &Coordinates) -> (Vec<Uid>, Vec<Uid>) {
        let (mut matching, mut others) = (Vec::new(), Vec::new());
        let Some(node) = self.nodes.get(uid) else { return (matching, others) };
        for dependent in node.dependents() {
            let Some(node) = self.nodes.get(dependent) else { continue };
            let foreign = !at.namespace.is_empty() && at.namespace != node.namespace;
            let refers = || node.owners.iter().filter(|owner| owner.uid == at.uid);
            if !foreign && refers().any(|owner| owner.matches(at)) {
                matching.push(dependent.clone());
            }
            if foreign || refers().any(|owner| !owner.matches(at)) {
                others.push(dependent.clone());
            }
        }
        (matching, others)
    }

    /// Makes a node a dependent of its owners, or of those of them that are `added`.
    fn join(&mut self, uid: &Uid, added: Option<&HashSet<Uid>>, todo: &mut Vec<Todo>) {
        let Some(node) = self.nodes.get(uid) else { return };
        let (owners, namespace) = (node.owners.clone(), node.namespace.clone());
        let mut doubtful = false;
        for owner in owners.iter().filter(|owner| added.is_none_or(|added| added.contains(&owner.uid))) {
            let known = self.nodes.contains_key(&owner.uid);
            let node = self.nodes.entry(owner.uid.clone()).or_insert_with(|| Node {
                kind: owner.kind.clone(),
                namespace: namespace.clone(),
                name: owner.name.clone(),
                is_virtual: true,
                ..Default::default()
            });
            node.dependents.get_or_insert_default().insert(uid.clone());
            if !known {
                todo.push(Todo::Delete(owner.uid.clone()));
            } else if !doubtful {
                let at = node.at(&owner.uid);
                let foreign = !at.namespace.is_empty() && at.namespace != namespace;
                if foreign && !node.is_virtual {
                    self.report_foreign(uid, &at, todo);
                }
                doubtful = foreign || !owner.matches(&at);
            }
        }
        if doubtful {
            todo.push(Todo::Delete(uid.clone()));
        }
    }

    fn owners_changed(&mut self, uid: &Uid, old: &[Owner], new: &[Owner], todo: &mut Vec<Todo>) {
        for was in old {
            let is = new.iter().find(|owner| owner.uid == was.uid);
            if was.blocks && is.is_none_or(|is| !is.blocks) && self.nodes.contains_key(&was.uid) {
                todo.push(Todo::Delete(was.uid.clone()));
            }
        }
        let added = new.iter().filter(|is| !old.iter().any(|was| was.uid == is.uid));
        let added: HashSet<Uid> = added.map(|owner| owner.uid.clone()).collect();
        self.join(uid, Some(&added), todo);
        for was in old.iter().filter(|was| !new.iter().any(|is| is.uid == was.uid)) {
            self.leave(uid, &was.uid);
        }
    }

    fn leave(&mut self, uid: &Uid, owner: &Uid) {
        let Some(owner) = self.nodes.get_mut(owner) else { return };
        if let Some(dependents) = &mut owner.dependents {
            dependents.remove(uid);
            if dependents.is_empty() {
                owner.dependents = None;
            }
        }
    }

    /// Notices that an object begins to wait for its dependents.
    fn transit(&mut self, uid: &Uid, seen: &Seen, todo: &mut Vec<Todo>) {
        let Some(node) = self.nodes.get_mut(uid) else { return };
        let (orphan, foreground) = (seen.deleting && seen.orphan, seen.deleting && seen.foreground);
        let was_orphan = std::mem::replace(&mut node.was_orphan, orphan);
        let was_foreground = std::mem::replace(&mut node.was_foreground, foreground);
        if orphan && !was_orphan {
            todo.push(Todo::Orphan(uid.clone()));
        } else if foreground && !was_foreground {
            node.deleting_dependents = true;
            todo.extend(node.dependents().cloned().map(Todo::Delete));
            todo.push(Todo::Delete(uid.clone()));
        }
    }

    /// An object is gone.
    pub(super) fn remove(&mut self, uid: &Uid) -> Vec<Todo> {
        let mut todo = Vec::new();
        if let Some(node) = self.nodes.get(uid) {
            let at = node.at(uid);
            self.take_out(uid, at, &mut todo);
        }
        todo
    }

    /// The server has no such object at these coordinates.
    pub(super) fn absent(&mut self, at: &Coordinates) -> Vec<Todo> {
        let mut todo = Vec::new();
        let Some(node) = self.nodes.get(&at.uid) else { return todo };
        let here = node.at(&at.uid);
        let is_virtual = node.is_virtual;
        if !is_virtual && here == *at {
            self.take_out(&at.uid, here, &mut todo);
            return todo;
        }
        let (matching, others) = self.partition(&at.uid, at);
        if is_virtual && others.is_empty() {
            self.take_out(&at.uid, at.clone(), &mut todo);
            return todo;
        }
        if !matching.is_empty() {
            self.absent.add(at.clone());
            todo.extend(matching.into_iter().map(Todo::Delete));
        }
        if is_virtual
            && here == *at
            && let Some(other) = self.alternative(&others, at)
            && let Some(node) = self.nodes.get_mut(&at.uid)
        {
            (node.kind, node.namespace, node.name) = (other.kind, other.namespace, other.name);
            todo.push(Todo::DeleteLater(at.uid.clone()));
        }
        todo
    }

    /// Where else the owner may be: the next place after `not` that dependents name, in a fixed order, so that all get
    /// their turn.
    fn alternative(&self, dependents: &[Uid], not: &Coordinates) -> Option<Coordinates> {
        let mut places = Vec::new();
        for node in dependents.iter().filter_map(|dependent| self.nodes.get(dependent)) {
            for owner in node.owners.iter().filter(|owner| owner.uid == not.uid) {
                let at = owner.at(&node.namespace);
                if at != *not && !(not.namespace.is_empty() && owner.matches(not)) {
                    places.push(at);
                }
            }
        }
        places.sort();
        places.iter().find(|at| *at > not).or(places.first()).cloned()
    }

    fn take_out(&mut self, uid: &Uid, at: Coordinates, todo: &mut Vec<Todo>) {
        let Some(node) = self.nodes.remove(uid) else { return };
        for owner in &node.owners {
            self.leave(uid, &owner.uid);
        }
        if node.dependents.is_some() {
            self.absent.add(at);
        }
        todo.extend(node.dependents().cloned().map(Todo::Delete));
        // An owner that waits for its dependents may be waiting for this one.
        for owner in &node.owners {
            if self.nodes.get(&owner.uid).is_some_and(|owner| owner.deleting_dependents) {
                todo.push(Todo::Delete(owner.uid.clone()));
            }
        }
    }

    /// Forgets the objects of a kind that are not among `present`.
    pub(super) fn retain(&mut self, kind: &Arc<KindName>, present: &HashSet<Uid>) -> Vec<Todo> {
        let stale =
            |(uid, node): &(&Uid, &Node)| !node.is_virtual && node.kind == *kind && !present.contains(*uid);
        let gone: Vec<Uid> = self.nodes.iter().filter(stale).map(|(uid, _)| uid.clone()).collect();
        gone.iter().flat_map(|uid| self.remove(uid)).collect()
    }
}
