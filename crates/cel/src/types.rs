//! CEL's types, as the checker and `type()` know them, and their two spellings: [`std::fmt::Display`] is
//! that of upstream's `Type.String()`, [`Type::checked`] that of checker messages.

use std::fmt;
use std::sync::Arc;

/// A type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    /// Anything; what is not known before evaluation.
    Dyn,
    /// Anything, as `google.protobuf.Any`.
    Any,
    /// The type of an expression that did not check.
    Error,
    /// `null_type`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// The type of a type.
    Type(Option<Arc<Type>>),
    /// `list(T)`
    List(Arc<Type>),
    /// `map(K, V)`
    Map(Arc<Type>, Arc<Type>),
    /// A type with named fields, or one that only has functions.
    Object(Arc<str>),
    /// A type known by name and parameters only, as `optional_type(T)`.
    Opaque(Arc<str>, Arc<[Type]>),
    /// A parameter of a declaration, or a variable of the checker.
    Param(Arc<str>),
}

/// The name of the type of optional values.
pub const OPTIONAL: &str = "optional_type";

impl Type {
    /// `list(element)`
    pub fn list(element: Self) -> Self {
        Self::List(Arc::new(element))
    }

    /// `map(key, value)`
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new(key), Arc::new(value))
    }

    /// `optional_type(value)`
    pub fn optional(value: Self) -> Self {
        Self::Opaque(OPTIONAL.into(), Arc::from([value]))
    }

    /// The type with this name that has fields or functions.
    pub fn object(name: impl Into<Arc<str>>) -> Self {
        Self::Object(name.into())
    }

    /// `type(of)`
    pub fn type_of(of: Self) -> Self {
        Self::Type(Some(Arc::new(of)))
    }

    /// The name at run time, without parameters.
    pub fn name(&self) -> &str {
        match self {
            Self::Dyn => "dyn",
            Self::Any => "google.protobuf.Any",
            Self::Error => "error",
            Self::Null => "null_type",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Uint => "uint",
            Self::Double => "double",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Duration => "google.protobuf.Duration",
            Self::Timestamp => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::List(_) => "list",
            Self::Map(..) => "map",
            Self::Object(name) | Self::Opaque(name, _) | Self::Param(name) => name,
        }
    }

    /// The types within.
    pub fn parameters(&self) -> Vec<&Self> {
        match self {
            Self::Type(Some(of)) | Self::List(of) => vec![of],
            Self::Map(key, value) => vec![key, value],
            Self::Opaque(_, parameters) => parameters.iter().collect(),
            _ => Vec::new(),
        }
    }

    /// As the checker's messages spell it.
    pub fn checked(&self) -> String {
        match self {
            Self::Any => "any".into(),
            Self::Duration => "duration".into(),
            Self::Error => "!error!".into(),
            Self::Null => "null".into(),
            Self::Timestamp => "timestamp".into(),
            _ => {
                let parameters: Vec<_> = self.parameters().into_iter().map(Self::checked).collect();
                if parameters.is_empty() {
                    self.name().into()
                } else {
                    format!("{}({})", self.name(), parameters.join(", "))
                }
            }
        }
    }

    /// What is inside of an optional.
    pub fn unwrap_optional(&self) -> Option<&Self> {
        match self {
            Self::Opaque(name, parameters) if &**name == OPTIONAL => parameters.first(),
            _ => None,
        }
    }

    /// Whether nothing is known of it.
    pub const fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn | Self::Any)
    }

    pub(crate) fn same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }

    /// Whether a value of the other type may stand where this one is wanted.
    pub(crate) fn accepts(&self, from: &Self) -> bool {
        if self == from || matches!(self, Self::Dyn | Self::Any | Self::Param(_)) {
            return true;
        }
        let (mine, theirs) = (self.parameters(), from.parameters());
        self.same_kind(from)
            && self.name() == from.name()
            && mine.len() == theirs.len()
            && mine.iter().zip(theirs).all(|(mine, theirs)| mine.accepts(theirs))
    }

    /// Whether both are the same but for the names of type parameters.
    pub(crate) fn is_equivalent(&self, other: &Self) -> bool {
        let (mine, theirs) = (self.parameters(), other.parameters());
        self.same_kind(other)
            && (matches!(self, Self::Param(_)) || self.name() == other.name())
            && mine.len() == theirs.len()
            && mine.iter().zip(theirs).all(|(mine, theirs)| mine.is_equivalent(theirs))
    }

    /// Reads the notation of the declaration tables: `list(A)`, `map(string, dyn)`, `optional(V)`,
    /// a capital letter for a parameter, a dotted name for an object (`net.IP` and `net.CIDR` are opaque).
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        if let Some((name, rest)) = text.split_once('(') {
            let inner = split_arguments(rest.strip_suffix(')').unwrap_or(rest));
            let mut inner = inner.into_iter().map(Self::parse);
            let mut next = || inner.next().unwrap_or(Self::Dyn);
            return match name {
                "list" => Self::list(next()),
                "map" => Self::map(next(), next()),
                "optional" => Self::optional(next()),
                _ => Self::type_of(next()),
            };
        }
        match text {
            "dyn" => Self::Dyn,
            "any" => Self::Any,
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "uint" => Self::Uint,
            "double" => Self::Double,
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "duration" => Self::Duration,
            "timestamp" => Self::Timestamp,
            "type" => Self::Type(None),
            "net.IP" | "net.CIDR" => Self::Opaque(text.into(), Arc::from([])),
            _ if text.len() == 1 => Self::Param(text.into()),
            _ => Self::object(text),
        }
    }
}

/// Splits at the commas that are not inside of parentheses.
pub(crate) fn split_arguments(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0u32, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if !text[start..].trim().is_empty() {
        parts.push(&text[start..]);
    }
    parts
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Param(name) = self {
            return write!(f, "<{name}>");
        }
        f.write_str(self.name())?;
        let parameters = self.parameters();
        if parameters.is_empty() {
            return Ok(());
        }
        for (at, parameter) in parameters.iter().enumerate() {
            write!(f, "{}{parameter}", if at == 0 { "(" } else { ", " })?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings() {
        for (text, shown, checked) in [
            ("list(map(string, A))", "list(map(string, <A>))", "list(map(string, A))"),
            ("optional(timestamp)", "optional_type(google.protobuf.Timestamp)", "optional_type(timestamp)"),
            ("null", "null_type", "null"),
            ("net.IP", "net.IP", "net.IP"),
            ("type(int)", "type(int)", "type(int)"),
        ] {
            let parsed = Type::parse(text);
            assert_eq!((parsed.to_string().as_str(), parsed.checked().as_str()), (shown, checked));
        }
    }
}
