//! RFC 3339 text to and from seconds since the Unix epoch, as Go's `time` package reads and writes it.
//! By hand, because the API's years reach beyond what a `jiff::Timestamp` can tell (to the end of 9999).

use std::fmt;

use crate::quote::quote;

/// Which of upstream's two layouts is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Seconds,
    Micros,
}

impl Layout {
    fn as_str(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// Why text is no time, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseTimeError(String);

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    layout: Layout,
}

impl<'a> Reader<'a> {
    fn mismatch(&self, element: &str) -> ParseTimeError {
        let (text, rest) = (quote(self.text), quote(self.rest));
        ParseTimeError(format!(
            "parsing time {text} as \"{}\": cannot parse {rest} as \"{element}\"",
            self.layout.as_str()
        ))
    }

    fn out_of_range(&self, what: &str) -> ParseTimeError {
        ParseTimeError(format!("parsing time {}: {what} out of range", quote(self.text)))
    }

    fn literal(&mut self, literal: char) -> Result<(), ParseTimeError> {
        match self.rest.strip_prefix(literal) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(self.mismatch(literal.encode_utf8(&mut [0; 4]))),
        }
    }

    /// Between `min` and `max` digits, as many as there are.
    fn digits(&mut self, min: usize, max: usize, element: &str) -> Result<i64, ParseTimeError> {
        let count = self.rest.bytes().take(max).take_while(u8::is_ascii_digit).count();
        if count < min {
            return Err(self.mismatch(element));
        }
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(digits.bytes().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }

    /// A number that must lie in a range.
    fn number(
        &mut self,
        (min, max): (usize, usize),
        range: std::ops::RangeInclusive<i64>,
        (element, name): (&str, &str),
    ) -> Result<i64, ParseTimeError> {
        let value = self.digits(min, max, element)?;
        if range.contains(&value) { Ok(value) } else { Err(self.out_of_range(name)) }
    }

    fn fraction(&mut self) -> Result<u32, ParseTimeError> {
        let bytes = self.rest.as_bytes();
        let separated = matches!(bytes.first(), Some(b'.' | b','));
        let count = bytes.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        match self.layout {
            // Go reads a fraction that the layout does not mention.
            Layout::Seconds if !separated || count == 0 => return Ok(0),
            Layout::Micros if !separated || count < 6 => return Err(self.mismatch(".000000")),
            _ => {}
        }
        let count = if self.layout == Layout::Micros { 6 } else { count };
        let digits = &bytes[1..=count];
        self.rest = &self.rest[1 + count..];
        // Nanoseconds; what is finer is dropped.
        let nanos = (0..9)
            .fold(0, |value, at| value * 10 + digits.get(at).map_or(0, |digit| u32::from(digit - b'0')));
        Ok(nanos)
    }

    fn offset(&mut self) -> Result<i64, ParseTimeError> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let well_formed = bytes.len() >= 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|at| bytes[*at].is_ascii_digit());
        if !well_formed {
            return Err(self.mismatch("Z07:00"));
        }
        let two = |at: usize| i64::from(bytes[at] - b'0') * 10 + i64::from(bytes[at + 1] - b'0');
        let (hours, minutes) = (two(1), two(4));
        if hours > 24 {
            return Err(self.out_of_range("time zone offset hour"));
        }
        if minutes > 60 {
            return Err(self.out_of_range("time zone offset minute"));
        }
        let seconds = hours * 3600 + minutes * 60;
        let seconds = if bytes[0] == b'-' { -seconds } else { seconds };
        self.rest = &self.rest[6..];
        Ok(seconds)
    }
}

/// Seconds since the epoch, and nanoseconds.
pub(super) fn parse(text: &str, layout: Layout) -> Result<(i64, u32), ParseTimeError> {
    let mut reader = Reader { text, rest: text, layout };
    let year = reader.digits(4, 4, "2006")?;
    reader.literal('-')?;
    let month = reader.number((2, 2), 1..=12, ("01", "month"))?;
    reader.literal('-')?;
    let day = reader.digits(2, 2, "02")?;
    reader.literal('T')?;
    let hour = reader.number((1, 2), 0..=23, ("15", "hour"))?;
    reader.literal(':')?;
    let minute = reader.number((2, 2), 0..=59, ("04", "minute"))?;
    reader.literal(':')?;
    let second = reader.number((2, 2), 0..=59, ("05", "second"))?;
    let nanos = reader.fraction()?;
    let offset = reader.offset()?;
    if !reader.rest.is_empty() {
        let (text, rest) = (quote(text), quote(reader.rest));
        return Err(ParseTimeError(format!("parsing time {text}: extra text: {rest}")));
    }
    if day < 1 || day > days_in_month(year, month) {
        return Err(reader.out_of_range("day"));
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Ok((seconds, nanos))
}

pub(super) fn write(f: &mut fmt::Formatter<'_>, seconds: i64, micros: Option<u32>) -> fmt::Result {
    let (year, month, day) = civil_from_days(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
    match micros {
        Some(micros) => write!(f, ".{micros:06}Z"),
        None => f.write_str("Z"),
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since the epoch. Years are counted from March, in eras of 400 years, so that the leap day
/// is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}
