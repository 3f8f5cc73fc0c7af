//! The types of `meta.k8s.io/v1` that every object carries, field for field in upstream's JSON order
//! and presence: left out when empty unless it says `always`, `null` read as absent, `Option` where
//! absent differs from zero. Options of requests are in [`options`], tables in [`table`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::de::{always, null_default, null_list, null_map, omit};
use crate::time::Time;

/// Structs of the wire: every field with when it is left out and how it is read.
macro_rules! wire {
    ($(
        $(#[$meta:meta])*
        $name:ident {
            $($(#[$doc:meta])* $field:ident: $ty:ty = $presence:literal $reader:literal,)*
        }
    )+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $(
                $(#[$doc])*
                #[serde(skip_serializing_if = $presence, deserialize_with = $reader)]
                pub $field: $ty,
            )*
        }
        crate::decode!($name);
    )+};
}

pub mod options;
pub mod query;
pub mod table;
pub mod validation;

wire! {
    /// What kind of object this is.
    TypeMeta {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
    }

    /// What every object carries.
    ObjectMeta {
        name: String = "omit" "null_default",
        generate_name: String = "omit" "null_default",
        namespace: String = "omit" "null_default",
        self_link: String = "omit" "null_default",
        uid: String = "omit" "null_default",
        resource_version: String = "omit" "null_default",
        generation: i64 = "omit" "null_default",
        creation_timestamp: Time = "omit" "null_default",
        deletion_timestamp: Option<Time> = "omit" "null_default",
        deletion_grace_period_seconds: Option<i64> = "omit" "null_default",
        labels: BTreeMap<String, String> = "omit" "null_map",
        annotations: BTreeMap<String, String> = "omit" "null_map",
        owner_references: Vec<OwnerReference> = "omit" "null_default",
        finalizers: Vec<String> = "omit" "null_list",
        managed_fields: Vec<ManagedFieldsEntry> = "omit" "null_default",
    }

    /// The object that owns this one; when all owners are gone, so is this.
    OwnerReference {
        api_version: String = "always" "null_default",
        kind: String = "always" "null_default",
        name: String = "always" "null_default",
        uid: String = "always" "null_default",
        controller: Option<bool> = "omit" "null_default",
        block_owner_deletion: Option<bool> = "omit" "null_default",
    }

    /// What every list carries.
    ListMeta {
        self_link: String = "omit" "null_default",
        resource_version: String = "omit" "null_default",
        #[serde(rename = "continue")]
        continue_token: String = "omit" "null_default",
        remaining_item_count: Option<i64> = "omit" "null_default",
        shard_info: Option<ShardInfo> = "omit" "null_default",
    }

    /// Which shard of a collection a list is.
    ShardInfo {
        selector: String = "always" "null_default",
    }

    /// A selector of objects by their labels; see [`crate::labels::Selector`].
    LabelSelector {
        match_labels: BTreeMap<String, String> = "omit" "null_map",
        match_expressions: Vec<LabelSelectorRequirement> = "omit" "null_default",
    }

    /// One condition on a label: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    LabelSelectorRequirement {
        key: String = "always" "null_default",
        operator: String = "always" "null_default",
        values: Vec<String> = "omit" "null_list",
    }

    /// One condition on a field: `In`, `NotIn`, `Exists` or `DoesNotExist`.
    FieldSelectorRequirement {
        key: String = "always" "null_default",
        operator: String = "always" "null_default",
        values: Vec<String> = "omit" "null_list",
    }

    /// One aspect of an object's state.
    Condition {
        #[serde(rename = "type")]
        type_: String = "always" "null_default",
        /// `True`, `False` or `Unknown`.
        status: String = "always" "null_default",
        observed_generation: i64 = "omit" "null_default",
        last_transition_time: Time = "always" "null_default",
        reason: String = "always" "null_default",
        message: String = "always" "null_default",
    }

    /// The metadata of some object, and nothing else of it.
    PartialObjectMetadata {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        metadata: ObjectMeta = "always" "null_default",
    }

    /// A list of them.
    PartialObjectMetadataList {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        metadata: ListMeta = "always" "null_default",
        items: Vec<PartialObjectMetadata> = "always" "null_default",
    }

    /// Which fields one manager owns.
    ManagedFieldsEntry {
        manager: String = "omit" "null_default",
        /// `Apply` or `Update`.
        operation: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        time: Option<Time> = "omit" "null_default",
        fields_type: String = "omit" "null_default",
        #[serde(rename = "fieldsV1")]
        fields_v1: Option<FieldsV1> = "omit" "null_default",
        subresource: String = "omit" "null_default",
    }
}

/// A set of fields as JSON text, read only by those who compare it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FieldsV1(pub Box<RawValue>);

impl FieldsV1 {
    /// From JSON text.
    pub fn from_json(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for FieldsV1 {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl ObjectMeta {
    /// The owner that controls this object, if it has one.
    pub fn controller_owner(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller == Some(true))
    }

    /// Whether its deletion has begun.
    pub fn is_being_deleted(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// The key of caches and queues: `namespace/name`, or `name` when cluster-scoped.
    pub fn key(&self) -> String {
        if self.namespace.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: Serialize + for<'a> Deserialize<'a>>(input: &str, want: &str) {
        let value: T = serde_json::from_str(input).unwrap();
        assert_eq!(serde_json::to_string(&value).unwrap(), want);
        let tree: T = crate::value::from_value(serde_json::from_str(input).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&tree).unwrap(), want);
    }

    #[test]
    fn json_has_upstreams_order_and_presence() {
        check::<ObjectMeta>("{}", "{}");
        check::<ObjectMeta>(
            r#"{"finalizers":["a",null],"labels":{"x":null},"name":"n","creationTimestamp":null,"uid":null,"deletionGracePeriodSeconds":0,"generation":0,"unknown":1,
               "ownerReferences":[{"uid":"u"}]}"#,
            r#"{"name":"n","deletionGracePeriodSeconds":0,"labels":{"x":""},"ownerReferences":[{"apiVersion":"","kind":"","name":"","uid":"u"}],"finalizers":["a",""]}"#,
        );
        check::<ManagedFieldsEntry>(
            r#"{"fieldsV1":{"f:a":{}},"time":"2024-01-01T00:00:00Z","operation":"Apply"}"#,
            r#"{"operation":"Apply","time":"2024-01-01T00:00:00Z","fieldsV1":{"f:a":{}}}"#,
        );
        check::<Condition>(
            r#"{"type":"Ready"}"#,
            r#"{"type":"Ready","status":"","lastTransitionTime":null,"reason":"","message":""}"#,
        );
        check::<ListMeta>(
            r#"{"continue":"x","remainingItemCount":0}"#,
            r#"{"continue":"x","remainingItemCount":0}"#,
        );
        check::<PartialObjectMetadataList>("{}", r#"{"metadata":{},"items":[]}"#);
    }
}
