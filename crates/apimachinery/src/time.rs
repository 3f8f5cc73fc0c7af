//! Points in time as the API writes them: `Time` to the second, `MicroTime` to the microsecond, both
//! RFC 3339 in UTC. Parse errors have the words of Go's `time.Parse`. Durations are in [`duration`].
//!
//! Go's zero time (year 1) is the default and stands for "not set": it is written as `null`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

pub use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod duration;
mod rfc3339;

pub use duration::{Duration, ParseDurationError};
pub use rfc3339::ParseTimeError;

/// Seconds from Go's zero time, 0001-01-01T00:00:00Z, to the Unix epoch.
const ZERO_SECONDS: i64 = -62_135_596_800;
const MICROS: i64 = 1_000_000;

/// `metav1.Time`: a second of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    seconds: i64,
}

/// `metav1.MicroTime`: a microsecond of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MicroTime {
    micros: i64,
}

impl Time {
    /// Not set.
    pub const ZERO: Self = Self { seconds: ZERO_SECONDS };

    /// The second that is this far from the Unix epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Self { seconds }
    }

    /// Seconds since the Unix epoch.
    pub const fn unix(self) -> i64 {
        self.seconds
    }

    /// Whether it is not set.
    pub const fn is_zero(&self) -> bool {
        self.seconds == ZERO_SECONDS
    }

    /// This much later (or earlier), in whole seconds.
    pub fn plus(self, duration: Duration) -> Self {
        Self { seconds: self.seconds.saturating_add(duration.nanoseconds().div_euclid(1_000_000_000)) }
    }

    /// How long ago `earlier` was; negative when it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_seconds(self.seconds.saturating_sub(earlier.seconds))
    }

    /// As a precise instant; none outside the years that can be told.
    pub fn timestamp(self) -> Option<Timestamp> {
        Timestamp::from_second(self.seconds).ok()
    }
}

impl MicroTime {
    /// Not set.
    pub const ZERO: Self = Self { micros: ZERO_SECONDS * MICROS };

    /// The microsecond that is this far from the Unix epoch.
    pub const fn from_unix_micros(micros: i64) -> Self {
        Self { micros }
    }

    /// Microseconds since the Unix epoch.
    pub const fn unix_micros(self) -> i64 {
        self.micros
    }

    /// Whether it is not set.
    pub const fn is_zero(&self) -> bool {
        self.micros == ZERO_SECONDS * MICROS
    }

    /// This much later (or earlier).
    pub fn plus(self, duration: Duration) -> Self {
        Self { micros: self.micros.saturating_add(duration.nanoseconds().div_euclid(1000)) }
    }

    /// How long ago `earlier` was; negative when it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanoseconds(self.micros.saturating_sub(earlier.micros).saturating_mul(1000))
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Default for MicroTime {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<Timestamp> for Time {
    fn from(timestamp: Timestamp) -> Self {
        // Rounded down, also before the epoch.
        Self { seconds: timestamp.as_nanosecond().div_euclid(1_000_000_000) as i64 }
    }
}

impl From<Timestamp> for MicroTime {
    fn from(timestamp: Timestamp) -> Self {
        // A timestamp's years fit into microseconds of 64 bits.
        Self { micros: timestamp.as_nanosecond().div_euclid(1000) as i64 }
    }
}

impl From<MicroTime> for Time {
    fn from(time: MicroTime) -> Self {
        Self { seconds: time.micros.div_euclid(MICROS) }
    }
}

impl From<Time> for MicroTime {
    fn from(time: Time) -> Self {
        Self { micros: time.seconds.saturating_mul(MICROS) }
    }
}

impl FromStr for Time {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        rfc3339::parse(text, rfc3339::Layout::Seconds).map(|(seconds, _)| Self { seconds })
    }
}

impl FromStr for MicroTime {
    type Err = ParseTimeError;

    fn from_str(text: &str) -> Result<Self, ParseTimeError> {
        rfc3339::parse(text, rfc3339::Layout::Micros)
            .map(|(seconds, nanos)| Self { micros: seconds * MICROS + i64::from(nanos) / 1000 })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        rfc3339::write(f, self.seconds, None)
    }
}

impl fmt::Display for MicroTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.micros.rem_euclid(MICROS) as u32;
        rfc3339::write(f, self.micros.div_euclid(MICROS), Some(micros))
    }
}

macro_rules! serde_as_text {
    ($ty:ty) => {
        impl Serialize for $ty {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if self.is_zero() { serializer.serialize_none() } else { serializer.collect_str(self) }
            }
        }

        impl<'de> Deserialize<'de> for $ty {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                match Option::<Cow<'de, str>>::deserialize(deserializer)? {
                    None => Ok(Self::ZERO),
                    Some(text) => text.parse().map_err(serde::de::Error::custom),
                }
            }
        }
    };
}
serde_as_text!(Time);
serde_as_text!(MicroTime);

#[cfg(test)]
mod tests {
    use super::*;

    fn parse<T: FromStr<Err = ParseTimeError> + fmt::Display>(text: &str) -> String {
        text.parse::<T>().map_or_else(|error| error.to_string(), |time| time.to_string())
    }

    #[test]
    fn time_reads_and_writes() {
        for (text, want) in [
            ("2024-02-29T12:34:56Z", "2024-02-29T12:34:56Z"),
            ("2024-02-29T12:34:56.999Z", "2024-02-29T12:34:56Z"),
            ("2024-02-29T12:34:56+02:00", "2024-02-29T10:34:56Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
            ("", r#"parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006""#),
            (
                "yesterday",
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
            ("2024-02-30T00:00:00Z", r#"parsing time "2024-02-30T00:00:00Z": day out of range"#),
            ("2024-13-30T00:00:00Z", r#"parsing time "2024-13-30T00:00:00Z": month out of range"#),
            ("2024-01-30T24:00:00Z", r#"parsing time "2024-01-30T24:00:00Z": hour out of range"#),
            (
                "2024-01-30",
                r#"parsing time "2024-01-30" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T""#,
            ),
            (
                "2024-01-30T00:00:00",
                r#"parsing time "2024-01-30T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00""#,
            ),
            ("2024-01-30T00:00:00Zx", r#"parsing time "2024-01-30T00:00:00Zx": extra text: "x""#),
        ] {
            assert_eq!(parse::<Time>(text), want);
        }
    }

    #[test]
    fn micro_time_reads_and_writes() {
        for (text, want) in [
            ("2024-02-29T12:34:56.000001Z", "2024-02-29T12:34:56.000001Z"),
            ("1969-12-31T23:59:59.500000Z", "1969-12-31T23:59:59.500000Z"),
            (
                "2024-02-29T12:34:56Z",
                r#"parsing time "2024-02-29T12:34:56Z" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "Z" as ".000000""#,
            ),
        ] {
            assert_eq!(parse::<MicroTime>(text), want);
        }
    }

    #[test]
    fn unset_is_null() {
        assert_eq!(serde_json::to_string(&Time::ZERO).unwrap(), "null");
        assert_eq!(serde_json::from_str::<Time>("null").unwrap(), Time::ZERO);
        assert_eq!(serde_json::from_str::<MicroTime>("null").unwrap(), MicroTime::ZERO);
        let now = Timestamp::now();
        assert_eq!(Time::from(now), Time::from(MicroTime::from(now)));
    }

    proptest::proptest! {
        #[test]
        fn text_round_trips(micros in -62_135_596_800_000_000i64..253_402_300_800_000_000) {
            let time = MicroTime::from_unix_micros(micros);
            proptest::prop_assert_eq!(time.to_string().parse::<MicroTime>().unwrap(), time);
        }

        #[test]
        fn nothing_panics(text in "\\PC*") {
            let _ = (text.parse::<Time>(), text.parse::<MicroTime>(), text.parse::<Duration>());
        }
    }
}
