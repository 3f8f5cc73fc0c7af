//! The requests: for every resource the same story, as far as its verbs go.

use crate::case::{APPLY, Body, Case, JSON, JSON_PATCH, MERGE, PROTOBUF, STRATEGIC, Story, TABLE, case};
use crate::mutate::{mistyped, other, places, values, with};
use crate::sample;
use crate::seeds::{Seed, seeds};
use apimachinery::json;
use apimachinery::value::Value;
use http::Method;
use schema::{ResourceRow, Table, TypeId};
use std::collections::HashSet;

/// Forms of an answer.
const FORMS: &[&str] = &[
    "application/yaml",
    PROTOBUF,
    TABLE,
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
];
const LIST_FORMS: &[&str] = &[
    "application/yaml",
    PROTOBUF,
    TABLE,
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
];

pub fn stories() -> Vec<Story> {
    let mut stories: Vec<Story> = seeds().iter().map(Story::of).collect();
    stories.extend(crate::more::stories());
    stories.push(crate::bytes::story());
    stories.extend(crate::told::stories());
    stories
}

/// What a story is made with.
struct Teller<'a> {
    seed: &'a Seed,
    row: &'static ResourceRow,
    table: &'static Table,
    ty: TypeId,
    api_version: String,
    collection: String,
    item: String,
    cases: Vec<Case>,
}

impl Story {
    fn of(seed: &Seed) -> Story {
        let table = api::table();
        let row = table.resource(&seed.group, &seed.version, &seed.resource).unwrap();
        let ty = table.kind(&seed.group, &seed.version, &row.kind).unwrap();
        let (root, api_version) = match seed.group.as_str() {
            "" => (format!("/api/{}", seed.version), seed.version.clone()),
            group => (format!("/apis/{group}/{}", seed.version), format!("{group}/{}", seed.version)),
        };
        let collection = match row.namespaced {
            true => format!("{root}/namespaces/{}/{}", seed.namespace(), seed.resource),
            false => format!("{root}/{}", seed.resource),
        };
        let item = format!("{collection}/{}", seed.name);
        let mut teller = Teller { seed, row, table, ty, api_version, collection, item, cases: Vec::new() };
        teller.tell();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        if row.namespaced {
            before = namespace(&seed.namespace());
        }
        if row.allows("deletecollection") && !seed.unkept {
            let selected = format!("{}?labelSelector=pairs", teller.collection);
            after.push(case("after", Method::DELETE, selected));
        }
        let group = if seed.group.is_empty() { String::new() } else { format!("{}_", seed.group) };
        Story {
            file: format!("{group}{}_{}", seed.version, seed.resource),
            before,
            cases: teller.cases,
            after,
        }
    }
}

/// Makes a namespace, and what pods need in it.
pub fn namespace(name: &str) -> Vec<Case> {
    let accounts = format!("/api/v1/namespaces/{name}/serviceaccounts");
    vec![
        case("namespace", Method::POST, "/api/v1/namespaces").json(json!({"metadata": {"name": name}})),
        case("account", Method::POST, accounts)
            // Otherwise every pod had a volume with a name of its own.
            .json(json!({"metadata": {"name": "default"}, "automountServiceAccountToken": false})),
    ]
}

fn dry(path: &str) -> String {
    format!("{path}?dryRun=All")
}

impl Teller<'_> {
    /// The object of the seed with its type and metadata.
    fn object(&self, of: &Value, name: &str) -> Value {
        let mut object = of.clone();
        if object.is_null() {
            object = json!({});
        }
        object["kind"] = json!(self.row.kind);
        object["apiVersion"] = json!(self.api_version);
        // Reviews may have no metadata.
        if self.row.kind.ends_with("Review") {
            return object;
        }
        if object["metadata"]["name"].is_null() {
            object["metadata"]["name"] = json!(name);
        }
        object["metadata"]["labels"]["pairs"] = json!("yes");
        object
    }

    /// Adds a request, unless the same was made of another place.
    fn add(&mut self, case: Case) {
        if !self.cases.iter().any(|c| c.name == case.name) {
            self.cases.push(case);
        }
    }

    fn post(&mut self, name: impl Into<String>, object: Value) {
        let reviews = !self.row.allows("get");
        let path = if reviews { self.collection.clone() } else { dry(&self.collection) };
        self.add(case(name, Method::POST, path).json(object));
    }

    fn tell(&mut self) {
        let base = self.object(&self.seed.base, &self.seed.name);
        let create = match self.seed.unkept && self.row.allows("get") {
            true => dry(&self.collection),
            false => self.collection.clone(),
        };
        self.add(case("create", Method::POST, create).json(base.clone()).referred());
        let kept = !self.seed.unkept && self.row.allows("get");
        if kept {
            self.post("create again", base.clone());
            self.reads();
        }
        self.creates(&base);
        self.fields(&base);
        if kept {
            self.updates(&base);
            self.patches();
            self.applies();
            self.subresources(&base);
            self.selectors();
            self.deletes(&base);
        }
    }

    fn reads(&mut self) {
        let (item, collection) = (self.item.clone(), self.collection.clone());
        let listed = format!("{collection}?labelSelector=pairs%3Dyes");
        self.add(case("get", Method::GET, &item));
        for form in FORMS {
            self.add(case(format!("get {form}"), Method::GET, &item).accept(form));
        }
        for include in ["Object", "None"] {
            let path = format!("{item}?includeObject={include}");
            self.add(case(format!("get table {include}"), Method::GET, path).accept(TABLE));
        }
        self.add(case("list", Method::GET, &listed));
        for form in LIST_FORMS {
            self.add(case(format!("list {form}"), Method::GET, &listed).accept(form));
        }
        let missing = format!("{collection}/missing");
        self.add(case("get missing", Method::GET, &missing));
        self.add(case("get missing as protobuf", Method::GET, &missing).accept(PROTOBUF));
        self.add(case("get pretty", Method::GET, format!("{item}?pretty=true")));
    }

    fn creates(&mut self, base: &Value) {
        let (seed, kind) = (self.seed, self.row.kind.clone());
        let named = |mut object: Value, name: &str| {
            object["metadata"]["name"] = json!(name);
            object
        };
        self.post("create sparse", self.object(&json!({}), "sparse"));
        let named_only = json!({"metadata": {"name": "bare"}});
        self.post("create bare", named_only);
        self.post("create nothing", json!({}));
        for (name, object) in &seed.more {
            self.post(format!("create {name}"), self.object(object, name));
        }
        // All fields there are, and each part of the object explicitly null and explicitly empty.
        let mut full = sample::object(self.table, self.ty, 0);
        full["metadata"] = json!({});
        if let Some(map) = full.as_object_mut() {
            map.remove("status");
        }
        self.post("create full", self.object(&full, "full"));
        for (word, value) in [("null", Value::Null), ("empty", json!({}))] {
            for part in ["spec", "status"] {
                let mut object = named(base.clone(), word);
                object[part] = value.clone();
                self.post(format!("create {word} {part}"), object);
            }
        }
        let mut generated = base.clone();
        if let Some(meta) = generated["metadata"].as_object_mut() {
            meta.remove("name");
            meta.insert("generateName", json!("gen-"));
        }
        self.post("create generated", generated);
        let mut wrong = named(base.clone(), "n");
        wrong["kind"] = json!("Odd");
        self.post("create of another kind", wrong);
        let mut wrong = named(base.clone(), "n");
        wrong["apiVersion"] = json!("odd/v1");
        self.post("create of another version", wrong);
        self.post("create named badly", named(base.clone(), "Not Valid!"));
        let mut strange = named(base.clone(), "strange");
        strange["odd"] = json!(1);
        strange["metadata"]["odd"] = json!({"a": 1});
        if let Some(spec) = strange.get_mut("spec").and_then(Value::as_object_mut) {
            spec.insert("odd", json!([1]));
        }
        let text = strange.to_string();
        let twice = format!("{},\"kind\":\"{kind}\"}}", &text[..text.len() - 1]);
        for validation in ["Strict", "Warn", "Ignore", "Odd"] {
            let path = format!("{}&fieldValidation={validation}", dry(&self.collection));
            let body = Body::Text(twice.clone());
            self.add(case(format!("create strange {validation}"), Method::POST, path).sent(JSON, body));
        }
        let path = dry(&self.collection);
        let yaml = String::from_utf8(schema::encode::yaml(&named(base.clone(), "yaml"))).unwrap();
        self.add(case("create of YAML", Method::POST, &path).sent("application/yaml", Body::Text(yaml)));
        let normal = schema::decode::json(
            self.table,
            self.ty,
            named(base.clone(), "protobuf").to_string().as_bytes(),
            schema::decode::FieldValidation::Ignore,
        );
        let bytes = api::protobuf().encode(self.ty, &normal.unwrap().value, &kind, &self.api_version);
        let sent = case("create of protobuf", Method::POST, &path).accept(PROTOBUF);
        self.add(sent.sent(PROTOBUF, Body::Bytes(bytes)));
    }

    fn fields(&mut self, base: &Value) {
        let mut found = Vec::new();
        places(self.table, self.ty, base, "", &mut found);
        let mut seen = HashSet::new();
        let mut object = base.clone();
        if !self.seed.unkept && !base["metadata"].is_null() {
            object["metadata"]["name"] = json!("fields");
        }
        if self.row.resource == "ipaddresses" {
            object["metadata"]["name"] = json!("10.97.0.9");
        }
        for place in &found {
            let mut tried = values(self.table, place);
            tried.extend(mistyped(place, &mut seen));
            for value in tried {
                let name = format!("create {} = {}", place.at, brief(&value));
                let object = with(&object, &place.at, Some(&value));
                self.post(name, object);
            }
            if place.present {
                self.post(format!("create {} = nothing", place.at), with(&object, &place.at, None));
            }
        }
    }

    fn updates(&mut self, base: &Value) {
        let item = self.item.clone();
        let put = |name: &str, path: &str, object: Value| case(name, Method::PUT, path).json(object);
        self.add(put("update to the same", &item, base.clone()));
        let mut versioned = base.clone();
        versioned["metadata"]["resourceVersion"] = json!("{{create /metadata/resourceVersion}}");
        self.add(put("update of a known version", &item, versioned.clone()));
        versioned["metadata"]["resourceVersion"] = json!("1");
        self.add(put("update of an old version", &dry(&item), versioned.clone()));
        versioned["metadata"]["resourceVersion"] = json!("x");
        self.add(put("update of no version", &dry(&item), versioned));
        let mut other_uid = base.clone();
        other_uid["metadata"]["uid"] = json!("other");
        self.add(put("update of another uid", &dry(&item), other_uid));
        let mut renamed = base.clone();
        renamed["metadata"]["name"] = json!("other");
        self.add(put("update of another name", &dry(&item), renamed.clone()));
        self.add(put("update of what is missing", &dry(&format!("{}/other", self.collection)), renamed));
        if self.row.namespaced {
            let mut moved = base.clone();
            moved["metadata"]["namespace"] = json!("elsewhere");
            self.add(put("update of another namespace", &dry(&item), moved));
        }
        let mut described = base.clone();
        described["metadata"]["annotations"] = json!({"a": "b"});
        described["metadata"]["labels"]["c"] = json!("d");
        described["metadata"]["generation"] = json!(7);
        self.add(put("update of metadata", &dry(&item), described));
        self.add(case("get for update", Method::GET, &item).referred());
        let mut base = base.clone();
        base["metadata"]["resourceVersion"] = json!("{{get for update /metadata/resourceVersion}}");
        let base = &base;
        let mut found = Vec::new();
        places(self.table, self.ty, base, "", &mut found);
        for place in &found {
            let now = base.pointer(&place.at).cloned().unwrap_or_default();
            let mut tried = vec![other(self.table, place, &now)];
            if !place.present {
                tried = vec![sample::field(self.table, place.field, 3)];
            }
            for value in tried.into_iter().filter(|v| !v.is_null()) {
                let name = format!("update {} = {}", place.at, brief(&value));
                self.add(put(&name, &dry(&item), with(base, &place.at, Some(&value))));
            }
            if place.present {
                let name = format!("update {} = nothing", place.at);
                self.add(put(&name, &dry(&item), with(base, &place.at, None)));
            }
        }
    }

    fn patches(&mut self) {
        let item = self.item.clone();
        let dry = dry(&item);
        let patch = |name: &str, path: &str, media: &str, body: &str| {
            case(name, Method::PATCH, path).sent(media, Body::Text(body.into()))
        };
        self.add(patch("merge labels", &item, MERGE, r#"{"metadata":{"labels":{"merged":"yes"}}}"#));
        self.add(patch("merge nothing", &dry, MERGE, "{}"));
        self.add(patch("merge what is unknown", &dry, MERGE, r#"{"odd":1,"metadata":{"odd":2}}"#));
        let strict = format!("{dry}&fieldValidation=Strict");
        self.add(patch("merge what is unknown strictly", &strict, MERGE, r#"{"odd":1,"spec":{"odd":2}}"#));
        self.add(patch("merge text", &dry, MERGE, r#"{"metadata":"x"}"#));
        self.add(patch("merge another name", &dry, MERGE, r#"{"metadata":{"name":"other"}}"#));
        self.add(patch("merge another kind", &dry, MERGE, r#"{"kind":"Odd"}"#));
        let old = r#"{"metadata":{"resourceVersion":"1"}}"#;
        self.add(patch("merge an old version", &dry, MERGE, old));
        self.add(patch("merge no spec", &dry, MERGE, r#"{"spec":null}"#));
        self.add(patch("merge no JSON", &dry, MERGE, "{"));
        self.add(patch(
            "strategic labels",
            &dry,
            STRATEGIC,
            r#"{"metadata":{"labels":{"s":"t","pairs":null}}}"#,
        ));
        let finalizers =
            r#"{"metadata":{"finalizers":["a.b/c"],"$deleteFromPrimitiveList/finalizers":["d.e/f"]}}"#;
        self.add(patch("strategic finalizers", &dry, STRATEGIC, finalizers));
        self.add(patch(
            "strategic replacement",
            &dry,
            STRATEGIC,
            r#"{"metadata":{"labels":{"$patch":"replace","z":"y"}}}"#,
        ));
        self.add(patch("strategic nonsense", &dry, STRATEGIC, r#"{"metadata":{"labels":{"$patch":"odd"}}}"#));
        let add = r#"[{"op":"add","path":"/metadata/labels/j","value":"k"},{"op":"test","path":"/metadata/labels/pairs","value":"yes"}]"#;
        self.add(patch("JSON patch", &dry, JSON_PATCH, add));
        let test = r#"[{"op":"test","path":"/metadata/labels/pairs","value":"no"}]"#;
        self.add(patch("JSON patch that fails", &dry, JSON_PATCH, test));
        self.add(patch(
            "JSON patch of nothing",
            &dry,
            JSON_PATCH,
            r#"[{"op":"remove","path":"/metadata/nothing"}]"#,
        ));
        self.add(patch("JSON patch that is none", &dry, JSON_PATCH, r#"{"op":"remove"}"#));
        let missing = format!("{}/missing?dryRun=All", self.collection);
        self.add(patch("merge what is missing", &missing, MERGE, "{}"));
        self.add(patch("patch of another kind", &dry, "application/odd", "{}"));
    }

    fn applies(&mut self) {
        let apply = |name: &str, path: &str, body: Value| {
            case(name, Method::PATCH, path).sent(APPLY, Body::Text(body.to_string()))
        };
        let name = if self.row.resource == "ipaddresses" { "10.97.0.7" } else { "applied" };
        let mut object = self.object(&self.seed.base, name);
        object["metadata"]["name"] = json!(name);
        let item = format!("{}/{name}", self.collection);
        let by = |who: &str| format!("{item}?fieldManager={who}");
        self.add(apply("apply", &by("one"), object.clone()));
        self.add(apply("apply again", &by("one"), object.clone()));
        self.add(apply("apply by another", &by("two"), object.clone()));
        let bare = json!({"kind": self.row.kind, "apiVersion": self.api_version, "metadata": {"name": name}});
        self.add(apply("apply less", &format!("{}&dryRun=All", by("two")), bare.clone()));
        let mut found = Vec::new();
        places(self.table, self.ty, &self.seed.base, "", &mut found);
        let changed = found.iter().find_map(|place| {
            let now = self.seed.base.pointer(&place.at)?;
            let value = other(self.table, place, now);
            (!value.is_null()).then(|| with(&object, &place.at, Some(&value)))
        });
        if let Some(changed) = changed {
            self.add(apply("apply a conflict", &format!("{}&dryRun=All", by("three")), changed.clone()));
            let forced = format!("{}&dryRun=All&force=true", by("three"));
            self.add(apply("apply by force", &forced, changed));
        }
        let mut strange = object.clone();
        strange["odd"] = json!(1);
        self.add(apply("apply what is unknown", &format!("{}&dryRun=All", by("one")), strange));
        self.add(apply("apply without a manager", &item, bare.clone()));
        let mut renamed = bare.clone();
        renamed["metadata"]["name"] = json!("other");
        self.add(apply("apply another name", &by("one"), renamed));
        let mut managed = bare;
        managed["metadata"]["managedFields"] = json!([{"manager": "x"}]);
        self.add(apply("apply managed fields", &by("one"), managed));
        self.add(case("get applied", Method::GET, &item));
    }

    fn subresources(&mut self, base: &Value) {
        let has = |sub: &str| {
            let name = format!("{}/{sub}", self.seed.resource);
            self.table.resource(&self.seed.group, &self.seed.version, &name).is_some()
        };
        if has("scale") {
            self.scale();
        }
        let Some(status) = self.seed.status.as_ref().filter(|_| has("status")) else { return };
        let path = format!("{}/status", self.item);
        let put = |name: String, path: &str, object: Value| case(name, Method::PUT, path).json(object);
        let mut object = base.clone();
        object["status"] = status.clone();
        self.add(case("get status", Method::GET, &path).referred());
        object["metadata"]["resourceVersion"] = json!("{{get status /metadata/resourceVersion}}");
        let mut both = object.clone();
        both["metadata"]["labels"]["status"] = json!("yes");
        if let Some(spec) = both.get_mut("spec").and_then(Value::as_object_mut) {
            spec.clear();
        }
        self.add(put("update status".into(), &path, both));
        self.add(put("update with a status".into(), &dry(&self.item), object.clone()));
        self.add(case("get for status", Method::GET, &path).referred());
        object["metadata"]["resourceVersion"] = json!("{{get for status /metadata/resourceVersion}}");
        let mut none = object.clone();
        none["status"] = json!({});
        self.add(put("update status to nothing".into(), &dry(&path), none));
        self.add(
            case("merge status", Method::PATCH, dry(&path))
                .sent(MERGE, Body::Text(json!({"status": status, "spec": null}).to_string())),
        );
        let applied = json!({"kind": self.row.kind, "apiVersion": self.api_version, "metadata": {"name": self.seed.name}, "status": status});
        self.add(
            case("apply status", Method::PATCH, format!("{}&fieldManager=s&force=true", dry(&path)))
                .sent(APPLY, Body::Text(applied.to_string())),
        );
        let Some(field) = self.table.ty(self.ty).field("status") else { return };
        let Some(id) = field.ty.element() else { return };
        let mut found = Vec::new();
        places(self.table, id, status, "/status", &mut found);
        for place in &found {
            let mut tried = values(self.table, place);
            if !place.present {
                tried.push(sample::field(self.table, place.field, 3));
            }
            tried.dedup();
            for value in tried {
                let name = format!("update status {} = {}", place.at, brief(&value));
                self.add(put(name, &dry(&path), with(&object, &place.at, Some(&value))));
            }
        }
        self.add(case("get status as table", Method::GET, &path).accept(TABLE));
        self.add(case("get with a status as protobuf", Method::GET, &self.item).accept(PROTOBUF));
        self.add(case("get with a status as table", Method::GET, &self.item).accept(TABLE));
    }

    fn scale(&mut self) {
        let path = format!("{}/scale", self.item);
        let named =
            |replicas: Value| json!({"metadata": {"name": self.seed.name}, "spec": {"replicas": replicas}});
        let put = |name: &str, body: Value| case(name, Method::PUT, dry(&path)).json(body);
        let mut old = named(json!(4));
        old["metadata"]["resourceVersion"] = json!("1");
        let cases = vec![
            case("get scale", Method::GET, &path),
            case("get scale as protobuf", Method::GET, &path).accept(PROTOBUF),
            case("get scale as table", Method::GET, &path).accept(TABLE),
            put("update scale", named(json!(4))),
            put("update scale below zero", named(json!(-4))),
            put("update scale to text", named(json!("x"))),
            put("update scale of another", json!({"metadata": {"name": "other"}, "spec": {"replicas": 1}})),
            put("update scale of nobody", json!({"spec": {"replicas": 1}})),
            put("update scale of an old version", old),
            case("merge scale", Method::PATCH, &path)
                .sent(MERGE, Body::Text(r#"{"spec":{"replicas":5}}"#.into())),
            case("apply scale", Method::PATCH, format!("{}&fieldManager=s&force=true", dry(&path))).sent(
                APPLY,
                Body::Text(format!(
                    r#"{{"kind":"Scale","apiVersion":"autoscaling/v1","metadata":{{"name":{:?}}},"spec":{{"replicas":6}}}}"#,
                    self.seed.name
                )),
            ),
            case("get scaled", Method::GET, &self.item),
        ];
        for case in cases {
            self.add(case);
        }
    }

    fn selectors(&mut self) {
        let list = |query: &str| format!("{}?{query}", self.collection);
        let mut cases = Vec::new();
        for selector in [
            "pairs=yes,merged",
            "pairs in (yes,no),!merged",
            "pairs!=yes",
            "pairs notin (no)",
            "merged>1",
            "a b",
            "pairs in (",
        ] {
            let path = list(&format!(
                "limit=500&labelSelector={}",
                selector.replace('>', "%3E").replace(',', "%2C")
            ));
            // Lists of everything there is hold what is no business of the story.
            if self.row.namespaced
                || selector.starts_with("pairs=")
                || selector.starts_with("a")
                || selector.ends_with('(')
            {
                cases.push(case(format!("list labels {selector}"), Method::GET, path));
            }
        }
        let resources = apiserver::resources::Resources::new(self.table, &[]);
        let served = resources.get(&self.seed.group, &self.seed.version, &self.seed.resource).unwrap();
        let mut fields: Vec<String> =
            served.strategy.selectable_fields().iter().map(|(name, _)| format!("{name}=x")).collect();
        fields.extend([
            format!("metadata.name={}", self.seed.name),
            "metadata.name!=base".into(),
            "odd=x".into(),
            "odd".into(),
        ]);
        for selector in fields {
            let path = list(&format!("labelSelector=pairs&fieldSelector={}", selector.replace('=', "%3D")));
            cases.push(case(format!("list fields {selector}"), Method::GET, path));
        }
        for case in cases {
            self.add(case);
        }
    }

    fn deletes(&mut self, base: &Value) {
        let item = self.item.clone();
        let delete = |name: &str, path: &str, body: Value| {
            let case = case(name, Method::DELETE, path);
            if body.is_null() { case } else { case.json(body) }
        };
        self.add(delete("delete another uid", &item, json!({"preconditions": {"uid": "x"}})));
        self.add(delete("delete an old version", &item, json!({"preconditions": {"resourceVersion": "1"}})));
        self.add(delete("delete oddly", &item, json!({"propagationPolicy": "Odd"})));
        self.add(delete("delete dry", &dry(&item), Value::Null));
        let held = json!({"metadata": {"finalizers": ["a.b/c"]}}).to_string();
        self.add(case("hold", Method::PATCH, &item).sent(MERGE, Body::Text(held)));
        self.add(delete("delete what is held", &format!("{item}?gracePeriodSeconds=0"), Value::Null));
        self.add(case("get what is held", Method::GET, &item));
        self.add(case("update what is held", Method::PUT, dry(&item)).json(base.clone()));
        let more = json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}}).to_string();
        self.add(case("hold what is held", Method::PATCH, dry(&item)).sent(MERGE, Body::Text(more)));
        let free = json!({"metadata": {"finalizers": null}}).to_string();
        self.add(case("release", Method::PATCH, &item).sent(MERGE, Body::Text(free)));
        self.add(delete("delete what is missing", &format!("{}/missing", self.collection), Value::Null));
        if self.row.allows("deletecollection") {
            let selected = format!("{}?labelSelector=pairs%3Dyes", self.collection);
            self.add(delete("delete all dry", &format!("{selected}&dryRun=All"), Value::Null));
            self.add(delete("delete all", &format!("{selected}&gracePeriodSeconds=0"), Value::Null));
            self.add(case("list deleted", Method::GET, &selected));
        }
    }
}

fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.len() <= 40 { text } else { format!("{}…", text.chars().take(30).collect::<String>()) }
}
