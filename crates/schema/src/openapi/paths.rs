//! Paths and operations from resource rows.

use super::descriptions::Descriptions;
use super::parameters::{self, DELETE, DELETE_COLLECTION, LIST, PATCH, Parameter, WRITE};
use super::schemas::{Dialect, META};
use super::{Documents, Part};
use crate::row::ResourceRow;
use apimachinery::json;
use apimachinery::value::{Map, Value};

const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const PRODUCED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMED: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

/// The encodings that documents speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encodings {
    /// JSON, YAML and protobuf.
    #[default]
    Standard,
    /// CBOR too.
    WithCbor,
}

impl Encodings {
    fn and(self, cbor: &'static str) -> impl Iterator<Item = &'static str> {
        (self == Encodings::WithCbor).then_some(cbor).into_iter()
    }

    fn produced(self) -> impl Iterator<Item = &'static str> {
        PRODUCED.into_iter().chain(self.and("application/cbor"))
    }
}

struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    id: String,
    description: String,
    parameters: &'a [Parameter<'a>],
    /// Whose parameters these are, where they are not everybody's.
    place: &'a str,
    body: Option<(String, bool)>,
    /// Codes and the type of the answer; none is text.
    answers: &'a [(&'static str, &'static str)],
    answer: Option<String>,
    streams: bool,
}

/// The paths of one version of a group. `used` is told the names of schemas that are referred to.
pub(super) fn of_part(
    documents: &Documents,
    part: &Part,
    dialect: Dialect,
    words: &Descriptions,
    used: &mut dyn FnMut(&str),
) -> Map {
    let mut writer = Writer {
        documents,
        words,
        part,
        dialect,
        used,
        root: if part.group.is_empty() {
            format!("/api/{}", part.version)
        } else {
            format!("/apis/{}/{}", part.group, part.version)
        },
        stem: stem(&part.group, &part.version),
        paths: Map::new(),
    };
    writer.discovery();
    for row in &part.rows {
        writer.resource(row);
    }
    let mut paths = writer.paths;
    paths.values_mut().for_each(parameters::hoist);
    paths
}

/// `CoreV1`, `RbacAuthorizationV1`: the group without its domain, capitalised, and the version.
fn stem(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).chain([version]).map(capitalise).collect()
}

/// `RbacAuthorization`: the group without its domain, capitalised.
pub(super) fn capitalised_group(group: &str) -> String {
    stem(group, "")
}

/// `rbacAuthorization`: how operations of a group are told apart.
pub(super) fn tag_of(group: &str) -> String {
    let name = capitalised_group(group);
    let mut chars = name.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn capitalise(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

struct Writer<'a> {
    documents: &'a Documents,
    words: &'a Descriptions,
    part: &'a Part,
    dialect: Dialect,
    used: &'a mut dyn FnMut(&str),
    root: String,
    stem: String,
    paths: Map,
}

impl Writer<'_> {
    fn tag(&self) -> String {
        format!("{}_{}", tag_of(&self.part.group), self.part.version)
    }

    fn reference(&mut self, name: &str) -> Value {
        (self.used)(name);
        self.dialect.reference(name)
    }

    fn discovery(&mut self) {
        let operation = Operation {
            method: "get",
            action: "",
            id: format!("get{}APIResources", self.stem),
            description: "get available resources".into(),
            parameters: &[],
            place: "",
            body: None,
            answers: &[("200", "OK")],
            answer: Some(format!("{META}APIResourceList")),
            streams: false,
        };
        let mut written = self.operation(operation, None);
        if self.dialect == Dialect::V2 {
            written["consumes"] = written["produces"].clone();
        }
        self.paths.insert(format!("{}/", self.root), json!({ "get": written }));
    }

    fn add(&mut self, path: &str, scope: &[&str], row: &ResourceRow, operation: Operation<'_>) {
        let method = operation.method;
        let (group, version) = match &row.kind_group_version {
            Some((group, version)) => (group.to_string(), version.to_string()),
            None => (row.group.to_string(), row.version.to_string()),
        };
        let gvk = json!({"group": group, "version": version, "kind": row.kind});
        let written = self.operation(operation, Some(gvk));
        let (words, dialect) = (self.words, self.dialect);
        let connects = written["x-kubernetes-action"] == "connect";
        let entry = self.paths.entry(format!("{}{path}", self.root)).or_insert_with(|| {
            let path_parameters =
                scope.iter().map(|name| parameters::in_path(words, dialect, name, &row.kind));
            let pretty = (!connects).then(|| parameters::in_query(words, dialect, "", ("pretty", "string")));
            let parameters: Vec<Value> = path_parameters.chain(pretty).collect();
            if parameters.is_empty() { json!({}) } else { json!({ "parameters": parameters }) }
        });
        entry[method] = written;
    }

    fn operation(&mut self, o: Operation<'_>, gvk: Option<Value>) -> Value {
        let mut out = Map::new();
        out.insert("tags", json!([self.tag()]));
        out.insert("description", o.description.into());
        out.insert("operationId", o.id.into());
        let query = |p: &Parameter<'_>| parameters::in_query(self.words, self.dialect, o.place, *p);
        let mut parameters: Vec<Value> = o.parameters.iter().map(query).collect();
        let answer =
            o.answer.as_deref().map_or_else(|| json!({"type": "string"}), |name| self.reference(name));
        let encodings = self.documents.encodings;
        let patches = o.method == "patch" && o.action == "patch";
        let consumed: Vec<&str> = match patches {
            true => PATCH_TYPES.into_iter().chain(encodings.and("application/apply-patch+cbor")).collect(),
            false => vec!["*/*"],
        };
        let produced: Vec<&str> = match (&o.answer, o.action) {
            (None, "connect") => vec!["*/*"],
            // A log.
            (None, _) => std::iter::once("text/plain").chain(encodings.produced()).collect(),
            _ if o.streams => {
                let streams = STREAMED.into_iter().chain(encodings.and("application/cbor-seq"));
                encodings.produced().chain(streams).collect()
            }
            _ => encodings.produced().collect(),
        };
        let mut responses = Map::new();
        match self.dialect {
            Dialect::V3 => {
                if let Some((name, required)) = &o.body {
                    let schema = self.reference(name);
                    let content: Map =
                        consumed.iter().map(|c| ((*c).to_owned(), json!({ "schema": schema }))).collect();
                    let mut body = json!({ "content": content });
                    if *required {
                        body["required"] = true.into();
                    }
                    out.insert("requestBody", body);
                }
                let content: Map =
                    produced.iter().map(|p| ((*p).to_owned(), json!({ "schema": answer }))).collect();
                for (code, text) in o.answers {
                    responses.insert(*code, json!({"description": text, "content": content}));
                }
            }
            Dialect::V2 => {
                if let Some((name, required)) = &o.body {
                    let mut body = json!({"name": "body", "in": "body", "schema": self.reference(name)});
                    if *required {
                        body["required"] = true.into();
                    }
                    parameters.insert(0, body);
                }
                for (code, text) in o.answers {
                    responses.insert(*code, json!({"description": text, "schema": answer}));
                }
                out.insert("consumes", json!(consumed));
                out.insert("produces", json!(produced));
                out.insert("schemes", json!(["https"]));
            }
        }
        responses.insert("401", json!({"description": "Unauthorized"}));
        out.insert("responses", responses.into());
        if !parameters.is_empty() {
            out.insert("parameters", parameters.into());
        }
        if !o.action.is_empty() {
            out.insert("x-kubernetes-action", o.action.into());
        }
        if let Some(gvk) = gvk {
            out.insert("x-kubernetes-group-version-kind", gvk);
        }
        Value::Object(out)
    }

    fn resource(&mut self, row: &ResourceRow) {
        let (resource, subresource) = row.split();
        let (group, version) = match &row.kind_group_version {
            Some((group, version)) => (group.to_string(), version.to_string()),
            None => (row.group.to_string(), row.version.to_string()),
        };
        let name = self.documents.kind(&group, &version, &row.kind);
        let owner = match subresource {
            Some(_) => self
                .part
                .rows
                .iter()
                .find(|r| r.resource == resource)
                .map_or(row.kind.to_string(), |r| r.kind.to_string()),
            None => row.kind.to_string(),
        };
        let scoped = if row.namespaced { "Namespaced" } else { "" };
        let suffix = subresource.map(capitalise).unwrap_or_default();
        let what = format!("{scoped}{owner}{suffix}");
        let prefix = if row.namespaced { "/namespaces/{namespace}" } else { "" };
        let collection = format!("{prefix}/{resource}");
        let item = match subresource {
            Some(subresource) => format!("{collection}/{{name}}/{subresource}"),
            None => format!("{collection}/{{name}}"),
        };
        let (in_collection, in_item): (&[&str], &[&str]) =
            if row.namespaced { (&["namespace"], &["name", "namespace"]) } else { (&[], &["name"]) };
        let stem = self.stem.clone();
        let of = subresource.map(|s| format!("{s} of ")).unwrap_or_default();
        let Some(name) = name.filter(|_| !row.kind.ends_with("Options")) else {
            return self.connect(row, &item, in_item, &what);
        };
        let list = self.documents.kind(&group, &version, &format!("{}List", row.kind));
        const OK: &[(&str, &str)] = &[("200", "OK")];
        const CREATED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created")];
        const ACCEPTED: &[(&str, &str)] = &[("200", "OK"), ("201", "Created"), ("202", "Accepted")];
        const DELETED: &[(&str, &str)] = &[("200", "OK"), ("202", "Accepted")];
        let own: Vec<Parameter<'_>> = row.parameters.iter().map(|(name, ty)| (&**name, &**ty)).collect();
        for verb in row.verbs.iter() {
            let mut o = Operation {
                method: "get",
                action: "get",
                id: format!("read{stem}{what}"),
                description: format!("read {of}the specified {owner}"),
                parameters: &own,
                place: if own.is_empty() { "" } else { &row.resource },
                body: None,
                // What has options of its own and is no connection is text.
                answer: own.is_empty().then(|| name.clone()),
                answers: OK,
                streams: false,
            };
            match (verb.as_ref(), subresource) {
                ("get", _) => self.add(&item, in_item, row, o),
                ("update", _) => {
                    o.method = "put";
                    o.action = "put";
                    o.id = format!("replace{stem}{what}");
                    o.description = format!("replace {of}the specified {owner}");
                    o.parameters = &WRITE;
                    o.body = Some((name.clone(), true));
                    o.answers = CREATED;
                    self.add(&item, in_item, row, o);
                }
                ("patch", _) => {
                    o.method = "patch";
                    o.action = "patch";
                    o.id = format!("patch{stem}{what}");
                    o.description = format!("partially update {of}the specified {owner}");
                    o.parameters = &PATCH;
                    o.place = "patch";
                    o.body = Some((format!("{META}Patch"), true));
                    o.answers = CREATED;
                    self.add(&item, in_item, row, o);
                }
                ("delete", None) => {
                    o.method = "delete";
                    o.action = "delete";
                    o.id = format!("delete{stem}{what}");
                    o.description = format!("delete {}{owner}", article(&owner));
                    o.parameters = &DELETE;
                    o.body = Some((format!("{META}DeleteOptions"), false));
                    o.answers = DELETED;
                    if !row.returns_deleted {
                        o.answer = Some(format!("{META}Status"));
                    }
                    self.add(&item, in_item, row, o);
                }
                ("create", _) => {
                    o.method = "post";
                    o.action = "post";
                    o.id = format!("create{stem}{what}");
                    o.description = match subresource {
                        Some(s) => format!("create {s} of {}{owner}", article(&owner)),
                        None => format!("create {}{owner}", article(&owner)),
                    };
                    o.parameters = &WRITE;
                    o.body = Some((name.clone(), true));
                    o.answers = ACCEPTED;
                    match subresource {
                        Some(_) => self.add(&item, in_item, row, o),
                        None => self.add(&collection, in_collection, row, o),
                    }
                }
                ("deletecollection", None) => {
                    o.method = "delete";
                    o.action = "deletecollection";
                    o.id = format!("delete{stem}Collection{what}");
                    o.description = format!("delete collection of {owner}");
                    o.parameters = &DELETE_COLLECTION;
                    o.body = Some((format!("{META}DeleteOptions"), false));
                    o.answer = Some(format!("{META}Status"));
                    self.add(&collection, in_collection, row, o);
                }
                ("list", None) => {
                    let Some(list) = &list else { continue };
                    let or_watch = if row.allows("watch") { "or watch " } else { "" };
                    let mut list_in = |path: &str, scope: &[&str], id: String| {
                        let o = Operation {
                            method: "get",
                            action: "list",
                            id,
                            description: format!("list {or_watch}objects of kind {owner}"),
                            parameters: &LIST,
                            place: "",
                            body: None,
                            answers: OK,
                            answer: Some(list.clone()),
                            streams: true,
                        };
                        self.add(path, scope, row, o);
                    };
                    list_in(&collection, in_collection, format!("list{stem}{what}"));
                    if row.namespaced {
                        list_in(&format!("/{resource}"), &[], format!("list{stem}{owner}ForAllNamespaces"));
                    }
                }
                ("watch", None) => {
                    const EACH: &str = "watch individual changes to a list of";
                    const INSTEAD: &str =
                        "deprecated: use the 'watch' parameter with a list operation instead";
                    let mut watch_in =
                        |path: &str, scope: &[&str], action: &'static str, id: String, description| {
                            let o = Operation {
                                method: "get",
                                action,
                                id,
                                description,
                                parameters: &LIST,
                                place: "",
                                body: None,
                                answers: OK,
                                answer: Some(format!("{META}WatchEvent")),
                                streams: true,
                            };
                            self.add(&format!("/watch{path}"), scope, row, o);
                        };
                    let all = || format!("{EACH} {owner}. {INSTEAD}.");
                    watch_in(
                        &collection,
                        in_collection,
                        "watchlist",
                        format!("watch{stem}{what}List"),
                        all(),
                    );
                    let one = format!(
                        "watch changes to an object of kind {owner}. {INSTEAD}, filtered to a single item with the 'fieldSelector' parameter."
                    );
                    watch_in(&item, in_item, "watch", format!("watch{stem}{what}"), one);
                    if row.namespaced {
                        let id = format!("watch{stem}{owner}ListForAllNamespaces");
                        watch_in(&format!("/{resource}"), &[], "watchlist", id, all());
                    }
                }
                _ => {}
            }
        }
    }

    /// Subresources that take over the connection.
    fn connect(&mut self, row: &ResourceRow, item: &str, scope: &[&str], what: &str) {
        let own: Vec<Parameter<'_>> = row.parameters.iter().map(|(name, ty)| (&**name, &**ty)).collect();
        let mut titles: Vec<(&str, &str)> = Vec::new();
        for verb in row.verbs.iter() {
            titles.extend_from_slice(match verb.as_ref() {
                "get" => &[("get", "Get")],
                "create" => &[("post", "Post")],
                "update" => &[("put", "Put")],
                "delete" => &[("delete", "Delete")],
                // What takes every method takes these too, for which there is no verb.
                "patch" => &[("patch", "Patch"), ("head", "Head"), ("options", "Options")],
                _ => continue,
            });
        }
        // What takes every method hands on whatever path there is.
        let further = titles.iter().any(|(method, _)| *method == "options");
        let (owner, subresource) = row.split();
        let owner = self.part.rows.iter().find(|r| r.resource == owner).map_or("", |r| &r.kind).to_owned();
        let with_path: Vec<&str> = scope.iter().copied().chain(["path"]).collect();
        for (method, title) in titles {
            let operation = |suffix: &str| Operation {
                method,
                action: "connect",
                id: format!("connect{}{title}{what}{suffix}", self.stem),
                description: format!(
                    "connect {} requests to {} of {owner}",
                    title.to_uppercase(),
                    subresource.unwrap_or_default()
                ),
                parameters: &own,
                place: &row.resource,
                body: None,
                answers: &[("200", "OK")],
                answer: None,
                streams: false,
            };
            let (plain, deeper) = (operation(""), operation("WithPath"));
            self.add(item, scope, row, plain);
            if further {
                self.add(&format!("{item}/{{path}}"), &with_path, row, deeper);
            }
        }
    }
}

/// The word before a noun, with a space; a plural has none.
fn article(noun: &str) -> &'static str {
    match noun {
        _ if noun.ends_with('s') && !noun.ends_with("ss") => "",
        _ if noun.starts_with(['A', 'E', 'I', 'O', 'U']) => "an ",
        _ => "a ",
    }
}
