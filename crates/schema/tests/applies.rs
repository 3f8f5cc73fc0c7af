//! Server-side apply, told as stories on built-in objects and on trees without a schema.
#![allow(clippy::unwrap_used)] // Tests unwrap, their helper functions too.

use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;
use schema::apply::{self, ApplyError, FieldSet, OneShape, Request};
use schema::decode::{self, FieldValidation};

struct Story {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    schema: bool,
    now: i64,
    object: Option<Value>,
}

impl Story {
    fn of(group: &'static str, version: &'static str, kind: &'static str) -> Self {
        Story { group, version, kind, schema: true, now: 1_700_000_000, object: None }
    }

    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    fn with<T>(&mut self, manager: &str, act: impl FnOnce(&Request<'_>, Option<&Value>) -> T) -> T {
        self.now += 1;
        let table = api::table();
        let api_version = self.api_version();
        let reset = FieldSet::of_fields(&[&["status"]]);
        let request = Request {
            table,
            ty: if self.schema { table.kind(self.group, self.version, self.kind) } else { None },
            api_version: &api_version,
            kind: self.kind,
            subresource: "",
            manager,
            now: Time::from_unix(self.now),
            reset_fields: Some(&reset),
            versions: &OneShape,
        };
        act(&request, self.object.as_ref())
    }

    fn canonical(&self, value: Value) -> Value {
        let table = api::table();
        match table.kind(self.group, self.version, self.kind) {
            Some(id) if self.schema => {
                decode::normalise(table, id, value, FieldValidation::Ignore).unwrap().value
            }
            _ => value,
        }
    }

    fn full(&self, object: Value) -> Value {
        let mut full = object;
        full["apiVersion"] = self.api_version().into();
        full["kind"] = self.kind.into();
        full
    }

    fn write(&mut self, manager: &str, object: Value) -> &mut Self {
        let mut new = self.canonical(self.full(object));
        self.with(manager, |request, live| apply::update(request, live, &mut new));
        self.object = Some(self.canonical(new));
        self
    }

    fn try_apply(&mut self, manager: &str, object: Value, force: bool) -> Result<(), ApplyError> {
        let applied = self.full(object);
        let result = self.with(manager, |request, live| apply::apply(request, live, &applied, force))?;
        self.object = Some(self.canonical(result));
        Ok(())
    }

    fn apply(&mut self, manager: &str, object: Value) -> &mut Self {
        self.try_apply(manager, object, false).unwrap();
        self
    }

    fn refused(&mut self, manager: &str, object: Value, want: &str) -> &mut Self {
        assert_eq!(self.try_apply(manager, object, false).unwrap_err().to_string(), want);
        self
    }

    fn at(&self, path: &str) -> Value {
        self.object.as_ref().unwrap().pointer(path).cloned().unwrap_or_default()
    }

    fn owns(&self, manager: &str) -> Value {
        let managed = self.at("/metadata/managedFields");
        let entries = managed.as_array().cloned().unwrap_or_default();
        entries.iter().find(|e| e["manager"] == manager).map(|e| e["fieldsV1"].clone()).unwrap_or_default()
    }
}

fn deployment(replicas: Value, containers: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "x", "labels": {"app": "web"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}},
        },
    })
}

#[test]
fn updates_note_what_they_change() {
    let mut story = Story::of("apps", "v1", "Deployment");
    story.write("kubectl-create", deployment(json!(3), json!([{"name": "a", "image": "x:1"}])));
    assert_eq!(
        story.owns("kubectl-create"),
        json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:replicas": {},
                "f:selector": {},
                "f:template": {
                    "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}, "f:name": {}, "f:resources": {}}}},
                },
            },
        })
    );
    let mut object = story.object.clone().unwrap();
    object["spec"]["replicas"] = json!(5);
    object["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
    object["status"] = json!({"replicas": 3});
    story.write("kubectl-scale", object.clone());
    assert_eq!(
        story.owns("kubectl-scale"),
        json!({"f:metadata": {"f:labels": {"f:tier": {}}}, "f:spec": {"f:replicas": {}}})
    );
    assert!(story.owns("kubectl-create")["f:spec"].get("f:replicas").is_none());
    // Nothing changed: nothing is noted, no time is touched.
    let before = story.object.clone();
    let again = before.clone().unwrap();
    story.write("someone", again);
    assert_eq!(story.object, before);
    // An empty entry resets.
    let mut reset = before.unwrap();
    reset["metadata"]["uid"] = json!("u");
    reset["metadata"]["managedFields"] = json!([{}]);
    story.write("someone", reset);
    assert_eq!(story.at("/metadata/managedFields"), Value::Null);
}

#[test]
fn applies_conflict_and_force() {
    let mut story = Story::of("apps", "v1", "Deployment");
    story.write("kubectl-client-side-apply", deployment(json!(3), json!([{"name": "a", "image": "x:1"}])));
    story.refused(
        "ci",
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 4}}),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas",
    );
    story.refused(
        "ci",
        json!({"metadata": {"name": "web"}, "spec": {"replicas": 4, "template": {"spec": {"containers": [{"name": "a", "image": "y"}]}}}}),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"a\"].image",
    );
    // The same value is shared, not fought over.
    story.apply("ci", json!({"metadata": {"name": "web"}, "spec": {"replicas": 3}}));
    assert_eq!(story.owns("ci"), json!({"f:spec": {"f:replicas": {}}}));
    story.try_apply("ci", json!({"metadata": {"name": "web"}, "spec": {"replicas": 4}}), true).unwrap();
    assert_eq!(story.at("/spec/replicas"), 4);
    assert!(story.owns("kubectl-client-side-apply")["f:spec"].get("f:replicas").is_none());
    let status = story
        .try_apply("other", json!({"metadata": {"name": "web"}, "spec": {"replicas": 9}}), false)
        .unwrap_err()
        .status();
    assert_eq!(status.code, 409);
    assert_eq!(status.details.unwrap().causes[0].field, ".spec.replicas");
    story.refused(
        "ci",
        json!({"metadata": {"name": "web", "namespace": "x"}, "spec": {"nope": 1}}),
        "failed to create typed patch object (x/web; apps/v1, Kind=Deployment): .spec.nope: field not declared in schema",
    );
}

#[test]
fn what_is_no_longer_applied_goes_unless_another_owns_it() {
    let mut story = Story::of("apps", "v1", "Deployment");
    let containers = json!([
        {"name": "a", "image": "x", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"name": "side", "image": "y"},
    ]);
    story.apply("ci", deployment(json!(3), containers));
    story.apply(
        "other",
        json!({"metadata": {"name": "web", "annotations": {"k": "v"}}, "spec": {"replicas": 3}}),
    );
    let mut less =
        deployment(Value::Null, json!([{"name": "a", "image": "x", "env": [{"name": "B", "value": "2"}]}]));
    less["spec"].as_object_mut().unwrap().remove("replicas");
    story.apply("ci", less.clone());
    assert_eq!(story.at("/spec/replicas"), 3);
    assert_eq!(
        story.at("/spec/template/spec/containers"),
        json!([{"name": "a", "image": "x", "env": [{"name": "B", "value": "2"}], "resources": {}}])
    );
    assert_eq!(story.at("/metadata/annotations"), json!({"k": "v"}));
    // Applying the same again changes nothing at all.
    let before = story.object.clone();
    story.apply("ci", less);
    assert_eq!(story.object, before);
    story.apply("other", json!({"metadata": {"name": "web"}}));
    assert_eq!(story.at("/spec/replicas"), Value::Null);
    assert_eq!(story.at("/metadata/annotations"), Value::Null);
    assert_eq!(story.owns("other"), Value::Null);
}

#[test]
fn lists_merge_by_key_with_defaulted_keys_and_keep_order() {
    let mut story = Story::of("", "v1", "Service");
    story.write("kubectl", json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "a"}, {"port": 81, "protocol": "TCP", "name": "b"}]}}));
    story.apply("ci", json!({"metadata": {"name": "s", "finalizers": ["f/2", "f/1"]}, "spec": {"ports": [{"port": 81, "appProtocol": "x"}, {"port": 82, "name": "c"}]}}));
    let ports: Vec<(i64, String)> = story
        .at("/spec/ports")
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["port"].as_i64().unwrap(), p["appProtocol"].as_str().unwrap_or_default().to_owned()))
        .collect();
    assert_eq!(ports, [(80, String::new()), (81, "x".into()), (82, String::new())]);
    assert_eq!(
        story.owns("ci"),
        json!({
            "f:metadata": {"f:finalizers": {"v:\"f/1\"": {}, "v:\"f/2\"": {}}},
            "f:spec": {"f:ports": {
                "k:{\"port\":81,\"protocol\":\"TCP\"}": {".": {}, "f:appProtocol": {}, "f:port": {}},
                "k:{\"port\":82,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}},
            }},
        })
    );
    story.refused(
        "ci",
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}}),
        "failed to create typed patch object (/s; /v1, Kind=Service): .spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
    );
}

#[test]
fn objects_without_a_schema_merge_maps_and_replace_lists() {
    let mut story = Story { schema: false, ..Story::of("example.com", "v1", "Widget") };
    story.apply("one", json!({"metadata": {"name": "w"}, "spec": {"a": {"b": 1}, "l": [1, 2]}}));
    story.apply("two", json!({"metadata": {"name": "w"}, "spec": {"a": {"c": 2}}}));
    assert_eq!(story.at("/spec"), json!({"a": {"b": 1, "c": 2}, "l": [1, 2]}));
    story.refused(
        "two",
        json!({"metadata": {"name": "w"}, "spec": {"l": [3]}}),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.l",
    );
    story.apply("one", json!({"metadata": {"name": "w"}, "spec": {"a": {}}}));
    assert_eq!(story.at("/spec"), json!({"a": {"c": 2}}));
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let mut story = Story::of("apps", "v1", "Deployment");
    let mut object = deployment(json!(3), json!([{"name": "a", "image": "x:1"}]));
    let last = story.full(object.clone()).to_string();
    object["metadata"]["annotations"] = json!({(apply::LAST_APPLIED): last});
    story.write("kubectl-client-side-apply", object);
    story.apply("kubectl", deployment(json!(5), json!([{"name": "a", "image": "x:2"}])));
    assert_eq!(story.at("/spec/replicas"), 5);
    assert!(story.at("/metadata/annotations").to_string().contains("x:2"));
}

#[test]
fn only_ten_updaters_are_told_apart() {
    let mut story = Story::of("", "v1", "ConfigMap");
    story.write("m0", json!({"metadata": {"name": "c"}, "data": {"k0": ""}}));
    for i in 1..20 {
        let mut object = story.object.clone().unwrap();
        object["data"][format!("k{i}")] = json!("");
        story.write(&format!("m{i}"), object);
    }
    let managed = story.at("/metadata/managedFields");
    let managers: Vec<&str> =
        managed.as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(managers.len(), 10);
    assert_eq!(managers[0], "ancient-changes");
    // An object that was never tracked is when it is first applied.
    let mut story = Story::of("", "v1", "ConfigMap");
    story.object =
        Some(story.canonical(story.full(json!({"metadata": {"name": "c", "uid": "u"}, "data": {"a": "1"}}))));
    story.apply("ci", json!({"metadata": {"name": "c"}, "data": {"b": "2"}}));
    assert_eq!(story.owns("before-first-apply"), json!({"f:data": {".": {}, "f:a": {}}}));
}
