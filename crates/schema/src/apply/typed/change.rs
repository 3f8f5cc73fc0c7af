//! One object merged into another, and an object without some of its paths.

use super::{FieldSet, Node, Typed, both, field_step, is_empty, is_member};
use apimachinery::value::{Key, Map, Value};
use std::collections::HashMap;

impl<'a> Typed<'a> {
    /// `live` with what `applied` says; items stand where the applied list has them.
    pub fn merge(self, live: &Value, applied: &Value) -> Value {
        self.merge_node(self.root(), Some(live), Some(applied)).unwrap_or(Value::Null)
    }

    fn merge_node(self, node: Node<'a>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
        let leaf = || applied.or(live).cloned();
        // A null that nothing was there for is applied as it is.
        let Some(shape) = applied.filter(|v| !v.is_null()).or(live) else { return leaf() };
        let node = node.for_value(shape);
        if is_empty(live) && is_empty(applied) {
            return leaf();
        }
        if node.is_map() {
            let empty = Map::new();
            let Some((live, applied)) = both(live, applied, |v| v.as_object(), &empty) else { return leaf() };
            let mut out = Map::new();
            for (name, value) in live {
                if let Some(v) =
                    self.merge_node(node.member(self.table, name), Some(value), applied.get(name))
                {
                    out.insert(name.clone(), v);
                }
            }
            for (name, value) in applied.iter().filter(|(name, _)| !live.contains_key(name)) {
                if let Some(v) = self.merge_node(node.member(self.table, name), None, Some(value)) {
                    out.insert(name.clone(), v);
                }
            }
            return Some(Value::Object(out));
        }
        if node.is_list() {
            let empty = Vec::new();
            let Some((live, applied)) = both(live, applied, |v| v.as_array(), &empty) else { return leaf() };
            return Some(Value::Array(self.merge_lists(node, live, applied)));
        }
        leaf()
    }

    /// Keeps the live order of what only the live list has and the applied order of the rest, shared items being the
    /// points at which the two meet.
    fn merge_lists(self, node: Node<'a>, live: &[Value], applied: &[Value]) -> Vec<Value> {
        let steps = |items: &[Value]| -> Vec<Key> {
            let mut counter = 0;
            items
                .iter()
                .map(|item| {
                    node.step(self.table, item).unwrap_or_else(|_| {
                        counter += 1;
                        format!("?{counter}").into()
                    })
                })
                .collect()
        };
        let (live_steps, applied_steps) = (steps(live), steps(applied));
        let index = |steps: &[Key]| -> HashMap<Key, usize> {
            steps.iter().enumerate().rev().map(|(i, s)| (s.clone(), i)).collect()
        };
        let (in_live, in_applied) = (index(&live_steps), index(&applied_steps));
        let mut shared = applied_steps.iter().filter(|s| in_live.contains_key(*s));
        let mut next_shared = shared.next();
        let mut merged: std::collections::HashSet<&str> = std::collections::HashSet::new();
        let mut out = Vec::with_capacity(live.len().max(applied.len()));
        let item = node.item(self.table);
        let push = |step: &str, out: &mut Vec<Value>| {
            let (l, a) = (in_live.get(step).map(|i| &live[*i]), in_applied.get(step).map(|i| &applied[*i]));
            out.extend(self.merge_node(item, l, a));
        };
        let (mut l, mut a) = (0, 0);
        while l < live.len() || a < applied.len() {
            if l < live.len() && a < applied.len() {
                let step = &live_steps[l];
                if *step == applied_steps[a] {
                    merged.insert(step);
                    push(step, &mut out);
                    l += 1;
                    a += 1;
                    next_shared = shared.next();
                    continue;
                }
                if in_applied.contains_key(step) && next_shared.is_some_and(|next| next != step) {
                    // Shared, but not the item whose turn it is.
                    l += 1;
                    continue;
                }
            }
            if l < live.len() {
                let step = &live_steps[l];
                if !in_applied.contains_key(step) {
                    out.push(live[l].clone());
                    l += 1;
                    continue;
                }
                if merged.contains(step.as_str()) {
                    l += 1;
                }
            }
            if a < applied.len() {
                let step = &applied_steps[a];
                merged.insert(step);
                push(step, &mut out);
                a += 1;
                if next_shared == Some(step) {
                    next_shared = shared.next();
                }
            }
        }
        out
    }

    /// The object without the paths of the set.
    pub fn remove(self, value: &Value, set: &FieldSet) -> Value {
        self.remove_node(self.root(), value, &set.0)
    }

    /// What is left of a part; something of a map or list goes, not it itself, so that an empty one stays.
    fn rest(self, node: Node<'a>, value: &Value, set: &Map) -> Value {
        match (self.remove_node(node, value, set), value) {
            (Value::Null, Value::Object(_)) => Value::Object(Map::new()),
            (Value::Null, Value::Array(_)) => Value::Array(Vec::new()),
            (rest, _) => rest,
        }
    }

    fn remove_node(self, node: Node<'a>, value: &Value, set: &Map) -> Value {
        let node = node.for_value(value);
        let below = |step: &str| match set.get(step) {
            Some(Value::Object(inner)) => Some(inner),
            _ => None,
        };
        match value {
            Value::Object(map) if node.is_map() => {
                let (mut out, mut entered) = (Map::new(), false);
                for (name, value) in map {
                    let rest = match below(&field_step(name)) {
                        Some(inner) if is_member(inner) => continue,
                        Some(inner) => {
                            entered = true;
                            self.rest(node.member(self.table, name), value, inner)
                        }
                        None => value.clone(),
                    };
                    out.insert(name.clone(), rest);
                }
                if out.is_empty() && !entered { Value::Null } else { Value::Object(out) }
            }
            Value::Array(items) if node.is_list() => {
                let (mut out, mut entered) = (Vec::with_capacity(items.len()), false);
                for item in items {
                    let step = node.step(self.table, item).unwrap_or_default();
                    match below(&step) {
                        Some(inner) if is_member(inner) => {}
                        Some(inner) => {
                            entered = true;
                            out.push(self.rest(node.item(self.table), item, inner));
                        }
                        None => out.push(item.clone()),
                    }
                }
                if out.is_empty() && !entered { Value::Null } else { Value::Array(out) }
            }
            // Something within what is atomic is to go: all of it goes.
            Value::Object(_) | Value::Array(_) => Value::Null,
            scalar => scalar.clone(),
        }
    }
}
