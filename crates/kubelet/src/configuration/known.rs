//! Which fields there are: those of [`File`], those of [`super::fixed`], and what is within them.

use super::file::{CrashLoopBackOff, File, MemoryReservation, MemorySwap, PriorityPeriod};
use super::fixed;
use apimachinery::value::{Map, Value};
use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

/// Takes no more from a struct than the names of its fields.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("the names are known"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It always fails, after it has said what it wanted.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Fields of a struct in a field, or of each of its elements.
type Within = (&'static str, fn() -> &'static [&'static str]);

const WITHIN: [Within; 12] = [
    ("memorySwap", names::<MemorySwap>),
    ("crashLoopBackOff", names::<CrashLoopBackOff>),
    ("reservedMemory", names::<MemoryReservation>),
    ("shutdownGracePeriodByPodPriority", names::<PriorityPeriod>),
    ("authentication", || &["x509", "webhook", "anonymous"]),
    ("authentication.x509", || &["clientCAFile"]),
    ("authentication.webhook", || &["enabled", "cacheTTL"]),
    ("authentication.anonymous", || &["enabled"]),
    ("authorization", || &["mode", "webhook"]),
    ("authorization.webhook", || &["cacheAuthorizedTTL", "cacheUnauthorizedTTL"]),
    ("tracing", || &["endpoint", "samplingRatePerMillion"]),
    ("userNamespaces", || &["idsPerPod"]),
];

fn look(value: &Value, shape: &str, path: &str, unknown: &mut Vec<String>) {
    let top = shape.is_empty();
    let within = WITHIN.iter().find(|(field, _)| *field == shape);
    if !top && within.is_none() {
        return;
    }
    match value {
        Value::Array(list) => {
            for (i, element) in list.iter().enumerate() {
                look(element, shape, &format!("{path}[{i}]"), unknown);
            }
        }
        Value::Object(object) => {
            for (name, value) in object {
                let join = |to: &str| if top { name.to_string() } else { format!("{to}.{name}") };
                let known = match within {
                    Some((_, fields)) => fields().contains(&name.as_str()),
                    None => names::<File>().contains(&name.as_str()) || fixed::is_field(name),
                };
                match known {
                    true => look(value, &join(shape), &join(path), unknown),
                    false => unknown.push(join(path)),
                }
            }
        }
        _ => {}
    }
}

/// The fields of a configuration that there are none of, by their paths.
pub(super) fn unknown(object: &Map) -> Vec<String> {
    let mut unknown = Vec::new();
    look(&Value::Object(object.clone()), "", "", &mut unknown);
    unknown
}

/// Takes out those at the top; deeper ones nobody reads.
pub(super) fn forget_unknown(object: &mut Map) {
    object.retain(|name, _| names::<File>().contains(&name.as_str()) || fixed::is_field(name));
}
