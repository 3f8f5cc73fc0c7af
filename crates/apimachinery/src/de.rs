//! How typed structs read JSON the way upstream does: `null` means absent, everywhere.
//! For `#[serde(deserialize_with = "…")]` in the structs here and in the generated ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// A field in which `null` stands for the type's default.
pub fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A map in which `null`, for itself or for a value, stands for the default.
pub fn null_map<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let map = Option::<BTreeMap<String, Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(map.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// A list in which `null`, for itself or for an item, stands for the default.
pub fn null_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    let list = Option::<Vec<Option<T>>>::deserialize(deserializer)?.unwrap_or_default();
    Ok(list.into_iter().map(Option::unwrap_or_default).collect())
}

/// For `skip_serializing_if`: left out when it has its default value, as Go's `omitempty`.
pub fn omit<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// For `skip_serializing_if`: always written.
pub fn always<T>(_: &T) -> bool {
    false
}
