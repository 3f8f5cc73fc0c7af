//! OpenAPI v2 and v3 documents from rows: schemas, paths, and the index of `/openapi/v3` with its hashes.
//!
//! A [`Documents`] is made when the set of served groups changes; its documents are built when first asked for. What
//! custom kinds add comes from the caller ([`Documents::with`]), as schemas that are read when they are needed; the
//! built-in part is shared by all.

use crate::discovery::{Group, Resources, sha512_hex};
use crate::row::ResourceRow;
use crate::table::Table;
use apimachinery::json;
use apimachinery::value::{Map, Value};
use bytes::Bytes;
use descriptions::Words;
use plain::Plain;
use sha2::{Digest as _, Sha512};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

mod convert;
mod custom;
mod descriptions;
mod gnostic;
mod merge;
mod parameters;
mod paths;
mod plain;
mod schemas;

pub use convert::to_v3;
pub use custom::CustomKind;
pub use descriptions::Descriptions;
pub use gnostic::CONTENT_TYPE as V2_PROTOBUF;
pub use merge::{merge, within};
pub use paths::Encodings;
pub use schemas::Dialect;
pub(crate) use schemas::{published_default, scalar_name};

/// What one document of v3 is about.
#[derive(Debug)]
enum About {
    Resources(Part),
    Plain(Plain),
}

/// One document of v3, once it is asked for.
#[derive(Debug)]
struct Piece {
    about: About,
    document: OnceLock<(Bytes, String)>,
}

/// A version of a group, owned, with what its documents are made of.
#[derive(Debug)]
struct Part {
    group: String,
    version: String,
    rows: Vec<ResourceRow>,
    /// Tells the documents of custom kinds apart without building them; none for built-in ones.
    stamp: Option<String>,
}

/// The documents of one set of groups.
#[derive(Debug)]
pub struct Documents {
    table: &'static Table,
    words: Arc<Words>,
    encodings: Encodings,
    /// Custom kinds by definition name, and the definition name of each kind and list kind.
    custom: BTreeMap<String, CustomKind>,
    custom_kinds: BTreeMap<(String, String, String), String>,
    parts: BTreeMap<String, Arc<Piece>>,
    v2: OnceLock<(Bytes, String)>,
    v2_protobuf: OnceLock<(Bytes, String)>,
    index: OnceLock<Bytes>,
}

impl Documents {
    /// Over built-in groups; foreign ones have documents of their own. `descriptions` reads what the types are for.
    pub fn new(
        table: &'static Table,
        groups: &[Group<'_>],
        encodings: Encodings,
        descriptions: fn() -> Descriptions,
    ) -> Self {
        let plain = plain::of_groups(groups.iter().map(|group| group.name));
        let plain = plain.into_iter().map(|plain| (plain.key.clone(), piece(About::Plain(plain))));
        Documents {
            table,
            words: Arc::new(Words::new(descriptions)),
            encodings,
            custom: BTreeMap::new(),
            custom_kinds: BTreeMap::new(),
            parts: parts(groups, None).into_iter().chain(plain).collect(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            index: OnceLock::new(),
        }
    }

    /// These documents and those of custom kinds.
    pub fn with(&self, groups: &[Group<'_>], kinds: Vec<CustomKind>) -> Self {
        let mut out = Documents {
            table: self.table,
            words: self.words.clone(),
            encodings: self.encodings,
            custom: BTreeMap::new(),
            custom_kinds: BTreeMap::new(),
            parts: self.parts.clone(),
            v2: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            index: OnceLock::new(),
        };
        let mut stamps: BTreeMap<String, Sha512> = BTreeMap::new();
        for kind in kinds {
            let name = definition_name(&kind.group, &kind.version, &kind.kind);
            let list = definition_name(&kind.group, &kind.version, &kind.list_kind);
            let stamp = stamps.entry(format!("apis/{}/{}", kind.group, kind.version)).or_default();
            stamp.update(&kind.stamp);
            for (kind_name, definition) in [(&kind.kind, &name), (&kind.list_kind, &list)] {
                let key = (kind.group.clone(), kind.version.clone(), kind_name.clone());
                out.custom_kinds.insert(key, definition.clone());
            }
            out.custom.insert(name, kind);
        }
        let stamps = stamps
            .into_iter()
            .map(|(key, stamp)| (key, stamp.finalize().iter().map(|b| format!("{b:02X}")).collect()))
            .collect();
        out.parts.extend(parts(groups, Some(&stamps)));
        out
    }

    /// The definition name of a kind.
    fn kind(&self, group: &str, version: &str, kind: &str) -> Option<String> {
        if let Some(id) = self.table.kind(group, version, kind) {
            return Some(self.table.ty(id).name.to_string());
        }
        self.custom_kinds.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).cloned()
    }

    /// `/openapi/v3`: the documents there are and their hashes. `foreign` names those of other servers (`apis/g/v` and
    /// its relative URL); of what there is a document here theirs are not told of.
    pub fn index(&self, foreign: BTreeMap<String, String>) -> Bytes {
        if foreign.is_empty() {
            return self.index.get_or_init(|| self.write_index(foreign)).clone();
        }
        self.write_index(foreign)
    }

    fn write_index(&self, mut paths: BTreeMap<String, String>) -> Bytes {
        // Once for all documents that are written here for the first time.
        let _words = self.words.get();
        paths.extend(self.parts.keys().filter_map(|key| {
            let hash = self.hash(key)?;
            Some((key.clone(), format!("/openapi/v3/{key}?hash={hash}")))
        }));
        let paths: BTreeMap<String, Value> =
            paths.into_iter().map(|(key, url)| (key, json!({ "serverRelativeURL": url }))).collect();
        Bytes::from(json!({ "paths": paths }).to_string())
    }

    /// `/openapi/v3/<key>` (`api/v1`, `apis/apps/v1`): the document and its hash, which is its ETag too.
    pub fn v3(&self, key: &str) -> Option<(Bytes, &str)> {
        let (bytes, _) = self.document(key)?;
        Some((bytes.clone(), self.hash(key)?))
    }

    /// The hash of a document; that of custom kinds is known before the document is built.
    pub fn hash(&self, key: &str) -> Option<&str> {
        match &self.parts.get(key)?.about {
            About::Resources(Part { stamp: Some(stamp), .. }) => Some(stamp),
            _ => self.document(key).map(|(_, hash)| hash.as_str()),
        }
    }

    fn document(&self, key: &str) -> Option<&(Bytes, String)> {
        let piece = self.parts.get(key)?;
        Some(piece.document.get_or_init(|| {
            let mut names = BTreeSet::new();
            let paths = self.paths(&piece.about, Dialect::V3, &mut names);
            let within = match &piece.about {
                About::Resources(part) => (part.group.as_str(), part.version.as_str()),
                About::Plain(_) => ("", ""),
            };
            let schemas = self.schemas(names, Dialect::V3, Some(within));
            let mut components = json!({"securitySchemes": {"BearerToken": bearer()}});
            if !schemas.is_empty() {
                components["schemas"] = schemas.into();
            }
            finish(&json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components}))
        }))
    }

    fn paths(&self, about: &About, dialect: Dialect, names: &mut BTreeSet<String>) -> Map {
        let mut used = |name: &str| {
            names.insert(name.to_owned());
        };
        match about {
            About::Resources(part) => paths::of_part(self, part, dialect, &self.words.get(), &mut used),
            About::Plain(plain) => std::iter::once(plain.written(dialect, &mut used)).collect(),
        }
    }

    /// `/openapi/v2` as JSON, and its hash.
    pub fn v2(&self) -> (Bytes, &str) {
        let (bytes, hash) = self.v2.get_or_init(|| finish(&self.write_v2()));
        (bytes.clone(), hash)
    }

    /// `/openapi/v2` as protobuf ([`V2_PROTOBUF`]), and its hash.
    pub fn v2_protobuf(&self) -> (Bytes, &str) {
        let (bytes, hash) = self.v2_protobuf.get_or_init(|| protobuf(&self.write_v2()));
        (bytes.clone(), hash)
    }

    /// `/openapi/v2` as a tree.
    pub fn write_v2(&self) -> Value {
        // Once for all parts.
        let _words = self.words.get();
        let mut names = BTreeSet::new();
        let mut all = Map::new();
        for piece in self.parts.values() {
            all.extend(self.paths(&piece.about, Dialect::V2, &mut names));
        }
        let schemas = self.schemas(names, Dialect::V2, None);
        let shared = parameters::share(&mut all);
        json!({
            "swagger": "2.0",
            "info": info(),
            "paths": all,
            "definitions": schemas,
            "parameters": shared,
            "securityDefinitions": {"BearerToken": bearer()},
            "security": [{"BearerToken": []}],
        })
    }

    /// The named schemas and all they refer to.
    fn schemas(&self, names: BTreeSet<String>, dialect: Dialect, within: Option<(&str, &str)>) -> Map {
        let words = self.words.get();
        let mut out = Map::new();
        let mut queue: Vec<String> = names.into_iter().collect();
        while let Some(name) = queue.pop() {
            if out.contains_key(&name) {
                continue;
            }
            let schema = match self.table.type_named(&name) {
                Some(id) => schemas::of_type(self.table, id, (dialect, within), &words, &mut queue),
                None => match self.custom_schema(&name, dialect) {
                    Some(schema) => schemas::adapt(&schema, dialect, &mut queue),
                    None => continue,
                },
            };
            out.insert(name, schema);
        }
        out
    }
}

/// The parts of some groups; `stamps` by key for custom ones.
fn parts(groups: &[Group<'_>], stamps: Option<&BTreeMap<String, String>>) -> BTreeMap<String, Arc<Piece>> {
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
                stamp: stamps.and_then(|s| s.get(&key).cloned()),
            };
            parts.insert(key, piece(About::Resources(part)));
        }
    }
    parts
}

fn piece(about: About) -> Arc<Piece> {
    Arc::new(Piece { about, document: OnceLock::new() })
}

/// A v2 document as protobuf, and its hash.
pub fn protobuf(document: &Value) -> (Bytes, String) {
    let bytes = gnostic::document(document);
    let hash = sha512_hex(&bytes);
    (bytes.into(), hash)
}

/// A document as JSON, and its hash.
pub fn finish(document: &Value) -> (Bytes, String) {
    let mut bytes = Vec::new();
    crate::encode::write_value(&mut bytes, document);
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
