//! A v2 document as v3, for servers that publish no v3 themselves. What v2 cannot say is not said.

use apimachinery::json;
use apimachinery::value::{Key, Map, Value};

const METHODS: [&str; 7] = ["get", "put", "post", "delete", "options", "head", "patch"];

/// See the module.
pub fn to_v3(document: &Value) -> Value {
    let paths: Map =
        members(&document["paths"]).map(|(path, item)| (path.clone(), path_item(document, item))).collect();
    let mut components = Map::new();
    let schemas: Map =
        members(&document["definitions"]).map(|(name, item)| (name.clone(), schema(item))).collect();
    if !schemas.is_empty() {
        components.insert("schemas", schemas.into());
    }
    let security: Map = members(&document["securityDefinitions"])
        .map(|(name, item)| (name.clone(), only(item, &["description", "type", "name", "in"])))
        .collect();
    if !security.is_empty() {
        components.insert("securitySchemes", security.into());
    }
    json!({"openapi": "3.0.0", "info": document["info"], "paths": paths, "components": components})
}

fn members(value: &Value) -> impl Iterator<Item = (&Key, &Value)> {
    value.as_object().into_iter().flatten()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The members of these names, and extensions.
fn only(value: &Value, names: &[&str]) -> Value {
    members(value)
        .filter(|(key, _)| names.contains(&key.as_str()) || key.starts_with("x-"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn path_item(document: &Value, item: &Value) -> Value {
    let mut out = only(item, &[]);
    for method in METHODS {
        if item[method].is_object() {
            out[method] = operation(document, &item[method]);
        }
    }
    let parameters: Vec<Value> =
        items(&item["parameters"]).map(|p| parameter(resolved(document, p))).collect();
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    out
}

/// v3 has no parameters that documents share: what is referred to stands in its place.
fn resolved<'a>(document: &'a Value, parameter: &'a Value) -> &'a Value {
    let name = parameter["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/parameters/"));
    name.map_or(parameter, |name| &document["parameters"][name])
}

fn operation(document: &Value, operation: &Value) -> Value {
    let mut out =
        only(operation, &["description", "externalDocs", "tags", "summary", "deprecated", "operationId"]);
    let mut parameters = Vec::new();
    for given in items(&operation["parameters"]).map(|p| resolved(document, p)) {
        if given["in"] != "body" {
            parameters.push(parameter(given));
            continue;
        }
        let mut body = json!({"content": content(&operation["consumes"], &given["schema"])});
        if given["required"] == true {
            body["required"] = true.into();
        }
        out["requestBody"] = body;
    }
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let responses = members(&operation["responses"]).map(|(code, response)| {
        let mut answer = only(response, &["description"]);
        if response["schema"].is_object() {
            answer["content"] = content(&operation["produces"], &response["schema"]);
        }
        (code.clone(), answer)
    });
    out["responses"] = responses.collect::<Map>().into();
    out
}

fn content(media: &Value, of: &Value) -> Value {
    let each = items(media).filter_map(Value::as_str);
    each.map(|media| (media.to_owned(), json!({ "schema": schema(of) }))).collect::<Map>().into()
}

fn parameter(given: &Value) -> Value {
    let mut out = only(given, &["name", "description", "in", "required", "allowEmptyValue"]);
    out["schema"] = match given.get("schema") {
        Some(of) => schema(of),
        None => only(given, &["type", "format", "uniqueItems"]),
    };
    out
}

/// A schema with its references turned, and wrapped where something stands beside them.
fn schema(of: &Value) -> Value {
    let Value::Object(map) = of else { return of.clone() };
    let mut out = Map::new();
    for (key, value) in map {
        let value = match (key.as_str(), value) {
            ("$ref", Value::String(target)) => match target.strip_prefix("#/definitions/") {
                Some(name) => format!("#/components/schemas/{name}").into(),
                None => value.clone(),
            },
            ("properties", Value::Object(fields)) => {
                fields.iter().map(|(name, field)| (name.clone(), schema(field))).collect::<Map>().into()
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(all)) => all.iter().map(schema).collect(),
            ("items", Value::Array(all)) => all.iter().map(schema).collect(),
            ("items" | "additionalProperties" | "additionalItems" | "not", Value::Object(_)) => schema(value),
            _ => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    if out.len() > 1
        && let Some(reference) = out.remove("$ref")
    {
        out.insert("allOf", json!([{ "$ref": reference }]));
    }
    Value::Object(out)
}
