//! The limits a schema sets on values: a compact tree, read by validation. Unset members cost a pointer each.

use super::pattern::Pattern;
use crate::row::ListType;
use apimachinery::value::{Map, Value};

/// The `type` of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// No type: anything.
    #[default]
    Any,
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
    /// `x-kubernetes-int-or-string`.
    IntOrString,
}

impl Kind {
    fn of(schema: &Map) -> Self {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Kind::IntOrString;
        }
        match text(schema, "type") {
            "object" => Kind::Object,
            "array" => Kind::Array,
            "string" => Kind::String,
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            _ => Kind::Any,
        }
    }

    /// As messages name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Any => "",
            Kind::Object => "object",
            Kind::Array => "array",
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::IntOrString => "integer,string",
        }
    }
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub enum Additional {
    /// Not said: what is unknown is no business of this schema.
    #[default]
    Unsaid,
    /// `true`.
    Any,
    /// `false`.
    Forbidden,
    Schema(Box<Check>),
}

/// A CEL rule (`x-kubernetes-validations`).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rule {
    pub rule: Box<str>,
    pub message: Box<str>,
    pub message_expression: Box<str>,
    pub reason: Box<str>,
    pub field_path: Box<str>,
    pub optional_old_self: Option<bool>,
}

/// What only some schemas say.
#[derive(Debug, Default)]
pub struct Limits {
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub pattern: Option<Pattern>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub one_of_values: Box<[Value]>,
    pub all_of: Box<[Check]>,
    pub any_of: Box<[Check]>,
    pub one_of: Box<[Check]>,
    pub not: Option<Box<Check>>,
    pub rules: Box<[Rule]>,
    /// A type that there is not; only the defaults of a schema that is refused meet it.
    pub other_type: Option<Box<str>>,
}

/// A schema, as far as it judges values.
#[derive(Debug, Default)]
pub struct Check {
    pub kind: Kind,
    pub nullable: bool,
    pub preserve: bool,
    pub embedded: bool,
    pub atomic_map: bool,
    pub has_default: bool,
    pub list_type: Option<ListType>,
    pub list_keys: Box<[Box<str>]>,
    /// A format that this server knows; others are nobody's business.
    pub format: Option<Box<str>>,
    /// A text of any format but `byte`, known or not: server-side apply takes every scalar for one.
    pub formatted: bool,
    /// Sorted by name.
    pub properties: Box<[(Box<str>, Check)]>,
    pub additional: Additional,
    pub items: Option<Box<Check>>,
    pub required: Box<[Box<str>]>,
    pub limits: Option<Box<Limits>>,
}

const STRING_FORMATS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether upstream checks a format on values of a type; dashes in names do not count.
pub fn is_supported_format(ty: &str, format: &str) -> bool {
    match ty {
        "" | "string" => STRING_FORMATS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

fn text<'a>(schema: &'a Map, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn flag(schema: &Map, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or_default()
}

fn texts(schema: &Map, key: &str) -> Box<[Box<str>]> {
    let items = schema.get(key).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(Value::as_str).map(Into::into).collect()
}

impl Check {
    /// The checks of a schema (`JSONSchemaProps` as JSON).
    pub fn of(schema: &Value) -> Self {
        let empty = Map::new();
        let map = schema.as_object().unwrap_or(&empty);
        let kind = Kind::of(map);
        // Two types at once: formats are judged as if there were none.
        let ty = if kind == Kind::IntOrString { "" } else { text(map, "type") };
        let format = Some(text(map, "format")).filter(|f| !f.is_empty() && is_supported_format(ty, f));
        let mut properties: Box<[(Box<str>, Check)]> = map
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.as_str().into(), Check::of(schema)))
            .collect();
        properties.sort_by(|(a, _), (b, _)| a.cmp(b));
        Check {
            kind,
            nullable: flag(map, "nullable"),
            preserve: flag(map, "x-kubernetes-preserve-unknown-fields"),
            embedded: flag(map, "x-kubernetes-embedded-resource"),
            atomic_map: text(map, "x-kubernetes-map-type") == "atomic",
            has_default: map.get("default").is_some_and(|d| !d.is_null()),
            list_type: list_type(map),
            list_keys: texts(map, "x-kubernetes-list-map-keys"),
            format: format.map(Into::into),
            formatted: kind == Kind::String && !matches!(text(map, "format"), "" | "byte"),
            properties,
            additional: match map.get("additionalProperties") {
                None | Some(Value::Null) => Additional::Unsaid,
                Some(Value::Bool(true)) => Additional::Any,
                Some(Value::Bool(false)) => Additional::Forbidden,
                Some(schema) => Additional::Schema(Box::new(Check::of(schema))),
            },
            items: map.get("items").filter(|i| i.is_object()).map(|i| Box::new(Check::of(i))),
            required: texts(map, "required"),
            limits: Limits::of(map),
        }
    }

    /// The type that messages name; empty where any will do.
    pub fn type_name(&self) -> &str {
        let other = self.limits.as_ref().and_then(|limits| limits.other_type.as_deref());
        other.unwrap_or_else(|| self.kind.name())
    }

    /// The check of a named property.
    pub fn property(&self, name: &str) -> Option<&Check> {
        let at = self.properties.binary_search_by(|(n, _)| (**n).cmp(name)).ok()?;
        Some(&self.properties[at].1)
    }

    /// The check of a member of an object: its property's, or that of all others.
    pub fn member(&self, name: &str) -> Option<&Check> {
        self.property(name).or(match &self.additional {
            Additional::Schema(check) => Some(check),
            _ => None,
        })
    }

    /// The CEL rules on this value.
    pub fn rules(&self) -> &[Rule] {
        self.limits.as_ref().map_or(&[], |l| &l.rules)
    }

    /// Whether this value or anything within it has CEL rules.
    pub fn has_rules(&self) -> bool {
        let additional = match &self.additional {
            Additional::Schema(check) => check.has_rules(),
            _ => false,
        };
        additional
            || !self.rules().is_empty()
            || self.items.as_ref().is_some_and(|i| i.has_rules())
            || self.properties.iter().any(|(_, c)| c.has_rules())
            || self.limits.as_ref().is_some_and(|l| l.all_of.iter().any(Check::has_rules))
    }
}

/// The list type that a schema states.
pub(super) fn list_type(schema: &Map) -> Option<ListType> {
    match text(schema, "x-kubernetes-list-type") {
        "atomic" => Some(ListType::Atomic),
        "set" => Some(ListType::Set),
        "map" => Some(ListType::Map),
        _ => None,
    }
}

impl Limits {
    fn of(map: &Map) -> Option<Box<Self>> {
        const KEYS: [&str; 17] = [
            "maximum",
            "minimum",
            "multipleOf",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
            "maxProperties",
            "minProperties",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
            "x-kubernetes-validations",
        ];
        let ty = text(map, "type");
        let other_type = Some(ty).filter(|ty| !ty.is_empty() && Kind::of(map) == Kind::Any);
        if other_type.is_none() && !KEYS.iter().any(|k| map.contains_key(k)) {
            return None;
        }
        let float = |key: &str| map.get(key).and_then(Value::as_f64);
        let integer = |key: &str| map.get(key).and_then(Value::as_i64);
        let list = |key: &str| map.get(key).and_then(Value::as_array).into_iter().flatten();
        let checks = |key: &str| list(key).map(Check::of).collect();
        Some(Box::new(Limits {
            maximum: float("maximum"),
            exclusive_maximum: flag(map, "exclusiveMaximum"),
            minimum: float("minimum"),
            exclusive_minimum: flag(map, "exclusiveMinimum"),
            multiple_of: float("multipleOf"),
            max_length: integer("maxLength"),
            min_length: integer("minLength"),
            pattern: Some(text(map, "pattern")).filter(|p| !p.is_empty()).map(Pattern::new),
            max_items: integer("maxItems"),
            min_items: integer("minItems"),
            unique_items: flag(map, "uniqueItems"),
            max_properties: integer("maxProperties"),
            min_properties: integer("minProperties"),
            one_of_values: list("enum").cloned().collect(),
            all_of: checks("allOf"),
            any_of: checks("anyOf"),
            one_of: checks("oneOf"),
            not: map.get("not").filter(|n| n.is_object()).map(|n| Box::new(Check::of(n))),
            rules: list("x-kubernetes-validations").filter_map(Value::as_object).map(Rule::of).collect(),
            other_type: other_type.map(Into::into),
        }))
    }
}

impl Rule {
    fn of(map: &Map) -> Self {
        Rule {
            rule: text(map, "rule").into(),
            message: text(map, "message").into(),
            message_expression: text(map, "messageExpression").into(),
            reason: text(map, "reason").into(),
            field_path: text(map, "fieldPath").into(),
            optional_old_self: map.get("optionalOldSelf").and_then(Value::as_bool),
        }
    }
}
