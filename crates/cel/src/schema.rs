//! What is known of a value beforehand: a schema as OpenAPI and CRDs write it, and the declared type that
//! follows from it, with the sizes that static cost estimates start from.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::value::Value;

use crate::escape::{RESERVED, escape};
use crate::types::Type;

/// The largest request that an API server accepts.
const MAX_REQUEST: i64 = 3 * 1024 * 1024;

/// The `type` of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaType {
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `number`
    Number,
    /// `integer`
    Integer,
    /// `boolean`
    Boolean,
    /// Not said.
    #[default]
    None,
}

/// How a list is equal to another, and what `+` makes of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// As a whole.
    #[default]
    Atomic,
    /// Without order.
    Set,
    /// Without order, by keys.
    Map,
}

/// A schema, as far as CEL needs it.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// `type`
    pub kind: SchemaType,
    /// `format`
    pub format: String,
    /// `items`
    pub items: Option<Arc<Schema>>,
    /// `properties`
    pub properties: Option<BTreeMap<String, Arc<Schema>>>,
    /// `additionalProperties`, where it is a schema.
    pub additional: Option<Arc<Schema>>,
    /// `maxLength`
    pub max_length: Option<i64>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `required`
    pub required: Vec<String>,
    /// `enum`
    pub values: Vec<Value>,
    /// `nullable`
    pub nullable: bool,
    /// Whether it has a `default`.
    pub has_default: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded_resource: bool,
    /// `x-kubernetes-list-type`
    pub list_type: ListType,
    /// `x-kubernetes-list-map-keys`
    pub list_map_keys: Vec<String>,
}

impl Schema {
    /// Reads `JSONSchemaProps`, or an OpenAPI schema whose references `resolve` knows. References that lead
    /// back to themselves end in a schema without a type.
    pub fn from_json(json: &Value, resolve: &dyn Fn(&str) -> Option<Value>) -> Self {
        Self::read(json, resolve, &mut Vec::new())
    }

    fn read(json: &Value, resolve: &dyn Fn(&str) -> Option<Value>, open: &mut Vec<String>) -> Self {
        // OpenAPI v3 wraps a reference with a default or a description into an `allOf` of one.
        let wrapped = json.get("allOf").and_then(|all| all.get(0)).and_then(|one| one.get("$ref"));
        if let Some(reference) = json.get("$ref").or(wrapped).and_then(Value::as_str) {
            if open.iter().any(|name| name == reference) {
                return Self::default();
            }
            let Some(target) = resolve(reference) else { return Self::default() };
            open.push(reference.to_owned());
            let mut schema = Self::read(&target, resolve, open);
            open.pop();
            schema.has_default |= json.get("default").is_some();
            return schema;
        }
        let text = |key: &str| json.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| json.get(key).and_then(Value::as_bool).unwrap_or_default();
        let number = |key: &str| json.get(key).and_then(Value::as_i64);
        let words = |key: &str| -> Vec<String> {
            let list = json.get(key).and_then(Value::as_array);
            list.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
        };
        let kind = match text("type") {
            "object" => SchemaType::Object,
            "array" => SchemaType::Array,
            "string" => SchemaType::String,
            "number" => SchemaType::Number,
            "integer" => SchemaType::Integer,
            "boolean" => SchemaType::Boolean,
            _ => SchemaType::None,
        };
        let mut child = |json: &Value| Arc::new(Self::read(json, resolve, open));
        let mut schema = Self {
            kind,
            format: text("format").to_owned(),
            items: json.get("items").filter(|items| items.is_object()).map(&mut child),
            properties: json
                .get("properties")
                .and_then(Value::as_object)
                .map(|map| map.iter().map(|(name, json)| (name.to_string(), child(json))).collect()),
            additional: json.get("additionalProperties").filter(|schema| schema.is_object()).map(&mut child),
            max_length: number("maxLength"),
            max_items: number("maxItems"),
            max_properties: number("maxProperties"),
            required: words("required"),
            values: json.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
            nullable: flag("nullable"),
            has_default: json.get("default").is_some(),
            int_or_string: flag("x-kubernetes-int-or-string") || text("format") == "int-or-string",
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded_resource: flag("x-kubernetes-embedded-resource"),
            list_type: match text("x-kubernetes-list-type") {
                "set" => ListType::Set,
                "map" => ListType::Map,
                _ => ListType::Atomic,
            },
            list_map_keys: words("x-kubernetes-list-map-keys"),
        };
        if schema.embedded_resource {
            schema = schema.with_type_and_object_meta();
        }
        schema
    }

    /// With `kind`, `apiVersion` and the two names of `metadata`, which every resource has.
    pub fn with_type_and_object_meta(mut self) -> Self {
        let string = Arc::new(Self { kind: SchemaType::String, ..Self::default() });
        let names = ["name", "generateName"].map(|name| (name.to_owned(), string.clone()));
        let metadata =
            Self { kind: SchemaType::Object, properties: Some(BTreeMap::from(names)), ..Self::default() };
        let properties = self.properties.get_or_insert_default();
        let known = |name: &str, kind| properties.get(name).is_some_and(|schema| schema.kind == kind);
        let meta_known = properties.get("metadata").is_some_and(|meta| {
            let names = meta.properties.as_ref();
            names.is_some_and(|names| names.contains_key("name") && names.contains_key("generateName"))
        });
        if known("kind", SchemaType::String) && known("apiVersion", SchemaType::String) && meta_known {
            return self;
        }
        properties.insert("kind".into(), string.clone());
        properties.insert("apiVersion".into(), string);
        properties.insert("metadata".into(), metadata.into());
        self
    }

    /// Whether its properties are named, so that identifiers are escaped names.
    pub(crate) const fn is_object(&self) -> bool {
        self.properties.is_some()
    }

    /// The schema of a property.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        match &self.properties {
            Some(properties) => properties.get(name).map(|schema| &**schema),
            None => self.additional.as_deref(),
        }
    }

    /// The type that rules see; none for what they must not see.
    pub fn decl(&self) -> Option<Arc<DeclType>> {
        if self.int_or_string {
            let most = self.max_length.map_or(MAX_REQUEST - 2, |length| length.max(0) * 4);
            return Some(DeclType::sized("dyn", Type::Dyn, 1, most));
        }
        Some(match self.kind {
            SchemaType::Array => {
                let items = self.items.as_ref()?.decl()?;
                let guess = (MAX_REQUEST - 2) / (items.min_serialized_size + 1);
                DeclType::list(items, self.max_items.map_or(guess, |most| most.max(0)))
            }
            SchemaType::Object => match &self.additional {
                Some(values) => {
                    let values = values.decl()?;
                    let guess = (MAX_REQUEST - 2) / (values.min_serialized_size + 6);
                    let most = self.max_properties.map_or(guess, |most| most.max(0));
                    DeclType::map(DeclType::string(), values, most)
                }
                None => self.object(),
            },
            SchemaType::String => self.string(),
            SchemaType::Boolean => DeclType::sized("bool", Type::Bool, 4, 0),
            SchemaType::Number => DeclType::sized("double", Type::Double, 1, 0),
            SchemaType::Integer => DeclType::sized("int", Type::Int, 1, 0),
            SchemaType::None => return None,
        })
    }

    fn object(&self) -> Arc<DeclType> {
        let mut fields = BTreeMap::new();
        let mut smallest = 2;
        for (name, schema) in self.properties.iter().flatten() {
            let Some(decl) = schema.decl() else { continue };
            if self.required.contains(name) && !schema.has_default {
                smallest += name.len() as i64 + decl.min_serialized_size + 4;
            }
            if let Some(escaped) = escape(name) {
                fields.insert(Arc::from(&*escaped), decl);
            }
        }
        Arc::new(DeclType { min_serialized_size: smallest, ..DeclType::object_of(ANONYMOUS, fields) })
    }

    fn string(&self) -> Arc<DeclType> {
        let whole = MAX_REQUEST - 2;
        match self.format.as_str() {
            "byte" => {
                DeclType::sized("bytes", Type::Bytes, 2, self.max_length.map_or(whole, |most| most.max(0)))
            }
            "duration" => DeclType::sized("duration", Type::Duration, 3, 32),
            "date" => DeclType::sized("timestamp", Type::Timestamp, 12, 12),
            "date-time" => DeclType::sized("timestamp", Type::Timestamp, 21, 32),
            _ => {
                let longest =
                    self.values.iter().filter_map(Value::as_str).map(|text| text.len() as i64).max();
                let most = match (self.max_length, self.values.is_empty()) {
                    (Some(length), _) => length.max(0) * 4,
                    (None, false) => longest.unwrap_or(0),
                    (None, true) => whole,
                };
                DeclType::sized("string", Type::String, 2, most)
            }
        }
    }
}

/// The name of objects that have not been given one.
const ANONYMOUS: &str = "object";

/// A declared type with what is known of its size.
#[derive(Clone, Debug)]
pub struct DeclType {
    /// Its name, by which the checker finds its fields.
    pub name: Arc<str>,
    /// The type itself.
    pub celtype: Type,
    /// Fields, or what is inside.
    pub kind: DeclKind,
    /// The longest it can be.
    pub max_elements: i64,
    /// The fewest bytes of JSON that it takes.
    pub min_serialized_size: i64,
}

/// What is inside of a declared type.
#[derive(Clone, Debug)]
pub enum DeclKind {
    /// Nothing.
    Simple,
    /// Elements.
    List(Arc<DeclType>),
    /// Keys and values.
    Map(Arc<DeclType>, Arc<DeclType>),
    /// Fields.
    Object(BTreeMap<Arc<str>, Arc<DeclType>>),
}

impl DeclType {
    /// A type without parts.
    pub fn sized(name: &str, celtype: Type, min_serialized_size: i64, max_elements: i64) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            celtype,
            kind: DeclKind::Simple,
            max_elements,
            min_serialized_size,
        })
    }

    /// A type without parts, of which nothing is known but what it is.
    pub fn simple(celtype: Type) -> Arc<Self> {
        let smallest = match celtype {
            Type::Bool => 4,
            Type::String | Type::Bytes => 2,
            Type::Duration => 3,
            Type::Timestamp => 12,
            _ => 1,
        };
        Self::sized(celtype.clone().name(), celtype, smallest, 0)
    }

    fn string() -> Arc<Self> {
        Self::simple(Type::String)
    }

    /// A list of at most so many.
    pub fn list(elements: Arc<Self>, max_elements: i64) -> Arc<Self> {
        let celtype = Type::list(elements.celtype.clone());
        let kind = DeclKind::List(elements);
        Arc::new(Self { name: "list".into(), celtype, kind, max_elements, min_serialized_size: 2 })
    }

    /// A map of at most so many.
    pub fn map(keys: Arc<Self>, values: Arc<Self>, max_elements: i64) -> Arc<Self> {
        let celtype = Type::map(keys.celtype.clone(), values.celtype.clone());
        let kind = DeclKind::Map(keys, values);
        Arc::new(Self { name: "map".into(), celtype, kind, max_elements, min_serialized_size: 2 })
    }

    /// An object with fields.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Arc<Self>)>) -> Arc<Self> {
        let fields = fields.into_iter().map(|(name, decl)| (Arc::from(name), decl)).collect();
        Arc::new(Self::object_of(name, fields))
    }

    /// An object with fields that are only known at run time.
    pub fn object_named(name: &str, fields: &BTreeMap<String, Arc<Self>>) -> Arc<Self> {
        let fields = fields.iter().map(|(name, decl)| (Arc::from(name.as_str()), decl.clone())).collect();
        Arc::new(Self::object_of(name, fields))
    }

    fn object_of(name: &str, fields: BTreeMap<Arc<str>, Arc<Self>>) -> Self {
        Self {
            name: name.into(),
            celtype: Type::object(name),
            kind: DeclKind::Object(fields),
            max_elements: 0,
            min_serialized_size: 2,
        }
    }

    /// Names the objects that have no name yet by the way that leads to them.
    pub fn named(self: &Arc<Self>, name: &str) -> Arc<Self> {
        match &self.kind {
            DeclKind::Simple => self.clone(),
            DeclKind::List(elements) => {
                let mut list =
                    (*Self::list(elements.named(&format!("{name}.@idx")), self.max_elements)).clone();
                list.min_serialized_size = self.min_serialized_size;
                Arc::new(list)
            }
            DeclKind::Map(keys, values) => {
                Self::map(keys.clone(), values.named(&format!("{name}.@elem")), self.max_elements)
            }
            DeclKind::Object(fields) => {
                let name = if &*self.name == ANONYMOUS { name } else { &self.name };
                let fields = fields
                    .iter()
                    .map(|(field, decl)| (field.clone(), decl.named(&format!("{name}.{field}"))));
                Arc::new(Self {
                    min_serialized_size: self.min_serialized_size,
                    ..Self::object_of(name, fields.collect())
                })
            }
        }
    }

    /// The type of a field, where the name of a keyword will do for its escaped form.
    pub(crate) fn field(&self, name: &str) -> Option<&Arc<Self>> {
        match &self.kind {
            DeclKind::Object(fields) => fields.get(name).or_else(|| {
                RESERVED.contains(&name).then(|| fields.get(format!("__{name}__").as_str())).flatten()
            }),
            _ => None,
        }
    }

    /// The element or value type.
    pub(crate) const fn element(&self) -> Option<&Arc<Self>> {
        match &self.kind {
            DeclKind::List(elements) => Some(elements),
            DeclKind::Map(_, values) => Some(values),
            _ => None,
        }
    }

    /// Every object within, by name.
    pub(crate) fn collect(self: &Arc<Self>, into: &mut BTreeMap<Arc<str>, Arc<Self>>) {
        match &self.kind {
            DeclKind::Simple => {}
            DeclKind::List(elements) => elements.collect(into),
            DeclKind::Map(_, values) => values.collect(into),
            DeclKind::Object(fields) => {
                into.insert(self.name.clone(), self.clone());
                fields.values().for_each(|field| field.collect(into));
            }
        }
    }
}
