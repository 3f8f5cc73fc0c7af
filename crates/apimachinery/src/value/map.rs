//! The members of an object, in the order of their names.

use super::Value;
use smol_str::SmolStr;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops;

/// The name of a member. Those of fields are mostly short enough to lie where they stand.
pub type Key = SmolStr;

/// The members of an object. Objects have few, and are made, copied and thrown away by the dozen for a request: they
/// are one piece of memory, in order. What has many and is changed in their midst becomes a tree.
#[derive(Clone)]
pub struct Map(Members);

#[derive(Clone)]
enum Members {
    Few(Vec<(Key, Value)>),
    Many(BTreeMap<Key, Value>),
}

use Members::{Few, Many};

/// How many members may be moved to put one before them, or to take one out.
const FEW: usize = 64;

/// Up to how many it is quicker to look at each.
const EACH: usize = 8;

/// Where a member is.
fn position(members: &[(Key, Value)], key: &str) -> Option<usize> {
    match members.len() {
        ..=EACH => members.iter().position(|(name, _)| name.as_str() == key),
        _ => find(members, key).ok(),
    }
}

/// Where a member is, or where it would be.
fn find(members: &[(Key, Value)], key: &str) -> Result<usize, usize> {
    // Most are made in their order.
    if members.last().is_none_or(|(last, _)| last.as_str() < key) {
        return Err(members.len());
    }
    members.binary_search_by(|(name, _)| name.as_str().cmp(key))
}

impl Map {
    pub const fn new() -> Self {
        Map(Few(Vec::new()))
    }

    pub fn with_capacity(members: usize) -> Self {
        Map(Few(Vec::with_capacity(members)))
    }

    pub fn len(&self) -> usize {
        match &self.0 {
            Few(members) => members.len(),
            Many(members) => members.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&mut self) {
        *self = Map::new();
    }

    pub fn get_key_value(&self, key: &str) -> Option<(&Key, &Value)> {
        match &self.0 {
            Few(members) => position(members, key).map(|at| (&members[at].0, &members[at].1)),
            Many(members) => members.get_key_value(key),
        }
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.get_key_value(key).map(|(_, value)| value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        match &mut self.0 {
            Few(members) => position(members, key).map(|at| &mut members[at].1),
            Many(members) => members.get_mut(key),
        }
    }

    pub fn contains_key(&self, key: &str) -> bool {
        self.get_key_value(key).is_some()
    }

    /// Puts a member in, and returns the one of that name that was there.
    pub fn insert(&mut self, key: impl Into<Key>, value: Value) -> Option<Value> {
        let key = key.into();
        if let Few(members) = &mut self.0 {
            match find(members, &key) {
                Ok(at) => return Some(std::mem::replace(&mut members[at].1, value)),
                Err(at) if members.len() - at <= FEW => {
                    members.insert(at, (key, value));
                    return None;
                }
                Err(_) => {}
            }
        }
        self.many().insert(key, value)
    }

    /// Takes a member away.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.remove_entry(key).map(|(_, value)| value)
    }

    /// Takes a member away, and its name.
    pub fn remove_entry(&mut self, key: &str) -> Option<(Key, Value)> {
        if let Few(members) = &mut self.0 {
            let at = position(members, key)?;
            if members.len() - at <= FEW {
                return Some(members.remove(at));
            }
        }
        self.many().remove_entry(key)
    }

    /// The place of a member, to be filled where it is empty.
    pub fn entry(&mut self, key: impl Into<Key>) -> Entry<'_> {
        Entry { map: self, key: key.into() }
    }

    /// Keeps the members for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&Key, &mut Value) -> bool) {
        match &mut self.0 {
            Few(members) => members.retain_mut(|(key, value)| keep(key, value)),
            Many(members) => members.retain(keep),
        }
    }

    /// Takes all members of another, which go before those of their names here.
    pub fn append(&mut self, other: &mut Map) {
        self.extend(std::mem::take(other));
    }

    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            Few(members) => Iter::Few(members.iter()),
            Many(members) => Iter::Many(members.iter()),
        }
    }

    pub fn iter_mut(&mut self) -> IterMut<'_> {
        match &mut self.0 {
            Few(members) => IterMut::Few(members.iter_mut()),
            Many(members) => IterMut::Many(members.iter_mut()),
        }
    }

    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Key> + DoubleEndedIterator + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl ExactSizeIterator<Item = &Value> + DoubleEndedIterator + Clone {
        self.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.iter_mut().map(|(_, value)| value)
    }

    pub fn into_values(self) -> impl Iterator<Item = Value> {
        self.into_iter().map(|(_, value)| value)
    }

    /// The members as a tree.
    fn many(&mut self) -> &mut BTreeMap<Key, Value> {
        if let Few(members) = &mut self.0 {
            self.0 = Many(std::mem::take(members).into_iter().collect());
        }
        match &mut self.0 {
            Many(members) => members,
            Few(_) => unreachable!("made a tree just above"),
        }
    }
}

/// The place of a member.
pub struct Entry<'a> {
    map: &'a mut Map,
    key: Key,
}

impl<'a> Entry<'a> {
    pub fn or_insert(self, value: Value) -> &'a mut Value {
        self.or_insert_with(|| value)
    }

    pub fn or_insert_with(self, value: impl FnOnce() -> Value) -> &'a mut Value {
        let Entry { map, key } = self;
        if let Few(members) = &map.0
            && let Err(at) = find(members, &key)
            && members.len() - at > FEW
        {
            map.many();
        }
        match &mut map.0 {
            Few(members) => {
                let at = find(members, &key).unwrap_or_else(|at| {
                    members.insert(at, (key, value()));
                    at
                });
                &mut members[at].1
            }
            Many(members) => members.entry(key).or_insert_with(value),
        }
    }

    pub fn or_default(self) -> &'a mut Value {
        self.or_insert(Value::Null)
    }

    pub fn and_modify(self, change: impl FnOnce(&mut Value)) -> Self {
        if let Some(value) = self.map.get_mut(&self.key) {
            change(value);
        }
        self
    }
}

impl Default for Map {
    fn default() -> Self {
        Map::new()
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Map {}

impl Hash for Map {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.len().hash(state);
        self.iter().for_each(|member| member.hash(state));
    }
}

impl ops::Index<&str> for Map {
    type Output = Value;
    fn index(&self, key: &str) -> &Value {
        self.get(key).unwrap_or_else(|| panic!("no member {key:?}"))
    }
}

impl ops::IndexMut<&str> for Map {
    fn index_mut(&mut self, key: &str) -> &mut Value {
        self.get_mut(key).unwrap_or_else(|| panic!("no member {key:?}"))
    }
}

impl<K: Into<Key>> FromIterator<(K, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, Value)>>(members: I) -> Self {
        let mut map = Map::new();
        map.extend(members);
        map
    }
}

impl<K: Into<Key>> Extend<(K, Value)> for Map {
    fn extend<I: IntoIterator<Item = (K, Value)>>(&mut self, members: I) {
        let members = members.into_iter();
        if let Few(few) = &mut self.0 {
            few.reserve(members.size_hint().0.min(FEW));
        }
        for (key, value) in members {
            self.insert(key, value);
        }
    }
}

impl<K: Into<Key>, const N: usize> From<[(K, Value); N]> for Map {
    fn from(members: [(K, Value); N]) -> Self {
        members.into_iter().collect()
    }
}

/// Members by reference, in the order of their names.
#[derive(Clone)]
pub enum Iter<'a> {
    Few(std::slice::Iter<'a, (Key, Value)>),
    Many(btree_map::Iter<'a, Key, Value>),
}

/// Members whose values may be changed, in the order of their names.
pub enum IterMut<'a> {
    Few(std::slice::IterMut<'a, (Key, Value)>),
    Many(btree_map::IterMut<'a, Key, Value>),
}

/// Members, in the order of their names.
pub enum IntoIter {
    Few(std::vec::IntoIter<(Key, Value)>),
    Many(btree_map::IntoIter<Key, Value>),
}

/// What the three ways of going over members share.
macro_rules! members {
    ($iter:ty, $item:ty, $few:expr) => {
        impl<'a> Iterator for $iter {
            type Item = $item;
            fn next(&mut self) -> Option<Self::Item> {
                match self {
                    Self::Few(members) => members.next().map($few),
                    Self::Many(members) => members.next(),
                }
            }
            fn size_hint(&self) -> (usize, Option<usize>) {
                match self {
                    Self::Few(members) => members.size_hint(),
                    Self::Many(members) => members.size_hint(),
                }
            }
        }

        impl<'a> DoubleEndedIterator for $iter {
            fn next_back(&mut self) -> Option<Self::Item> {
                match self {
                    Self::Few(members) => members.next_back().map($few),
                    Self::Many(members) => members.next_back(),
                }
            }
        }

        impl<'a> ExactSizeIterator for $iter {}
    };
}

members!(Iter<'a>, (&'a Key, &'a Value), |(key, value)| (key, value));
members!(IterMut<'a>, (&'a Key, &'a mut Value), |(key, value)| (&*key, value));

impl Iterator for IntoIter {
    type Item = (Key, Value);
    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Few(members) => members.next(),
            Self::Many(members) => members.next(),
        }
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Few(members) => members.size_hint(),
            Self::Many(members) => members.size_hint(),
        }
    }
}

impl ExactSizeIterator for IntoIter {}

impl<'a> IntoIterator for &'a Map {
    type Item = (&'a Key, &'a Value);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for &'a mut Map {
    type Item = (&'a Key, &'a mut Value);
    type IntoIter = IterMut<'a>;
    fn into_iter(self) -> IterMut<'a> {
        self.iter_mut()
    }
}

impl IntoIterator for Map {
    type Item = (Key, Value);
    type IntoIter = IntoIter;
    fn into_iter(self) -> IntoIter {
        match self.0 {
            Few(members) => IntoIter::Few(members.into_iter()),
            Many(members) => IntoIter::Many(members.into_iter()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u8, i64),
        Remove(u8),
        Entry(u8, i64),
        Modify(u8),
        Retain(u8),
        Append(Vec<(u8, i64)>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Most of them put something in, so that many are reached.
        let step = prop_oneof![
            12 => (any::<u8>(), any::<i64>()).prop_map(|(key, value)| Step::Insert(key, value)),
            4 => (any::<u8>(), any::<i64>()).prop_map(|(key, value)| Step::Entry(key, value)),
            3 => any::<u8>().prop_map(Step::Remove),
            1 => any::<u8>().prop_map(Step::Modify),
            1 => (2..250u8).prop_map(Step::Retain),
            1 => proptest::collection::vec(any::<(u8, i64)>(), 0..40).prop_map(Step::Append),
        ];
        proptest::collection::vec(step, 0..300)
    }

    fn key(number: u8) -> String {
        // Some are longer than what lies in place.
        if number.is_multiple_of(5) {
            format!("a name that is far longer than most {number:03}")
        } else {
            format!("{number:03}")
        }
    }

    proptest! {
        #[test]
        fn does_what_a_tree_does(steps in steps()) {
            let (mut map, mut tree) = (Map::new(), BTreeMap::<Key, Value>::new());
            for step in steps {
                match step {
                    Step::Insert(k, v) => {
                        assert_eq!(map.insert(key(k), v.into()), tree.insert(key(k).into(), v.into()));
                    }
                    Step::Entry(k, v) => {
                        let was = map.entry(key(k)).or_insert(v.into()).clone();
                        assert_eq!(&was, tree.entry(key(k).into()).or_insert(v.into()));
                    }
                    Step::Remove(k) => assert_eq!(map.remove(&key(k)), tree.remove(key(k).as_str())),
                    Step::Modify(k) => {
                        map.entry(key(k)).and_modify(|value| *value = Value::Null);
                        tree.entry(key(k).into()).and_modify(|value| *value = Value::Null);
                    }
                    Step::Retain(n) => {
                        map.retain(|name, _| name.len() % 7 != usize::from(n % 7));
                        tree.retain(|name, _| name.len() % 7 != usize::from(n % 7));
                    }
                    Step::Append(more) => {
                        let of = |(k, v): &(u8, i64)| (key(*k), Value::from(*v));
                        map.append(&mut more.iter().map(of).collect());
                        tree.extend(more.iter().map(of).map(|(k, v)| (k.into(), v)));
                    }
                }
                assert_eq!(map.len(), tree.len());
            }
            assert!(map.iter().eq(tree.iter()));
            assert!(map.iter().rev().eq(tree.iter().rev()));
            for number in 0..=255 {
                assert_eq!(map.get(&key(number)), tree.get(key(number).as_str()));
                assert_eq!(map.get_mut(&key(number)), tree.get_mut(key(number).as_str()));
            }
            // Made another way, it is the same.
            let again: Map = tree.clone().into_iter().collect();
            assert_eq!(map, again);
            assert!(map.into_iter().eq(tree));
        }
    }

    #[test]
    fn many_members_in_any_order_take_no_long_time() {
        const MANY: usize = 200_000;
        let name = |number: usize| format!("{number:09}");
        let mut map = Map::new();
        for number in (0..MANY).rev() {
            map.insert(name(number), Value::Null);
        }
        let mut ascending: Map = (0..MANY).map(|number| (name(number), Value::Null)).collect();
        assert_eq!(map, ascending);
        for number in 0..MANY {
            assert!(ascending.remove(&name(number)).is_some());
        }
        assert!(ascending.is_empty());
    }
}
