//! What selectors need of an object: labels and selectable fields, extracted once per version.

use crate::resources::Served;
use apimachinery::value::{Map, Value};
use schema::encode::Body;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use store::Entry;

/// The part of an object that selectors look at.
#[derive(Debug, Default)]
pub struct Projected {
    pub labels: BTreeMap<String, String>,
    /// In the order of the kind's selectable fields.
    pub fields: Vec<(Cow<'static, str>, String)>,
}

/// The projection of an entry, made on first use and kept beside it.
pub fn projected(resource: &Served, entry: &Entry) -> Arc<Projected> {
    entry.project(|entry| {
        let body = Body::from_stored(&entry.value[..]);
        let sparse: Option<Sparse> = body.ok().and_then(|b| serde_json::from_slice(b.json()).ok());
        let value = sparse.map(|s| s.0).unwrap_or_default();
        let labels = value["metadata"]["labels"].as_object();
        Projected {
            labels: labels
                .into_iter()
                .flatten()
                .map(|(k, v)| (k.to_string(), v.as_str().unwrap_or_default().to_owned()))
                .collect(),
            fields: resource.strategy.selected(&value),
        }
    })
}

/// A tree without its lists, which are most of an object and hold nothing that can be selected by.
struct Sparse(Value);

impl<'de> Deserialize<'de> for Sparse {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Scalars).map(Sparse)
    }
}

struct Scalars;

impl<'de> Visitor<'de> for Scalars {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Null)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((name, Sparse(value))) = members.next_entry::<String, Sparse>()? {
            if !value.is_null() {
                map.insert(name, value);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(json: &str, expected: Expect) {
        let Sparse(value) = serde_json::from_str(json).unwrap();
        expected.assert_eq(&value.to_string());
    }

    #[test]
    fn lists_are_left_out() {
        check(
            r#"{"metadata":{"name":"a\"b","labels":{"x":"y"}},"spec":{"containers":[{"name":"c","ports":[1]}],"n":-1,"u":2,"f":1.5,"on":true,"no":null}}"#,
            expect![[
                r#"{"metadata":{"labels":{"x":"y"},"name":"a\"b"},"spec":{"f":1.5,"n":-1,"on":true,"u":2}}"#
            ]],
        );
        check("[1]", expect!["null"]);
    }
}
