//! Strategic-merge patch: lists of objects merge by the key that their row names, and directives in the patch delete,
//! replace, keep and order.

use super::{PatchError, PatchFailure, go_format};
use crate::row::{Field, Shape, Type, TypeId};
use crate::table::Table;
use apimachinery::value::{Key, Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_PRIMITIVE_LIST: &str = "$deleteFromPrimitiveList";
const SET_ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map;
type Result<T> = std::result::Result<T, PatchError>;

/// Applies a patch that [`super::parse_object`] parsed to an object in canonical form.
pub fn strategic(table: &Table, id: TypeId, original: Value, patch: Value) -> Result<Value> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(bad_request("invalid JSON document"));
    };
    merge_map(Schema { table, ty: Some(&Type::Ref(id)) }, original, patch).map(Value::Object)
}

fn bad_request(message: &str) -> PatchError {
    PatchError::new(PatchFailure::BadRequest, message)
}

fn internal(message: String) -> PatchError {
    PatchError::new(PatchFailure::Internal, message)
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    internal(format!("map: {} does not contain declared merge key: {key}", go_format(item)))
}

fn bad_type(expected: &str, found: &Value) -> PatchError {
    internal(format!("expected a {expected}, but received a {}", go_kind(found)))
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What is known of the value being merged.
#[derive(Clone, Copy)]
struct Schema<'a> {
    table: &'a Table,
    ty: Option<&'a Type>,
}

/// How a list merges.
struct ListSchema<'a> {
    item: Schema<'a>,
    merge: bool,
    key: &'a str,
}

impl<'a> Schema<'a> {
    fn field(self, name: &str) -> Result<Option<&'a Field>> {
        let Some(Type::Ref(id)) = self.ty else { return Ok(None) };
        let row = self.table.ty(*id);
        match row.field(name) {
            Some(field) => Ok(Some(field)),
            None if row.shape == Shape::Struct => Err(internal(format!(
                "unable to find api field in struct {} for the json field \"{name}\"",
                row.name.rsplit('.').next().unwrap_or_default()
            ))),
            None => Ok(None),
        }
    }

    /// The type of a member.
    fn member(self, name: &str) -> Result<Schema<'a>> {
        let ty = match self.ty {
            Some(Type::Map(element)) => Some(&**element),
            _ => self.field(name)?.map(|f| &f.ty),
        };
        Ok(Schema { ty, ..self })
    }

    fn list(self, name: &str) -> Result<ListSchema<'a>> {
        let field = self.field(name)?;
        let item = match field.map(|f| &f.ty) {
            Some(Type::List(item)) => Some(&**item),
            _ => None,
        };
        Ok(ListSchema {
            item: Schema { ty: item, ..self },
            merge: field.and_then(|f| f.patch).is_some_and(|p| p.merge),
            key: field.and_then(|f| f.merge_key.as_deref()).unwrap_or_default(),
        })
    }
}

fn merge_map(schema: Schema<'_>, mut original: Object, mut patch: Object) -> Result<Object> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            // The patch itself takes the place of the original.
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => {
                patch.insert(DIRECTIVE, directive.clone());
                Err(bad_patch_type(&directive, &Value::Object(patch)))
            }
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_element_orders(schema, &mut original, &mut patch)?;
    for (key, value) in patch {
        let (key, deletes) = match key.strip_prefix(DELETE_FROM_PRIMITIVE_LIST) {
            Some(rest) => match rest.strip_prefix('/') {
                Some(name) => (Key::from(name), true),
                None => return Err(bad_request("invalid patch format of primitive list")),
            },
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(present) = original.get_mut(&key) else {
            if !deletes {
                put(&mut original, key, value);
            }
            continue;
        };
        match (present, value) {
            (Value::Object(present), Value::Object(value)) => {
                let merged = merge_map(schema.member(&key)?, std::mem::take(present), value)?;
                original.insert(key, Value::Object(merged));
            }
            (Value::Array(present), Value::Array(value)) => {
                let list = schema.list(&key)?;
                let merged = if list.merge || deletes {
                    merge_list(&list, std::mem::take(present), value, deletes)?
                } else {
                    value
                };
                original.insert(key, Value::Array(merged));
            }
            (_, _) if deletes => {}
            (_, value) => put(&mut original, key, value),
        }
    }
    Ok(original)
}

fn bad_patch_type(directive: &Value, patch: &Value) -> PatchError {
    // Upstream answers this mistake of the client as if it were its own.
    PatchError::new(
        PatchFailure::BadRequest,
        format!("unknown patch type: {} in map: {}", go_format(directive), go_format(patch)),
    )
}

/// Takes a value of the patch as it is, without nulls and directives; a value that is itself a directive deletes.
fn put(original: &mut Object, key: Key, mut value: Value) {
    discard_nulls(&mut value);
    if remove_directives(&mut value) {
        original.insert(key, value);
    } else {
        original.remove(&key);
    }
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// Whether the value is to be kept.
fn remove_directives(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if map.contains_key(DIRECTIVE) {
                return false;
            }
            map.retain(|_, v| remove_directives(v));
        }
        Value::Array(items) => items.retain_mut(remove_directives),
        _ => {}
    }
    true
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || bad_request("invalid patch format of retainKeys");
    let Value::Array(keys) = keys else { return Err(malformed()) };
    let kept = |name: &str| keys.iter().any(|k| k == name);
    let listed = patch.iter().all(|(k, v)| {
        v.is_null()
            || k.starts_with(DELETE_FROM_PRIMITIVE_LIST)
            || k.starts_with(SET_ELEMENT_ORDER)
            || kept(k)
    });
    if !listed {
        return Err(malformed());
    }
    original.retain(|k, _| kept(k));
    Ok(())
}

/// Merges the lists that come with an order and puts them into it; the order in the live list yields to it.
fn set_element_orders(schema: Schema<'_>, original: &mut Object, patch: &mut Object) -> Result<()> {
    let directives: Vec<Key> = patch.keys().filter(|k| k.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or_default())),
        };
        let Some(key) = directive[SET_ELEMENT_ORDER.len()..].strip_prefix('/') else {
            return Err(bad_request("invalid patch format of setElementOrder list"));
        };
        let as_list = |value: Option<&Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items.clone())),
            Some(other) => Err(bad_type("[]interface {}", other)),
        };
        // A nil list of the canonical form is no list.
        let live = as_list(original.get(key).filter(|v| !v.is_null()))?;
        let given = as_list(patch.get(key))?;
        let list = schema.list(key)?;
        validate_order(given.as_deref().unwrap_or_default(), &order, list.key)?;
        let merged = match (&live, given) {
            (Some(live), None) => live.clone(),
            (None, Some(mut given)) => {
                given.retain_mut(remove_directives);
                given
            }
            (Some(live), Some(given)) if list.merge => merge_list(&list, live.clone(), given, false)?,
            (Some(_), Some(given)) => given,
            (None, None) => continue,
        };
        let (in_order, server_only) = partition(merged, &order, list.key)?;
        let sorted =
            normalise_order(in_order, server_only, &order, live.as_deref().unwrap_or_default(), list.key)?;
        original.insert(key.to_owned(), Value::Array(sorted));
        patch.remove(key);
    }
    Ok(())
}

/// The items of the patch must be among those of the order, and stand in the same order.
fn validate_order(given: &[Value], order: &[Value], key: &str) -> Result<()> {
    if given.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut rest = order.iter();
    for item in given.iter().filter(|item| item.get(DIRECTIVE).is_none()) {
        loop {
            let Some(candidate) = rest.next() else {
                return Err(internal(format!(
                    "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                    go_format(&given.into()),
                    go_format(&order.into())
                )));
            };
            if same_item(item, candidate, key)? {
                break;
            }
        }
    }
    Ok(())
}

fn same_item(a: &Value, b: &Value, key: &str) -> Result<bool> {
    if key.is_empty() {
        return Ok(a == b);
    }
    Ok(key_of(a, key)? == key_of(b, key)?)
}

fn key_of<'a>(item: &'a Value, key: &str) -> Result<&'a Value> {
    let Value::Object(map) = item else { return Err(bad_type("map[string]interface {}", item)) };
    map.get(key).ok_or_else(|| no_merge_key(item, key))
}

fn find(items: &[Value], key: &str, wanted: &Value) -> Result<Option<usize>> {
    for (i, item) in items.iter().enumerate() {
        let Value::Object(map) = item else {
            return Err(internal(format!("value for key {i} is not a map")));
        };
        if map.get(key) == Some(wanted) {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn merge_list(
    list: &ListSchema<'_>,
    original: Vec<Value>,
    patch: Vec<Value>,
    deletes: bool,
) -> Result<Vec<Value>> {
    let Some(first) = original.first().or(patch.first()) else { return Ok(original) };
    let maps = first.is_object();
    for item in original.iter().chain(&patch) {
        if item.is_array() {
            return Err(PatchError::new(PatchFailure::Unprocessable, "lists of lists are not supported"));
        }
        if item.is_object() != maps {
            return Err(internal(format!(
                "list element types are not identical: {} and {}",
                go_kind(first),
                go_kind(item)
            )));
        }
    }
    if !maps && deletes {
        return Ok(original.into_iter().filter(|item| !patch.contains(item)).collect());
    }
    let live = original.clone();
    let (merged, patch) = if maps {
        if list.key.is_empty() {
            return Err(internal("cannot merge lists without merge key for struct".into()));
        }
        merge_maps(list, original, patch)?
    } else {
        let mut both: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.into_iter().chain(patch.iter().cloned()) {
            if !both.contains(&item) {
                both.push(item);
            }
        }
        (both, patch)
    };
    let (given, server_only) = partition(merged, &patch, list.key)?;
    normalise_order(given, server_only, &patch, &live, list.key)
}

/// Merges lists of objects by key; gives the merged list and the patch without its directives.
fn merge_maps(
    list: &ListSchema<'_>,
    mut original: Vec<Value>,
    patch: Vec<Value>,
) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut plain = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let wanted = key_of(&item, list.key)?;
                while let Some(i) = find(&original, list.key, wanted)? {
                    original.remove(i);
                }
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(internal("merging lists cannot yet be specified in the patch".into()));
            }
            _ => return Err(bad_patch_type(directive, &item)),
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    for item in &plain {
        let wanted = key_of(item, list.key)?;
        match (find(&original, list.key, wanted)?, item) {
            (Some(i), Value::Object(item)) => {
                let Value::Object(live) = std::mem::take(&mut original[i]) else { continue };
                original[i] = Value::Object(merge_map(list.item, live, item.clone())?);
            }
            _ => original.push(item.clone()),
        }
    }
    Ok((original, plain))
}

/// Splits into items that `by` names and the others.
fn partition(items: Vec<Value>, by: &[Value], key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in items {
        let found =
            if key.is_empty() { by.contains(&item) } else { find(by, key, key_of(&item, key)?)?.is_some() };
        if found { named.push(item) } else { others.push(item) }
    }
    Ok((named, others))
}

fn position(order: &[Value], item: &Value, key: &str) -> Option<usize> {
    if key.is_empty() {
        return order.iter().position(|o| o == item);
    }
    let wanted = item.get(key)?;
    order.iter().position(|o| o.get(key) == Some(wanted))
}

/// Sorts the patch's items by the patch's order and the server's by the live order, then weaves the second into the
/// first: before the first item that stands behind it in the live list.
fn normalise_order(
    mut given: Vec<Value>,
    mut server: Vec<Value>,
    order: &[Value],
    live: &[Value],
    key: &str,
) -> Result<Vec<Value>> {
    given.sort_by_cached_key(|item| position(order, item, key).unwrap_or(usize::MAX));
    server.sort_by_cached_key(|item| position(live, item, key).unwrap_or(usize::MAX));
    let mut out = Vec::with_capacity(given.len() + server.len());
    let (mut given, mut server) = (given.into_iter().peekable(), server.into_iter().peekable());
    loop {
        let server_first = match (server.peek(), given.peek()) {
            (Some(s), Some(g)) => match (position(live, s, key), position(live, g, key)) {
                (Some(s), Some(g)) => s < g,
                _ => false,
            },
            (server, _) => server.is_some(),
        };
        match if server_first { server.next() } else { given.next() } {
            Some(item) => out.push(item),
            None => return Ok(out),
        }
    }
}
