//! Points in time and durations as Go reads, writes and computes them, and Go's spelling of floats.

use std::cmp::Ordering;
use std::fmt;

use crate::value::ops::TIMESTAMP_OVERFLOW;
use crate::value::{Error, failed_with};

/// The year 1.
pub(crate) const MIN_SECONDS: i64 = -62_135_596_800;
/// The end of the year 9999.
pub(crate) const MAX_SECONDS: i64 = 253_402_300_799;
const SECOND: i128 = 1_000_000_000;

/// A point in time, and the offset in which it is written.
#[derive(Clone, Copy, Debug)]
pub struct Timestamp {
    /// Since 1970.
    pub seconds: i64,
    /// Below a second.
    pub nanos: u32,
    /// Seconds east of UTC.
    pub offset: i32,
}

/// A point in time by the calendar.
pub(crate) struct Civil {
    pub(crate) year: i64,
    /// From 1.
    pub(crate) month: i64,
    /// From 1.
    pub(crate) day: i64,
    /// From 0.
    pub(crate) day_of_year: i64,
    /// Sunday is 0.
    pub(crate) weekday: i64,
    pub(crate) second_of_day: i64,
}

impl Timestamp {
    /// As `time.Parse(time.RFC3339, …)`.
    pub fn parse(text: &str) -> Option<Self> {
        let (date, time) = text.split_once('T')?;
        Self::assemble(date, time)
    }

    /// As the `date-time` of a schema: `t`, a blank and a small `z` will do.
    pub(crate) fn parse_lenient(text: &str) -> Option<Self> {
        let (date, time) = text.split_once(['T', 't', ' '])?;
        Self::assemble(date, &time.replace('z', "Z"))
    }

    fn assemble(date: &str, time: &str) -> Option<Self> {
        let days = parse_days(date)?;
        let zone = time.find(['Z', '+', '-'])?;
        let (clock, zone) = time.split_at(zone);
        let (clock, fraction) = clock.split_once(['.', ',']).map_or((clock, None), |(c, f)| (c, Some(f)));
        let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let nanos = match fraction {
            None => 0,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                format!("{digits:0<9}")[..9].parse().ok()?
            }
            Some(_) => return None,
        };
        let offset = match zone {
            "Z" => 0,
            _ => {
                let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
                if hours > 24 || minutes > 60 {
                    return None;
                }
                (hours * 3600 + minutes * 60) * if zone.starts_with('-') { -1 } else { 1 }
            }
        };
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self { seconds, nanos, offset: offset as i32 })
    }

    const fn since_epoch(&self) -> i128 {
        self.seconds as i128 * SECOND + self.nanos as i128
    }

    /// So many nanoseconds later.
    pub(crate) fn plus(&self, nanos: i128) -> Result<Self, Error> {
        let total = self.since_epoch() + nanos;
        let seconds = total.div_euclid(SECOND) as i64;
        if !(MIN_SECONDS..=MAX_SECONDS).contains(&seconds) {
            return Err(TIMESTAMP_OVERFLOW);
        }
        Ok(Self { seconds, nanos: total.rem_euclid(SECOND) as u32, offset: self.offset })
    }

    /// The nanoseconds since another.
    pub(crate) fn since(&self, other: &Self) -> Option<i64> {
        i64::try_from(self.since_epoch() - other.since_epoch()).ok()
    }

    pub(crate) fn cmp(&self, other: &Self) -> Ordering {
        self.since_epoch().cmp(&other.since_epoch())
    }

    /// By the calendar of a place so far east of UTC.
    pub(crate) fn civil(&self, offset: i64) -> Civil {
        let local = self.seconds + offset;
        let days = local.div_euclid(86_400);
        let (year, month, day) = civil_from_days(days);
        Civil {
            year,
            month,
            day,
            day_of_year: days - days_from_civil(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            second_of_day: local.rem_euclid(86_400),
        }
    }

    /// The same in a named or numeric zone; seconds east of UTC.
    pub(crate) fn offset_in(&self, zone: &str) -> Result<i64, Error> {
        let Some((hours, minutes)) = zone.split_once(':') else {
            return self.offset_of(zone);
        };
        let number = |text: &str| {
            text.parse::<i64>()
                .map_err(|_| failed_with(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))
        };
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        let sign = if zone.starts_with('-') { -1 } else { 1 };
        Ok((hours * 60 + sign * minutes) * 60)
    }

    fn offset_of(&self, name: &str) -> Result<i64, Error> {
        if matches!(name, "" | "UTC" | "Local") {
            return Ok(0);
        }
        let unknown = || failed_with(format!("unknown time zone {name}"));
        let zone = jiff::tz::TimeZone::get(name).map_err(|_| unknown())?;
        let at = jiff::Timestamp::from_second(self.seconds).map_err(|_| unknown())?;
        Ok(zone.to_offset(at).seconds().into())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 with as many digits below the second as it has.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = self.civil(self.offset.into());
        let clock = civil.second_of_day;
        write!(f, "{:04}-{:02}-{:02}T", civil.year, civil.month, civil.day)?;
        write!(f, "{:02}:{:02}:{:02}", clock / 3600, clock / 60 % 60, clock % 60)?;
        if self.nanos > 0 {
            write!(f, ".{}", format!("{:09}", self.nanos).trim_end_matches('0'))?;
        }
        match self.offset {
            0 => f.write_str("Z"),
            east => {
                let sign = if east < 0 { '-' } else { '+' };
                write!(f, "{sign}{:02}:{:02}", east.abs() / 3600, east.abs() / 60 % 60)
            }
        }
    }
}

/// A day, as a `date` of a schema.
pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    parse_days(text).map(|days| Timestamp { seconds: days * 86_400, nanos: 0, offset: 0 })
}

fn parse_days(text: &str) -> Option<i64> {
    let [year, month, day] = numbers(text, '-', [4, 2, 2])?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (1..=longest).contains(&day).then(|| days_from_civil(year, month, day))
}

fn numbers<const N: usize>(text: &str, separator: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut parts = text.split(separator);
    let mut numbers = [0; N];
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part =
            parts.next().filter(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_digit()))?;
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// As `time.ParseDuration`.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(scale)?)?;
        if !fraction.is_empty() {
            let digits = &fraction[..fraction.len().min(18)];
            let ten: i128 = 10i128.pow(digits.len() as u32);
            total = total.checked_add(digits.parse::<i128>().ok()?.checked_mul(scale)? / ten)?;
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// As the `duration` of a schema, which also knows days, weeks and long names.
pub(crate) fn parse_schema_duration(text: &str) -> Option<i64> {
    if let Some(nanos) = parse_duration(text) {
        return Some(nanos);
    }
    let mut rest = text.trim();
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let (number, tail) = rest.split_at(end);
        let tail = tail.trim_start();
        let end = tail.find(|c: char| !c.is_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit.trim_end_matches('s') {
            "ns" | "nano" | "n" => 1,
            "us" | "µs" | "micro" | "u" | "µ" => 1_000,
            "ms" | "milli" => 1_000_000,
            "" | "sec" | "second" => SECOND,
            "m" | "min" | "minute" => 60 * SECOND,
            "h" | "hr" | "hour" => 3600 * SECOND,
            "d" | "day" => 86_400 * SECOND,
            "w" | "wk" | "week" => 604_800 * SECOND,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i128>().ok()?.checked_mul(scale)?)?;
        rest = tail.trim_start();
    }
    i64::try_from(total).ok().filter(|_| !text.trim().is_empty())
}

/// A duration as `string()` writes it: `90.5s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let seconds = (nanos / SECOND as i64) as f64 + (nanos % SECOND as i64) as f64 / 1e9;
    format!("{seconds}s")
}

/// As `strconv.ParseFloat`, without its underscores and hexadecimal forms.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let unsigned = text.trim_start_matches(['+', '-']).to_ascii_lowercase();
    if matches!(unsigned.as_str(), "inf" | "infinity" | "nan") {
        return text.parse().ok();
    }
    text.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        for (text, want) in [
            ("2020-02-29T12:30:45Z", Some("2020-02-29T12:30:45Z")),
            ("2020-02-29T12:30:45.120+01:00", Some("2020-02-29T12:30:45.12+01:00")),
            ("0001-01-01T00:00:00Z", Some("0001-01-01T00:00:00Z")),
            ("2021-02-29T12:30:45Z", None),
            ("2020-02-29 12:30:45Z", None),
            ("2020-02-29T24:00:00Z", None),
            ("2020-02-29T12:30:45", None),
        ] {
            assert_eq!(Timestamp::parse(text).map(|t| t.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, want) in [
            ("1h30m", Some("5400s")),
            ("-1.5s", Some("-1.5s")),
            ("100ms", Some("0.1s")),
            ("0", Some("0s")),
            (".5s", Some("0.5s")),
            ("1d", None),
            ("", None),
            ("s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(parse_duration(text).map(duration_text).as_deref(), want, "{text}");
        }
        assert_eq!(parse_schema_duration("1 day 2 hours").map(duration_text).as_deref(), Some("93600s"));
    }
}
