//! Custom schemas: what their values may be, what is dropped, what is filled in, and which schemas are structural.
#![allow(clippy::unwrap_used)]

use apimachinery::field::{ErrorList, Path};
use apimachinery::json;
use apimachinery::value::Value;
use expect_test::{Expect, expect};
use schema::custom::{Check, Ratchet, compile, structural, validate, validate_lists};
use schema::decode::{self, FieldValidation};
use schema::{Table, TypeId};

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 5},
            "name": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
            "mode": {"type": "string", "enum": ["fast", "slow"], "default": "fast"},
            "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "when": {"type": "string", "format": "date-time"},
            "maybe": {"type": "string", "nullable": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "map": {"type": "object", "additionalProperties": {"type": "integer"}},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["id"], "items": {
                "type": "object", "required": ["id"], "properties": {
                    "id": {"type": "string"}, "deep": {"type": "object", "properties": {"on": {"type": "boolean", "default": true}}},
                },
            }},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "pick": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
                "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        }},
    }})
}

fn table() -> Table {
    compile(api::table(), &schema(), ("example.com", "v1", "Thing"), Vec::new())
}

fn object(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "x"}, "spec": spec})
}

fn judge(spec: Value, expected: Expect) {
    let table = table();
    let check = table.checks().unwrap();
    let mut errors = validate(check, &object(spec.clone()), Ratchet::Off, &Path::none());
    errors.extend(validate_lists(check, &object(spec)));
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&text.join("\n"));
}

#[test]
fn values() {
    judge(
        json!({"size": 3, "mode": "fast", "port": "http", "when": "2024-01-01T00:00:00Z", "maybe": null}),
        expect![""],
    );
    judge(
        json!({"size": "3"}),
        expect![[
            r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#
        ]],
    );
    judge(
        json!({"size": 9}),
        expect!["spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5"],
    );
    judge(
        json!({"size": 0}),
        expect!["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"],
    );
    judge(json!({}), expect!["spec.size: Required value"]);
    judge(
        json!({"size": 1, "name": "toolong"}),
        expect!["spec.name: Too long: may not be more than 5 bytes"],
    );
    judge(
        json!({"size": 1, "name": "A1"}),
        expect![[r#"spec.name: Invalid value: "A1": spec.name in body should match '^[a-z]+$'"#]],
    );
    judge(
        json!({"size": 1, "mode": "odd"}),
        expect![[r#"spec.mode: Unsupported value: "odd": supported values: "fast", "slow""#]],
    );
    judge(
        json!({"size": 1, "port": true}),
        expect![[r#"
        spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"
        <nil>: Invalid value: "": "spec.port" must validate at least one schema (anyOf)
        spec.port: Invalid value: "boolean": spec.port in body must be of type integer: "boolean""#]],
    );
    judge(
        json!({"size": 1, "when": "noon"}),
        expect![[r#"spec.when: Invalid value: "noon": spec.when in body must be of type date-time: "noon""#]],
    );
    judge(
        json!({"size": 1, "map": {"a": "b"}}),
        expect![[
            r#"spec.map.a: Invalid value: "string": spec.map.a in body must be of type integer: "string""#
        ]],
    );
    judge(
        json!({"size": 1, "items": [{"id": "a"}, {"id": "a"}]}),
        expect![[r#"spec.items[1]: Duplicate value: {"id":"a"}"#]],
    );
    judge(json!({"size": 1, "items": [{}]}), expect!["spec.items[0].id: Required value"]);
    judge(json!({"size": 1, "set": ["a", "a"]}), expect![[r#"spec.set[1]: Duplicate value: "a""#]]);
    judge(
        json!({"size": 1, "pick": {"a": "x", "b": "y"}}),
        expect![[
            r#"<nil>: Invalid value: "": "spec.pick" must validate one and only one schema (oneOf). Found 2 valid alternatives"#
        ]],
    );
    judge(
        json!({"size": null}),
        expect![[r#"spec.size: Invalid value: "null": spec.size in body must be of type integer: "null""#]],
    );
}

#[test]
fn what_did_not_change_passes() {
    let table = table();
    let check = table.checks().unwrap();
    let old = object(json!({"size": 9, "name": "BAD", "items": [{"id": "a", "deep": {"on": 1}}]}));
    let mut new = old.clone();
    new["spec"]["name"] = "WORSE".into();
    let errors = validate(check, &new, Ratchet::Against(&old), &Path::none());
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expect![[r#"spec.name: Invalid value: "WORSE": spec.name in body should match '^[a-z]+$'"#]]
        .assert_eq(&text.join("\n"));
}

#[test]
fn canonical_form() {
    let table = table();
    let root = TypeId(0);
    let given = json!({
        "apiVersion": "example.com/v1", "kind": "Thing",
        "metadata": {"name": "x", "bad": 1, "labels": {}},
        "spec": {"size": 1, "bogus": true, "maybe": null, "name": null, "mode": null, "free": {"kept": 1},
            "items": [{"id": "a", "x": 1, "deep": {}}]},
        "extra": 1,
    });
    let read = decode::json(&table, root, given.to_string().as_bytes(), FieldValidation::Strict).unwrap();
    let mut value = read.value;
    schema::defaults::apply(&table, root, &mut value);
    expect![[r#"
        unknown field "metadata.bad"
        unknown field "extra"
        unknown field "spec.bogus"
        unknown field "spec.items[0].x"
        {"apiVersion":"example.com/v1","kind":"Thing","metadata":{"name":"x"},"spec":{"free":{"kept":1},"items":[{"deep":{"on":true},"id":"a"}],"maybe":null,"mode":"fast","size":1}}"#]]
    .assert_eq(&format!("{}\n{value}", read.strict.join("\n")));
}

fn structure(schema: Value, expected: Expect) {
    let path = Path::new("s");
    let mut errors = structural::validate_structural(&path, &schema);
    errors.extend(structural::validate_schema(&path, &schema, Default::default()));
    errors.extend(structural::validate_defaults(api::table(), &path, &schema, &|_, _, _| ErrorList::new()));
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    expected.assert_eq(&text.join("\n"));
}

#[test]
fn structural_rules() {
    structure(schema(), expect![""]);
    structure(
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        expect!["s.properties[a].items: Required value: must be specified"],
    );
    structure(
        json!({"properties": {"a": {}}}),
        expect![[r#"
        s.properties[a].type: Required value: must not be empty for specified object fields
        s.type: Required value: must not be empty at the root"#]],
    );
    structure(
        json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]}),
        expect![[r#"
        s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural
        s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]"#]],
    );
    structure(
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        expect![
            "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified"
        ],
    );
    structure(
        json!({"type": "object", "properties": {"a": {"type": "string", "default": 5}}}),
        expect![[
            r#"s.properties[a].default: Invalid value: "integer":  in body must be of type string: "integer""#
        ]],
    );
    structure(
        json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}}),
        expect![
            "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map"
        ],
    );
    structure(
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "("}}}),
        expect![[
            r#"s.properties[a].pattern: Invalid value: "(": must be a valid regular expression, but isn't: unclosed group"#
        ]],
    );
}

#[test]
fn checks_are_small() {
    assert!(std::mem::size_of::<Check>() <= 144, "{}", std::mem::size_of::<Check>());
}
