//! Turns `data/api-facts-v1.36.json` into the static rows of the table (`rows.rs`) and the typed structs (`types.rs`).
//!
//! Structs are made for the hub version of every kind (the most stable one served) and what it reaches; rows are made
//! for everything. `data/descriptions-v1.36.json` goes into the binary compressed.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

fn main() {
    println!("cargo:rerun-if-changed=data/api-facts-v1.36.json");
    println!("cargo:rerun-if-changed=data/descriptions-v1.36.json");
    println!("cargo:rerun-if-changed=build.rs");
    let text = std::fs::read_to_string("data/api-facts-v1.36.json").expect("the facts are part of the crate");
    let facts: Value = serde_json::from_str(&text).expect("the facts are JSON");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("rows.rs"), rows(&facts)).expect("OUT_DIR is writable");
    std::fs::write(out.join("types.rs"), structs(&facts)).expect("OUT_DIR is writable");
    let words =
        std::fs::read("data/descriptions-v1.36.json").expect("the descriptions are part of the crate");
    std::fs::write(out.join("descriptions.z"), deflated(&words)).expect("OUT_DIR is writable");
}

/// They are a megabyte, a fifth of that in the binary, and rarely wanted.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).expect("memory takes it");
    out.finish().expect("memory takes it")
}

fn s<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn cow(text: &str) -> String {
    format!("B({text:?})")
}

fn cows<'a>(items: impl Iterator<Item = &'a str>) -> String {
    format!("Q(&[{}])", items.map(cow).collect::<Vec<_>>().join(","))
}

/// The scalar a type without fields stands for, as a `Type` variant and as a Rust type.
fn scalar(name: &str) -> Option<(&'static str, &'static str)> {
    Some(match name.rsplit('.').next().unwrap_or_default() {
        "Time" => ("Time", "Time"),
        "MicroTime" => ("MicroTime", "MicroTime"),
        "Quantity" => ("Quantity", "Quantity"),
        "IntOrString" => ("IntOrString", "IntOrString"),
        "FieldsV1" | "RawExtension" => ("Object", "Value"),
        "JSON" | "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrBool" | "JSONSchemaPropsOrStringArray" => {
            ("Any", "Value")
        }
        _ => return None,
    })
}

struct Names<'a> {
    facts: &'a Value,
    ids: HashMap<&'a str, usize>,
}

impl Names<'_> {
    fn ty(&self, t: &str) -> String {
        if let Some(rest) = t.strip_prefix("[]") {
            return format!("Type::List(P(&{}))", self.ty(rest));
        }
        if let Some(rest) = t.strip_prefix("{}") {
            return format!("Type::Map(P(&{}))", self.ty(rest));
        }
        match t {
            "string" => "Type::String".into(),
            "boolean" => "Type::Bool".into(),
            "int32" => "Type::Int32".into(),
            "int64" => "Type::Int64".into(),
            "double" => "Type::Double".into(),
            "bytes" => "Type::Bytes".into(),
            "object" => "Type::Object".into(),
            "any" => "Type::Any".into(),
            name => {
                let facts = &self.facts["types"][name];
                match (facts.get("fields"), scalar(name)) {
                    (None, Some((variant, _))) => format!("Type::{variant}"),
                    _ => format!("Type::Ref(TypeId({}))", self.ids[name]),
                }
            }
        }
    }
}

fn rows(facts: &Value) -> String {
    let types = facts["types"].as_object().expect("types");
    let names = Names { facts, ids: types.keys().enumerate().map(|(i, k)| (k.as_str(), i)).collect() };
    let mut out = String::from("use Cow::Borrowed as B;\nuse Cow::Borrowed as Q;\nuse Ptr::Static as P;\n");
    let option = |v: &Value| v.as_str().map_or("None".into(), |t| format!("Some({})", cow(t)));
    let _ = writeln!(out, "pub(crate) static TYPES: [TypeRow; {}] = [", types.len());
    for (name, t) in types {
        let fields = list(t, "fields");
        let mut sorted: Vec<usize> = (0..fields.len()).collect();
        sorted.sort_by_key(|i| s(&fields[*i], "n"));
        let shape = match (t.get("fields"), scalar(name)) {
            (Some(_), _) => "Struct",
            (None, Some(_)) => "Scalar",
            (None, None) => "Object",
        };
        let mut body = String::new();
        for f in fields {
            let patch = f["patch"].as_str().map_or("None".into(), |p| {
                format!(
                    "Some(PatchStrategy {{ merge: {}, retain_keys: {} }})",
                    p.split(',').any(|x| x == "merge"),
                    p.split(',').any(|x| x == "retainKeys")
                )
            });
            let json =
                |key: &str| f.get(key).map_or("None".into(), |v| format!("Some({})", cow(&v.to_string())));
            let _ = write!(
                body,
                "Field {{ name: {}, ty: {}, tag: {}, wrapped: {}, presence: Presence::{}, pointer: {}, required: {}, default: {}, \
                 published_default: {}, enum_values: {}, gate: {}, list_type: {}, list_keys: {}, map_type: {}, patch: {patch}, \
                 merge_key: {}, go: {} }},",
                cow(s(f, "n")),
                names.ty(s(f, "t")),
                f["tag"].as_u64().unwrap_or(0),
                s(f, "t") == "[]string" && !matches!(s(f, "pt"), "" | "string"),
                match s(f, "omit") {
                    "" => "Always",
                    "empty" => "OmitEmpty",
                    _ => "OmitZero",
                },
                f["ptr"] == true,
                f["req"] == true,
                json("def"),
                json("odef"),
                cows(list(f, "enum").iter().filter_map(Value::as_str)),
                option(&f["gate"]),
                match s(f, "list") {
                    "atomic" => "Some(ListType::Atomic)",
                    "set" => "Some(ListType::Set)",
                    "map" => "Some(ListType::Map)",
                    _ => "None",
                },
                cows(list(f, "keys").iter().filter_map(Value::as_str)),
                match s(f, "map") {
                    "atomic" => "Some(MapType::Atomic)",
                    "granular" => "Some(MapType::Granular)",
                    _ => "None",
                },
                option(&f["mergeKey"]),
                match (s(f, "go"), s(f, "in")) {
                    ("", "") => "None".into(),
                    (ty, within) => format!("Some(&Go {{ ty: {ty:?}, within: {within:?} }})"),
                },
            );
        }
        let proto_fields = |v: &[Value]| {
            v.iter()
                .map(|p| {
                    format!(
                        "ProtoField {{ name: {}, ty: {}, tag: {} }}",
                        cow(p[0].as_str().unwrap_or_default()),
                        cow(p[1].as_str().unwrap_or_default()),
                        p[2]
                    )
                })
                .collect::<Vec<_>>()
                .join(",")
        };
        let within: Vec<String> = list(t, "publishedIn")
            .iter()
            .map(|p| {
                format!("({:?}, {:?})", p[0].as_str().unwrap_or_default(), p[1].as_str().unwrap_or_default())
            })
            .collect();
        let unions = t.get("unions").map(Value::to_string).unwrap_or_default();
        let published = match within.is_empty() && unions.is_empty() {
            true => "None".into(),
            false => format!("Some(&Published {{ unions: {unions:?}, within: &[{}] }})", within.join(",")),
        };
        let _ = writeln!(
            out,
            "TypeRow {{ name: {}, proto: {}, shape: Shape::{shape}, scalar: {}, fields: Q(&[{body}]), by_name: Q(&{sorted:?}), map_type: MapType::{}, \
             inlined: Q(&[{}]), proto_fields: Q(&[{}]), gvk: Q(&[{}]), \
             published: {published} }},",
            cow(name),
            cow(s(t, "proto")),
            match (t.get("fields"), scalar(name)) {
                (None, Some((v, _))) => format!("Some(Type::{v})"),
                _ => "None".into(),
            },
            if s(t, "map") == "atomic" { "Atomic" } else { "Granular" },
            list(t, "inlined")
                .iter()
                .map(|p| format!(
                    "Inlined {{ name: {}, message: {}, tag: {} }}",
                    cow(p[0].as_str().unwrap_or_default()),
                    cow(p[1].as_str().unwrap_or_default()),
                    p[2]
                ))
                .collect::<Vec<_>>()
                .join(","),
            proto_fields(list(t, "protoFields")),
            list(t, "gvk")
                .iter()
                .map(|g| format!(
                    "({},{},{})",
                    cow(g[0].as_str().unwrap_or_default()),
                    cow(g[1].as_str().unwrap_or_default()),
                    cow(g[2].as_str().unwrap_or_default())
                ))
                .collect::<Vec<_>>()
                .join(","),
        );
    }
    out.push_str("];\n");
    let only = facts["protoOnly"].as_object().expect("protoOnly");
    let _ = writeln!(
        out,
        "/// Messages without a JSON schema of their own.\npub(crate) static PROTO_ONLY: [(&str, &[ProtoField]); {}] = [",
        only.len()
    );
    for (name, fields) in only {
        let fields = fields.as_array().map(Vec::as_slice).unwrap_or_default();
        let body: Vec<String> = fields
            .iter()
            .map(|p| {
                format!(
                    "ProtoField {{ name: {}, ty: {}, tag: {} }}",
                    cow(p[0].as_str().unwrap_or_default()),
                    cow(p[1].as_str().unwrap_or_default()),
                    p[2]
                )
            })
            .collect();
        let _ = writeln!(out, "({name:?}, &[{}]),", body.join(","));
    }
    out.push_str("];\n");
    let resources = list(facts, "resources");
    let _ = writeln!(out, "pub(crate) static RESOURCES: [ResourceRow; {}] = [", resources.len());
    for r in resources {
        let pair = |v: &Value| match v.as_array() {
            Some(p) => format!(
                "Some(({}, {}))",
                cow(p[0].as_str().unwrap_or_default()),
                cow(p[1].as_str().unwrap_or_default())
            ),
            None => "None".into(),
        };
        let kind_gv = match r["kindVersion"].as_str() {
            Some(v) => format!("Some(({}, {}))", cow(s(r, "kindGroup")), cow(v)),
            None => "None".into(),
        };
        let parameters: Vec<String> = list(r, "parameters")
            .iter()
            .map(|p| {
                format!(
                    "({}, {})",
                    cow(p[0].as_str().unwrap_or_default()),
                    cow(p[1].as_str().unwrap_or_default())
                )
            })
            .collect();
        let parameters = format!("Cow::Borrowed(&[{}])", parameters.join(","));
        let _ = writeln!(
            out,
            "ResourceRow {{ group: {}, version: {}, resource: {}, kind: {}, kind_group_version: {kind_gv}, singular: {}, namespaced: {}, \
             short_names: {}, categories: {}, verbs: {}, key_prefix: {}, storage_version: {}, parameters: {parameters}, \
             returns_deleted: {} }},",
            cow(s(r, "group")),
            cow(s(r, "version")),
            cow(s(r, "resource")),
            cow(s(r, "kind")),
            cow(s(r, "singular")),
            r["namespaced"] == true,
            cows(list(r, "shortNames").iter().filter_map(Value::as_str)),
            cows(list(r, "categories").iter().filter_map(Value::as_str)),
            cows(list(r, "verbs").iter().filter_map(Value::as_str)),
            option(&r["etcdPath"]),
            pair(&r["storageVersion"]),
            r["returnsDeleted"] == true,
        );
    }
    out.push_str("];\n");
    out
}

/// Module path of a definition: `io.k8s.api.core.v1.Pod` is `core::v1`.
fn module(name: &str) -> (String, String, String) {
    let mut parts: Vec<&str> = name.split('.').collect();
    let kind = parts.pop().unwrap_or_default();
    let version = parts.pop().unwrap_or_default();
    let group = parts.pop().unwrap_or_default();
    (group.replace('-', "_"), version.into(), kind.into())
}

/// Hub preference: stable before beta before alpha, higher numbers first.
fn stability(version: &str) -> (u8, i32, i32) {
    let rest = version.trim_start_matches('v');
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let major: i32 = digits.parse().unwrap_or(0);
    let tail = &rest[digits.len()..];
    let minor: i32 = tail.trim_start_matches(|c: char| c.is_alphabetic()).parse().unwrap_or(0);
    match tail {
        "" => (2, major, 0),
        t if t.starts_with("beta") => (1, major, minor),
        _ => (0, major, minor),
    }
}

const KEYWORDS: [&str; 13] = [
    "type", "ref", "self", "match", "use", "default", "in", "for", "as", "static", "continue", "enum", "priv",
];

fn snake(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (i, c) in chars.iter().enumerate() {
        if c.is_uppercase() {
            let before = i > 0 && (chars[i - 1].is_lowercase() || chars[i - 1].is_ascii_digit());
            // `podIPs` is one acronym with a plural s: pod_ips.
            let plural = chars.get(i + 1) == Some(&'s') && chars.get(i + 2).is_none_or(|n| n.is_uppercase());
            let after = i > 0
                && chars[i - 1].is_uppercase()
                && chars.get(i + 1).is_some_and(|n| n.is_lowercase())
                && !plural;
            if before || after {
                out.push('_');
            }
            out.extend(c.to_lowercase());
        } else if *c == '$' || *c == '-' {
            if *c == '-' {
                out.push('_');
            }
        } else {
            out.push(*c);
        }
    }
    if KEYWORDS.contains(&out.as_str()) { format!("{out}_") } else { out }
}

fn element(t: &str) -> &str {
    let mut t = t;
    while let Some(rest) = t.strip_prefix("[]").or_else(|| t.strip_prefix("{}")) {
        t = rest;
    }
    t
}

fn rust_type(t: &str) -> String {
    if let Some(rest) = t.strip_prefix("[]") {
        return format!("Vec<{}>", rust_type(rest));
    }
    if let Some(rest) = t.strip_prefix("{}") {
        return format!("BTreeMap<String, {}>", rust_type(rest));
    }
    match t {
        "string" => "String".into(),
        "boolean" => "bool".into(),
        "int32" => "i32".into(),
        "int64" => "i64".into(),
        "double" => "f64".into(),
        "bytes" => "ByteString".into(),
        "object" | "any" => "Value".into(),
        name => {
            if let Some((_, rust)) = scalar(name) {
                return rust.into();
            }
            let (group, version, kind) = module(name);
            if name.starts_with(META) {
                return match kind.as_str() {
                    "DeleteOptions" | "Preconditions" => format!("meta::options::{kind}"),
                    k if HAND_WRITTEN_META.contains(&k) => format!("meta::{kind}"),
                    _ => format!("crate::meta::v1::{kind}"),
                };
            }
            format!("crate::{group}::{version}::{kind}")
        }
    }
}

/// Types that crate `apimachinery` has by hand, because everything below `api` needs them.
const HAND_WRITTEN_META: [&str; 14] = [
    "ObjectMeta",
    "OwnerReference",
    "ListMeta",
    "ManagedFieldsEntry",
    "LabelSelector",
    "LabelSelectorRequirement",
    "Condition",
    "DeleteOptions",
    "Preconditions",
    "Status",
    "StatusDetails",
    "StatusCause",
    "Time",
    "MicroTime",
];

fn structs(facts: &Value) -> String {
    let types = facts["types"].as_object().expect("types");
    // The hub version of each kind, and everything it reaches.
    let mut hub: BTreeMap<(String, String), &str> = BTreeMap::new();
    for (name, t) in types {
        if name.starts_with(META) {
            continue;
        }
        for g in list(t, "gvk") {
            let key =
                (g[0].as_str().unwrap_or_default().to_owned(), g[2].as_str().unwrap_or_default().to_owned());
            let better =
                hub.get(&key).is_none_or(|other| stability(&module(name).1) > stability(&module(other).1));
            if better {
                hub.insert(key, name);
            }
        }
    }
    let mut reached: BTreeSet<&str> = BTreeSet::new();
    let mut queue: Vec<&str> = hub.values().copied().filter(|n| !n.ends_with("List")).collect();
    // Discovery documents are served, not stored.
    queue.extend(
        ["APIGroup", "APIGroupList", "APIResourceList", "APIVersions"]
            .iter()
            .filter_map(|k| types.get_key_value(&format!("{META}{k}")).map(|(k, _)| k.as_str())),
    );
    while let Some(name) = queue.pop() {
        if !types.contains_key(name) || !reached.insert(name) {
            continue;
        }
        queue.extend(list(&types[name], "fields").iter().map(|f| element(s(f, "t"))));
    }
    let mut modules: BTreeMap<(String, String), String> = BTreeMap::new();
    for name in reached {
        let t = &types[name];
        let (group, version, kind) = module(name);
        if scalar(name).is_some() || name.starts_with(META) && HAND_WRITTEN_META.contains(&kind.as_str()) {
            continue;
        }
        let out = modules.entry((group, version)).or_default();
        let _ = writeln!(
            out,
            "/// `{name}`.\n#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]\n#[serde(default)]\npub struct {kind} {{"
        );
        let mut fields = list(t, "fields").to_vec();
        // Type metadata comes first in JSON; the table lists it so.
        for f in fields.iter_mut() {
            let (n, ty) = (s(f, "n").to_owned(), s(f, "t").to_owned());
            let pointer = f["ptr"] == true;
            let mut rust = rust_type(&ty);
            let refers = types.get(ty.as_str()).is_some_and(|t| t.get("fields").is_some());
            let scalar_value = rust == "Value";
            let mut attrs = vec![format!("rename = {n:?}")];
            let collection = ty.starts_with("[]") || ty.starts_with("{}");
            let omit = s(f, "omit");
            if ty == name {
                rust = format!("Box<{rust}>");
            }
            let time = matches!(rust.as_str(), "Time" | "MicroTime");
            if pointer || scalar_value || time {
                // A zero time is Go's nil time: absent.
                if scalar_value {
                    attrs.push("skip_serializing_if = \"Value::is_null\"".into());
                } else {
                    rust = format!("Option<{rust}>");
                    if !omit.is_empty() || time {
                        attrs.push("skip_serializing_if = \"Option::is_none\"".into());
                    }
                }
            } else if omit.is_empty() {
                if collection || refers || rust == "String" {
                    attrs.push("deserialize_with = \"null_default\"".into());
                }
            } else if !refers || ty.starts_with("[]") {
                let skip = match rust.as_str() {
                    "String" => "String::is_empty",
                    "bool" => "is_false",
                    "i32" | "i64" | "f64" => "is_zero",
                    "ByteString" => "ByteString::is_empty",
                    "Quantity" => "",
                    "IntOrString" => "",
                    r if r.starts_with("Vec<") => "Vec::is_empty",
                    r if r.starts_with("BTreeMap<") => "BTreeMap::is_empty",
                    _ => "",
                };
                if !skip.is_empty() {
                    attrs.push(format!("skip_serializing_if = {skip:?}"));
                }
            }
            let _ = writeln!(out, "    #[serde({})]\n    pub {}: {rust},", attrs.join(", "), snake(&n));
        }
        let _ = writeln!(out, "}}\napimachinery::decode!({kind});");
        if let Some(g) = list(t, "gvk").iter().find(|g| {
            hub.get(&(g[0].as_str().unwrap_or_default().into(), g[2].as_str().unwrap_or_default().into()))
                == Some(&name)
        }) {
            let (g, v, k) = (
                g[0].as_str().unwrap_or_default(),
                g[1].as_str().unwrap_or_default(),
                g[2].as_str().unwrap_or_default(),
            );
            let has_meta = list(t, "fields")
                .iter()
                .any(|f| s(f, "n") == "metadata" && s(f, "t").ends_with(".ObjectMeta"));
            let stored = list(facts, "resources").iter().find(|r| {
                s(r, "group") == g
                    && s(r, "version") == v
                    && s(r, "kind") == k
                    && !s(r, "resource").contains('/')
            });
            if let (true, Some(r)) = (has_meta, stored) {
                let _ = writeln!(
                    out,
                    "impl crate::Kind for {kind} {{\n    const GROUP: &'static str = {g:?};\n    const VERSION: &'static str = {v:?};\n    const KIND: &'static str = {k:?};\n    \
                     const RESOURCE: &'static str = {:?};\n    const NAMESPACED: bool = {};\n    fn metadata(&self) -> &meta::ObjectMeta {{ &self.metadata }}\n    \
                     fn metadata_mut(&mut self) -> &mut meta::ObjectMeta {{ &mut self.metadata }}\n    fn new() -> Self {{ Self {{ kind: {k:?}.into(), api_version: {:?}.into(), ..Default::default() }} }}\n}}",
                    s(r, "resource"),
                    r["namespaced"] == true,
                    if g.is_empty() { v.to_owned() } else { format!("{g}/{v}") },
                );
            }
        }
    }
    let mut by_group: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for ((group, version), body) in modules {
        by_group.entry(group).or_default().push((version, body));
    }
    let mut out = String::new();
    for (group, versions) in by_group {
        let _ = writeln!(out, "pub mod {group} {{");
        for (version, body) in versions {
            let _ = writeln!(out, "pub mod {version} {{\nuse crate::prelude::*;\n{body}}}");
        }
        out.push_str("}\n");
    }
    out
}
