//! Values out of and into whatever serde knows.

use super::{Key, Map, Value};
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::ser::{Serialize, Serializer};
use std::fmt;

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(value) => serializer.serialize_bool(*value),
            Value::Number(number) => number.serialize(serializer),
            Value::String(text) => serializer.serialize_str(text),
            Value::Array(items) => serializer.collect_seq(items),
            Value::Object(members) => members.serialize(serializer),
        }
    }
}

impl Serialize for Map {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().map(|(key, value)| (key.as_str(), value)))
    }
}

/// The value of whatever serializes.
pub fn to_value<T: Serialize>(value: T) -> Result<Value, serde_json::Error> {
    serde_json::to_value(value).map(Value::from)
}

/// What deserializes, out of a value.
pub fn from_value<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(value)
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any valid JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(1024));
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Members.visit_map(map).map(Value::Object)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Map;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map, A::Error> {
        let mut members = Map::with_capacity(map.size_hint().unwrap_or(0).min(1024));
        while let Some(key) = map.next_key_seed(Name)? {
            members.insert(key, map.next_value()?);
        }
        Ok(members)
    }
}

/// Reads the name of a member.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Key;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(name.into())
    }

    fn visit_string<E>(self, name: String) -> Result<Key, E> {
        Ok(name.into())
    }
}

/// Raw text is asked for by a name of the library's own, and made by its own reader.
pub(crate) fn raw<'de, V: Visitor<'de>>(
    value: &Value,
    name: &'static str,
    visitor: V,
) -> Result<V::Value, serde_json::Error> {
    let text = serde_json::to_vec(value)?;
    serde_json::Deserializer::from_reader(text.as_slice()).deserialize_newtype_struct(name, visitor)
}

pub(crate) fn is_raw(name: &str) -> bool {
    name.starts_with("$serde_json::private")
}

/// The name of a member, to be read.
#[derive(Debug)]
struct KeyDeserializer(Key);

impl<'de> IntoDeserializer<'de, serde_json::Error> for KeyDeserializer {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for KeyDeserializer {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(&self.0)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for KeyDeserializer {
    type Error = serde_json::Error;
    type Variant = <serde::de::value::StringDeserializer<serde_json::Error> as EnumAccess<'de>>::Variant;
    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Self::Error> {
        IntoDeserializer::<serde_json::Error>::into_deserializer(String::from(self.0)).variant_seed(seed)
    }
}

/// The members of an object, to be read.
fn members<'de>(
    map: Map,
) -> MapDeserializer<'de, impl Iterator<Item = (KeyDeserializer, Value)>, serde_json::Error> {
    MapDeserializer::new(map.into_iter().map(|(key, value)| (KeyDeserializer(key), value)))
}

impl<'de> IntoDeserializer<'de, serde_json::Error> for Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => number.deserialize_any(visitor),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => {
                let length = items.len();
                let mut items = SeqDeserializer::new(items.into_iter());
                let read = visitor.visit_seq(&mut items)?;
                let left = |_| serde_json::Error::invalid_length(length, &"fewer elements in array");
                items.end().map(|()| read).map_err(left)
            }
            Value::Object(map) => {
                let length = map.len();
                let mut members = members(map);
                let read = visitor.visit_map(&mut members)?;
                let left = |_| serde_json::Error::invalid_length(length, &"fewer elements in map");
                members.end().map(|()| read).map_err(left)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if is_raw(name) { raw(&self, name, visitor) } else { visitor.visit_newtype_struct(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self {
            Value::String(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            // A variant by the name of an object's only member.
            Value::Object(map) if map.len() == 1 => {
                MapAccessDeserializer::new(members(map)).deserialize_enum(name, variants, visitor)
            }
            Value::Object(_) => {
                Err(serde_json::Error::invalid_value(Unexpected::Map, &"map with a single key"))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;
    use serde::Deserialize;
    use serde_json::value::RawValue;
    use std::collections::BTreeMap;

    #[derive(Debug, PartialEq, Deserialize)]
    enum Choice {
        Plain,
        With(i32),
        Named { a: String },
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct All {
        choice: Choice,
        number: Option<f64>,
        names: BTreeMap<String, Option<bool>>,
        pair: (u8, String),
    }

    /// What is read out of the value and, by the library, out of its own, which are the same.
    fn read<T: serde::de::DeserializeOwned + PartialEq + fmt::Debug>(value: Value) -> Result<T, String> {
        let library = serde_json::from_value::<T>(value.clone().into()).map_err(|error| error.to_string());
        let owned = from_value::<T>(value).map_err(|error| error.to_string());
        assert_eq!(owned, library);
        owned
    }

    #[test]
    fn is_read_as_the_librarys_own_is() {
        let whole =
            json!({"choice": {"With": 3}, "number": null, "names": {"a": true, "b": null}, "pair": [1, "x"]});
        assert_eq!(read::<All>(whole.clone()).unwrap().choice, Choice::With(3));
        for (member, value) in [
            ("choice", json!("Plain")),
            ("choice", json!({"Named": {"a": "b"}})),
            ("choice", json!("Other")),
            ("choice", json!({})),
            ("number", json!(1.5)),
            ("number", json!("x")),
            ("names", json!([])),
            ("names", json!({"a": 1})),
            ("pair", json!([1, "x", 2])),
            ("pair", json!([256, "x"])),
            ("pair", json!([1])),
        ] {
            let mut changed = whole.clone();
            changed[member] = value;
            let _ = read::<All>(changed);
        }
        assert!(read::<All>(json!({})).is_err());
    }

    #[test]
    fn raw_text_is_made_of_it() {
        #[derive(Deserialize)]
        struct Raw {
            within: Box<RawValue>,
        }
        let value = json!({"within": {"b": [1, "x"], "a": {}}});
        assert_eq!(from_value::<Raw>(value).unwrap().within.get(), r#"{"a":{},"b":[1,"x"]}"#);
    }
}
