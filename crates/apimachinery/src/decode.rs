//! Typed structs out of JSON text and out of trees, by code that is compiled once.
//!
//! What a derived `Deserialize` becomes is compiled anew in every crate that reads by it, and for every form that it reads:
//! for pods that were ten times 25 KB, and more for all within. [`Decode`] is implemented where a type is, for the two forms there are.

use crate::value::{self, Key, Value};
use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::marker::PhantomData;

/// What can be read from JSON.
pub trait Decode: Sized {
    /// From text.
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error>;
    /// From a tree.
    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error>;
    /// From a whole tree.
    fn from_value(value: &Value) -> Result<Self, serde_json::Error> {
        Self::from_tree(value.into())
    }
}

/// Implements [`Decode`] by `Deserialize`, here and not elsewhere.
#[macro_export]
macro_rules! decode {
    ($($type:ty),+ $(,)?) => {$(
        impl $crate::decode::Decode for $type {
            fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
                serde_json::from_slice(text)
            }
            fn from_tree(tree: $crate::decode::Tree<'_>) -> Result<Self, serde_json::Error> {
                serde::Deserialize::deserialize(tree)
            }
        }
    )+};
}

decode!(bool, i32, i64, f64, String);

impl Decode for Value {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error> {
        Ok(tree.value.clone())
    }
}

impl<T: Decode> Decode for Option<T> {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        if text.trim_ascii() == b"null" { Ok(None) } else { T::from_json(text).map(Some) }
    }
    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error> {
        if tree.value.is_null() { Ok(None) } else { T::from_tree(tree).map(Some) }
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let items: Vec<&RawValue> = serde_json::from_slice(text)?;
        items.into_iter().map(|item| T::from_json(item.get().as_bytes())).collect()
    }
    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error> {
        match tree.value {
            Value::Array(items) => items.iter().map(|value| T::from_tree(Tree { value, ..tree })).collect(),
            _ => tree.other(Expected::new("a sequence")),
        }
    }
}

impl<T: Decode> Decode for BTreeMap<String, T> {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_slice(text)?;
        members.into_iter().map(|(key, value)| Ok((key, T::from_json(value.get().as_bytes())?))).collect()
    }
    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error> {
        match tree.value {
            Value::Object(map) => map
                .iter()
                .filter_map(|member| tree.member(member))
                .map(|(key, value)| Ok((key.to_owned(), T::from_tree(value)?)))
                .collect(),
            _ => tree.other(Expected::new("a map")),
        }
    }
}

/// Takes nothing, and says what it would have taken.
struct Expected<T>(&'static str, PhantomData<T>);

impl<T> Expected<T> {
    fn new(what: &'static str) -> Self {
        Expected(what, PhantomData)
    }
}

impl<T> Visitor<'_> for Expected<T> {
    type Value = T;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// A value that is read without its null members, which are absent ones in Go, and as if nothing were at a path in it;
/// lists are no step of the path.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    value: &'a Value,
    without: &'static [&'static str],
}

impl<'a> From<&'a Value> for Tree<'a> {
    fn from(value: &'a Value) -> Self {
        Tree { value, without: &[] }
    }
}

impl<'de> Tree<'de> {
    /// `value` but for what is at a path.
    pub fn without(value: &'de Value, path: &'static [&'static str]) -> Self {
        Tree { value, without: path }
    }

    /// A member, unless it is null.
    pub fn get(self, key: &str) -> Option<Tree<'de>> {
        self.member(self.value.as_object()?.get_key_value(key)?).map(|(_, value)| value)
    }

    /// What is no object where one is read, or no list: an error of the visitor's own words.
    fn other<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) => Err(serde::de::Error::invalid_type(Unexpected::Seq, &visitor)),
            Value::Object(_) => Err(serde::de::Error::invalid_type(Unexpected::Map, &visitor)),
        }
    }

    fn member(self, (key, value): (&'de Key, &'de Value)) -> Option<(&'de str, Tree<'de>)> {
        let without = match self.without {
            [last] if key == last => return None,
            [first, rest @ ..] if key == first => rest,
            _ => &[],
        };
        (!value.is_null()).then_some((key.as_str(), Tree { value, without }))
    }

    fn members<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, serde_json::Error> {
        match self.value {
            Value::Object(map) => {
                visitor.visit_map(MapDeserializer::new(map.iter().filter_map(|member| self.member(member))))
            }
            _ => self.other(visitor),
        }
    }
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Tree<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Tree<'de> {
    type Error = serde_json::Error;

    /// What has no type is read as it is, nulls included.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.value {
            Value::Array(_) | Value::Object(_) => self.value.clone().deserialize_any(visitor),
            _ => self.other(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.members(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        self.members(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.value {
            Value::Array(items) => {
                let items = items.iter().map(|value| Tree { value, ..self });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            _ => self.other(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    /// Raw values are asked for in this way too.
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if value::is_raw(name) {
            return value::raw(self.value, name, visitor);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.value.clone().deserialize_enum(name, variants, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple
        tuple_struct identifier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use crate::meta::{LabelSelector, ObjectMeta};

    fn both<T: Decode + PartialEq + std::fmt::Debug>(value: &Value) -> Result<T, String> {
        let tree = T::from_value(value).map_err(|error| error.to_string());
        let text = T::from_json(value.to_string().as_bytes());
        assert_eq!(tree.as_ref().ok(), text.ok().as_ref(), "{value}");
        tree
    }

    #[test]
    fn text_and_tree_say_the_same() {
        let meta: ObjectMeta = both(&json!({"name": "a", "labels": null, "generation": 3,
            "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"f:a": {}}}}]}))
        .unwrap();
        assert_eq!((meta.name.as_str(), meta.generation), ("a", 3));
        assert_eq!(meta.managed_fields[0].fields_v1.as_ref().unwrap().as_str(), r#"{"f:spec":{"f:a":{}}}"#);
        let named: Vec<ObjectMeta> = both(&json!([{"name": "a"}, {}])).unwrap();
        assert_eq!((named.len(), named[0].name.as_str()), (2, "a"));
        let by_key: BTreeMap<String, Option<i64>> = both(&json!({"a": 1, "b": 2})).unwrap();
        assert_eq!(by_key["b"], Some(2));
        assert_eq!(both::<Option<LabelSelector>>(&Value::Null), Ok(None));
    }

    #[test]
    fn what_is_of_another_shape_is_refused() {
        assert_eq!(
            both::<Vec<String>>(&json!({"a": 1})),
            Err("invalid type: map, expected a sequence".to_owned())
        );
        assert_eq!(
            both::<BTreeMap<String, String>>(&json!([1])),
            Err("invalid type: sequence, expected a map".to_owned())
        );
        assert_eq!(
            both::<ObjectMeta>(&json!(3)),
            Err("invalid type: integer `3`, expected struct ObjectMeta".to_owned())
        );
        assert_eq!(
            both::<ObjectMeta>(&json!({"name": {"a": 1}})),
            Err("invalid type: map, expected a string".to_owned())
        );
        assert!(both::<LabelSelector>(&Value::Null).is_err());
    }
}
