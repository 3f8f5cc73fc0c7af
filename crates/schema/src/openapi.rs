//! OpenAPI v2 and v3 documents from rows: schemas, paths, and the index of `/openapi/v3` with its hashes.
//!
//! A [`Documents`] is made when the set of served groups changes; its documents are built when first asked for.
//! Schemas of custom resources come from the caller as they stand in their definitions.

use crate::discovery::{Group, Resources, sha512_hex};
use crate::row::ResourceRow;
use crate::table::Table;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

mod gnostic;
mod paths;
mod schemas;

pub use gnostic::CONTENT_TYPE as V2_PROTOBUF;
pub use schemas::Dialect;
pub(crate) use schemas::{published_default, scalar_name};

/// A version of a group, owned, with what its documents are made of.
#[derive(Debug)]
struct Part {
    group: String,
    version: String,
    rows: Vec<ResourceRow>,
    document: OnceLock<(Bytes, String)>,
}

/// The documents of one set of groups.
#[derive(Debug)]
pub struct Documents {
    table: &'static Table,
    /// Schemas of custom resources by definition name, and the definition name of each kind.
    custom: BTreeMap<String, Value>,
    custom_kinds: BTreeMap<(String, String, String), String>,
    parts: BTreeMap<String, Part>,
    v2: OnceLock<(Bytes, String)>,
    v2_protobuf: OnceLock<(Bytes, String)>,
    index: OnceLock<Bytes>,
}

impl Documents {
    /// Over built-in and custom groups; foreign ones have documents of their own.
    pub fn new(table: &'static Table, groups: &[Group<'_>]) -> Self {
        let mut parts = BTreeMap::new();
        for group in groups {
            for version in &group.versions {
                let Resources::Rows(rows) = &version.resources else { continue };
                let key = if group.name.is_empty() {
                    format!("api/{}", version.version)
                } else {
                    format!("apis/{}/{}", group.name, version.version)
                };
                let part = Part {
                    group: group.name.to_owned(),
                    version: version.version.to_owned(),
                    rows: rows.iter().map(|r| (*r).clone()).collect(),
                    document: OnceLock::new(),
                };
                parts.insert(key, part);
            }
        }
        Documents {
            table,
            custom: BTreeMap::new(),
            custom_kinds: BTreeMap::new(),
            parts,
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            index: OnceLock::new(),
        }
    }

    /// Adds the schema of a custom kind: an OpenAPI v3 schema with its metadata, `kind` and `apiVersion` included.
    pub fn add_custom(&mut self, group: &str, version: &str, kind: &str, mut schema: Value) {
        let name = definition_name(group, version, kind);
        if let Value::Object(map) = &mut schema {
            map.insert(
                "x-kubernetes-group-version-kind".into(),
                json!([{"group": group, "kind": kind, "version": version}]),
            );
        }
        let list_kind = format!("{kind}List");
        let list = definition_name(group, version, &list_kind);
        self.custom.insert(list.clone(), custom_list(group, version, kind, &name));
        self.custom.insert(name.clone(), schema);
        self.custom_kinds.insert((group.into(), version.into(), kind.into()), name);
        self.custom_kinds.insert((group.into(), version.into(), list_kind), list);
    }

    /// The definition name of a kind.
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        if let Some(id) = self.table.kind(group, version, kind) {
            return Some(self.table.ty(id).name.to_string());
        }
        self.custom_kinds.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).cloned()
    }

    /// `/openapi/v3`: the documents there are and their hashes. `foreign` names those of other servers (`apis/g/v` and
    /// its relative URL).
    pub fn index(&self, foreign: &[(String, String)]) -> Bytes {
        let own = self.index.get_or_init(|| self.write_index(&[]));
        if foreign.is_empty() { own.clone() } else { self.write_index(foreign) }
    }

    fn write_index(&self, foreign: &[(String, String)]) -> Bytes {
        let own = self.parts.keys().filter_map(|key| {
            let (_, hash) = self.document(key)?;
            Some((key.clone(), format!("/openapi/v3/{key}?hash={hash}")))
        });
        let paths: BTreeMap<String, Value> = own
            .chain(foreign.iter().cloned())
            .map(|(key, url)| (key, json!({ "serverRelativeURL": url })))
            .collect();
        Bytes::from(json!({ "paths": paths }).to_string())
    }

    /// `/openapi/v3/<key>` (`api/v1`, `apis/apps/v1`): the document and its hash, which is its ETag too.
    pub fn v3(&self, key: &str) -> Option<(Bytes, &str)> {
        let (bytes, hash) = self.document(key)?;
        Some((bytes.clone(), hash))
    }

    fn document(&self, key: &str) -> Option<&(Bytes, String)> {
        let part = self.parts.get(key)?;
        Some(part.document.get_or_init(|| {
            let mut names = BTreeSet::new();
            let mut used = |name: &str| {
                names.insert(name.to_owned());
            };
            let paths = paths::of_part(self, part, Dialect::V3, &mut used);
            let schemas = self.schemas(names, Dialect::V3);
            finish(json!({
                "openapi": "3.0.0",
                "info": info(),
                "paths": paths,
                "components": {
                    "schemas": schemas,
                    "securitySchemes": {"BearerToken": bearer()},
                },
            }))
        }))
    }

    /// `/openapi/v2` as JSON, and its hash.
    pub fn v2(&self) -> (Bytes, &str) {
        let (bytes, hash) = self.v2.get_or_init(|| finish(self.write_v2()));
        (bytes.clone(), hash)
    }

    /// `/openapi/v2` as protobuf ([`V2_PROTOBUF`]), and its hash.
    pub fn v2_protobuf(&self) -> (Bytes, &str) {
        let (bytes, hash) = self.v2_protobuf.get_or_init(|| {
            let bytes = gnostic::document(&self.write_v2());
            let hash = sha512_hex(&bytes);
            (bytes.into(), hash)
        });
        (bytes.clone(), hash)
    }

    fn write_v2(&self) -> Value {
        let mut names = BTreeSet::new();
        let mut used = |name: &str| {
            names.insert(name.to_owned());
        };
        let mut all = Map::new();
        for part in self.parts.values() {
            all.extend(paths::of_part(self, part, Dialect::V2, &mut used));
        }
        let schemas = self.schemas(names, Dialect::V2);
        json!({
            "swagger": "2.0",
            "info": info(),
            "paths": all,
            "definitions": schemas,
            "securityDefinitions": {"BearerToken": bearer()},
            "security": [{"BearerToken": []}],
        })
    }

    /// The named schemas and all they refer to.
    fn schemas(&self, names: BTreeSet<String>, dialect: Dialect) -> Map<String, Value> {
        let mut out = Map::new();
        let mut queue: Vec<String> = names.into_iter().collect();
        while let Some(name) = queue.pop() {
            if out.contains_key(&name) {
                continue;
            }
            let schema = match (self.table.type_named(&name), self.custom.get(&name)) {
                (Some(id), _) => schemas::of_type(self.table, id, dialect, &mut queue),
                (None, Some(schema)) => schemas::adapt(schema, dialect, &mut queue),
                (None, None) => continue,
            };
            out.insert(name, schema);
        }
        out
    }
}

fn finish(document: Value) -> (Bytes, String) {
    let mut bytes = Vec::new();
    crate::encode::write_value(&mut bytes, &document);
    let hash = sha512_hex(&bytes);
    (bytes.into(), hash)
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "1.36"})
}

fn bearer() -> Value {
    json!({"type": "apiKey", "description": "Bearer Token authentication", "name": "authorization", "in": "header"})
}

/// The definition name of a custom kind: the group reversed, as upstream has it (`com.example.v1.Widget`).
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn custom_list(group: &str, version: &str, kind: &str, item: &str) -> Value {
    let meta = format!("#/components/schemas/{}ListMeta", schemas::META);
    json!({
        "description": format!("{kind}List is a list of {kind}"),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": meta}]},
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{item}")}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": format!("{kind}List"), "version": version}],
    })
}
