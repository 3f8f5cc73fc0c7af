//! Values. What an activation lends is looked at in place: JSON is never copied, only wrapped.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use apimachinery::value::{Map as JsonMap, Value};

use crate::library::authz::Authorization;
use crate::library::formats::NamedFormat;
use crate::library::net::Prefix;
use crate::library::semver::Semver;
use crate::library::url::Url;
use crate::schema::Schema;
use crate::time::Timestamp;
use crate::types::Type;

/// Lists: of JSON, or made by an expression.
pub mod list;
/// Maps: of JSON, made by an expression, or looked up by the host.
pub mod map;
/// Operators on values: equality, order, arithmetic.
pub(crate) mod ops;
/// JSON read by its schema.
pub(crate) mod typed;

pub use list::List;
pub use map::{Key, LazyMap, Map};

/// A value, borrowing from what lives for `'a`.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// `null`
    Null,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `uint`
    Uint(u64),
    /// `double`
    Double(f64),
    /// `string`
    String(Text<'a>),
    /// `bytes`
    Bytes(Arc<[u8]>),
    /// In nanoseconds.
    Duration(i64),
    /// A point in time.
    Timestamp(Timestamp),
    /// `list`
    List(List<'a>),
    /// `map`
    Map(Map<'a>),
    /// A type.
    Type(Type),
    /// `optional_type`
    Optional(Option<Arc<Val<'a>>>),
    /// A value without a schema of its own, kept because of `x-kubernetes-preserve-unknown-fields`.
    Preserved(&'a Value),
    /// An object that the expression made, as `JSONPatch{op: "add"}`.
    Object(Arc<Object<'a>>),
    /// `net.IP`
    Ip(IpAddr),
    /// `net.CIDR`
    Cidr(Prefix),
    /// `kubernetes.URL`
    Url(Arc<Url>),
    /// `kubernetes.Quantity`
    Quantity(Arc<Quantity>),
    /// `kubernetes.Semver`
    Semver(Arc<Semver>),
    /// `kubernetes.NamedFormat`
    Format(&'static NamedFormat),
    /// `kubernetes.authorization.…`
    Authorization(Arc<Authorization<'a>>),
}

/// A string, lent or shared.
#[derive(Clone)]
pub enum Text<'a> {
    /// Lent by the activation.
    Lent(&'a str),
    /// Made by an expression, or a constant.
    Shared(Arc<str>),
}

/// An object with fields in the order in which they were given.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    /// The name of its type.
    pub name: Arc<str>,
    /// Its fields.
    pub fields: Vec<(Arc<str>, Val<'a>)>,
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The expression failed; `&&`, `||` and the quantifiers may still absorb it.
    #[error("{0}")]
    Failed(Cow<'static, str>),
    /// It cost more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    CostLimit,
}

/// A value or why not.
pub type Evaluated<'a> = Result<Val<'a>, Error>;

/// An error with a message known beforehand.
pub(crate) const fn failed(message: &'static str) -> Error {
    Error::Failed(Cow::Borrowed(message))
}

/// An error with a message made of what went wrong.
pub(crate) const fn failed_with(message: String) -> Error {
    Error::Failed(Cow::Owned(message))
}

/// What an operation says of values it does not know.
pub(crate) const NO_OVERLOAD: Error = failed("no such overload");

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Lent(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<'a> From<&'a str> for Val<'a> {
    fn from(text: &'a str) -> Self {
        Self::String(Text::Lent(text))
    }
}

impl From<String> for Val<'_> {
    fn from(text: String) -> Self {
        Self::String(Text::Shared(text.into()))
    }
}

impl From<bool> for Val<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Val<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl<'a> From<Vec<Val<'a>>> for Val<'a> {
    fn from(values: Vec<Self>) -> Self {
        Self::List(List::of(values))
    }
}

impl<'a> From<&'a Value> for Val<'a> {
    /// JSON as it is, without a schema.
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match number.as_i64() {
                Some(whole) => Self::Int(whole),
                None => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::from(text.as_str()),
            Value::Array(items) => Self::List(List::json(items, None)),
            Value::Object(map) => Self::Map(Map::json(map, None)),
        }
    }
}

impl<'a> Val<'a> {
    /// JSON read by its schema. What does not fit it is an error as soon as it is looked at.
    pub fn typed(value: &'a Value, schema: &'a Schema) -> Evaluated<'a> {
        typed::read(value, schema)
    }

    /// An optional with a value.
    pub fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// `optional.none()`
    pub const NONE: Val<'static> = Val::Optional(None);

    /// Its type at run time.
    pub fn kind(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::List(_) => Type::list(Type::Dyn),
            Self::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Self::Type(_) => Type::Type(None),
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Preserved(_) => Type::object("unknown"),
            Self::Object(object) => Type::Object(object.name.clone()),
            Self::Ip(_) => Type::parse("net.IP"),
            Self::Cidr(_) => Type::parse("net.CIDR"),
            Self::Url(_) => Type::object("kubernetes.URL"),
            Self::Quantity(_) => Type::object("kubernetes.Quantity"),
            Self::Semver(_) => Type::object("kubernetes.Semver"),
            Self::Format(_) => Type::object("kubernetes.NamedFormat"),
            Self::Authorization(of) => Type::object(of.type_name()),
        }
    }

    /// `size()`, of what has one.
    pub fn size(&self) -> Option<u64> {
        Some(match self {
            Self::String(text) => text.chars().count() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Ip(IpAddr::V4(_)) => 4,
            Self::Ip(IpAddr::V6(_)) => 16,
            Self::Cidr(prefix) => u64::from(prefix.bits.div_ceil(8)),
            _ => return None,
        })
    }

    /// The string that it is.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The bool that it is.
    pub const fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Whether both are the same, as `==` has it.
    pub fn equals(&self, other: &Self) -> Result<bool, Error> {
        ops::equal(self, other)
    }

    /// What is left of it when nothing is borrowed any more.
    pub fn into_owned(self) -> Val<'static> {
        match self {
            Self::Null => Val::Null,
            Self::Bool(value) => Val::Bool(value),
            Self::Int(value) => Val::Int(value),
            Self::Uint(value) => Val::Uint(value),
            Self::Double(value) => Val::Double(value),
            Self::String(text) => Val::String(text.into_owned()),
            Self::Bytes(bytes) => Val::Bytes(bytes),
            Self::Duration(value) => Val::Duration(value),
            Self::Timestamp(value) => Val::Timestamp(value),
            Self::List(list) => {
                Val::from(list.iter().map(|v| v.map_or(Val::Null, Val::into_owned)).collect::<Vec<_>>())
            }
            Self::Map(map) => Val::Map(map.into_owned()),
            Self::Type(value) => Val::Type(value),
            Self::Optional(value) => {
                Val::Optional(value.map(|value| Arc::new((*value).clone().into_owned())))
            }
            Self::Preserved(value) => Val::from(value).into_owned(),
            Self::Object(object) => Val::Object(Arc::new(Object {
                name: object.name.clone(),
                fields: object
                    .fields
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone().into_owned()))
                    .collect(),
            })),
            Self::Ip(value) => Val::Ip(value),
            Self::Cidr(value) => Val::Cidr(value),
            Self::Url(value) => Val::Url(value),
            Self::Quantity(value) => Val::Quantity(value),
            Self::Semver(value) => Val::Semver(value),
            Self::Format(value) => Val::Format(value),
            // An authorizer does not outlive the request that lent it.
            Self::Authorization(_) => Val::Null,
        }
    }

    /// As JSON, where JSON has such a value.
    pub fn to_json(&self) -> Result<Value, Error> {
        let unsupported = || failed_with(format!("type conversion error from '{}' to JSON", self.kind()));
        Ok(match self {
            Self::Null | Self::Optional(None) => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::from(*value),
            Self::Uint(value) => Value::from(*value),
            Self::Double(value) => {
                apimachinery::value::Number::from_f64(*value).map(Value::Number).ok_or_else(unsupported)?
            }
            Self::String(text) => Value::String(text.to_string()),
            Self::Bytes(_) | Self::Duration(_) | Self::Timestamp(_) | Self::Ip(_) | Self::Cidr(_) => {
                Value::String(ops::to_text(self)?)
            }
            Self::Quantity(quantity) => Value::String(quantity.to_string()),
            Self::List(list) => {
                Value::Array(list.iter().map(|item| item?.to_json()).collect::<Result<_, _>>()?)
            }
            Self::Map(map) => Value::Object(
                map.entries()?
                    .into_iter()
                    .map(|(key, value)| Ok((key.to_string(), value.to_json()?)))
                    .collect::<Result<JsonMap, Error>>()?,
            ),
            Self::Object(object) => Value::Object(
                object
                    .fields
                    .iter()
                    .map(|(name, value)| Ok((name.to_string(), value.to_json()?)))
                    .collect::<Result<JsonMap, Error>>()?,
            ),
            Self::Optional(Some(value)) => value.to_json()?,
            Self::Preserved(value) => (*value).clone(),
            _ => return Err(unsupported()),
        })
    }
}

impl Text<'_> {
    fn into_owned(self) -> Text<'static> {
        match self {
            Self::Lent(text) => Text::Shared(text.into()),
            Self::Shared(text) => Text::Shared(text),
        }
    }
}

/// As messages show it: strings bare, lists and maps in brackets.
impl fmt::Display for Val<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int(value) => write!(f, "{value}"),
            Self::Uint(value) => write!(f, "{value}"),
            Self::Double(value) => f.write_str(&apimachinery::value::go_general_float(*value)),
            Self::String(text) => f.write_str(text),
            Self::Optional(Some(value)) => write!(f, "optional({value})"),
            Self::Optional(None) => f.write_str("optional.none()"),
            Self::Type(value) => f.write_str(value.name()),
            Self::List(list) => {
                f.write_str("[")?;
                for (at, item) in list.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { ", " })?;
                    write!(f, "{}", item.map_err(|_| fmt::Error)?)?;
                }
                f.write_str("]")
            }
            Self::Map(map) => {
                f.write_str("{")?;
                for (at, (key, value)) in map.entries().map_err(|_| fmt::Error)?.into_iter().enumerate() {
                    write!(f, "{}{key}: {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            _ => match ops::to_text(self) {
                Ok(text) => f.write_str(&text),
                Err(_) => f.write_str(self.kind().name()),
            },
        }
    }
}
