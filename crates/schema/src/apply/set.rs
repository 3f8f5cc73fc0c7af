//! Sets of field paths in the very form in which `FieldsV1` writes them, so that a manager's set is read and written
//! without being converted: `{"f:spec":{"f:replicas":{}}}`. A node is a member when it is empty or holds `.`.

use apimachinery::value::{Key, Map, Value};

/// A set of paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldSet(pub Map);

/// The mark of a member that has members below it.
const SELF: &str = ".";

type Node = Map;

impl FieldSet {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a `fieldsV1` value; none where it is not one.
    pub fn from_value(value: Value) -> Option<Self> {
        match value {
            Value::Object(map) if valid(&map) => Some(FieldSet(map)),
            Value::Null => Some(FieldSet::new()),
            _ => None,
        }
    }

    /// The set of paths of field names: `[&["metadata", "name"]]`.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = FieldSet::new();
        for path in paths {
            let steps: Vec<Key> = path.iter().map(|name| field_step(name)).collect();
            set.insert(&steps);
        }
        set
    }

    pub fn is_empty(&self) -> bool {
        // The root is never a member; a set written by someone else may say so all the same.
        self.0.iter().all(|(k, _)| k == SELF)
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[Key]) {
        let Some((last, parents)) = path.split_last() else { return };
        let mut node = &mut self.0;
        for step in parents {
            node = descend(node, step);
        }
        match node.get_mut(last) {
            Some(Value::Object(present)) => {
                if !present.is_empty() {
                    present.insert(SELF, Value::Object(Map::new()));
                }
            }
            _ => {
                node.insert(last.clone(), Value::Object(Map::new()));
            }
        }
    }

    /// Adds a path and, as members, the nodes below it.
    pub(super) fn insert_with(&mut self, path: &[Key], below: Map) {
        self.insert(path);
        if below.is_empty() {
            return;
        }
        let mut at = Map::new();
        at.insert(SELF, Value::Object(Map::new()));
        at.extend(below);
        self.graft_node(path, at);
    }

    /// Puts a set below a path, which does not become a member by it.
    pub(super) fn graft(&mut self, path: &[Key], below: FieldSet) {
        if !below.0.is_empty() {
            self.graft_node(path, below.0);
        }
    }

    fn graft_node(&mut self, path: &[Key], below: Map) {
        let mut node = &mut self.0;
        for step in path {
            node = descend(node, step);
        }
        if node.keys().all(|k| k == SELF) {
            node.extend(below);
        } else {
            let member = is_member(node) || below.contains_key(SELF);
            union(node, &below);
            settle(node, member);
        }
    }

    /// All paths of both.
    pub fn union(mut self, other: &FieldSet) -> Self {
        union(&mut self.0, &other.0);
        self
    }

    /// The paths of this set that are not in the other.
    pub fn difference(mut self, other: &FieldSet) -> Self {
        difference(&mut self.0, &other.0);
        self
    }

    /// The paths of this set that are neither in the other nor below one of its paths.
    pub fn recursive_difference(mut self, other: &FieldSet) -> Self {
        recursive_difference(&mut self.0, &other.0);
        self
    }

    /// The paths in both.
    pub fn intersection(&self, other: &FieldSet) -> Self {
        FieldSet(intersection(&self.0, &other.0))
    }

    /// Whether the path is a member.
    pub fn has(&self, path: &[Key]) -> bool {
        let mut node = &self.0;
        for (i, step) in path.iter().enumerate() {
            match node.get(step) {
                Some(Value::Object(next)) if i + 1 == path.len() => return is_member(next),
                Some(Value::Object(next)) => node = next,
                _ => return false,
            }
        }
        false
    }

    /// All paths, those of a level before those below it.
    pub fn paths(&self) -> Vec<Vec<Key>> {
        let mut out = Vec::new();
        walk(&self.0, &mut Vec::new(), &mut out);
        out
    }
}

/// The step to a field.
pub(super) fn field_step(name: &str) -> Key {
    Key::from_iter(["f:", name])
}

fn valid(node: &Node) -> bool {
    node.iter().all(|(key, value)| match value {
        Value::Object(inner) if key == SELF => inner.is_empty(),
        Value::Object(inner) => {
            let content = key.get(2..);
            let known = match key.get(..2) {
                Some("f:") => true,
                Some("v:") => content.is_some_and(|c| serde_json::from_str::<Value>(c).is_ok()),
                Some("k:") => content.is_some_and(|c| serde_json::from_str::<Map>(c).is_ok()),
                Some("i:") => content.is_some_and(|c| c.parse::<i64>().is_ok()),
                _ => false,
            };
            known && valid(inner)
        }
        _ => false,
    })
}

pub(super) fn is_member(node: &Node) -> bool {
    node.is_empty() || node.contains_key(SELF)
}

/// The node of a step, made a mere way to deeper ones if it is new, and kept a member if it was one.
fn descend<'a>(node: &'a mut Node, step: &str) -> &'a mut Node {
    if !node.get(step).is_some_and(Value::is_object) {
        node.insert(step, Value::Object(Map::new()));
    } else if let Some(Value::Object(present)) = node.get_mut(step)
        && present.is_empty()
    {
        present.insert(SELF, Value::Object(Map::new()));
    }
    match node.get_mut(step) {
        Some(Value::Object(next)) => next,
        _ => unreachable!("made an object just above"),
    }
}

fn children(node: &Node) -> impl Iterator<Item = (&Key, &Node)> {
    node.iter().filter(|(k, _)| *k != SELF).filter_map(|(k, v)| Some((k, v.as_object()?)))
}

/// Writes membership back into a node whose children changed; false if nothing is left of it.
fn settle(node: &mut Node, member: bool) -> bool {
    node.remove(SELF);
    if member && !node.is_empty() {
        node.insert(SELF, Value::Object(Map::new()));
    }
    member || !node.is_empty()
}

fn union(a: &mut Node, b: &Node) {
    for (key, theirs) in children(b) {
        match a.get_mut(key) {
            Some(Value::Object(ours)) => {
                let member = is_member(ours) || is_member(theirs);
                union(ours, theirs);
                settle(ours, member);
            }
            _ => {
                a.insert(key.clone(), Value::Object(theirs.clone()));
            }
        }
    }
}

fn difference(a: &mut Node, b: &Node) {
    a.retain(|key, ours| {
        let (Value::Object(ours), Some(Value::Object(theirs))) = (ours, b.get(key)) else { return true };
        let member = is_member(ours) && !is_member(theirs);
        difference(ours, theirs);
        settle(ours, member)
    });
}

fn recursive_difference(a: &mut Node, b: &Node) {
    a.retain(|key, ours| {
        let (Value::Object(ours), Some(Value::Object(theirs))) = (ours, b.get(key)) else { return true };
        if is_member(theirs) {
            return false;
        }
        let member = is_member(ours);
        recursive_difference(ours, theirs);
        settle(ours, member)
    });
}

fn intersection(a: &Node, b: &Node) -> Node {
    let mut out = Map::new();
    for (key, ours) in children(a) {
        let Some(Value::Object(theirs)) = b.get(key) else { continue };
        let mut node = intersection(ours, theirs);
        if settle(&mut node, is_member(ours) && is_member(theirs)) {
            out.insert(key.clone(), Value::Object(node));
        }
    }
    out
}

fn walk(node: &Node, path: &mut Vec<Key>, out: &mut Vec<Vec<Key>>) {
    for (key, child) in children(node) {
        if is_member(child) {
            let mut member = path.clone();
            member.push(key.clone());
            out.push(member);
        }
    }
    for (key, child) in children(node) {
        path.push(key.clone());
        walk(child, path, out);
        path.pop();
    }
}

/// A path as messages print it: `.spec.containers[name="web"].image`.
pub(super) fn print_path(path: &[Key]) -> String {
    use apimachinery::quote::quote;
    let scalar = |value: &Value| match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    };
    let mut out = String::new();
    for step in path {
        let (kind, content) = step.split_at(2.min(step.len()));
        match kind {
            "f:" => {
                out.push('.');
                out.push_str(content);
            }
            "k:" => {
                let keys: Map = serde_json::from_str(content).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={}", scalar(v))).collect();
                out.push_str(&format!("[{}]", keys.join(",")));
            }
            "v:" => {
                let value = serde_json::from_str(content).unwrap_or(Value::Null);
                out.push_str(&format!("[={}]", scalar(&value)));
            }
            _ => out.push_str(&format!("[{content}]")),
        }
    }
    out
}
