//! Parameters and results of requests.

use api::Kind;
use apimachinery::meta::ListMeta;
use serde::Deserialize;
use serde_json::Value;

/// Parameters of a list.
#[derive(Debug, Clone, Default)]
pub struct ListParams {
    pub label_selector: String,
    pub field_selector: String,
    pub limit: Option<u64>,
    pub continue_: String,
    pub resource_version: String,
}

impl ListParams {
    pub fn labels(selector: impl Into<String>) -> Self {
        ListParams { label_selector: selector.into(), ..Default::default() }
    }

    pub fn fields(selector: impl Into<String>) -> Self {
        ListParams { field_selector: selector.into(), ..Default::default() }
    }

    pub(crate) fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = vec![
            ("labelSelector", self.label_selector.clone()),
            ("fieldSelector", self.field_selector.clone()),
            ("continue", self.continue_.clone()),
            ("resourceVersion", self.resource_version.clone()),
        ];
        query.extend(self.limit.map(|l| ("limit", l.to_string())));
        query.retain(|(_, v)| !v.is_empty());
        query
    }
}

/// A list as it is answered.
#[derive(Debug, Deserialize)]
#[serde(bound(deserialize = "K: Kind"))]
pub struct ListResult<K> {
    #[serde(default)]
    pub metadata: ListMeta,
    #[serde(default, deserialize_with = "apimachinery::de::null_default")]
    pub items: Vec<K>,
}

/// A patch and its type.
#[derive(Debug, Clone)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    Apply(Value),
}

impl Patch {
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Apply(_) => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn value(&self) -> &Value {
        match self {
            Patch::Json(v) | Patch::Merge(v) | Patch::Strategic(v) | Patch::Apply(v) => v,
        }
    }
}

/// Parameters of a patch.
#[derive(Debug, Clone, Default)]
pub struct PatchParams {
    pub field_manager: String,
    pub force: bool,
}
