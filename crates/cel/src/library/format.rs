//! `"%s is %.2f".format([…])`. The same reading of the format serves evaluation and, for constant formats with
//! listed arguments, the check beforehand.

use std::fmt::Write;

use super::strings::quoted;
use crate::value::{Error, Evaluated, NO_OVERLOAD, Val, failed_with, ops};

/// What a clause asks of its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    Text,
    Decimal,
    Fixed(usize),
    Scientific,
    Binary,
    Hex { upper: bool },
    Octal,
}

impl Clause {
    /// What is wrong with an argument of this type.
    pub(crate) fn refusal(self, kind: &str) -> String {
        let rule = match self {
            Self::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
            }
            Self::Decimal => "decimal clause can only be used on integers",
            Self::Fixed(_) => "fixed-point clause can only be used on doubles",
            Self::Scientific => "scientific clause can only be used on doubles",
            Self::Binary => "only integers and bools can be formatted as binary",
            Self::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
            Self::Octal => "octal clause can only be used on integers",
        };
        format!("{rule}, was given {kind}")
    }
}

/// Reads a format; `fill` writes the argument with the index it is given.
pub(crate) fn interpolate(
    format: &str,
    count: usize,
    fill: &mut dyn FnMut(usize, Clause) -> Result<String, String>,
) -> Result<String, String> {
    let mut out = String::with_capacity(format.len());
    let mut rest = format;
    let mut index = 0;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        if index >= count {
            return Err(format!("index {index} out of range"));
        }
        if rest.is_empty() {
            return Err("unexpected end of string".into());
        }
        let (clause, after) =
            clause(rest).map_err(|wrong| format!("could not parse formatting clause: {wrong}"))?;
        out.push_str(&fill(index, clause).map_err(|wrong| format!("error during formatting: {wrong}"))?);
        rest = after;
        index += 1;
    }
    out.push_str(rest);
    Ok(out)
}

fn clause(text: &str) -> Result<(Clause, &str), String> {
    let (precision, rest) = match text.strip_prefix('.') {
        None => (6, text),
        Some(rest) => {
            let end = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or("error while parsing precision: could not find end of precision specifier")?;
            let digits = &rest[..end];
            let precision = digits.parse().map_err(|_| {
                format!(
                    "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing \"{digits}\": invalid syntax"
                )
            })?;
            (precision, &rest[end..])
        }
    };
    let letter = rest.chars().next().unwrap_or_default();
    let clause = match letter {
        's' => Clause::Text,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed(precision),
        'e' => Clause::Scientific,
        'b' => Clause::Binary,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        'o' => Clause::Octal,
        other => return Err(format!("unrecognized formatting clause \"{other}\"")),
    };
    Ok((clause, &rest[1..]))
}

/// The longest fraction that is written; no sensible message has more.
const MOST_DIGITS: usize = 1000;

/// `format.format(args)`
pub(crate) fn format<'a>(args: &[Val<'a>]) -> Evaluated<'a> {
    let (Some(format), Val::List(list)) = (args[0].as_str(), &args[1]) else { return Err(NO_OVERLOAD) };
    let mut fill = |index: usize, clause: Clause| {
        let value = list.get(index).unwrap_or(Err(NO_OVERLOAD)).map_err(|error| error.to_string())?;
        write(&value, clause)
    };
    interpolate(format, list.len(), &mut fill).map(Val::from).map_err(failed_with)
}

fn write(value: &Val<'_>, clause: Clause) -> Result<String, String> {
    let refused = || clause.refusal(value.kind().name());
    Ok(match (clause, value) {
        (Clause::Text, _) => text(value).map_err(|error| error.unwrap_or_else(refused))?,
        (Clause::Decimal, Val::Int(value)) => value.to_string(),
        (Clause::Decimal, Val::Uint(value)) => value.to_string(),
        (Clause::Fixed(digits), _) => match double(value).ok_or_else(refused)? {
            special if !special.is_finite() => not_finite(special),
            number => grouped(&format!("{number:.*}", digits.min(MOST_DIGITS))),
        },
        (Clause::Scientific, _) => match double(value).ok_or_else(refused)? {
            special if !special.is_finite() => not_finite(special),
            number => scientific(number),
        },
        (Clause::Binary, Val::Int(value)) => signed(*value, |magnitude| format!("{magnitude:b}")),
        (Clause::Binary, Val::Uint(value)) => format!("{value:b}"),
        (Clause::Binary, Val::Bool(value)) => u8::from(*value).to_string(),
        (Clause::Hex { upper }, _) => {
            let hex = match value {
                Val::Int(value) => signed(*value, |magnitude| format!("{magnitude:x}")),
                Val::Uint(value) => format!("{value:x}"),
                Val::String(text) => bytes(text.as_bytes()),
                Val::Bytes(of) => bytes(of),
                _ => return Err(refused()),
            };
            if upper { hex.to_ascii_uppercase() } else { hex }
        }
        (Clause::Octal, Val::Int(value)) => signed(*value, |magnitude| format!("{magnitude:o}")),
        (Clause::Octal, Val::Uint(value)) => format!("{value:o}"),
        _ => return Err(refused()),
    })
}

fn signed(value: i64, magnitude: impl Fn(u64) -> String) -> String {
    let sign = if value < 0 { "-" } else { "" };
    format!("{sign}{}", magnitude(value.unsigned_abs()))
}

fn bytes(of: &[u8]) -> String {
    of.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A number, or one of the words for what is no number.
fn double(value: &Val<'_>) -> Option<f64> {
    match value {
        Val::Double(value) => Some(*value),
        Val::String(text) => match &**text {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn not_finite(value: f64) -> String {
    match value {
        value if value.is_nan() => "NaN",
        value if value > 0.0 => "∞",
        _ => "-∞",
    }
    .into()
}

/// Digits in groups of three, as in American English.
fn grouped(number: &str) -> String {
    let (sign, digits) = number.strip_prefix('-').map_or(("", number), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(w, f)| (w, Some(f)));
    let mut out = String::from(sign);
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(fraction);
    }
    out
}

/// `1.052033×10⁰³`: whatever the clause asks for, six digits.
fn scientific(number: f64) -> String {
    const SUPERSCRIPTS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let text = format!("{number:.6e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised: String = format!("{exponent:0>2}")
        .chars()
        .filter_map(|digit| SUPERSCRIPTS.get(digit.to_digit(10)? as usize))
        .collect();
    format!("{mantissa}×10{sign}{raised}")
}

type Written = Result<String, Option<String>>;

/// As `%s` writes it; without a message, the kind of value is refused.
fn text(value: &Val<'_>) -> Written {
    match value {
        Val::List(_) | Val::Map(_) => nested(value),
        Val::Null => Ok("null".into()),
        Val::Bytes(of) => match std::str::from_utf8(of) {
            Ok(text) => Ok(text.into()),
            Err(_) => Err(Some(
                "could not convert argument \"invalid UTF-8 in bytes, cannot convert to string\" to string"
                    .into(),
            )),
        },
        Val::Int(_)
        | Val::Uint(_)
        | Val::Double(_)
        | Val::Bool(_)
        | Val::String(_)
        | Val::Timestamp(_)
        | Val::Duration(_)
        | Val::Type(_) => ops::to_text(value).map_err(|error: Error| Some(error.to_string())),
        _ => Err(None),
    }
}

/// As it is written inside of a list or map.
fn nested(value: &Val<'_>) -> Written {
    let failed = |error: Error| Some(error.to_string());
    Ok(match value {
        Val::String(text) => quoted(text),
        Val::Bytes(_) => format!("b{}", quoted(&text(value)?)),
        Val::Timestamp(_) => format!("timestamp({})", quoted(&text(value)?)),
        Val::Duration(_) => format!("duration({})", quoted(&text(value)?)),
        Val::Double(number) if !number.is_finite() => {
            let word = if number.is_nan() {
                "NaN"
            } else if *number > 0.0 {
                "+Inf"
            } else {
                "-Inf"
            };
            quoted(word)
        }
        Val::Double(number) => format!("{number:.6}"),
        Val::List(list) => {
            let items =
                list.iter().map(|item| nested(&item.map_err(failed)?)).collect::<Result<Vec<_>, _>>()?;
            format!("[{}]", items.join(", "))
        }
        Val::Map(map) => {
            let mut entries = Vec::with_capacity(map.len());
            for (key, value) in map.entries().map_err(failed)? {
                let key = match &key {
                    Val::String(_) | Val::Bool(_) | Val::Int(_) | Val::Uint(_) => nested(&key)?,
                    other => {
                        let kind = other.kind();
                        return Err(Some(format!(
                            "no formatting function for map key of type {}",
                            kind.name()
                        )));
                    }
                };
                entries.push((key, nested(&value)?));
            }
            entries.sort();
            let entries: Vec<_> = entries.into_iter().map(|(key, value)| format!("{key}:{value}")).collect();
            format!("{{{}}}", entries.join(", "))
        }
        Val::Null | Val::Int(_) | Val::Uint(_) | Val::Bool(_) | Val::Type(_) => text(value)?,
        other => return Err(Some(format!("no formatting function for {}", other.kind().name()))),
    })
}
