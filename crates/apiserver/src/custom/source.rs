//! The schema of one version of a definition: kept as the stored bytes, which are there anyway, and compiled to a table
//! when it is first needed. When a definition is written anew with the same schema, its status say, the new bytes take the
//! place of the old ones: two of them would be twice the memory.

use apimachinery::json;
use apimachinery::value::Value;
use bytes::Bytes;
use hooks::apiextensions::rules::Node;
use parking_lot::RwLock;
use schema::Table;
use schema::custom::compile;
use std::ops::Deref;
use std::sync::OnceLock;

/// A definition's bytes and which of its versions is meant.
pub struct Source {
    definition: RwLock<Bytes>,
    stamp: Box<str>,
    pub group: String,
    pub version: String,
    pub api_version: String,
    pub kind: String,
    pub list_kind: String,
    table: OnceLock<Table>,
    rules: OnceLock<Option<Node>>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({}/{} {})", self.group, self.version, self.kind)
    }
}

impl Source {
    /// `stamp` tells the schema of this version from all others.
    pub fn new(
        definition: Bytes,
        stamp: String,
        (group, version): (&str, &str),
        (kind, list_kind): (&str, &str),
    ) -> Self {
        Source {
            definition: RwLock::new(definition),
            stamp: stamp.into(),
            group: group.into(),
            version: version.into(),
            api_version: format!("{group}/{version}"),
            kind: kind.into(),
            list_kind: list_kind.into(),
            table: OnceLock::new(),
            rules: OnceLock::new(),
        }
    }

    /// The version's OpenAPI v3 schema as the definition has it.
    pub fn schema(&self) -> Value {
        let bytes = self.definition.read().clone();
        let definition: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let preserve = definition["spec"]["preserveUnknownFields"] == true;
        let versions = definition["spec"]["versions"].as_array();
        let version = versions.into_iter().flatten().find(|v| v["name"] == *self.version);
        let mut schema = version.map(|v| v["schema"]["openAPIV3Schema"].clone()).unwrap_or_default();
        if preserve || !schema.is_object() {
            if !schema.is_object() {
                schema = json!({"type": "object"});
            }
            schema["x-kubernetes-preserve-unknown-fields"] = true.into();
        }
        schema
    }

    /// Its CEL rules, compiled when they are first needed; none if there are none.
    pub(super) fn rules(&self) -> Option<&Node> {
        let compile = || Node::of(&self.schema(), self.checks()?);
        self.rules.get_or_init(compile).as_ref()
    }

    /// What tells this schema from another one.
    pub fn stamp(&self) -> &str {
        &self.stamp
    }

    /// From now on the schema is read from these bytes, which say the same of it.
    pub(super) fn renew(&self, definition: &Bytes) {
        *self.definition.write() = definition.clone();
    }
}

impl Deref for Source {
    type Target = Table;
    fn deref(&self) -> &Table {
        self.table.get_or_init(|| {
            compile(api::table(), &self.schema(), (&self.group, &self.version, &self.kind), Vec::new())
        })
    }
}
