//! Field selectors: `metadata.name=x,status.phase!=Running`, with `\` before a comma, an equals sign
//! or itself in a value. The text form and its errors are upstream's `fields` package.

use std::fmt;
use std::str::FromStr;

/// One condition on one field; an absent field has the empty value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The field's name.
    pub field: String,
    /// Whether the value must be equal, or must not.
    pub operator: Operator,
    /// The value.
    pub value: String,
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    NotEquals,
}

/// Conditions that an object's fields must all meet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selector(Vec<Requirement>);

/// Text that is no field selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    #[error("invalid selector: '{selector}'; can't understand '{part}'")]
    NoOperator { selector: String, part: String },
    #[error("invalid field selector: invalid escape sequence: {0}")]
    InvalidEscape(String),
    // Upstream prints the character's number.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
}

impl Selector {
    /// Matches all.
    pub const fn everything() -> Self {
        Self(Vec::new())
    }

    /// All of some requirements.
    pub fn new(requirements: Vec<Requirement>) -> Self {
        Self(requirements)
    }

    /// The one field with the one value.
    pub fn one_term_equal(field: impl Into<String>, value: impl Into<String>) -> Self {
        let (field, value) = (field.into(), value.into());
        Self(vec![Requirement { field, operator: Operator::Equals, value }])
    }

    /// From text.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = split_terms(text);
        parts.sort_unstable();
        let requirements = parts.into_iter().filter(|part| !part.is_empty()).map(|part| {
            let (field, operator, value) = split_term(part).ok_or_else(|| SelectorError::NoOperator {
                selector: text.to_owned(),
                part: part.to_owned(),
            })?;
            Ok(Requirement { field: field.to_owned(), operator, value: unescape_value(value)? })
        });
        requirements.collect::<Result<_, _>>().map(Self)
    }

    /// Renames fields and values, as a kind's `ConvertFieldLabel` does; a requirement that becomes
    /// empty is dropped.
    pub fn transform<E>(
        self,
        mut rename: impl FnMut(String, String) -> Result<(String, String), E>,
    ) -> Result<Self, E> {
        let mut requirements = Vec::with_capacity(self.0.len());
        for Requirement { field, operator, value } in self.0 {
            if field.is_empty() && value.is_empty() {
                continue;
            }
            let (field, value) = rename(field, value)?;
            if !(field.is_empty() && value.is_empty()) {
                requirements.push(Requirement { field, operator, value });
            }
        }
        Ok(Self(requirements))
    }

    /// Whether fields meet it; `get` gives the value of a field, empty when there is none.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|requirement| {
            (get(&requirement.field) == requirement.value) == (requirement.operator == Operator::Equals)
        })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Its requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.0
    }

    /// The one value that a field must have, if there is one.
    pub fn requires_exact_match(&self, field: &str) -> Option<&str> {
        let exact = |requirement: &&Requirement| {
            requirement.operator == Operator::Equals && requirement.field == field
        };
        self.0.iter().find(exact).map(|requirement| &*requirement.value)
    }

    /// The same, and more.
    pub fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }
}

/// Parts between commas that are not escaped.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, Operator, &str)> {
    term.char_indices().find_map(|(at, _)| {
        let (field, rest) = term.split_at(at);
        let operators = [("!=", Operator::NotEquals), ("==", Operator::Equals), ("=", Operator::Equals)];
        operators.into_iter().find_map(|(text, operator)| Some((field, operator, rest.strip_prefix(text)?)))
    })
}

/// The value that an escaped one stands for.
pub fn unescape_value(text: &str) -> Result<String, SelectorError> {
    let mut value = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some(c @ ('\\' | ',' | '=')) => value.push(c),
                Some(c) => return Err(SelectorError::InvalidEscape(format!("\\{c}"))),
                None => return Err(SelectorError::InvalidEscape("\\".to_owned())),
            },
            ',' | '=' => return Err(SelectorError::Unescaped(c)),
            _ => value.push(c),
        }
    }
    Ok(value)
}

/// A value as it must stand in a selector's text.
pub fn escape_value(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = match self.operator {
            Operator::Equals => "=",
            Operator::NotEquals => "!=",
        };
        write!(f, "{}{operator}{}", self.field, escape_value(&self.value))
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_and_shown() {
        for (text, want) in [
            ("", ""),
            ("b=2,,a==1,c!=3", "a=1,b=2,c!=3"),
            ("a=", "a="),
            (r"a=x\,y\=z\\", r"a=x\,y\=z\\"),
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("x=1,a", "invalid selector: 'x=1,a'; can't understand 'a'"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            (r"a=\", r"invalid field selector: invalid escape sequence: \"),
        ] {
            let got = Selector::parse(text).map_or_else(|error| error.to_string(), |s| s.to_string());
            assert_eq!(got, want, "{text}");
        }
    }

    #[test]
    fn selectors_match_and_transform() {
        let selector = Selector::parse("metadata.name=x,status.phase!=Failed").unwrap();
        let get = |phase: &'static str| {
            move |field: &str| match field {
                "metadata.name" => "x",
                "status.phase" => phase,
                _ => "",
            }
        };
        assert!(selector.matches(get("Running")));
        assert!(!selector.matches(get("Failed")));
        assert_eq!(selector.requires_exact_match("metadata.name"), Some("x"));
        assert_eq!(selector.requires_exact_match("status.phase"), None);
        let renamed = selector.transform(|field, value| match &*field {
            "metadata.name" => Ok((String::new(), String::new())),
            "status.phase" => Ok((field, value)),
            other => Err(other.to_owned()),
        });
        assert_eq!(renamed.unwrap().to_string(), "status.phase!=Failed");
    }
}
