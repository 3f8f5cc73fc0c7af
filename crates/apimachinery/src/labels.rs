//! Label selectors: `app=web,tier in (a,b),!canary`, or built from a `metav1.LabelSelector`.
//! The text form, its errors and its canonical display are upstream's `labels` package. Parsing is in
//! [`parse`].

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::field::{BadValue, Error, ErrorList, Path};
use crate::meta::LabelSelector;
use crate::quote::quote;
use crate::validation::{is_qualified_name, is_valid_label_value};

mod parse;

/// Labels as something to look them up in.
pub trait Labels {
    /// The value of a label, if there is one.
    fn label(&self, key: &str) -> Option<Cow<'_, str>>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).map(|value| Cow::Borrowed(&**value))
    }
}

impl Labels for HashMap<String, String> {
    fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).map(|value| Cow::Borrowed(&**value))
    }
}

impl Labels for crate::value::Map {
    fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        self.get(key).map(|value| Cow::Borrowed(value.as_str().unwrap_or_default()))
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        self.iter().find(|(name, _)| name.as_ref() == key).map(|(_, value)| Cow::Borrowed(value.as_ref()))
    }
}

impl<T: Labels + ?Sized> Labels for &T {
    fn label(&self, key: &str) -> Option<Cow<'_, str>> {
        (**self).label(key)
    }
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    GreaterThan,
    LessThan,
    Exists,
    DoesNotExist,
}

impl Operator {
    /// Upstream's word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Equals => "=",
            Self::DoubleEquals => "==",
            Self::NotEquals => "!=",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
        }
    }
}

/// A text or a `LabelSelector` that is no selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub(crate) String);

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    /// A valid requirement; errors name `key` and `values` below `path`.
    pub fn new(
        key: impl Into<String>,
        operator: Operator,
        values: Vec<String>,
        path: &Path,
    ) -> Result<Self, ErrorList> {
        let key = key.into();
        let mut errors = ErrorList::new();
        errors.extend(check_key(&key, &path.child("key")));
        let values_path = path.child("values");
        // Upstream shows the values as JSON, and no values as null when they come from an object.
        let shown = || if values.is_empty() { BadValue::verbatim("null") } else { BadValue::json(&values) };
        let count_rule = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(count_rule.map(|rule| Error::invalid(&values_path, shown(), rule)));
        if matches!(operator, Operator::GreaterThan | Operator::LessThan) {
            for (at, value) in values.iter().enumerate() {
                if value.parse::<i64>().is_err() {
                    let why = "for 'Gt', 'Lt' operators, the value must be an integer";
                    errors.push(Error::invalid(&values_path.index(at), value, why));
                }
            }
        }
        for (at, value) in values.iter().enumerate() {
            let problems = is_valid_label_value(value);
            if !problems.is_empty() {
                let at = values_path.index(at).key(&*key);
                errors.push(Error::invalid(&at, value, problems.join("; ")));
            }
        }
        errors.into_result()?;
        Ok(Self { key, operator, values })
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it is compared.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// With what.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether labels meet it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.label(&self.key);
        let among = |value: &str| self.values.iter().any(|wanted| wanted == value);
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::In | Operator::Equals | Operator::DoubleEquals => {
                value.is_some_and(|value| among(&value))
            }
            Operator::NotIn | Operator::NotEquals => value.is_none_or(|value| !among(&value)),
            Operator::GreaterThan | Operator::LessThan => {
                let wanted = match &*self.values {
                    [wanted] => wanted.parse::<i64>().ok(),
                    _ => None,
                };
                match (value.and_then(|value| value.parse::<i64>().ok()), wanted) {
                    (Some(value), Some(wanted)) if self.operator == Operator::GreaterThan => value > wanted,
                    (Some(value), Some(wanted)) => value < wanted,
                    _ => false,
                }
            }
        }
    }
}

/// The key of a label must be a qualified name.
fn check_key(key: &str, path: &Path) -> Option<Error> {
    let problems = is_qualified_name(key);
    (!problems.is_empty()).then(|| Error::invalid(path, key, problems.join("; ")))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operator == Operator::DoesNotExist {
            f.write_str("!")?;
        }
        f.write_str(&self.key)?;
        let mut values: Vec<&str> = self.values.iter().map(|value| &**value).collect();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::Exists | Operator::DoesNotExist => Ok(()),
            Operator::Equals => write!(f, "={values}"),
            Operator::DoubleEquals => write!(f, "=={values}"),
            Operator::NotEquals => write!(f, "!={values}"),
            Operator::In => write!(f, " in ({values})"),
            Operator::NotIn => write!(f, " notin ({values})"),
            Operator::GreaterThan => write!(f, ">{values}"),
            Operator::LessThan => write!(f, "<{values}"),
        }
    }
}

/// Conditions that labels must all meet, sorted by key; or one that nothing meets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selector(Option<Vec<Requirement>>);

impl Default for Selector {
    fn default() -> Self {
        Self::everything()
    }
}

impl Selector {
    /// Matches all.
    pub const fn everything() -> Self {
        Self(Some(Vec::new()))
    }

    /// Matches none.
    pub const fn nothing() -> Self {
        Self(None)
    }

    /// All of some requirements.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self(Some(requirements))
    }

    /// From text.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Self::parse_at(text, &Path::none())
    }

    /// From text; errors are told at `path`.
    pub fn parse_at(text: &str, path: &Path) -> Result<Self, SelectorError> {
        parse::parse(text, path).map(Self::new)
    }

    /// Labels that must be there as they are, unchecked: upstream's `SelectorFromSet`.
    pub fn from_set<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self::new(labels.into_iter().map(requirement).collect())
    }

    /// Upstream's `LabelSelectorAsSelector`: an absent selector matches nothing, an empty one all.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        let mut add = |key: &String, operator, values| {
            let requirement = Requirement::new(key, operator, values, &Path::none())
                .map_err(|errors| SelectorError(errors.to_string()))?;
            requirements.push(requirement);
            Ok(())
        };
        for (key, value) in &selector.match_labels {
            add(key, Operator::Equals, vec![value.clone()])?;
        }
        for expression in &selector.match_expressions {
            let operator = match &*expression.operator {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!(
                        "{} is not a valid label selector operator",
                        quote(other)
                    )));
                }
            };
            add(&expression.key, operator, expression.values.clone())?;
        }
        Ok(Self::new(requirements))
    }

    /// Whether labels meet it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        self.0.as_ref().is_some_and(|all| all.iter().all(|requirement| requirement.matches(labels)))
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether it matches nothing, ever.
    pub fn is_nothing(&self) -> bool {
        self.0.is_none()
    }

    /// Its requirements; none at all for the selector of nothing.
    pub fn requirements(&self) -> Option<&[Requirement]> {
        self.0.as_deref()
    }

    /// The same, and more.
    pub fn and(self, more: impl IntoIterator<Item = Requirement>) -> Self {
        match self.0 {
            None => Self(None),
            Some(mut requirements) => {
                requirements.extend(more);
                Self::new(requirements)
            }
        }
    }

    /// The one value that a label must have, if there is one.
    pub fn requires_exact_match(&self, key: &str) -> Option<&str> {
        let requirement = self.0.as_ref()?.iter().find(|requirement| requirement.key == key)?;
        match (requirement.operator, &*requirement.values) {
            (Operator::Equals | Operator::DoubleEquals | Operator::In, [value]) => Some(value),
            _ => None,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.0.iter().flatten().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// As Go prints the struct: in events, and in the cells of some tables.
impl std::fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("&LabelSelector{MatchLabels:map[string]string{")?;
        self.match_labels.iter().try_for_each(|(key, value)| write!(f, "{key}: {value},"))?;
        f.write_str("},MatchExpressions:[]LabelSelectorRequirement{")?;
        for r in &self.match_expressions {
            let (key, operator, values) = (&r.key, &r.operator, r.values.join(" "));
            write!(f, "LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")?;
        }
        f.write_str("},}")
    }
}

/// A `LabelSelector` as people read it; upstream's `FormatLabelSelector`.
pub fn format_label_selector(selector: Option<&LabelSelector>) -> String {
    match Selector::from_label_selector(selector) {
        Err(_) => "<error>".to_owned(),
        Ok(selector) => {
            let text = selector.to_string();
            if text.is_empty() { "<none>".to_owned() } else { text }
        }
    }
}

#[cfg(test)]
mod tests;
