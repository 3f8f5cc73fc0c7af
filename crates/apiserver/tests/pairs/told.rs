//! Stories that are written out, a file each in `told/`: what is asked of an address (`base`), with an object that the
//! requests change (`object`).

use crate::case::{Body, Case, JSON, Story, case};
use crate::cases::namespace;
use apimachinery::value::Value;
use http::Method;
use schema::decode::{FieldValidation, free_yaml};
use schema::patch;
use std::path::Path;

const TOLD: [&str; 12] = [
    "applied",
    "collections",
    "custom",
    "custom_cel",
    "custom_scale",
    "definitions",
    "merged",
    "policies",
    "subresources",
    "tables",
    "typed",
    "watched",
];

pub fn stories() -> Vec<Story> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pairs/told");
    let read = |name: &str| std::fs::read_to_string(directory.join(format!("{name}.yaml"))).unwrap();
    TOLD.iter().map(|name| story(name, &read(name))).collect()
}

fn story(name: &str, text: &str) -> Story {
    let told = free_yaml(text, FieldValidation::Ignore).unwrap_or_else(|e| panic!("{name}: {e}")).value;
    let base = told["base"].as_str().unwrap_or_default();
    let read = |cases: &Value, template: &Value| -> Vec<Case> {
        let cases = cases.as_array().map(Vec::as_slice).unwrap_or_default();
        cases.iter().map(|one| request(name, base, template, one)).collect()
    };
    let mut before = told["namespace"].as_str().map(namespace).unwrap_or_default();
    before.extend(read(&told["before"], &Value::Null));
    let mut cases = read(&told["cases"], &told["object"]);
    let list = |key: &str| told[key].as_array().map(Vec::as_slice).unwrap_or_default();
    for (key, at) in [
        ("schemas", "/spec/versions/0/schema/openAPIV3Schema"),
        ("specs", "/spec"),
        ("metadata", "/metadata"),
    ] {
        cases.extend(list(key).iter().map(|part| part_of(base, &told["object"], (key, at), part)));
    }
    cases.extend(list("refused").iter().map(|rule| definition(&before, rule)));
    cases.extend(list("rules").iter().enumerate().map(|(i, rule)| evaluation(base, &mut before, i, rule)));
    Story { file: format!("told_{name}"), before, cases, after: read(&told["after"], &Value::Null) }
}

fn request(story: &str, base: &str, template: &Value, told: &Value) -> Case {
    let text = |key: &str| told[key].as_str().unwrap_or_default();
    let (method, path) = text("do").split_once(' ').unwrap_or((text("do"), ""));
    let path = if path.starts_with("/api") { path.to_owned() } else { format!("{base}{path}") };
    let method: Method = method.parse().unwrap_or_else(|e| panic!("{story}: {told}: {e}"));
    let mut made = case(text("name"), method, path);
    if let Some(accept) = told["accept"].as_str() {
        made = made.accept(accept);
    }
    let media = told["media"].as_str().unwrap_or(JSON);
    if !told["of"].is_null() {
        let mut object = template.clone();
        patch::merge(&mut object, &told["of"]);
        made = made.sent(media, Body::Json(object));
    } else if !told["body"].is_null() {
        made = made.sent(media, Body::Json(told["body"].clone()));
    } else if let Some(body) = told["text"].as_str() {
        made = made.sent(media, Body::Text(body.to_owned()));
    }
    made.referred = told["referred"] == true;
    made.established = told["established"] == true;
    made.until = told["until"].as_str().map(str::to_owned);
    made
}

/// A definition with a part of its own: in the place of what is there for schemas, else merged into it.
fn part_of(base: &str, object: &Value, (key, at): (&str, &str), part: &Value) -> Case {
    let mut object = object.clone();
    let place = object.pointer_mut(at).unwrap();
    match key {
        "schemas" => *place = part.clone(),
        _ => patch::merge(place, part),
    }
    case(format!("{key} {part}"), Method::POST, format!("{base}?dryRun=All")).json(object)
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All";

/// The definition of the story.
fn defined(before: &mut [Case]) -> &mut Value {
    let definition = before.iter_mut().find_map(|case| match &mut case.body {
        Body::Json(body) if body["kind"] == "CustomResourceDefinition" => Some(body),
        _ => None,
    });
    definition.unwrap()
}

fn ruled(definition: &mut Value, property: &str, expression: &str) {
    let schema = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    schema["spec"]["properties"][property] = apimachinery::json!({"type": "string",
        "x-kubernetes-validations": [{"rule": "self == 'never'", "messageExpression": expression}]});
}

/// A definition with a CEL expression that cannot be.
fn definition(before: &[Case], rule: &Value) -> Case {
    let expression = rule.as_str().unwrap();
    let found = before.iter().find_map(|case| match &case.body {
        Body::Json(body) if body["kind"] == "CustomResourceDefinition" => Some(body.clone()),
        _ => None,
    });
    let mut definition = found.unwrap();
    ruled(&mut definition, "p", expression);
    case(format!("define {expression}"), Method::POST, DEFINITIONS).json(definition)
}

/// What a CEL expression comes to: it is the message of a rule that nothing keeps, of a property of its own.
fn evaluation(base: &str, before: &mut [Case], i: usize, rule: &Value) -> Case {
    let (expression, property) = (rule.as_str().unwrap(), format!("p{i}"));
    ruled(defined(before), &property, expression);
    let (group, version) = base.strip_prefix("/apis/").unwrap().split_once('/').unwrap();
    let version = version.split('/').next().unwrap();
    case(expression, Method::POST, format!("{base}?dryRun=All")).json(apimachinery::json!({
        "kind": "Rule", "apiVersion": format!("{group}/{version}"), "metadata": {"name": "r"},
        "spec": {(property.as_str()): "x"}}))
}
