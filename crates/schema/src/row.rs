//! The rows of the table: every fact about a type, a field or a resource stands here once, and all readers
//! (codecs, defaulting, pruning, patches, apply, OpenAPI, discovery) read it.
//!
//! Rows of the built-in kinds are `static`s generated at build time by crate `api`; rows of custom resources are
//! built at run time. Both have these types: text is `Cow`, nesting is [`Ptr`].

use std::borrow::Cow;
use std::ops::Deref;

/// Text that is static for built-in rows and owned for custom ones.
pub type Str = Cow<'static, str>;
/// A sequence that is static for built-in rows and owned for custom ones.
pub type Seq<T> = Cow<'static, [T]>;

/// A reference that is static for built-in rows and owned for custom ones.
#[derive(Debug)]
pub enum Ptr<T: 'static> {
    Static(&'static T),
    Owned(Box<T>),
}

impl<T> Deref for Ptr<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match self {
            Ptr::Static(t) => t,
            Ptr::Owned(t) => t,
        }
    }
}

impl<T: Clone> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        match self {
            Ptr::Static(t) => Ptr::Static(t),
            Ptr::Owned(t) => Ptr::Owned(t.clone()),
        }
    }
}

/// The index of a type in its [`Table`](crate::table::Table).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

/// The type of a field's value.
#[derive(Debug, Clone)]
pub enum Type {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 text in JSON, raw bytes in protobuf.
    Bytes,
    /// RFC 3339 with seconds (`metav1.Time`).
    Time,
    /// RFC 3339 with six fractional digits (`metav1.MicroTime`).
    MicroTime,
    /// `resource.Quantity`: text, or a number on input.
    Quantity,
    /// `intstr.IntOrString`.
    IntOrString,
    /// Any JSON value (`apiextensions.JSON`, `JSONSchemaPropsOrBool`, …); never looked into.
    Any,
    /// A free JSON object (`runtime.RawExtension`, `FieldsV1`); never looked into.
    Object,
    List(Ptr<Type>),
    Map(Ptr<Type>),
    Ref(TypeId),
}

impl Type {
    /// The type that lists and maps of this type are in the end made of, if it has a row.
    pub fn element(&self) -> Option<TypeId> {
        match self {
            Type::Ref(id) => Some(*id),
            Type::List(inner) | Type::Map(inner) => inner.element(),
            _ => None,
        }
    }
}

/// When a field is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Always written; a nil list or map is written as `null`.
    Always,
    /// Go's `omitempty`: left out when empty (a struct is never empty).
    OmitEmpty,
    /// Go's `omitzero`: left out when it is the zero value (a struct may be).
    OmitZero,
}

/// How a list merges under server-side apply (`x-kubernetes-list-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// How a map or struct merges under server-side apply (`x-kubernetes-map-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapType {
    Granular,
    Atomic,
}

/// The directives of `x-kubernetes-patch-strategy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
}

/// One field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: Str,
    pub ty: Type,
    /// Protobuf field number; zero where the JSON field is not a direct protobuf field (inlined, or type metadata).
    pub tag: u32,
    /// The protobuf field is one message that holds the list's items (a Go type of its own, as `Verbs`).
    pub wrapped: bool,
    pub presence: Presence,
    /// The field can tell absent from zero: an explicit zero is kept and written.
    pub pointer: bool,
    /// Listed under `required` in the published schema.
    pub required: bool,
    /// A default that is really applied, as JSON text.
    pub default: Option<Str>,
    /// A zero default that is published in OpenAPI and never applied, as JSON text.
    pub published_default: Option<Str>,
    pub enum_values: Seq<Str>,
    /// The feature gate that guards the field.
    pub gate: Option<Str>,
    pub list_type: Option<ListType>,
    pub list_keys: Seq<Str>,
    pub map_type: Option<MapType>,
    pub patch: Option<PatchStrategy>,
    pub merge_key: Option<Str>,
    /// How Go names it, where that does not follow from its type: for messages.
    pub go: Option<&'static Go>,
}

/// What Go calls the type of a field, if anything of its own, and the structs embedded on the way to it, joined by dots.
#[derive(Debug)]
pub struct Go {
    pub ty: &'static str,
    pub within: &'static str,
}

/// A protobuf field as the `.proto` file declares it: for messages without a JSON schema of their own, and for types
/// whose protobuf form differs from their JSON form.
#[derive(Debug, Clone)]
pub struct ProtoField {
    pub name: Str,
    /// As in the `.proto` file: `string`, `repeated Rule`, `map<string,bytes>`.
    pub ty: Str,
    pub tag: u32,
}

/// A message whose fields are inlined in JSON and nested in protobuf.
#[derive(Debug, Clone)]
pub struct Inlined {
    pub name: Str,
    pub message: Str,
    pub tag: u32,
}

/// What a type's JSON form is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An object with the listed fields.
    Struct,
    /// An object with the listed fields that keeps the others (`x-kubernetes-preserve-unknown-fields`).
    Open,
    /// An object without known fields.
    Object,
    /// A scalar or free-form value; [`TypeRow::scalar`] says which.
    Scalar,
}

/// One type.
#[derive(Debug, Clone)]
pub struct TypeRow {
    /// Upstream's OpenAPI definition name, `io.k8s.api.core.v1.Pod`.
    pub name: Str,
    /// Upstream's protobuf message, `k8s.io.api.core.v1.Pod`; empty for custom resources.
    pub proto: Str,
    pub shape: Shape,
    /// For [`Shape::Scalar`]: the type it stands for.
    pub scalar: Option<Type>,
    /// In JSON order.
    pub fields: Seq<Field>,
    /// Indices into `fields`, sorted by field name.
    pub by_name: Seq<u16>,
    pub map_type: MapType,
    pub inlined: Seq<Inlined>,
    pub proto_fields: Seq<ProtoField>,
    /// The group, version and kind it is the root of, if any (`("", "v1", "Pod")`).
    pub gvk: Seq<(Str, Str, Str)>,
    /// What is published of it beyond that, of a few.
    pub published: Option<&'static Published>,
}

/// What OpenAPI says of a type and nothing here depends on.
#[derive(Debug)]
pub struct Published {
    /// `x-kubernetes-unions`, as JSON; may be empty.
    pub unions: &'static str,
    /// The groups and versions, beside those of `gvk`, in which it is a kind too.
    pub within: &'static [(&'static str, &'static str)],
}

impl TypeRow {
    /// The field with this JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.index(name).map(|i| &self.fields[i])
    }

    /// What an object in a field of any JSON is: JSON schemas hold schemas where something else may stand too.
    pub fn schema_in(&self, field: &str, ty: &Type) -> Option<&Type> {
        let holds =
            matches!(ty, Type::Any) && matches!(field, "items" | "additionalItems" | "additionalProperties");
        if !holds || !self.name.ends_with(".JSONSchemaProps") {
            return None;
        }
        // `not` is nothing but a schema.
        self.field("not").map(|schema| &schema.ty)
    }

    /// The place of the field with this JSON name.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.by_name
            .binary_search_by(|i| self.fields[usize::from(*i)].name.as_ref().cmp(name))
            .ok()
            .map(|i| usize::from(self.by_name[i]))
    }
}

/// One resource or subresource.
#[derive(Debug, Clone)]
pub struct ResourceRow {
    pub group: Str,
    pub version: Str,
    /// Plural name; a subresource is `pods/status`.
    pub resource: Str,
    pub kind: Str,
    /// Group and version of `kind` where they differ from the resource's (`Scale`, `Eviction`, `TokenRequest`).
    pub kind_group_version: Option<(Str, Str)>,
    pub singular: Str,
    pub namespaced: bool,
    pub short_names: Seq<Str>,
    pub categories: Seq<Str>,
    pub verbs: Seq<Str>,
    /// The key prefix, without a trailing slash (`/registry/pods`); absent for what is not stored.
    pub key_prefix: Option<Str>,
    /// Group and version in which upstream stores it.
    pub storage_version: Option<(Str, Str)>,
    /// Options of its own in the query, those of a connection or a log: name and OpenAPI type.
    pub parameters: Seq<(Str, Str)>,
    /// A completed deletion is answered with the object rather than a `Status` (upstream's ReturnDeletedObject).
    pub returns_deleted: bool,
}

impl ResourceRow {
    /// The resource's name and, for a subresource, its second part: `("pods", Some("status"))`.
    pub fn split(&self) -> (&str, Option<&str>) {
        match self.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub)),
            None => (&self.resource, None),
        }
    }

    /// Whether `verb` is among the resource's verbs.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}
