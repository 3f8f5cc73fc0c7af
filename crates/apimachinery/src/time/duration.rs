//! `metav1.Duration`: Go's `time.Duration`, nanoseconds in 64 bits, written as `1h2m3.5s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quote::quote;

/// A signed span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    nanos: i64,
}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self { nanos: 0 };

    /// So many nanoseconds.
    pub const fn from_nanoseconds(nanos: i64) -> Self {
        Self { nanos }
    }

    /// So many milliseconds; what does not fit is capped.
    pub const fn from_milliseconds(millis: i64) -> Self {
        Self { nanos: millis.saturating_mul(1_000_000) }
    }

    /// So many seconds; what does not fit is capped.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self { nanos: seconds.saturating_mul(1_000_000_000) }
    }

    /// The whole of it in nanoseconds.
    pub const fn nanoseconds(self) -> i64 {
        self.nanos
    }

    /// In seconds, with a fraction.
    pub fn seconds_f64(self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// For timers; none when negative.
    pub fn to_std(self) -> Option<std::time::Duration> {
        u64::try_from(self.nanos).ok().map(std::time::Duration::from_nanos)
    }
}

impl From<std::time::Duration> for Duration {
    fn from(duration: std::time::Duration) -> Self {
        Self { nanos: i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write_fraction(f, nanos, 1_000, "µs"),
            1_000_000..1_000_000_000 => write_fraction(f, nanos, 1_000_000, "ms"),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write_fraction(f, nanos % 60_000_000_000, 1_000_000_000, "s")
            }
        }
    }
}

/// `nanos` in a unit, with as many decimals as it needs.
fn write_fraction(f: &mut fmt::Formatter<'_>, nanos: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", nanos / unit)?;
    let fraction = nanos % unit;
    if fraction != 0 {
        let digits = unit.ilog10() as usize;
        write!(f, ".{}", format!("{fraction:0digits$}").trim_end_matches('0'))?;
    }
    f.write_str(name)
}

/// Why text is no duration, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseDurationError(String);

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        let invalid = || ParseDurationError(format!("time: invalid duration {}", quote(text)));
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Ok(Self::ZERO);
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        // The most negative duration has no positive counterpart, so the sum is kept in 128 bits.
        let mut total: i128 = 0;
        while !rest.is_empty() {
            let (whole, after) = split_digits(rest);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => split_digits(after),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
            let (unit_name, after) = after.split_at(end);
            if unit_name.is_empty() {
                return Err(ParseDurationError(format!("time: missing unit in duration {}", quote(text))));
            }
            let unit = unit(unit_name).ok_or_else(|| {
                let name = quote(unit_name);
                ParseDurationError(format!("time: unknown unit {name} in duration {}", quote(text)))
            })?;
            let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
            // Nanoseconds are the finest: digits beyond the fifteenth cannot matter.
            let fraction = &fraction[..fraction.len().min(15)];
            let part =
                fraction.parse::<i128>().unwrap_or(0) * i128::from(unit) / 10i128.pow(fraction.len() as u32);
            total += i128::from(whole) * i128::from(unit) + part;
            if total > 1 << 63 {
                return Err(invalid());
            }
            rest = after;
        }
        let total = if negative { -total } else { total };
        i64::try_from(total).map(Self::from_nanoseconds).map_err(|_| invalid())
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn unit(name: &str) -> Option<i64> {
    Some(match name {
        "ns" => 1,
        // Go takes the micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<Cow<'de, str>>::deserialize(deserializer)? {
            None => Ok(Self::ZERO),
            Some(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_as_in_go() {
        for (text, want) in [
            ("0", "0s"),
            ("1h2m3.5s", "1h2m3.5s"),
            ("90s", "1m30s"),
            ("3600s", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("100ms", "100ms"),
            ("1500us", "1.5ms"),
            ("1µs", "1µs"),
            ("-1.000000001s", "-1.000000001s"),
            (".5s", "500ms"),
            ("1.s", "1s"),
            ("-9223372036854775808ns", "-2562047h47m16.854775808s"),
            ("9223372036854775808ns", r#"time: invalid duration "9223372036854775808ns""#),
            ("", r#"time: invalid duration """#),
            ("1", r#"time: missing unit in duration "1""#),
            ("1x", r#"time: unknown unit "x" in duration "1x""#),
            ("-.s", r#"time: invalid duration "-.s""#),
            ("9999999999h", r#"time: invalid duration "9999999999h""#),
        ] {
            let got = text.parse::<Duration>().map_or_else(|error| error.to_string(), |d| d.to_string());
            assert_eq!(got, want);
        }
    }
}

impl Duration {
    /// As `kubectl get` shows ages: two units at most, one where the second says little (upstream's `HumanDuration`).
    pub fn human(self) -> String {
        let seconds = self.nanos.div_euclid(1_000_000_000);
        let both = |a: i64, unit: char, b: i64, smaller: char| match b {
            0 => format!("{a}{unit}"),
            b => format!("{a}{unit}{b}{smaller}"),
        };
        let (minutes, hours) = (seconds / 60, seconds / 3600);
        match seconds {
            ..-1 => "<invalid>".to_owned(),
            -1 => "0s".to_owned(),
            0..120 => format!("{seconds}s"),
            _ if minutes < 10 => both(minutes, 'm', seconds % 60, 's'),
            _ if minutes < 180 => format!("{minutes}m"),
            _ if hours < 8 => both(hours, 'h', minutes % 60, 'm'),
            _ if hours < 48 => format!("{hours}h"),
            _ if hours < 24 * 8 => both(hours / 24, 'd', hours % 24, 'h'),
            _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
            _ if hours < 24 * 365 * 8 => both(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
            _ => format!("{}y", hours / 24 / 365),
        }
    }
}

#[cfg(test)]
mod human_tests {
    use super::*;

    #[test]
    fn ages_are_short() {
        let day = 86400;
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (179 * 60, "179m"),
            (3 * 3600, "3h"),
            (7 * 3600 + 59 * 60, "7h59m"),
            (8 * 3600 + 60, "8h"),
            (47 * 3600, "47h"),
            (2 * day, "2d"),
            (3 * day + 7200, "3d2h"),
            (8 * day, "8d"),
            (729 * day, "729d"),
            (730 * day, "2y"),
            (731 * day, "2y1d"),
            (3000 * day, "8y"),
        ] {
            assert_eq!(Duration::from_seconds(seconds).human(), text, "{seconds}");
        }
    }
}
