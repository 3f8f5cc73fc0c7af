//! How two objects differ: the paths that came, went and changed.

use super::{FieldSet, Node, Typed, both, field_step, is_empty, put};
use apimachinery::value::{Key, Map, Value};
use std::collections::HashMap;
use std::sync::LazyLock;

/// How two objects differ.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparison {
    pub removed: FieldSet,
    pub modified: FieldSet,
    pub added: FieldSet,
}

impl Typed<'_> {
    /// How `new` differs from `old`.
    pub fn compare(self, old: &Value, new: &Value) -> Comparison {
        let mut out = Comparison::default();
        let mut walk = Compare { typed: self, path: Vec::with_capacity(16), out: &mut out };
        walk.compare(self.root(), Some(old), Some(new));
        out
    }
}

/// A step on the way of a comparison; put into words only where something differs.
#[derive(Clone, Copy)]
enum Step<'v> {
    Field(&'v str),
    Item(&'v str),
}

struct Compare<'c, 'v, 'a> {
    typed: Typed<'a>,
    path: Vec<Step<'v>>,
    out: &'c mut Comparison,
}

impl<'v, 'a> Compare<'_, 'v, 'a> {
    fn here(&self) -> Vec<Key> {
        let step = |step: &Step<'_>| match step {
            Step::Field(name) => field_step(name),
            Step::Item(step) => Key::from(*step),
        };
        self.path.iter().map(step).collect()
    }

    /// A difference of the two values as wholes.
    fn leaf(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let here = self.here();
        match (old, new) {
            (None, _) => self.out.added.insert(&here),
            (_, None) => self.out.removed.insert(&here),
            (Some(old), Some(new)) => {
                if !equal(old, new) {
                    self.out.modified.insert(&here);
                }
            }
        }
    }

    fn compare(&mut self, node: Node<'a>, old: Option<&'v Value>, new: Option<&'v Value>) {
        let Some(value) = new.filter(|v| !v.is_null()).or(old) else { return };
        let table = self.typed.table;
        let node = node.for_value(value);
        let empty = is_empty(old) && is_empty(new);
        let (old, new) = match (old, new) {
            (Some(old), Some(new)) => (old, new),
            // All of it came or went: every path below is a member.
            (one, _) => {
                let mut below = Map::new();
                self.whole(node, value, &mut below);
                let here = self.here();
                let side = if one.is_none() { &mut self.out.added } else { &mut self.out.removed };
                side.insert_with(&here, below);
                return;
            }
        };
        if node.is_map() && !empty {
            static NONE: LazyLock<Map> = LazyLock::new(Map::new);
            let Some((a, b)) = both(Some(old), Some(new), |v| v.as_object(), &*NONE) else {
                return self.leaf(Some(old), Some(new));
            };
            let mut came = Map::new();
            for (name, value) in b.iter().filter(|(name, value)| !value.is_null() && !a.contains_key(name)) {
                let mut below = Map::new();
                self.whole(node.member(table, name), value, &mut below);
                put(&mut came, field_step(name), below, true);
            }
            if !came.is_empty() {
                let here = self.here();
                self.out.added.graft(&here, FieldSet(came));
            }
            for (name, value) in a {
                self.path.push(Step::Field(name));
                self.compare(node.member(table, name), Some(value), b.get(name));
                self.path.pop();
            }
        } else if old == new {
            // Lists are mostly the same, and their keys are not free.
        } else if node.is_list() && !empty {
            static NONE: Vec<Value> = Vec::new();
            let Some((a, b)) = both(Some(old), Some(new), |v| v.as_array(), &NONE) else {
                return self.leaf(Some(old), Some(new));
            };
            self.lists(node, a, b);
        } else {
            self.leaf(Some(old), Some(new));
        }
    }

    /// Every path below a value, each a member.
    fn whole(&self, node: Node<'a>, value: &Value, out: &mut Map) {
        let table = self.typed.table;
        let node = node.for_value(value);
        match value {
            Value::Object(map) if node.is_map() => {
                for (name, value) in map {
                    let mut below = Map::new();
                    self.whole(node.member(table, name), value, &mut below);
                    put(out, field_step(name), below, true);
                }
            }
            Value::Array(items) if node.is_list() => {
                let mut twice = Vec::new();
                for item in items {
                    let Ok(step) = node.step(table, item) else { continue };
                    if out.contains_key(&step) {
                        twice.push(step);
                        continue;
                    }
                    let mut below = Map::new();
                    self.whole(node.item(table), item, &mut below);
                    put(out, step, below, true);
                }
                // Of duplicates only the place is owned, not what is within.
                for step in twice {
                    put(out, step, Map::new(), true);
                }
            }
            _ => {}
        }
    }

    fn lists(&mut self, node: Node<'a>, old: &'v [Value], new: &'v [Value]) {
        let table = self.typed.table;
        let mut order: Vec<Key> = Vec::new();
        let mut found: HashMap<Key, (Vec<&'v Value>, Vec<&'v Value>)> = HashMap::new();
        for (items, side) in [(old, 0), (new, 1)] {
            for item in items {
                let Ok(step) = node.step(table, item) else { continue };
                let entry = found.entry(step.clone()).or_insert_with(|| {
                    order.push(step);
                    Default::default()
                });
                if side == 0 { entry.0.push(item) } else { entry.1.push(item) }
            }
        }
        let item = node.item(table);
        // The steps live no longer than this call: what is below is compared on its own and put in its place.
        for step in &order {
            let Some((a, b)) = found.remove(step) else { continue };
            let mut out = Comparison::default();
            let mut inner = Compare { typed: self.typed, path: Vec::with_capacity(16), out: &mut out };
            inner.path.push(Step::Item(step));
            match (a.as_slice(), b.as_slice()) {
                ([] | [_], [] | [_]) => inner.compare(item, a.first().copied(), b.first().copied()),
                // Duplicates are compared as if they were one atomic value.
                ([_, _, ..], [_, _, ..]) => {
                    if a != b {
                        inner.out.modified.insert(std::slice::from_ref(step));
                    }
                }
                ([_, _, ..], []) => inner.out.removed.insert(std::slice::from_ref(step)),
                ([], [_, _, ..]) => inner.out.added.insert(std::slice::from_ref(step)),
                // Duplicates come or go: nobody owns what is within.
                ([_, _, ..], [only]) => inner.compare(item, None, Some(*only)),
                ([only], [_, _, ..]) => {
                    inner.compare(item, Some(*only), None);
                    inner.out.added.insert(std::slice::from_ref(step));
                }
            }
            let here = self.here();
            self.out.removed.graft(&here, out.removed);
            self.out.modified.graft(&here, out.modified);
            self.out.added.graft(&here, out.added);
        }
    }
}

/// Equality that does not tell `1` from `1.0`.
fn equal(a: &Value, b: &Value) -> bool {
    a == b || matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}
