//! `IntOrString`: a port's number or name, a count or a percentage.

use std::fmt;

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quote::quote;

/// A number or text, as it was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

/// Where a percentage of a whole is no whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    Up,
    Down,
}

/// Text that is no percentage, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: {0}")]
pub struct NotAPercentage(String);

impl IntOrString {
    /// A number if it reads as one, else text.
    pub fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::String(text.to_owned()), Self::Int)
    }

    /// The number; text that is none counts as 0.
    pub fn int_value(&self) -> i32 {
        match self {
            Self::Int(value) => *value,
            Self::String(text) => text.parse().unwrap_or(0),
        }
    }

    /// The number as it is, or the percentage of `total`: upstream's `GetScaledValueFromIntOrPercent`.
    pub fn scaled_value(&self, total: i32, rounding: Rounding) -> Result<i32, NotAPercentage> {
        let text = match self {
            Self::Int(value) => return Ok(*value),
            Self::String(text) => text,
        };
        let digits = text
            .strip_suffix('%')
            .ok_or_else(|| NotAPercentage("invalid type: string is not a percentage".to_owned()))?;
        let percent: i64 = parse_int(digits)
            .map_err(|why| NotAPercentage(format!("invalid value {}: {why}", quote(text))))?;
        let hundredths = i128::from(percent) * i128::from(total);
        let whole = hundredths.div_euclid(100);
        let rest = hundredths.rem_euclid(100);
        let value = whole + i128::from(rest != 0 && rounding == Rounding::Up);
        Ok(value.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }
}

/// Go's `strconv.Atoi`, with the text of its errors.
fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.Atoi: parsing {}: {why}", quote(text))
    })
}

impl Default for IntOrString {
    fn default() -> Self {
        Self::Int(0)
    }
}

impl From<i32> for IntOrString {
    fn from(value: i32) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for IntOrString {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

impl fmt::Display for IntOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(value) => write!(f, "{value}"),
            Self::String(text) => f.write_str(text),
        }
    }
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Int(value) => serializer.serialize_i32(*value),
            Self::String(text) => serializer.serialize_str(text),
        }
    }
}

crate::decode!(IntOrString);

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = IntOrString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer of 32 bits or a string")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<IntOrString, E> {
                i32::try_from(value).map(IntOrString::Int).map_err(E::custom)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<IntOrString, E> {
                Ok(IntOrString::String(text.to_owned()))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<IntOrString, E> {
                Ok(IntOrString::default())
            }
        }

        deserializer.deserialize_any(Either).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale() {
        for (value, total, up, down) in [
            ("25%", 10, "3", "2"),
            ("100%", 7, "7", "7"),
            ("0%", 7, "0", "0"),
            ("-5%", 10, "0", "-1"),
            ("7", 10, "7", "7"),
            ("abc", 10, "invalid value for IntOrString: invalid type: string is not a percentage", ""),
            (
                "x%",
                10,
                "invalid value for IntOrString: invalid value \"x%\": strconv.Atoi: parsing \"x\": invalid syntax",
                "",
            ),
        ] {
            let show = |r: Result<i32, NotAPercentage>| r.map_or_else(|e| e.to_string(), |v| v.to_string());
            let value = IntOrString::parse(value);
            assert_eq!(show(value.scaled_value(total, Rounding::Up)), up);
            if !down.is_empty() {
                assert_eq!(show(value.scaled_value(total, Rounding::Down)), down);
            }
        }
    }

    #[test]
    fn json_keeps_the_form() {
        for json in ["80", "-1", "\"http\"", "\"80\""] {
            let value: IntOrString = serde_json::from_str(json).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), json);
        }
        assert!(serde_json::from_str::<IntOrString>("3000000000").is_err());
    }
}
