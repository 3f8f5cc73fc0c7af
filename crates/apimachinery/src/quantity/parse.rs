//! Reading a quantity.

use std::str::FromStr;

use super::{BINARY_SUFFIXES, DECIMAL_SUFFIXES, Format, NANO, Quantity, div_away_from_zero, rescale};

/// Why text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Text taken apart: `-012.50Mi` is negative, whole `12`, fraction `50`, suffix `Mi`.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    /// Whether any digit stood before the suffix.
    digits: bool,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseQuantityError> {
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(unsigned);
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !exponent.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ParseQuantityError::Format);
    }
    let digits = !whole.is_empty() || !fraction.is_empty();
    Ok(Parts { negative, whole: whole.trim_start_matches('0'), fraction, digits, suffix })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// A suffix as a power of two (for binary ones) or ten.
fn interpret(suffix: &str) -> Option<(Format, i32)> {
    if let Some((power, _)) = DECIMAL_SUFFIXES.iter().find(|(_, name)| *name == suffix) {
        return Some((Format::DecimalSI, *power));
    }
    if let Some(power) = BINARY_SUFFIXES.iter().position(|name| *name == suffix) {
        return Some((Format::BinarySI, power as i32 * 10));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|text| !text.is_empty())?;
    // Upstream wraps an exponent of more than 32 bits around; there is no sense in that.
    Some((Format::DecimalExponent, exponent.parse().ok()?))
}

/// The digits as an integer and a power of ten that it lacks; what 128 bits cannot hold is rounded up.
fn integer(digits: impl Iterator<Item = u8>, max: i128) -> (i128, i32) {
    let (mut value, mut dropped, mut rest) = (0i128, 0i32, false);
    for digit in digits {
        let digit = i128::from(digit - b'0');
        if dropped == 0 && value <= (max - digit) / 10 {
            value = value * 10 + digit;
        } else {
            dropped = dropped.saturating_add(1);
            rest |= digit != 0;
        }
    }
    (value + i128::from(rest), dropped)
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        if text.is_empty() {
            return Err(ParseQuantityError::Format);
        }
        let parts = split(text)?;
        let (format, power) = interpret(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        let binary = format == Format::BinarySI;
        // Upstream's fast path reads no digits at all as zero, its slow one refuses them.
        if !parts.digits && (if binary { power >= 50 } else { power < NANO }) {
            return Err(ParseQuantityError::Numeric);
        }

        // Room for a binary factor, which is at most 2^60.
        let max = if binary { i128::MAX >> 62 } else { i128::MAX / 2 };
        let (mut mantissa, dropped) = integer(parts.whole.bytes().chain(parts.fraction.bytes()), max);
        let fraction = i32::try_from(parts.fraction.len()).unwrap_or(i32::MAX);
        let mut exponent = dropped.saturating_sub(fraction);
        if binary {
            mantissa <<= power;
        } else {
            exponent = exponent.saturating_add(power);
        }

        // Finer than nano: up, so that whoever asks for a little gets a little.
        if exponent < NANO {
            mantissa = rescale(mantissa, exponent, NANO).0;
            exponent = NANO;
        }
        let mut format = format;
        if binary {
            if super::cmp_scaled((mantissa, exponent), (i64::MAX.into(), 0)).is_gt() {
                (mantissa, exponent) = (i64::MAX.into(), 0);
            } else if mantissa != 0 && super::cmp_scaled((mantissa, exponent), (1, 0)).is_lt() {
                format = Format::DecimalSI;
            }
            // A fraction that the binary factor made whole.
            while exponent < 0 && mantissa % 10 == 0 && mantissa != 0 {
                mantissa = div_away_from_zero(mantissa, 10).0;
                exponent += 1;
            }
        }
        if mantissa == 0 {
            exponent = 0;
        }
        let mantissa = if parts.negative { -mantissa } else { mantissa };
        let mut quantity = Self { mantissa, exponent, format, written: None };
        if keeps_text(&parts, format, power) && quantity.to_string() != text {
            quantity.written = Some(text.into());
        }
        Ok(quantity)
    }
}

/// Upstream keeps the text of small numbers that look canonical to it (`+5Gi`, `1.500`), and writes
/// it back as it came: part of what is on the wire, and in stored objects.
fn keeps_text(parts: &Parts<'_>, format: Format, power: i32) -> bool {
    let (whole, fraction) = (if parts.whole.is_empty() { "0" } else { parts.whole }, parts.fraction);
    let digits = || whole.bytes().chain(fraction.bytes());
    let length = (whole.len() + fraction.len()) as i64;
    if whole == "0" && fraction.is_empty() && parts.suffix.is_empty() {
        return false;
    }
    let number = || digits().try_fold(0i64, |n, d| n.checked_mul(10)?.checked_add(i64::from(d - b'0')));
    match format {
        Format::BinarySI => {
            let precision = 15 - whole.len() as i64 - i64::from(power) * 3 / 10 - 1;
            let fits = |n: i64| n.checked_mul(1i64.checked_shl(power as u32)?);
            fraction.is_empty() && precision >= 0 && number().is_some_and(|n| n & 7 != 0 && fits(n).is_some())
        }
        Format::DecimalSI | Format::DecimalExponent => {
            let exponent = i64::from(power) - fraction.len() as i64;
            length <= 18
                && exponent >= i64::from(NANO)
                && exponent % 3 == 0
                && whole.as_bytes()[0] != b'0'
                && !digits().rev().take(3).eq(*b"000")
        }
    }
}
