//! Parameters and results of requests.

use apimachinery::decode::{Decode, Tree};
use apimachinery::meta::ListMeta;
use apimachinery::value::Value;
use serde::Deserialize;
use serde_json::value::RawValue;

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
#[derive(Debug)]
pub struct ListResult<K> {
    pub metadata: ListMeta,
    pub items: Vec<K>,
}

impl<K: Decode> Decode for ListResult<K> {
    fn from_json(text: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct List<'a> {
            #[serde(default)]
            metadata: ListMeta,
            #[serde(borrow)]
            items: Option<&'a RawValue>,
        }
        let List { metadata, items } = serde_json::from_slice(text)?;
        let items = items.map(|items| Vec::from_json(items.get().as_bytes())).transpose()?;
        Ok(ListResult { metadata, items: items.unwrap_or_default() })
    }

    fn from_tree(tree: Tree<'_>) -> Result<Self, serde_json::Error> {
        let (metadata, items) = (tree.get("metadata"), tree.get("items"));
        Ok(ListResult {
            metadata: metadata.map(ListMeta::from_tree).transpose()?.unwrap_or_default(),
            items: items.map(Vec::from_tree).transpose()?.unwrap_or_default(),
        })
    }
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
    /// Whether fields that the type does not have are refused, not dropped.
    pub strict: bool,
}
