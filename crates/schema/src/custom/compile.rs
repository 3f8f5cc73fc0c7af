//! A definition's schema to rows.

use super::META;
use super::check::{Check, list_type};
use crate::row::{Field, ListType, MapType, Presence, Ptr, ResourceRow, Shape, Str, Type, TypeId, TypeRow};
use crate::table::Table;
use apimachinery::value::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;

/// The table of one version of a custom kind; type 0 is the kind. `builtin` lends the rows of the metadata.
pub fn compile(
    builtin: &Table,
    schema: &Value,
    kind: (&str, &str, &str),
    resources: Vec<ResourceRow>,
) -> Table {
    let mut compiler = Compiler { builtin, types: vec![placeholder()], imported: HashMap::new(), meta: None };
    let empty = Map::new();
    let map = schema.as_object().unwrap_or(&empty);
    let mut root = compiler.object(map, Root::Yes);
    let (group, version, kind) = kind;
    root.gvk = vec![(owned(group), owned(version), owned(kind))].into();
    compiler.types[0] = root;
    Table::custom(compiler.types, resources, Check::of(schema))
}

fn owned(text: &str) -> Str {
    Cow::Owned(text.to_owned())
}

fn placeholder() -> TypeRow {
    TypeRow {
        name: Cow::Borrowed(""),
        proto: Cow::Borrowed(""),
        shape: Shape::Struct,
        scalar: None,
        fields: Cow::Borrowed(&[]),
        by_name: Cow::Borrowed(&[]),
        map_type: MapType::Granular,
        inlined: Cow::Borrowed(&[]),
        proto_fields: Cow::Borrowed(&[]),
        gvk: Cow::Borrowed(&[]),
        published: None,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Root {
    Yes,
    No,
}

struct Compiler<'a> {
    builtin: &'a Table,
    types: Vec<TypeRow>,
    /// Built-in types and their place here.
    imported: HashMap<TypeId, TypeId>,
    meta: Option<TypeId>,
}

fn flag(schema: &Map, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

impl Compiler<'_> {
    fn push(&mut self, row: TypeRow) -> TypeId {
        self.types.push(row);
        TypeId(self.types.len() as u32 - 1)
    }

    fn metadata(&mut self) -> Type {
        if self.meta.is_none() {
            self.meta = self.builtin.type_named(META).map(|id| self.import(id));
        }
        self.meta.map_or(Type::Object, Type::Ref)
    }

    /// Copies a built-in type and all it refers to.
    fn import(&mut self, id: TypeId) -> TypeId {
        if let Some(here) = self.imported.get(&id) {
            return *here;
        }
        let here = self.push(placeholder());
        self.imported.insert(id, here);
        let builtin = self.builtin;
        let mut row = builtin.ty(id).clone();
        let mut fields = row.fields.into_owned();
        for field in &mut fields {
            field.ty = self.translate(&field.ty);
        }
        row.fields = fields.into();
        self.types[here.0 as usize] = row;
        here
    }

    fn translate(&mut self, ty: &Type) -> Type {
        match ty {
            Type::Ref(id) => Type::Ref(self.import(*id)),
            Type::List(item) => Type::List(Ptr::Owned(Box::new(self.translate(item)))),
            Type::Map(item) => Type::Map(Ptr::Owned(Box::new(self.translate(item)))),
            other => other.clone(),
        }
    }

    fn of(&mut self, schema: &Value) -> Type {
        let Value::Object(map) = schema else { return Type::Any };
        if flag(map, "x-kubernetes-int-or-string") {
            return Type::IntOrString;
        }
        let embedded = flag(map, "x-kubernetes-embedded-resource");
        let preserve = flag(map, "x-kubernetes-preserve-unknown-fields");
        let has_properties = map.get("properties").and_then(Value::as_object).is_some_and(|p| !p.is_empty());
        match map.get("type").and_then(Value::as_str).unwrap_or_default() {
            "array" => {
                let item = map.get("items").map_or(Type::Any, |items| self.of(items));
                Type::List(Ptr::Owned(Box::new(item)))
            }
            "string" => Type::String,
            "integer" => Type::Int64,
            "number" => Type::Double,
            "boolean" => Type::Bool,
            "object" | "" if embedded || has_properties => {
                let row = self.object(map, Root::No);
                Type::Ref(self.push(row))
            }
            "object" => match map.get("additionalProperties") {
                Some(element @ Value::Object(_)) => {
                    let element = self.of(element);
                    Type::Map(Ptr::Owned(Box::new(element)))
                }
                _ if preserve => Type::Object,
                // What the values of such a map consist of is unknown, and so is dropped.
                Some(Value::Bool(true)) => {
                    let empty = self.push(placeholder());
                    Type::Map(Ptr::Owned(Box::new(Type::Ref(empty))))
                }
                _ => Type::Ref(self.push(placeholder())),
            },
            _ => Type::Any,
        }
    }

    fn object(&mut self, map: &Map, root: Root) -> TypeRow {
        let mut row = placeholder();
        let preserve = flag(map, "x-kubernetes-preserve-unknown-fields");
        row.shape = if preserve { Shape::Open } else { Shape::Struct };
        if map.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic") {
            row.map_type = MapType::Atomic;
        }
        let resource = root == Root::Yes || flag(map, "x-kubernetes-embedded-resource");
        let mut fields = Vec::new();
        if resource {
            for name in ["apiVersion", "kind"] {
                fields.push(plain(name, Type::String));
            }
            let metadata = self.metadata();
            fields.push(plain("metadata", metadata));
        }
        for (name, schema) in map.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if resource && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let ty = self.of(schema);
            fields.push(field(name, ty, schema));
        }
        let mut by_name: Vec<u16> = (0..fields.len() as u16).collect();
        by_name.sort_by(|a, b| fields[usize::from(*a)].name.cmp(&fields[usize::from(*b)].name));
        row.fields = fields.into();
        row.by_name = by_name.into();
        row
    }
}

fn plain(name: &str, ty: Type) -> Field {
    Field {
        name: owned(name),
        ty,
        tag: 0,
        wrapped: false,
        presence: Presence::OmitEmpty,
        // Absent is not the same as zero anywhere in a free tree.
        pointer: true,
        required: false,
        default: None,
        published_default: None,
        enum_values: Cow::Borrowed(&[]),
        gate: None,
        list_type: None,
        list_keys: Cow::Borrowed(&[]),
        map_type: None,
        patch: None,
        go: None,
        merge_key: None,
    }
}

fn field(name: &str, ty: Type, schema: &Value) -> Field {
    let mut field = plain(name, ty);
    let Value::Object(map) = schema else { return field };
    if flag(map, "nullable") {
        field.presence = Presence::Always;
    }
    field.default = map.get("default").filter(|d| !d.is_null()).map(|d| Cow::Owned(d.to_string()));
    field.list_type = list_type(map);
    if field.list_type == Some(ListType::Map) {
        let keys = map.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        field.list_keys = keys.into_iter().flatten().filter_map(Value::as_str).map(owned).collect();
    }
    field.map_type = match map.get("x-kubernetes-map-type").and_then(Value::as_str) {
        Some("atomic") => Some(MapType::Atomic),
        Some("granular") => Some(MapType::Granular),
        _ => None,
    };
    field
}
