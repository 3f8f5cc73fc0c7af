//! `resource.Quantity`: an exact amount with a suffix, as `100m`, `1536Mi`, `12e6`.
//!
//! A value is an integer of 128 bits times a power of ten. Upstream computes with integers of any
//! size; here, digits beyond the thirty-eighth are rounded away from zero, which no real amount has.
//! Parsing, rounding (up to nano), capping and the canonical form are upstream's. Equality and order
//! are those of the amount, whatever its format.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod parse;

pub use parse::ParseQuantityError;

/// The family of suffixes in which an amount is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12Mi`
    BinarySI,
    /// `12M`
    #[default]
    DecimalSI,
}

/// An exact amount.
#[derive(Clone, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    /// The power of ten.
    exponent: i32,
    format: Format,
    /// How it was written, where upstream keeps that although it is not the canonical form (`+5Gi`).
    written: Option<Box<str>>,
}

const NANO: i32 = -9;
const MILLI: i32 = -3;
const DECIMAL_SUFFIXES: [(i32, &str); 10] =
    [(-9, "n"), (-6, "u"), (-3, "m"), (0, ""), (3, "k"), (6, "M"), (9, "G"), (12, "T"), (15, "P"), (18, "E")];
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl Quantity {
    /// A whole amount.
    pub const fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value as i128, exponent: 0, format, written: None }
    }

    /// So many thousandths.
    pub const fn from_milli(value: i64, format: Format) -> Self {
        Self { mantissa: value as i128, exponent: MILLI, format, written: None }
    }

    /// So many times a power of ten.
    pub const fn from_scaled(value: i64, exponent: i32) -> Self {
        Self { mantissa: value as i128, exponent, format: Format::DecimalSI, written: None }
    }

    /// The family of suffixes it is written with.
    pub const fn format(&self) -> Format {
        self.format
    }

    /// The same amount, to be written with other suffixes.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, written: None, ..self }
    }

    /// Whether it is nothing.
    pub const fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub const fn sign(&self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// The amount rounded away from zero to a whole number, capped to 64 bits.
    pub fn value(&self) -> i64 {
        self.scaled_value(0)
    }

    /// The amount in thousandths, rounded away from zero, capped to 64 bits.
    pub fn milli_value(&self) -> i64 {
        self.scaled_value(MILLI)
    }

    /// The amount in units of a power of ten, rounded away from zero, capped to 64 bits.
    pub fn scaled_value(&self, exponent: i32) -> i64 {
        let wide = rescale(self.mantissa, self.exponent, exponent).0;
        wide.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// The amount, if it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match rescale(self.mantissa, self.exponent, 0) {
            (value, true) => i64::try_from(value).ok(),
            _ => None,
        }
    }

    /// The nearest float, near enough for a ratio.
    pub fn as_f64(&self) -> f64 {
        let base = self.mantissa as f64;
        if self.exponent == 0 { base } else { base * 10f64.powi(self.exponent) }
    }

    /// Rounds away from zero to a multiple of a power of ten; false if that changed the amount.
    pub fn round_up(&mut self, exponent: i32) -> bool {
        if self.exponent >= exponent {
            return true;
        }
        let (mantissa, exact) = rescale(self.mantissa, self.exponent, exponent);
        *self = Self { mantissa, exponent, format: self.format, written: None };
        exact
    }

    /// Adds; nothing takes the format of what is added to it.
    pub fn add(&mut self, other: &Self) {
        self.accumulate(other.mantissa, other);
    }

    /// Subtracts.
    pub fn sub(&mut self, other: &Self) {
        self.accumulate(other.mantissa.saturating_neg(), other);
    }

    fn accumulate(&mut self, mantissa: i128, other: &Self) {
        let format = if self.is_zero() { other.format } else { self.format };
        // Zero has no exponent worth keeping.
        let (mantissa, exponent) = match (self.mantissa, mantissa) {
            (_, 0) => (self.mantissa, self.exponent),
            (0, _) => (mantissa, other.exponent),
            _ => add_scaled((self.mantissa, self.exponent), (mantissa, other.exponent)),
        };
        *self = Self { mantissa, exponent, format, written: None };
    }

    /// Multiplies by a whole number.
    pub fn mul(&mut self, factor: i64) {
        let mut mantissa = self.mantissa;
        let mut exponent = self.exponent;
        while mantissa.checked_mul(factor.into()).is_none() {
            mantissa = div_away_from_zero(mantissa, 10).0;
            exponent = exponent.saturating_add(1);
        }
        *self =
            Self { mantissa: mantissa * i128::from(factor), exponent, format: self.format, written: None };
    }

    /// Changes the sign.
    pub fn neg(&mut self) {
        self.mantissa = self.mantissa.saturating_neg();
        self.written = None;
    }

    /// Compares with a whole number.
    pub fn cmp_i64(&self, other: i64) -> Ordering {
        cmp_scaled((self.mantissa, self.exponent), (other.into(), 0))
    }

    /// Mantissa and exponent without trailing zeros: one pair for each amount.
    fn normal(&self) -> (i128, i32) {
        if self.mantissa == 0 { (0, 0) } else { strip_zeros(self.mantissa, self.exponent) }
    }

    fn write_canonical(&self, f: &mut impl fmt::Write) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let mut format = self.format;
        if format == Format::BinarySI {
            let small = self.cmp_i64(-1024).is_gt() && self.cmp_i64(1024).is_lt();
            match rescale(self.mantissa, self.exponent, 0) {
                (mut whole, true) if !small && whole != i128::MAX && whole != i128::MIN => {
                    let mut power = 0;
                    while power + 1 < BINARY_SUFFIXES.len() && whole % 1024 == 0 {
                        whole /= 1024;
                        power += 1;
                    }
                    return write!(f, "{whole}{}", BINARY_SUFFIXES[power]);
                }
                // What binary suffixes cannot tell exactly, decimal ones can.
                _ => format = Format::DecimalSI,
            }
        }
        let (mantissa, exponent) = self.normal();
        let zeros = exponent.rem_euclid(3);
        let exponent = exponent - zeros;
        // Beyond exa there is no suffix (upstream then writes none, and so another amount); up to
        // there more digits serve, further out an exponent.
        let (exponent, zeros) = match format {
            Format::DecimalSI if (19..64).contains(&exponent) => (18, zeros + exponent - 18),
            _ => (exponent, zeros),
        };
        write!(f, "{mantissa}{:0<zeros$}", "", zeros = zeros as usize)?;
        match DECIMAL_SUFFIXES.iter().find(|(power, _)| *power == exponent) {
            _ if exponent == 0 => Ok(()),
            Some((_, suffix)) if format == Format::DecimalSI => f.write_str(suffix),
            _ => write!(f, "e{exponent}"),
        }
    }
}

/// Divides, away from zero; true when nothing was left over.
fn div_away_from_zero(value: i128, divisor: i128) -> (i128, bool) {
    let (quotient, rest) = (value / divisor, value % divisor);
    if rest == 0 { (quotient, true) } else { (quotient + value.signum(), false) }
}

/// The mantissa at another exponent, rounded away from zero, and whether that was exact; none when
/// 128 bits cannot hold it.
fn shift(mantissa: i128, from: i32, to: i32) -> Option<(i128, bool)> {
    let distance = i64::from(from) - i64::from(to);
    let factor = u32::try_from(distance.unsigned_abs()).ok().and_then(|power| 10i128.checked_pow(power));
    match factor {
        _ if mantissa == 0 => Some((0, true)),
        Some(factor) if distance >= 0 => Some((mantissa.checked_mul(factor)?, true)),
        Some(factor) => Some(div_away_from_zero(mantissa, factor)),
        None if distance >= 0 => None,
        // The factor is larger than any mantissa.
        None => Some((mantissa.signum(), false)),
    }
}

/// Like [`shift`], capped.
fn rescale(mantissa: i128, from: i32, to: i32) -> (i128, bool) {
    shift(mantissa, from, to).unwrap_or((cap(mantissa), false))
}

fn cap(mantissa: i128) -> i128 {
    if mantissa > 0 { i128::MAX } else { i128::MIN }
}

fn strip_zeros(mut mantissa: i128, mut exponent: i32) -> (i128, i32) {
    while mantissa % 10 == 0 && exponent < i32::MAX {
        mantissa /= 10;
        exponent += 1;
    }
    (mantissa, exponent)
}

fn cmp_scaled(a: (i128, i32), b: (i128, i32)) -> Ordering {
    let signs = a.0.signum().cmp(&b.0.signum());
    if signs.is_ne() || a.0 == 0 {
        return signs;
    }
    if a.1 < b.1 {
        return cmp_scaled(b, a).reverse();
    }
    // Same sign, and a's unit is the larger one. If a does not fit into b's unit, a is further out.
    match shift(a.0, a.1, b.1) {
        Some((value, _)) => value.cmp(&b.0),
        None => a.0.cmp(&0),
    }
}

/// The sum of two amounts, neither zero, in the finest unit in which 128 bits can hold it.
fn add_scaled(a: (i128, i32), b: (i128, i32)) -> (i128, i32) {
    // Finer than 39 digits below the coarser unit, nothing can be held.
    let coarse = a.1.max(b.1);
    let mut unit = a.1.min(b.1).max(coarse.saturating_sub(39));
    loop {
        let parts = shift(a.0, a.1, unit).zip(shift(b.0, b.1, unit));
        if let Some(sum) = parts.and_then(|((x, _), (y, _))| x.checked_add(y)) {
            return (sum, unit);
        }
        unit = unit.saturating_add(1);
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        cmp_scaled((self.mantissa, self.exponent), (other.mantissa, other.exponent))
    }
}

impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.normal().hash(state);
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.written {
            Some(text) => f.write_str(text),
            None => self.write_canonical(f),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

crate::decode!(Quantity);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Amount;

        impl Visitor<'_> for Amount {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity: a string or a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.trim().parse().map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Quantity, E> {
                Ok(Quantity::new(value, Format::DecimalSI))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Quantity, E> {
                Ok(Quantity { mantissa: value.into(), ..Quantity::default() })
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Quantity, E> {
                // JSON writes large floats with an exponent, and upstream reads what was written.
                let text = if value.abs() >= 1e21 { format!("{value:e}") } else { value.to_string() };
                text.parse().map_err(|_| E::custom(ParseQuantityError::Format))
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Quantity, E> {
                Ok(Quantity::default())
            }
        }

        deserializer.deserialize_any(Amount).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
