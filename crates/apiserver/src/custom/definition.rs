//! A definition to the resources it brings: one per served version.

use super::conversion::{Conversion, Means, Webhook};
use super::source::Source;
use super::strategy::CustomStrategy;
use crate::resources::{Custom, Served, Shared, Types};
use apimachinery::value::Value;
use bytes::Bytes;
use hooks::apiextensions::condition;
use schema::discovery::compare_versions;
use schema::row::Str;
use schema::{ResourceRow, TypeId};
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

const VERBS: &[Str] = &[
    Cow::Borrowed("delete"),
    Cow::Borrowed("deletecollection"),
    Cow::Borrowed("get"),
    Cow::Borrowed("list"),
    Cow::Borrowed("patch"),
    Cow::Borrowed("create"),
    Cow::Borrowed("update"),
    Cow::Borrowed("watch"),
];
/// What discovery tells of a resource whose definition is going.
const GOING: &[Str] = &[
    Cow::Borrowed("delete"),
    Cow::Borrowed("deletecollection"),
    Cow::Borrowed("get"),
    Cow::Borrowed("list"),
    Cow::Borrowed("watch"),
];
const SUBRESOURCE_VERBS: &[Str] = &[Cow::Borrowed("get"), Cow::Borrowed("patch"), Cow::Borrowed("update")];

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn owned(text: &str) -> Str {
    Cow::Owned(text.to_owned())
}

fn texts(value: &Value, key: &str) -> Cow<'static, [Str]> {
    let list = value[key].as_array().into_iter().flatten().filter_map(Value::as_str);
    list.map(owned).collect()
}

/// What `definition` brings; `bytes` is its stored form.
pub fn served(definition: &Value, bytes: &Bytes, means: &Means) -> Vec<Arc<Served>> {
    let accepted = condition(definition, "NamesAccepted") == "True";
    if !accepted && condition(definition, "Established") != "True" {
        return Vec::new();
    }
    let conversion = conversion(definition, bytes, means);
    let served = versions(definition).iter().filter(|v| v["served"] == true);
    served.filter_map(|version| one(definition, version, &conversion).map(Arc::new)).collect()
}

/// What `definition` stores, whether that version is served or not.
pub(super) fn stored(definition: &Value, bytes: &Bytes, means: &Means) -> Option<Arc<Served>> {
    let version = versions(definition).iter().find(|v| v["storage"] == true)?;
    one(definition, version, &conversion(definition, bytes, means)).map(Arc::new)
}

fn versions(definition: &Value) -> &[Value] {
    definition["spec"]["versions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn conversion(definition: &Value, bytes: &Bytes, means: &Means) -> Arc<Conversion> {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let group = text(spec, "group");
    let source = |version: &Value| {
        let (kind, list_kind) = (text(names, "kind"), text(names, "listKind"));
        let name = text(version, "name");
        let generation = crate::object::generation(definition);
        let stamp = format!("{}/{generation}/{kind}/{list_kind}/{name}", crate::object::uid(definition));
        Arc::new(Source::new(bytes.clone(), stamp, (group, name), (kind, list_kind)))
    };
    let versions = versions(definition);
    let storage = versions.iter().find(|v| v["storage"] == true).map_or("", |v| text(v, "name"));
    Arc::new(Conversion::new(
        format!("{group}/{storage}"),
        versions.iter().map(source).collect(),
        Webhook::of(crate::object::name(definition), &spec["conversion"], means),
    ))
}

/// One version of a definition as it is served.
fn one(definition: &Value, version: &Value, conversion: &Arc<Conversion>) -> Option<Served> {
    let spec = &definition["spec"];
    let names = &definition["status"]["acceptedNames"];
    let (group, name) = (text(spec, "group"), text(version, "name"));
    let (plural, kind) = (text(names, "plural"), text(names, "kind"));
    let terminating = condition(definition, "Terminating") == "True";
    let row = ResourceRow {
        group: owned(group),
        version: owned(name),
        resource: owned(plural),
        kind: owned(kind),
        kind_group_version: None,
        singular: owned(text(names, "singular")),
        namespaced: text(spec, "scope") == "Namespaced",
        short_names: texts(names, "shortNames"),
        categories: texts(names, "categories"),
        verbs: Cow::Borrowed(VERBS),
        key_prefix: Some(Cow::Owned(format!("/registry/{group}/{plural}"))),
        storage_version: Some((owned(group), owned(conversion.storage_version()))),
        parameters: Cow::Borrowed(&[]),
        returns_deleted: false,
    };
    let mut subresources = HashMap::new();
    for (subresource, of) in [("status", None), ("scale", Some(("autoscaling", "v1", "Scale")))] {
        if !version["subresources"][subresource].is_object() {
            continue;
        }
        let row = ResourceRow {
            resource: Cow::Owned(format!("{plural}/{subresource}")),
            singular: Cow::Borrowed(""),
            short_names: Cow::Borrowed(&[]),
            categories: Cow::Borrowed(&[]),
            verbs: Cow::Borrowed(SUBRESOURCE_VERBS),
            kind: of.map_or(row.kind.clone(), |(_, _, kind)| Cow::Borrowed(kind)),
            kind_group_version: of.map(|(g, v, _)| (Cow::Borrowed(g), Cow::Borrowed(v))),
            key_prefix: None,
            storage_version: None,
            ..row.clone()
        };
        subresources.insert(subresource.to_owned(), Shared::Owned(Arc::new(row)));
    }
    let mut listed = row.clone();
    if terminating {
        listed.verbs = Cow::Borrowed(GOING);
    }
    let of = |name: &str| subresources.get(name).map(|row: &Shared<ResourceRow>| ResourceRow::clone(row));
    let listed = std::iter::once(listed).chain(["status", "scale"].into_iter().filter_map(of)).collect();
    let api_version = format!("{group}/{name}");
    let source = conversion.version(&api_version)?.clone();
    Some(Served {
        prefix: format!("/registry/{group}/{plural}/").into(),
        row: Shared::Owned(Arc::new(row)),
        table: Types::Custom(source.clone()),
        ty: TypeId(0),
        hub_version: name.to_owned(),
        hub_ty: TypeId(0),
        strategy: Shared::Owned(Arc::new(CustomStrategy::new(version, source.clone(), terminating))),
        hub_api_version: api_version.clone(),
        api_version,
        subresources,
        custom: Some(Custom {
            gone: Default::default(),
            // The first generation of a definition is the only one whose objects are all of one shape.
            stale_storage: definition["metadata"]["generation"].as_i64() != Some(1),
            warning: warning(version, versions(definition), group, kind),
            listed,
            source,
            conversion: conversion.clone(),
        }),
        measures: Default::default(),
    })
}

/// What users of a deprecated version are told.
fn warning(version: &Value, versions: &[Value], group: &str, kind: &str) -> Option<String> {
    if version["deprecated"] != true {
        return None;
    }
    if let Some(own) = version["deprecationWarning"].as_str() {
        return Some(own.to_owned());
    }
    let name = text(version, "name");
    let newest = versions
        .iter()
        .filter(|v| v["served"] == true && v["deprecated"] != true)
        .map(|v| text(v, "name"))
        .filter(|other| compare_versions(name, other).is_lt())
        .max_by(|a, b| compare_versions(a, b));
    let instead = newest.map(|newest| format!("; use {group}/{newest} {kind}")).unwrap_or_default();
    Some(format!("{group}/{name} {kind} is deprecated{instead}"))
}
