//! Paths and operations from resource rows.

use super::schemas::{Dialect, META};
use super::{Documents, Part};
use crate::row::ResourceRow;
use serde_json::{Map, Value, json};

/// Query parameters: name and type.
type Parameter = (&'static str, &'static str);

const LIST: [Parameter; 11] = [
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const DELETE_COLLECTION: [Parameter; 14] = [
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("shardSelector", "string"),
    ("timeoutSeconds", "integer"),
];
const WRITE: [Parameter; 3] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: [Parameter; 4] =
    [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: [Parameter; 5] = [
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const PRODUCED: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAMED: [&str; 2] =
    ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

struct Operation<'a> {
    method: &'static str,
    action: &'static str,
    id: String,
    description: String,
    parameters: &'a [Parameter],
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
    used: &mut dyn FnMut(&str),
) -> Map<String, Value> {
    let mut writer = Writer {
        documents,
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
    paths.values_mut().for_each(hoist);
    paths
}

/// Moves the parameters that all operations of a path share to the path, as upstream does.
fn hoist(path: &mut Value) {
    let Value::Object(path) = path else { return };
    let operations: Vec<&Value> = path.iter().filter(|(k, _)| *k != "parameters").map(|(_, v)| v).collect();
    let parameters = |o: &Value| o["parameters"].as_array().cloned().unwrap_or_default();
    let Some((first, rest)) = operations.split_first() else { return };
    let shared: Vec<Value> = parameters(first)
        .into_iter()
        .filter(|p| p["in"] != "body" && rest.iter().all(|o| parameters(o).contains(p)))
        .collect();
    if shared.is_empty() {
        return;
    }
    for (key, operation) in path.iter_mut() {
        let Value::Object(operation) = operation else { continue };
        if key != "parameters"
            && let Some(Value::Array(parameters)) = operation.get_mut("parameters")
        {
            parameters.retain(|p| !shared.contains(p));
            if parameters.is_empty() {
                operation.remove("parameters");
            }
        }
    }
    if let Value::Array(parameters) = path.entry("parameters").or_insert_with(|| json!([])) {
        parameters.extend(shared);
        parameters.sort_by_key(|p| p["name"].as_str().unwrap_or_default().to_owned());
    }
}

/// `CoreV1`, `RbacAuthorizationV1`: the group without its domain, capitalised, and the version.
fn stem(group: &str, version: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split(['.', '-']).chain([version]).map(capitalise).collect()
}

fn capitalise(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

struct Writer<'a> {
    documents: &'a Documents,
    part: &'a Part,
    dialect: Dialect,
    used: &'a mut dyn FnMut(&str),
    root: String,
    stem: String,
    paths: Map<String, Value>,
}

impl Writer<'_> {
    fn tag(&self) -> String {
        let group = if self.part.group.is_empty() {
            "core"
        } else {
            self.part.group.strip_suffix(".k8s.io").unwrap_or(&self.part.group)
        };
        format!("{}_{}", group.replace(['.', '-'], "").clone(), self.part.version)
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
            body: None,
            answers: &[("200", "OK")],
            answer: Some(format!("{META}APIResourceList")),
            streams: false,
        };
        let written = self.operation(operation, None);
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
        let dialect = self.dialect;
        let entry = self.paths.entry(format!("{}{path}", self.root)).or_insert_with(|| {
            let path_parameters = scope.iter().map(|name| path_parameter(dialect, name));
            let parameters: Vec<Value> =
                path_parameters.chain([query_parameter(dialect, ("pretty", "string"))]).collect();
            json!({ "parameters": parameters })
        });
        entry[method] = written;
    }

    fn operation(&mut self, o: Operation<'_>, gvk: Option<Value>) -> Value {
        let mut out = Map::new();
        out.insert("tags".into(), json!([self.tag()]));
        out.insert("description".into(), o.description.into());
        out.insert("operationId".into(), o.id.into());
        let mut parameters: Vec<Value> =
            o.parameters.iter().map(|p| query_parameter(self.dialect, *p)).collect();
        let answer =
            o.answer.as_deref().map_or_else(|| json!({"type": "string"}), |name| self.reference(name));
        let consumed: &[&str] =
            if o.method == "patch" && o.action == "patch" { &PATCH_TYPES } else { &["*/*"] };
        let produced: Vec<&str> = match (&o.answer, o.streams) {
            (None, _) => vec!["*/*"],
            (_, true) => PRODUCED.into_iter().chain(STREAMED).collect(),
            (_, false) => PRODUCED.to_vec(),
        };
        let mut responses = Map::new();
        match self.dialect {
            Dialect::V3 => {
                if let Some((name, required)) = &o.body {
                    let schema = self.reference(name);
                    let content: Map<String, Value> =
                        consumed.iter().map(|c| ((*c).to_owned(), json!({ "schema": schema }))).collect();
                    let mut body = json!({ "content": content });
                    if *required {
                        body["required"] = true.into();
                    }
                    out.insert("requestBody".into(), body);
                }
                let content: Map<String, Value> =
                    produced.iter().map(|p| ((*p).to_owned(), json!({ "schema": answer }))).collect();
                for (code, text) in o.answers {
                    responses.insert((*code).into(), json!({"description": text, "content": content}));
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
                    responses.insert((*code).into(), json!({"description": text, "schema": answer}));
                }
                out.insert("consumes".into(), json!(consumed));
                out.insert("produces".into(), json!(produced));
                out.insert("schemes".into(), json!(["https"]));
            }
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        out.insert("responses".into(), responses.into());
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        if !o.action.is_empty() {
            out.insert("x-kubernetes-action".into(), o.action.into());
        }
        if let Some(gvk) = gvk {
            out.insert("x-kubernetes-group-version-kind".into(), gvk);
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
        for verb in row.verbs.iter() {
            let mut o = Operation {
                method: "get",
                action: "get",
                id: format!("read{stem}{what}"),
                description: format!("read {of}the specified {owner}"),
                parameters: &[],
                body: None,
                answers: OK,
                answer: Some(name.clone()),
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
                    o.body = Some((format!("{META}Patch"), true));
                    o.answers = CREATED;
                    self.add(&item, in_item, row, o);
                }
                ("delete", None) => {
                    o.method = "delete";
                    o.action = "delete";
                    o.id = format!("delete{stem}{what}");
                    o.description = format!("delete {} {owner}", article(&owner));
                    o.parameters = &DELETE;
                    o.body = Some((format!("{META}DeleteOptions"), false));
                    o.answers = DELETED;
                    o.answer = Some(format!("{META}Status"));
                    self.add(&item, in_item, row, o);
                }
                ("create", _) => {
                    o.method = "post";
                    o.action = "post";
                    o.id = format!("create{stem}{what}");
                    o.description = match subresource {
                        Some(s) => format!("create {s} of {} {owner}", article(&owner)),
                        None => format!("create {} {owner}", article(&owner)),
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
                    let mut list_in = |path: &str, scope: &[&str], id: String| {
                        let o = Operation {
                            method: "get",
                            action: "list",
                            id,
                            description: format!("list or watch objects of kind {owner}"),
                            parameters: &LIST,
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
                _ => {}
            }
        }
    }

    /// Subresources that take over the connection, and those whose options have no schema.
    fn connect(&mut self, row: &ResourceRow, item: &str, scope: &[&str], what: &str) {
        for verb in row.verbs.iter() {
            let (method, title) = match verb.as_ref() {
                "get" => ("get", "Get"),
                "create" => ("post", "Post"),
                "update" => ("put", "Put"),
                "delete" => ("delete", "Delete"),
                "patch" => ("patch", "Patch"),
                _ => continue,
            };
            let o = Operation {
                method,
                action: "connect",
                id: format!("connect{}{title}{what}", self.stem),
                description: format!(
                    "connect {} requests to {}",
                    title.to_uppercase(),
                    what.strip_prefix("Namespaced").unwrap_or(what)
                ),
                parameters: &[],
                body: None,
                answers: &[("200", "OK")],
                answer: None,
                streams: false,
            };
            self.add(item, scope, row, o);
        }
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}

fn query_parameter(dialect: Dialect, (name, ty): Parameter) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": ty, "uniqueItems": true}),
        Dialect::V3 => json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}}),
    }
}

fn path_parameter(dialect: Dialect, name: &str) -> Value {
    match dialect {
        Dialect::V2 => {
            json!({"name": name, "in": "path", "required": true, "type": "string", "uniqueItems": true})
        }
        Dialect::V3 => {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
        }
    }
}
