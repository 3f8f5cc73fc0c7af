//! Discovery and OpenAPI, compared with what a v1.36 API server serves.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

mod shared;

use apimachinery::json;
use apimachinery::value::Value;
use expect_test::expect;
use schema::discovery::{self, AggregatedVersion, Resources};
use schema::openapi::Encodings;

fn parse(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// Says where two trees part, which a dump of both would hide.
fn assert_same(got: &Value, want: &Value, path: &str, differences: &mut Vec<String>) {
    match (got, want) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|k| !a.contains_key(k))) {
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => assert_same(a, b, &format!("{path}/{key}"), differences),
                    (Some(a), None) => differences.push(format!("{path}/{key}: extra {a:.100}")),
                    (None, Some(b)) => differences.push(format!("{path}/{key}: absent {b:.100}")),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert_same(a, b, &format!("{path}/{i}"), differences);
            }
        }
        _ if got == want => {}
        _ => differences.push(format!("{path}: got {got:.200} want {want:.200}")),
    }
}

fn compare(name: &str, got: &Value, want: &Value) {
    let mut differences = Vec::new();
    assert_same(got, want, "", &mut differences);
    let shown: Vec<String> = differences.iter().take(40).map(|d| d.chars().take(300).collect()).collect();
    assert!(differences.is_empty(), "{name}: {} differences:\n{}", differences.len(), shown.join("\n"));
}

#[test]
fn aggregated_discovery_is_what_upstream_serves_by_default() {
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    for (file, groups) in [("discovery_api.json", &groups[..1]), ("discovery_apis.json", &groups[1..])] {
        let Some(want) = shared::text(&format!("default-flags/{file}")) else { return };
        compare(file, &parse(&discovery::aggregated(groups, AggregatedVersion::V2)), &parse(want.as_bytes()));
    }
}

#[test]
fn classic_discovery_is_what_upstream_serves_with_everything_on() {
    let groups = discovery::groups(api::table(), &|_| true);
    let check = |file: &str, got: &[u8]| {
        if let Some(want) = shared::text(&format!("discovery/{file}.json")) {
            compare(file, &parse(got), &parse(want.as_bytes()));
        }
    };
    check("api", &discovery::api_versions(&groups[0], "10.10.10.10:8050"));
    check("apis", &discovery::group_list(&groups));
    for group in &groups {
        let file = if group.name.is_empty() { "api".to_owned() } else { format!("apis__{}", group.name) };
        if !group.name.is_empty() {
            check(&file, &discovery::group(group));
        }
        for version in &group.versions {
            check(
                &format!("{file}__{}", version.version),
                &discovery::resource_list(group.name, version).unwrap(),
            );
        }
    }
    check("aggregated_v2", &discovery::aggregated(&groups[1..], AggregatedVersion::V2));
}

#[test]
fn foreign_groups_and_versions_have_their_place() {
    let theirs = json!([{"resource": "pods", "verbs": ["get"]}]);
    let version =
        discovery::Version { version: "v1beta1", resources: Resources::Foreign(&theirs), stale: true };
    let group = discovery::Group { name: "metrics.k8s.io", versions: vec![version] };
    assert_eq!(
        parse(&discovery::aggregated(&[group], AggregatedVersion::V2Beta1))["items"],
        json!([{"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1beta1", "resources": theirs, "freshness": "Stale"}]}])
    );
    let mut versions =
        ["foo10", "v1beta1", "v12alpha1", "v2", "v3beta1", "v11alpha2", "v1", "foo1", "v11beta2", "v10"];
    versions.sort_by(|a, b| discovery::compare_versions(b, a));
    assert_eq!(
        versions,
        ["v10", "v2", "v1", "v11beta2", "v3beta1", "v1beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
    );
    assert!(discovery::etag(b"").starts_with("\"CF83E1357EEFB8BD"));
}

/// What of OpenAPI documents is compared: all of them, in the order in which nothing depends on order. The documents of the
/// house with everything on were recorded without enumerations.
fn comparable(value: &Value, everything: bool) -> Value {
    let without =
        |text: &str| text.split("\n\nPossible enum values:").next().unwrap_or_default().trim_end().to_owned();
    let enumerated = |item: &Value| everything && item.is_array();
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(key, item)| !(*key == "enum" && enumerated(item)))
            .map(|(key, item)| match (key.as_str(), item) {
                ("description", Value::String(text)) if everything => (key.clone(), without(text).into()),
                ("parameters", Value::Array(items)) => {
                    let mut items: Vec<Value> = items.iter().map(|i| comparable(i, everything)).collect();
                    items.sort_by_key(|p| format!("{}{}", p["name"], p["$ref"]));
                    (key.clone(), items.into())
                }
                _ => (key.clone(), comparable(item, everything)),
            })
            .collect(),
        Value::Array(items) => items.iter().map(|item| comparable(item, everything)).collect(),
        other => other.clone(),
    }
}

/// What is served: with default flags, or everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Default,
    Everything,
}

impl Mode {
    fn documents(self) -> schema::openapi::Documents {
        let (groups, encodings) = match self {
            Mode::Default => {
                (discovery::groups(api::table(), &discovery::enabled_by_default), Encodings::Standard)
            }
            Mode::Everything => (discovery::groups(api::table(), &|_| true), Encodings::WithCbor),
        };
        schema::openapi::Documents::new(api::table(), &groups, encodings, api::descriptions)
    }

    /// The differences of a document and a recorded one.
    fn differ(self, name: &str, got: &Value, want: &Value, differences: &mut Vec<String>) {
        let everything = self == Mode::Everything;
        let (mut got, mut want) = (comparable(got, everything), comparable(want, everything));
        for document in [&mut got, &mut want] {
            if everything {
                // The recorder had no version.
                document["info"]["version"] = Value::Null;
            }
            // Files of the machine, for those who ask for them with a flag that is about to go.
            document["paths"].as_object_mut().unwrap().retain(|path, _| !path.starts_with("/logs/"));
            if let Some(parameters) = document.get_mut("parameters").and_then(Value::as_object_mut) {
                parameters.retain(|name, _| !name.starts_with("logpath-"));
            }
        }
        assert_same(&got, &want, name, differences);
    }
}

fn none(differences: &[String]) {
    let shown: Vec<String> = differences.iter().take(60).map(|d| d.chars().take(400).collect()).collect();
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), shown.join("\n"));
}

#[test]
fn openapi_v3_is_what_upstream_serves_by_default() {
    openapi_v3("default-flags/openapi_v3", Mode::Default);
}

#[test]
fn openapi_v3_is_what_upstream_serves_with_everything_on() {
    openapi_v3("openapi/v3", Mode::Everything);
}

fn openapi_v3(directory: &str, mode: Mode) {
    let Some(directory) = shared::data(directory) else { return };
    let documents = mode.documents();
    let listed = parse(&documents.index(Default::default()));
    let mut differences = Vec::new();
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let key = stem.trim_end_matches("_openapi").replace("__", "/");
        if key == "logs" {
            continue;
        }
        keys.push(key.clone());
        let Some((got, hash)) = documents.v3(&key) else {
            differences.push(format!("{key}: absent"));
            continue;
        };
        assert_eq!(listed["paths"][&key]["serverRelativeURL"], format!("/openapi/v3/{key}?hash={hash}"));
        let want = parse(&std::fs::read(&path).unwrap());
        mode.differ(&key, &parse(&got), &want, &mut differences);
    }
    none(&differences);
    keys.push(".well-known/openid-configuration".into());
    keys.sort();
    keys.dedup();
    assert_eq!(listed["paths"].as_object().unwrap().keys().cloned().collect::<Vec<_>>(), keys);
}

#[test]
fn openapi_v2_is_what_upstream_serves_by_default() {
    openapi_v2("default-flags/openapi_v2.json", Mode::Default);
}

#[test]
fn openapi_v2_is_what_upstream_serves_with_everything_on() {
    openapi_v2("openapi/swagger.json", Mode::Everything);
}

fn openapi_v2(file: &str, mode: Mode) {
    let Some(want) = shared::text(file) else { return };
    let mut differences = Vec::new();
    mode.differ("", &parse(&mode.documents().v2().0), &parse(want.as_bytes()), &mut differences);
    none(&differences);
}

/// The fields of a protobuf message: number, and bytes where it has some.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut n, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            n |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return n;
            }
        }
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        match key & 7 {
            0 => {
                varint(&mut bytes);
                out.push((key >> 3, &[][..]));
            }
            2 => {
                let length = varint(&mut bytes) as usize;
                out.push((key >> 3, &bytes[..length]));
                bytes = &bytes[length..];
            }
            other => panic!("wire type {other}"),
        }
    }
    out
}

#[test]
fn openapi_v2_is_there_as_protobuf_too() {
    let groups = discovery::groups(api::table(), &discovery::enabled_by_default);
    let documents =
        schema::openapi::Documents::new(api::table(), &groups, Default::default(), api::descriptions);
    let json = parse(&documents.v2().0);
    let bytes = documents.v2_protobuf().0;
    let document = fields(&bytes);
    let one = |tag: u64| document.iter().find(|(t, _)| *t == tag).unwrap().1;
    assert_eq!(one(1), b"2.0");
    assert_eq!(fields(one(8)).len(), json["paths"].as_object().unwrap().len());
    let definitions = fields(one(9));
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let (_, pod) = definitions.iter().find(|(_, d)| fields(d)[0].1 == b"io.k8s.api.core.v1.Pod").unwrap();
    let schema = fields(fields(pod)[1].1);
    let tags: Vec<u64> = schema.iter().map(|(t, _)| *t).collect();
    assert_eq!(tags, [4, 22, 25, 31]);
    assert!(schema[0].1.starts_with(b"Pod is a collection of containers"));
    assert_eq!(fields(schema[1].1), [(1, &b"object"[..])]);
    assert_eq!(fields(schema[3].1)[0].1, b"x-kubernetes-group-version-kind");
}

#[test]
fn documents_of_others_are_merged() {
    let mut ours = json!({
        "paths": {"/a": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/A"}}}}}},
        "definitions": {
            "A": {"type": "object"},
            "Same": {"type": "string", "x-kubernetes-group-version-kind": [{"group": "", "kind": "S", "version": "v1"}]},
        },
        "parameters": {"p-1": {"name": "p", "in": "query", "type": "string"}},
    });
    let theirs = json!({
        "paths": {
            "/a": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/Unwanted"}}}}},
            "/b": {
                "parameters": [{"$ref": "#/parameters/p-1"}],
                "get": {"responses": {"200": {"schema": {"$ref": "#/definitions/A"}}}},
            },
        },
        "definitions": {
            "A": {"type": "object", "properties": {"same": {"$ref": "#/definitions/Same"}}},
            "A_v2": {"type": "integer"},
            "Same": {"type": "string", "x-kubernetes-group-version-kind": [{"group": "g", "kind": "S", "version": "v1"}]},
            "Unwanted": {"type": "object"},
            "Unused": {"type": "object"},
        },
        "parameters": {"p-1": {"name": "p", "in": "query", "type": "integer"}},
    });
    schema::openapi::merge(&mut ours, theirs.clone());
    let expected = expect![[r##"
        {
          "definitions": {
            "A": {
              "type": "object"
            },
            "A_v2": {
              "type": "integer"
            },
            "A_v3": {
              "properties": {
                "same": {
                  "$ref": "#/definitions/Same"
                }
              },
              "type": "object"
            },
            "Same": {
              "type": "string",
              "x-kubernetes-group-version-kind": [
                {
                  "group": "",
                  "kind": "S",
                  "version": "v1"
                },
                {
                  "group": "g",
                  "kind": "S",
                  "version": "v1"
                }
              ]
            },
            "Unused": {
              "type": "object"
            }
          },
          "parameters": {
            "p-1": {
              "in": "query",
              "name": "p",
              "type": "string"
            },
            "p-1_v2": {
              "in": "query",
              "name": "p",
              "type": "integer"
            }
          },
          "paths": {
            "/a": {
              "get": {
                "responses": {
                  "200": {
                    "schema": {
                      "$ref": "#/definitions/A"
                    }
                  }
                }
              }
            },
            "/b": {
              "get": {
                "responses": {
                  "200": {
                    "schema": {
                      "$ref": "#/definitions/A_v3"
                    }
                  }
                }
              },
              "parameters": [
                {
                  "$ref": "#/parameters/p-1_v2"
                }
              ]
            }
          }
        }"##]];
    expected.assert_eq(&serde_json::to_string_pretty(&ours).unwrap());
    // What was renamed before is the same again.
    let again = ours.clone();
    let mut theirs = theirs;
    let moved = theirs["paths"]["/b"].take();
    theirs["paths"] = json!({"/c": moved});
    theirs["definitions"].as_object_mut().unwrap().remove("Unwanted");
    schema::openapi::merge(&mut ours, theirs);
    assert_eq!(ours["definitions"], again["definitions"]);
    assert_eq!(ours["paths"]["/c"], again["paths"]["/b"]);
}

/// A v3 document made of v2 says what the one that is served says, as far as v2 can say it.
#[test]
fn v2_is_turned_into_v3() {
    let documents = Mode::Default.documents();
    let (key, prefix) = ("apis/storage.k8s.io/v1", "/apis/storage.k8s.io/v1/");
    let own = schema::openapi::within(documents.write_v2(), &|path| path.starts_with(prefix));
    let mut made = schema::openapi::to_v3(&own);
    let mut served = parse(&documents.v3(key).unwrap().0);
    // Defaults, and which of several types a value has, are not in v2.
    fn plain(value: &mut Value) {
        match value {
            Value::Object(map) => {
                map.remove("default");
                map.remove("x-kubernetes-group-version-kind");
                if map.remove("oneOf").is_some() {
                    map.insert("type", "string".into());
                }
                if let Some(Value::Array(all)) = map.remove("allOf") {
                    map.extend(all[0].as_object().unwrap().clone());
                }
                map.values_mut().for_each(plain);
            }
            Value::Array(items) => items.iter_mut().for_each(plain),
            _ => {}
        }
    }
    for document in [&mut made, &mut served] {
        plain(document);
    }
    let mut differences = Vec::new();
    assert_same(&comparable(&made, false), &comparable(&served, false), key, &mut differences);
    none(&differences);
}
