//! Maps, and objects that are maps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use apimachinery::value::Map as JsonMap;

use super::ops::{double_to_int, double_to_uint, equal};
use super::{Error, Evaluated, NO_OVERLOAD, Text, Val, failed_with, typed};
use crate::escape::{escape, unescape};
use crate::schema::Schema;

/// A map.
#[derive(Clone, Debug)]
pub struct Map<'a>(Kind<'a>);

#[derive(Clone, Debug)]
enum Kind<'a> {
    Json(&'a JsonMap, Option<&'a Schema>),
    Made(Arc<BTreeMap<Key<'a>, Val<'a>>>),
    Lazy(Lazy<'a>),
}

#[derive(Clone, Copy)]
struct Lazy<'a>(&'a (dyn LazyMap + Sync + 'a));

impl fmt::Debug for Lazy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.names()).finish()
    }
}

/// A map of the host's, whose values are found when they are asked for.
pub trait LazyMap {
    /// The value of a key.
    fn find<'b>(&'b self, key: &str) -> Option<Evaluated<'b>>;
    /// All keys.
    fn names(&self) -> Vec<&str>;
}

/// The key of a map.
#[derive(Clone, Debug)]
pub enum Key<'a> {
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`, by its bits.
    Double(u64),
    /// `string`
    String(Text<'a>),
}

impl Key<'_> {
    const fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::Uint(_) => 2,
            Self::Double(_) => 3,
            Self::String(_) => 4,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Uint(a), Self::Uint(b)) | (Self::Double(a), Self::Double(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => (**a).cmp(&**b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key<'_> {}

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Val::from(self.clone()))
    }
}

impl<'a> From<Key<'a>> for Val<'a> {
    fn from(key: Key<'a>) -> Self {
        match key {
            Key::Bool(value) => Self::Bool(value),
            Key::Int(value) => Self::Int(value),
            Key::Uint(value) => Self::Uint(value),
            Key::Double(bits) => Self::Double(f64::from_bits(bits)),
            Key::String(text) => Self::String(text),
        }
    }
}

impl<'a> Key<'a> {
    /// The value as a key, if it can be one.
    pub(crate) fn of(value: &Val<'a>) -> Result<Self, Error> {
        Ok(match value {
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(value) => Self::Int(*value),
            Val::Uint(value) => Self::Uint(*value),
            Val::Double(value) => Self::Double(value.to_bits()),
            Val::String(text) => Self::String(text.clone()),
            _ => return Err(failed_with(format!("unsupported key type: {}", value.kind().name()))),
        })
    }
}

impl<'a> Map<'a> {
    /// A map of values.
    pub fn of(entries: BTreeMap<Key<'a>, Val<'a>>) -> Self {
        Self(Kind::Made(Arc::new(entries)))
    }

    /// A map with names as keys.
    pub fn of_names(entries: impl IntoIterator<Item = (&'a str, Val<'a>)>) -> Self {
        Self::of(entries.into_iter().map(|(name, value)| (Key::String(Text::Lent(name)), value)).collect())
    }

    /// A map of the host's.
    pub fn lazy(map: &'a (dyn LazyMap + Sync + 'a)) -> Self {
        Self(Kind::Lazy(Lazy(map)))
    }

    pub(crate) const fn json(map: &'a JsonMap, schema: Option<&'a Schema>) -> Self {
        Self(Kind::Json(map, schema))
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            Kind::Json(map, _) => map.len(),
            Kind::Made(entries) => entries.len(),
            Kind::Lazy(map) => map.0.names().len(),
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of a name.
    pub fn get_str(&self, name: &str) -> Result<Option<Val<'a>>, Error> {
        match &self.0 {
            Kind::Json(map, None) => Ok(map.get(name).map(Val::from)),
            Kind::Json(map, Some(schema)) => Self::find_typed(map, schema, name),
            Kind::Made(entries) => Ok(entries.get(&Key::String(Text::Lent(name))).cloned()),
            Kind::Lazy(map) => map.0.find(name).transpose(),
        }
    }

    fn find_typed(map: &'a JsonMap, schema: &'a Schema, name: &str) -> Result<Option<Val<'a>>, Error> {
        let unescaped;
        let name = if schema.is_object() {
            match unescape(name) {
                Some(plain) => {
                    unescaped = plain;
                    unescaped.as_ref()
                }
                None => return Ok(None),
            }
        } else {
            name
        };
        let Some(value) = map.get(name) else { return Ok(None) };
        if schema.is_object() && value.is_null() {
            return Ok(None);
        }
        schema.property(name).map(|schema| typed::read(value, schema)).transpose()
    }

    /// The value of a key.
    pub(crate) fn find(&self, key: &Val<'a>) -> Result<Option<Val<'a>>, Error> {
        match (&self.0, key) {
            (_, Val::String(name)) => self.get_str(name),
            (Kind::Json(_, Some(_)), _) => Err(NO_OVERLOAD),
            (Kind::Made(entries), _) => {
                let Ok(exact) = Key::of(key) else { return Ok(None) };
                let found = entries.get(&exact).or_else(|| match key {
                    Val::Double(value) => double_to_int(*value)
                        .and_then(|whole| entries.get(&Key::Int(whole)))
                        .or_else(|| double_to_uint(*value).and_then(|whole| entries.get(&Key::Uint(whole)))),
                    Val::Int(value) => {
                        u64::try_from(*value).ok().and_then(|whole| entries.get(&Key::Uint(whole)))
                    }
                    Val::Uint(value) => {
                        i64::try_from(*value).ok().and_then(|whole| entries.get(&Key::Int(whole)))
                    }
                    _ => None,
                });
                Ok(found.cloned())
            }
            _ => Ok(None),
        }
    }

    /// Its keys. Of a map with a schema, those that the schema knows.
    pub(crate) fn keys(&self) -> Vec<Val<'a>> {
        match &self.0 {
            Kind::Json(map, None) => map.keys().map(|key| Val::from(key.as_str())).collect(),
            Kind::Json(map, Some(schema)) => map
                .keys()
                .filter(|key| schema.property(key).is_some())
                .map(|key| match schema.is_object().then(|| escape(key)).flatten() {
                    Some(std::borrow::Cow::Owned(escaped)) => Val::from(escaped),
                    _ => Val::from(key.as_str()),
                })
                .collect(),
            Kind::Made(entries) => entries.keys().cloned().map(Val::from).collect(),
            Kind::Lazy(map) => map.0.names().into_iter().map(Val::from).collect(),
        }
    }

    /// Its entries.
    pub fn entries(&self) -> Result<Vec<(Val<'a>, Val<'a>)>, Error> {
        let mut entries = Vec::with_capacity(self.len());
        for key in self.keys() {
            if let Some(value) = self.find(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    /// The map with one more entry; of a loop's own map, in place.
    pub(crate) fn insert(self, key: &Val<'a>, value: Val<'a>) -> Result<Self, Error> {
        if self.find(key)?.is_some() {
            return Err(failed_with(format!("insert failed: key {key} already exists")));
        }
        let mut entries = match self.0 {
            Kind::Made(entries) => entries,
            _ => Arc::new(
                self.entries()?
                    .into_iter()
                    .map(|(key, value)| Ok((Key::of(&key)?, value)))
                    .collect::<Result<BTreeMap<_, _>, Error>>()?,
            ),
        };
        Arc::make_mut(&mut entries).insert(Key::of(key)?, value);
        Ok(Self(Kind::Made(entries)))
    }

    pub(crate) fn equals(&self, other: &Val<'a>) -> Result<bool, Error> {
        let typed = matches!(self.0, Kind::Json(_, Some(_)));
        let Val::Map(other) = other else {
            return if typed { Err(NO_OVERLOAD) } else { Ok(false) };
        };
        if self.len() != other.len() {
            return Ok(false);
        }
        if let (Kind::Json(mine, Some(schema)), Kind::Json(theirs, _)) = (&self.0, &other.0) {
            // What the schema does not know is compared as JSON.
            let unknown = mine.iter().filter(|(key, _)| schema.property(key).is_none());
            if unknown.clone().any(|(key, value)| theirs.get(key).is_some_and(|other| other != value)) {
                return Ok(false);
            }
        }
        for key in self.keys() {
            let (mine, theirs) = (self.find(&key)?, other.find(&key)?);
            match (mine, theirs) {
                (Some(mine), Some(theirs)) => match equal(&mine, &theirs) {
                    Ok(true) => {}
                    Err(_) if !typed => {}
                    unequal => return unequal,
                },
                (None, None) => {}
                _ => return Ok(false),
            }
        }
        Ok(true)
    }

    pub(crate) fn into_owned(self) -> Map<'static> {
        let entries = self.entries().unwrap_or_default().into_iter().filter_map(|(key, value)| {
            let key = match Key::of(&key).ok()? {
                Key::Bool(value) => Key::Bool(value),
                Key::Int(value) => Key::Int(value),
                Key::Uint(value) => Key::Uint(value),
                Key::Double(value) => Key::Double(value),
                Key::String(text) => Key::String(text.into_owned()),
            };
            Some((key, value.into_owned()))
        });
        Map::of(entries.collect())
    }
}
