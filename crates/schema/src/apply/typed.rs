//! Walks over objects by their rows: which paths an object has. Upstream's structured-merge-diff. How two differ is in
//! [`compare`]; how one merges into another, and an object without some of its paths, in [`change`]; whether an applied one is
//! of its type, in [`check`].

mod change;
mod check;
mod compare;

pub use compare::Comparison;

use super::set::{FieldSet, field_step, is_member, print_path};
use crate::row::{Field, ListType, MapType, Seq, Shape, Str, Type, TypeId};
use crate::table::Table;
use apimachinery::value::{Key, Map, Value};

/// What an object's structure is known from.
#[derive(Debug, Clone, Copy)]
pub struct Typed<'a> {
    pub table: &'a Table,
    /// None for objects without a schema: maps merge, lists are atomic.
    pub ty: Option<TypeId>,
}

/// How a value merges.
#[derive(Clone, Copy)]
enum Node<'a> {
    Struct(TypeId),
    Map(&'a Type),
    Set,
    Keyed(&'a Type, &'a Seq<Str>),
    Atomic,
    Scalar,
    /// By the value itself: maps merge, lists are atomic.
    Deduced,
}

impl<'a> Node<'a> {
    fn of(table: &'a Table, ty: &'a Type, field: Option<&'a Field>) -> Self {
        let map_type = field.and_then(|f| f.map_type);
        match ty {
            Type::Ref(id) => {
                let row = table.ty(*id);
                match (row.shape, &row.scalar) {
                    (Shape::Scalar, Some(scalar)) => Node::of(table, scalar, field),
                    _ if map_type.unwrap_or(row.map_type) == MapType::Atomic => Node::Atomic,
                    (Shape::Object, _) => Node::Deduced,
                    _ => Node::Struct(*id),
                }
            }
            Type::Map(element) => {
                if map_type == Some(MapType::Atomic) {
                    Node::Atomic
                } else {
                    Node::Map(element)
                }
            }
            Type::List(item) => match field.map(|f| (f.list_type, &f.list_keys)) {
                Some((Some(ListType::Set), _)) => Node::Set,
                Some((Some(ListType::Map), keys)) => Node::Keyed(item, keys),
                _ => Node::Atomic,
            },
            Type::Any | Type::Object if map_type == Some(MapType::Atomic) => Node::Atomic,
            // What built-in kinds carry without looking into it (RawExtension) is one field.
            Type::Object if table.checks().is_none() => Node::Atomic,
            Type::Any | Type::Object => Node::Deduced,
            _ => Node::Scalar,
        }
    }

    /// What it is for this value.
    fn for_value(self, value: &Value) -> Self {
        match (self, value) {
            (Node::Deduced, Value::Array(_)) => Node::Atomic,
            (Node::Deduced, Value::Object(_) | Value::Null) => Node::Deduced,
            (Node::Deduced, _) => Node::Scalar,
            (node, _) => node,
        }
    }

    fn member(self, table: &'a Table, name: &str) -> Node<'a> {
        match self {
            Node::Struct(id) => match table.index(id, name) {
                Some(i) => {
                    let field = &table.ty(id).fields[i];
                    Node::of(table, &field.ty, Some(field))
                }
                None => Node::Deduced,
            },
            Node::Map(element) => Node::of(table, element, None),
            _ => Node::Deduced,
        }
    }

    fn item(self, table: &'a Table) -> Node<'a> {
        match self {
            Node::Keyed(item, _) => Node::of(table, item, None),
            _ => Node::Scalar,
        }
    }

    /// Whether the member is a field of its own right rather than a key of a map.
    fn names(self, table: &Table, name: &str) -> bool {
        matches!(self, Node::Struct(id) if table.index(id, name).is_some())
    }

    fn is_map(self) -> bool {
        matches!(self, Node::Struct(_) | Node::Map(_) | Node::Deduced)
    }

    fn is_list(self) -> bool {
        matches!(self, Node::Set | Node::Keyed(..))
    }

    /// The step to an item of a list that merges.
    fn step(self, table: &Table, item: &Value) -> Result<Key, String> {
        let mut text = Vec::with_capacity(32);
        match self {
            Node::Keyed(ty, keys) => {
                let Value::Object(members) = item else {
                    let what = if item.is_null() { "a null element" } else { "non-map elements" };
                    return Err(format!("associative list with keys may not have {what}"));
                };
                let mut found: Vec<(&str, Value)> = Vec::with_capacity(keys.len());
                for key in keys.iter() {
                    if let Some(value) = members.get(key.as_ref()) {
                        found.push((key, value.clone()));
                    } else if let Some(default) = key_default(table, ty, key) {
                        found.push((key, default));
                    }
                }
                if found.is_empty() {
                    let keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
                    return Err(format!(
                        "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                        keys.join(" ")
                    ));
                }
                found.sort_unstable_by_key(|(k, _)| *k);
                text.extend_from_slice(b"k:{");
                for (i, (key, value)) in found.iter().enumerate() {
                    if i > 0 {
                        text.push(b',');
                    }
                    crate::encode::write_string(&mut text, key);
                    text.push(b':');
                    crate::encode::write_value(&mut text, value);
                }
                text.push(b'}');
            }
            _ => {
                match item {
                    Value::Object(_) => {
                        return Err("associative list without keys has an element that's a map type".into());
                    }
                    Value::Array(_) => {
                        return Err("not supported: associative list with lists as elements".into());
                    }
                    Value::Null => {
                        return Err(
                            "associative list without keys has an element that's an explicit null".into()
                        );
                    }
                    _ => {}
                }
                text.extend_from_slice(b"v:");
                crate::encode::write_value(&mut text, item);
            }
        }
        // Only text was written.
        Ok(Key::from(std::str::from_utf8(&text).unwrap_or_default()))
    }
}

/// The default of a list key, real or published.
fn key_default(table: &Table, item: &Type, key: &str) -> Option<Value> {
    crate::openapi::published_default(table.ty(item.element()?).field(key)?)
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(_) => false,
    }
}

impl<'a> Typed<'a> {
    fn root(self) -> Node<'a> {
        match self.ty {
            None => Node::Deduced,
            Some(id) => {
                let row = self.table.ty(id);
                if row.shape == Shape::Object { Node::Deduced } else { Node::Struct(id) }
            }
        }
    }

    /// The lists and maps of the value that can only be replaced as a whole.
    pub fn atomics(self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.find_atomics(self.root(), value, "", &mut found);
        found
    }

    fn find_atomics(self, node: Node<'a>, value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(_) | Value::Array(_) if matches!(node, Node::Atomic) => found.push(path.to_owned()),
            Value::Object(map) if matches!(node, Node::Struct(_) | Node::Map(_)) => {
                for (name, value) in map.iter().filter(|(name, _)| node.names(self.table, name)) {
                    self.find_atomics(node.member(self.table, name), value, &format!("{path}.{name}"), found);
                }
            }
            Value::Array(items) if node.is_list() => {
                for (at, item) in items.iter().enumerate() {
                    self.find_atomics(node.item(self.table), item, &format!("{path}[{at}]"), found);
                }
            }
            _ => {}
        }
    }

    /// Whether every item of a list that merges has what it is known by.
    pub fn has_steps(self, value: &Value) -> bool {
        self.walks(self.root(), value)
    }

    fn walks(self, node: Node<'a>, value: &Value) -> bool {
        let node = node.for_value(value);
        match value {
            Value::Object(map) if node.is_map() => map
                .iter()
                .filter(|(_, value)| value.is_object() || value.is_array())
                .all(|(name, value)| self.walks(node.member(self.table, name), value)),
            Value::Array(items) if node.is_list() => items
                .iter()
                .all(|item| node.step(self.table, item).is_ok() && self.walks(node.item(self.table), item)),
            _ => true,
        }
    }

    /// The paths that the object has.
    pub fn to_set(self, value: &Value) -> FieldSet {
        let mut out = Map::new();
        self.collect(self.root(), value, &mut out);
        FieldSet(out)
    }

    /// Writes what stands below `value` into `out`; true if the value itself is a leaf.
    fn collect(self, node: Node<'a>, value: &Value, out: &mut Map) -> bool {
        let node = node.for_value(value);
        match value {
            Value::Object(map) if node.is_map() => {
                for (name, value) in map {
                    let mut inner = Map::new();
                    let leaf = self.collect(node.member(self.table, name), value, &mut inner);
                    let member =
                        leaf || value.is_null() || is_empty_map(value) || !node.names(self.table, name);
                    put(out, field_step(name), inner, member);
                }
                false
            }
            Value::Array(items) if node.is_list() => {
                for item in items {
                    let Ok(step) = node.step(self.table, item) else { continue };
                    let mut inner = Map::new();
                    self.collect(node.item(self.table), item, &mut inner);
                    match out.get_mut(&step) {
                        // A duplicate joins the first.
                        Some(Value::Object(_)) => {
                            let mut one = FieldSet(Map::from_iter([(step, member_of(inner))]));
                            one = std::mem::take(&mut one).union(&FieldSet(std::mem::take(out)));
                            *out = one.0;
                        }
                        _ => put(out, step, inner, true),
                    }
                }
                false
            }
            Value::Null => matches!(node, Node::Scalar | Node::Atomic),
            _ => true,
        }
    }

    /// The set with every named field that has members below it made a member.
    pub fn with_named_fields(self, set: &FieldSet) -> FieldSet {
        FieldSet(self.name_fields(self.root(), &set.0))
    }

    fn name_fields(self, node: Node<'a>, set: &Map) -> Map {
        let mut out = Map::new();
        for (step, below) in set {
            let Value::Object(below) = below else { continue };
            if below.is_empty() || step == "." {
                out.insert(step.clone(), Value::Object(Map::new()));
                continue;
            }
            let name = step.strip_prefix("f:");
            let inner_node = match name {
                Some(name) => node.member(self.table, name),
                None => node.item(self.table),
            };
            let mut inner = self.name_fields(inner_node, below);
            if name.is_some_and(|n| node.names(self.table, n)) && !inner.is_empty() {
                inner.insert(".", Value::Object(Map::new()));
            }
            out.insert(step.clone(), Value::Object(inner));
        }
        out
    }
}

/// Both sides, one of which may be missing; none if either is something else altogether.
fn both<'v, T: ?Sized>(
    a: Option<&'v Value>,
    b: Option<&'v Value>,
    get: impl Fn(&'v Value) -> Option<&'v T>,
    empty: &'v T,
) -> Option<(&'v T, &'v T)> {
    let side = |v: Option<&'v Value>| match v {
        None | Some(Value::Null) => Some(empty),
        Some(v) => get(v),
    };
    Some((side(a)?, side(b)?))
}

fn is_empty_map(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty)
}

fn member_of(mut inner: Map) -> Value {
    if !inner.is_empty() {
        inner.insert(".", Value::Object(Map::new()));
    }
    Value::Object(inner)
}

fn put(out: &mut Map, step: Key, inner: Map, member: bool) {
    if member {
        out.insert(step, member_of(inner));
    } else if !inner.is_empty() {
        out.insert(step, Value::Object(inner));
    }
}
