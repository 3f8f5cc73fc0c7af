//! Schedules in cron's words: `*/5 0-6 * * mon`, `@daily`, `@every 90s`, as `robfig/cron` reads and steps them.
//!
//! A schedule steps through the days of its own time zone: where a clock jumps forward, what falls into the gap waits
//! for the next match; where it goes back, an hour is met twice, as upstream does.

use crate::time::{Duration, Timestamp};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Zoned};

/// Set in a field that was written `*` or `?`: such a day field does not restrict the other.
const STAR: u64 = 1 << 63;
/// A schedule that is not met in so many years is never met (30 February).
const YEARS: i16 = 5;

/// When something is due.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    steps: Steps,
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone, PartialEq)]
enum Steps {
    Fields(Fields),
    /// Every so many seconds.
    Every(i64),
}

/// Bits of the values that match.
#[derive(Debug, Clone, PartialEq)]
struct Fields {
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
}

struct Bounds {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { min: 0, max: 59, names: &[] };
const HOURS: Bounds = Bounds { min: 0, max: 23, names: &[] };
const DAYS: Bounds = Bounds { min: 1, max: 31, names: &[] };
const MONTHS: Bounds = Bounds {
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { min: 0, max: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Bounds {
    fn bits(&self, start: u32, end: u32, step: u32) -> u64 {
        (start..=end).step_by(step as usize).map(|bit| 1 << bit).sum()
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let lower = text.to_lowercase();
        if let Some(at) = self.names.iter().position(|name| *name == lower) {
            return Ok(self.min + at as u32);
        }
        integer(text)
    }

    /// One `a-b/c` of a field.
    fn range(&self, expr: &str) -> Result<u64, String> {
        let parts: Vec<&str> = expr.split('/').collect();
        let ends: Vec<&str> = parts[0].split('-').collect();
        let (start, mut end, mut extra);
        if matches!(ends[0], "*" | "?") {
            (start, end, extra) = (self.min, self.max, STAR);
        } else {
            start = self.number(ends[0])?;
            end = match ends.as_slice() {
                [_] => start,
                [_, end] => self.number(end)?,
                _ => return Err(format!("too many hyphens: {expr}")),
            };
            extra = 0;
        }
        let step = match parts.as_slice() {
            [_] => 1,
            [_, step] => {
                let step = integer(step)?;
                // `5/10` runs to the end.
                if ends.len() == 1 {
                    end = self.max;
                }
                if step > 1 {
                    extra = 0;
                }
                step
            }
            _ => return Err(format!("too many slashes: {expr}")),
        };
        if start < self.min {
            return Err(format!("beginning of range ({start}) below minimum ({}): {expr}", self.min));
        }
        if end > self.max {
            return Err(format!("end of range ({end}) above maximum ({}): {expr}", self.max));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {expr}"));
        }
        if step == 0 {
            return Err(format!("step of range should be a positive number: {expr}"));
        }
        Ok(self.bits(start, end, step) | extra)
    }

    fn field(&self, text: &str) -> Result<u64, String> {
        let mut bits = 0;
        for expr in text.split(',').filter(|expr| !expr.is_empty()) {
            bits |= self.range(expr)?;
        }
        Ok(bits)
    }
}

fn integer(text: &str) -> Result<u32, String> {
    let number: i64 = text.parse().map_err(|error: std::num::ParseIntError| {
        let why = match error.kind() {
            std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}")
    })?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // Whatever is above any bound is refused there, in its own words.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

impl Schedule {
    /// Reads a schedule; one without a time zone of its own follows the caller's.
    pub fn parse(spec: &str) -> Result<Self, String> {
        if spec.is_empty() {
            return Err("empty spec string".into());
        }
        let (mut zone, mut rest) = (None, spec);
        if let Some(named) = spec.strip_prefix("TZ=").or_else(|| spec.strip_prefix("CRON_TZ=")) {
            let Some((name, fields)) = named.split_once(' ') else {
                return Err("no schedule after the time zone".into());
            };
            let found = load_zone(name).map_err(|error| format!("provided bad location {name}: {error}"))?;
            (zone, rest) = (Some(found), fields.trim());
        }
        let steps = match rest.starts_with('@') {
            true => descriptor(rest)?,
            false => Steps::Fields(fields(rest)?),
        };
        Ok(Schedule { steps, zone })
    }

    /// The same schedule in this zone, unless it has one of its own.
    pub fn in_zone(mut self, zone: TimeZone) -> Self {
        self.zone.get_or_insert(zone);
        self
    }

    /// The first time after `after`; none if there is none for years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_nanosecond().div_euclid(1_000_000_000) as i64).ok()?;
        match &self.steps {
            Steps::Every(seconds) => second.checked_add(SignedDuration::from_secs(*seconds)).ok(),
            Steps::Fields(fields) => {
                let zone = self.zone.clone().unwrap_or_else(TimeZone::system);
                let start = second.checked_add(SignedDuration::from_secs(1)).ok()?;
                fields.first_from(start.to_zoned(zone)).map(|found| found.timestamp())
            }
        }
    }
}

/// A time zone by its name in the time zone database; the empty name is UTC.
pub fn load_zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() || name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return Err("time: invalid location name".into());
    }
    TimeZone::get(name).map_err(|_| format!("unknown time zone {name}"))
}

fn fields(text: &str) -> Result<Fields, String> {
    let parts: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = parts.as_slice() else {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
    };
    Ok(Fields {
        minute: MINUTES.field(minute)?,
        hour: HOURS.field(hour)?,
        day: DAYS.field(day)?,
        month: MONTHS.field(month)?,
        weekday: WEEKDAYS.field(weekday)?,
    })
}

fn descriptor(text: &str) -> Result<Steps, String> {
    let spec = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => {
            let Some(every) = text.strip_prefix("@every ") else {
                return Err(format!("unrecognized descriptor: {text}"));
            };
            let every: Duration =
                every.parse().map_err(|error| format!("failed to parse duration {text}: {error}"))?;
            return Ok(Steps::Every((every.nanoseconds() / 1_000_000_000).max(1)));
        }
    };
    fields(spec).map(Steps::Fields)
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

impl Fields {
    fn day_matches(&self, t: &Zoned) -> bool {
        let day = has(self.day, t.day());
        let weekday = has(self.weekday, t.weekday().to_sunday_zero_offset());
        if self.day & STAR != 0 || self.weekday & STAR != 0 { day && weekday } else { day || weekday }
    }

    /// The first match at or after `t`. Fields are set from the longest to the shortest; one that wraps around begins
    /// with the longest again.
    fn first_from(&self, mut t: Zoned) -> Option<Zoned> {
        let limit = t.year() + YEARS;
        // Once a field was moved, the shorter ones stand at their beginnings.
        let mut moved = false;
        'wrap: while t.year() <= limit {
            while !has(self.month, t.month()) {
                if !std::mem::replace(&mut moved, true) {
                    t = t.date().first_of_month().to_zoned(t.time_zone().clone()).ok()?;
                }
                t = t.checked_add(Span::new().months(1)).ok()?;
                if t.month() == 1 {
                    continue 'wrap;
                }
            }
            while !self.day_matches(&t) {
                if !std::mem::replace(&mut moved, true) {
                    t = t.date().to_zoned(t.time_zone().clone()).ok()?;
                }
                t = t.checked_add(Span::new().days(1)).ok()?;
                // Some zones have days without a midnight.
                if t.hour() > 12 {
                    t = t.checked_add(SignedDuration::from_hours(24 - i64::from(t.hour()))).ok()?;
                } else if t.hour() != 0 {
                    t = t.checked_sub(SignedDuration::from_hours(i64::from(t.hour()))).ok()?;
                }
                if t.day() == 1 {
                    continue 'wrap;
                }
            }
            while !has(self.hour, t.hour()) {
                if !std::mem::replace(&mut moved, true) {
                    let into = i64::from(t.minute()) * 60 + i64::from(t.second());
                    t = t.checked_sub(SignedDuration::from_secs(into)).ok()?;
                }
                t = t.checked_add(SignedDuration::from_hours(1)).ok()?;
                if t.hour() == 0 {
                    continue 'wrap;
                }
            }
            while !has(self.minute, t.minute()) {
                if !std::mem::replace(&mut moved, true) {
                    t = t.checked_sub(SignedDuration::from_secs(i64::from(t.second()))).ok()?;
                }
                t = t.checked_add(SignedDuration::from_mins(1)).ok()?;
                if t.minute() == 0 {
                    continue 'wrap;
                }
            }
            // Seconds are always zero.
            if t.second() != 0 {
                moved = true;
                t = t.checked_add(SignedDuration::from_secs(60 - i64::from(t.second()))).ok()?;
                continue 'wrap;
            }
            return Some(t);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(spec: &str, from: &str, expected: Expect) {
        let shown = match Schedule::parse(spec) {
            Err(error) => error,
            Ok(schedule) => {
                let schedule = schedule.in_zone(TimeZone::UTC);
                let mut at: Timestamp = from.parse().unwrap();
                let mut times = Vec::new();
                while times.len() < 3 {
                    let Some(next) = schedule.next(at) else {
                        times.push("never".to_owned());
                        break;
                    };
                    times.push(next.to_string());
                    at = next;
                }
                times.join(" ")
            }
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn times() {
        for (spec, from, expected) in [
            (
                "*/15 * * * *",
                "2026-01-01T00:00:00Z",
                expect![[r#"2026-01-01T00:15:00Z 2026-01-01T00:30:00Z 2026-01-01T00:45:00Z"#]],
            ),
            (
                "5/20 1 * * ?",
                "2026-01-01T01:05:00.5Z",
                expect![[r#"2026-01-01T01:25:00Z 2026-01-01T01:45:00Z 2026-01-02T01:05:00Z"#]],
            ),
            (
                "0 0 1,15 * mon",
                "2026-01-01T00:00:00Z",
                expect![[r#"2026-01-05T00:00:00Z 2026-01-12T00:00:00Z 2026-01-15T00:00:00Z"#]],
            ),
            (
                "0 0 * * FRI",
                "2026-01-01T00:00:01Z",
                expect![[r#"2026-01-02T00:00:00Z 2026-01-09T00:00:00Z 2026-01-16T00:00:00Z"#]],
            ),
            (
                "0 12 29 feb *",
                "2026-01-01T00:00:00Z",
                expect![[r#"2028-02-29T12:00:00Z 2032-02-29T12:00:00Z 2036-02-29T12:00:00Z"#]],
            ),
            ("0 0 30 2 *", "2026-01-01T00:00:00Z", expect!["never"]),
            (
                "@hourly",
                "2025-12-31T23:00:00Z",
                expect![[r#"2026-01-01T00:00:00Z 2026-01-01T01:00:00Z 2026-01-01T02:00:00Z"#]],
            ),
            (
                "@yearly",
                "2026-05-01T00:00:00Z",
                expect![[r#"2027-01-01T00:00:00Z 2028-01-01T00:00:00Z 2029-01-01T00:00:00Z"#]],
            ),
            (
                "@every 1m30s",
                "2026-01-01T00:00:00.7Z",
                expect![[r#"2026-01-01T00:01:30Z 2026-01-01T00:03:00Z 2026-01-01T00:04:30Z"#]],
            ),
            (
                "TZ=America/New_York 0 8 * * *",
                "2026-03-07T00:00:00Z",
                expect![[r#"2026-03-07T13:00:00Z 2026-03-08T12:00:00Z 2026-03-09T12:00:00Z"#]],
            ),
            // Half past two does not exist on the day when clocks jump, and exists twice when they go back.
            (
                "TZ=America/New_York 30 2 * * *",
                "2026-03-07T08:00:00Z",
                expect![[r#"2026-03-09T06:30:00Z 2026-03-10T06:30:00Z 2026-03-11T06:30:00Z"#]],
            ),
            (
                "TZ=America/New_York 30 1 * * *",
                "2026-10-31T12:00:00Z",
                expect![[r#"2026-11-01T05:30:00Z 2026-11-01T06:30:00Z 2026-11-02T06:30:00Z"#]],
            ),
        ] {
            check(spec, from, expected);
        }
    }

    #[test]
    fn mistakes() {
        for (spec, expected) in [
            ("", expect!["empty spec string"]),
            ("* * * *", expect!["expected exactly 5 fields, found 4: [* * * *]"]),
            ("60 * * * *", expect!["end of range (60) above maximum (59): 60"]),
            ("* * 0 * *", expect!["beginning of range (0) below minimum (1): 0"]),
            ("5-1 * * * *", expect!["beginning of range (5) beyond end of range (1): 5-1"]),
            ("1-2-3 * * * *", expect!["too many hyphens: 1-2-3"]),
            ("*/0 * * * *", expect!["step of range should be a positive number: */0"]),
            ("*/2/3 * * * *", expect!["too many slashes: */2/3"]),
            (
                "x * * * *",
                expect![[r#"failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax"#]],
            ),
            ("@often", expect!["unrecognized descriptor: @often"]),
            (
                "TZ=Mars/Base * * * * *",
                expect!["provided bad location Mars/Base: unknown time zone Mars/Base"],
            ),
        ] {
            check(spec, "2026-01-01T00:00:00Z", expected);
        }
    }
}
