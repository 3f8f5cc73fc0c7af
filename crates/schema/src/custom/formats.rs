//! String formats (upstream's strfmt), by hand where a regular expression would cost more than it says.

use apimachinery::validation::parse_cidr_sloppy;
use base64::Engine as _;
use regex::Regex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

/// Whether the format is one of strings.
pub(super) fn is_known(format: &str) -> bool {
    super::check::is_supported_format("string", format)
}

static HOSTNAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$",
    )
    .ok()
});

static CREDIT_CARD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$",
    )
    .ok()
});

static RGB: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let part = r"\s*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])\s*";
    Regex::new(&format!(r"^rgb\({part},{part},{part}\)$")).ok()
});

/// Whether a text is of a known format.
pub(super) fn matches(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && hex(text),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => {
            text.len() <= 255
                && text.split('.').all(|label| label.len() <= 63)
                && HOSTNAME.as_ref().is_some_and(|r| r.is_match(text))
        }
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok() && text.contains(':'),
        "cidr" => text.contains('/') && parse_cidr_sloppy(text).is_some() && !has_leading_zero(text),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')) && variant(text),
        "uuid5" => is_uuid(text, Some('5')) && variant(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => is_ssn(text),
        "hexcolor" => {
            let digits = text.strip_prefix('#').unwrap_or(text);
            matches!(digits.len(), 3 | 6) && hex(digits)
        }
        "rgbcolor" => RGB.as_ref().is_some_and(|r| r.is_match(text)),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => text.len() <= 63 && is_short_name(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(is_short_name),
        _ => true,
    }
}

fn hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn has_leading_zero(cidr: &str) -> bool {
    let (address, length) = cidr.split_once('/').unwrap_or((cidr, ""));
    address.parse::<IpAddr>().is_err() || length.len() > 1 && length.starts_with('0')
}

/// Go's `ParseRequestURI`: an absolute URI or an absolute path, without a fragment's special meaning.
fn is_uri(text: &str) -> bool {
    if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    if text.starts_with('/') {
        return true;
    }
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let mut bytes = scheme.bytes();
    let valid_scheme = bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let escapes_are_whole = rest.match_indices('%').all(|(i, _)| rest.get(i + 1..i + 3).is_some_and(hex));
    let authority = rest.strip_prefix("//").map(|r| r.split(['/', '?']).next().unwrap_or_default());
    let port_is_number = authority.is_none_or(|a| {
        let host = a.rsplit('@').next().unwrap_or_default();
        let after = if host.starts_with('[') { host.rsplit(']').next().unwrap_or_default() } else { host };
        after.rsplit_once(':').is_none_or(|(_, port)| port.is_empty() || digits(port))
    });
    valid_scheme && escapes_are_whole && port_is_number
}

/// Go's `mail.ParseAddress`, without comments and quoted local parts with escapes.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(from), Some(inner)) => &inner[from + 1..],
        (None, None) => text,
        _ => return false,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii();
    let dotted = |text: &str| text.split('.').all(|part| !part.is_empty() && part.chars().all(atom));
    let quoted = local.len() > 1 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (dotted(local) || quoted) && (dotted(domain) || literal)
}

fn is_mac(text: &str) -> bool {
    let parts = |separator: char, width: usize| {
        let parts: Vec<&str> = text.split(separator).collect();
        let lengths: &[usize] = if width == 2 { &[6, 8, 20] } else { &[3, 4, 10] };
        lengths.contains(&parts.len()) && parts.iter().all(|p| p.len() == width && hex(p))
    };
    parts(':', 2) || parts('-', 2) || parts('.', 4)
}

/// The hexadecimal digits of a UUID, whose dashes are optional; none if it has not its shape.
fn uuid_digits(text: &str) -> Option<Vec<char>> {
    let mut rest = text;
    let mut out = Vec::with_capacity(32);
    for (i, width) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if i > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let part = rest.get(..width).filter(|p| hex(p))?;
        out.extend(part.chars());
        rest = &rest[width..];
    }
    rest.is_empty().then_some(out)
}

fn is_uuid(text: &str, version: Option<char>) -> bool {
    uuid_digits(text).is_some_and(|d| version.is_none_or(|v| d[12] == v))
}

fn variant(text: &str) -> bool {
    uuid_digits(text).is_some_and(|d| matches!(d[16].to_ascii_lowercase(), '8' | '9' | 'a' | 'b'))
}

fn isbn_digits(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let text = isbn_digits(text);
    if text.len() != 10 || !digits(&text[..9]) {
        return false;
    }
    let sum: u32 = text[..9].chars().zip(1..).filter_map(|(c, i)| Some(c.to_digit(10)? * i)).sum();
    match text.as_bytes()[9] {
        b'X' => (sum + 100).is_multiple_of(11),
        last if last.is_ascii_digit() => (sum + 10 * u32::from(last - b'0')).is_multiple_of(11),
        _ => false,
    }
}

fn is_isbn13(text: &str) -> bool {
    let text = isbn_digits(text);
    if text.len() != 13 || !digits(&text) {
        return false;
    }
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let sum: u32 = digits[..12].iter().zip([1, 3].into_iter().cycle()).map(|(d, f)| d * f).sum();
    (digits[12] + sum).is_multiple_of(10)
}

/// By shape and by Luhn's sum.
fn is_credit_card(text: &str) -> bool {
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    if !CREDIT_CARD.as_ref().is_some_and(|r| r.is_match(&number)) {
        return false;
    }
    let mut sum = 0;
    for (i, digit) in number.chars().rev().filter_map(|c| c.to_digit(10)).enumerate() {
        let doubled = digit * 2;
        sum += match i % 2 {
            0 => digit,
            _ if doubled > 9 => doubled - 9,
            _ => doubled,
        };
    }
    sum % 10 == 0
}

fn is_ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain: String = text.chars().filter(char::is_ascii_digit).collect();
    let separated = |i: usize| matches!(bytes.get(i), Some(b'-' | b' '));
    match bytes.len() {
        11 => separated(3) && separated(6) && plain.len() == 9,
        10 => (separated(3) != separated(5)) && plain.len() == 9,
        9 => plain.len() == 9,
        _ => false,
    }
}

fn is_date(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let [year, month, day] = parts.as_slice() else { return false };
    if (year.len(), month.len(), day.len()) != (4, 2, 2) || !parts.iter().all(|p| digits(p)) {
        return false;
    }
    let number = |text: &str| text.parse::<u32>().unwrap_or(0);
    let (year, month, day) = (number(year), number(month), number(day));
    let leap = year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['t', 'T']) else { return false };
    let time = time.to_ascii_lowercase();
    let (clock, zone) = match time.find(['z', '+', '-']) {
        Some(i) => time.split_at(i),
        None => return false,
    };
    let zone_fits = zone == "z"
        || zone.len() == 6 && digits(&zone[1..3]) && zone.as_bytes()[3] == b':' && digits(&zone[4..]);
    let whole = clock.get(..8).unwrap_or_default();
    let fraction = clock.get(8..).unwrap_or_default();
    let parts: Vec<&str> = whole.split(':').collect();
    let clock_fits = match parts.as_slice() {
        [h, m, s] => {
            let two = |p: &str| p.len() == 2 && digits(p);
            two(h) && two(m) && two(s) && *h <= "23" && *m <= "59" && *s <= "59"
        }
        _ => false,
    };
    is_date(date) && clock_fits && zone_fits && (fraction.is_empty() || digits(&fraction[1..]))
}

/// Go's durations, and Scala's (`3 days`).
fn is_duration(text: &str) -> bool {
    go_duration(text) || scala_duration(text)
}

fn go_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    if rest.is_empty() {
        return false;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let figure = &rest[..number];
        if !figure.bytes().any(|b| b.is_ascii_digit()) || figure.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[number..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if !matches!(&rest[..unit], "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h") {
            return false;
        }
        rest = &rest[unit..];
    }
    true
}

fn scala_duration(text: &str) -> bool {
    const UNITS: [&str; 28] = [
        "ns",
        "nano",
        "nanos",
        "nanosecond",
        "us",
        "µs",
        "micro",
        "micros",
        "microsecond",
        "ms",
        "milli",
        "millis",
        "millisecond",
        "s",
        "sec",
        "secs",
        "second",
        "m",
        "min",
        "mins",
        "minute",
        "h",
        "hr",
        "hour",
        "d",
        "day",
        "w",
        "week",
    ];
    static PART: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"([0-9]+)\s*([A-Za-zµ]+)").ok());
    let Some(part) = PART.as_ref() else { return false };
    part.captures_iter(text).any(|c| {
        let unit = c[2].to_lowercase();
        UNITS.contains(&unit.as_str()) || unit.strip_suffix('s').is_some_and(|u| UNITS.contains(&u))
    })
}

fn is_short_name(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn formats() {
        let good = [
            ("date-time", "2014-12-15T19:30:20.000Z"),
            ("date", "2024-02-29"),
            ("duration", "1h3m"),
            ("duration", "3 days"),
            ("ipv4", "10.0.0.1"),
            ("ipv6", "fd00::1"),
            ("cidr", "10.0.0.0/8"),
            ("uuid4", "2d5e3b9c-6d0c-4a3a-9d3e-0a1b2c3d4e5f"),
            ("uri", "https://example.com:8080/x?y"),
            ("email", "a@b.c"),
            ("hostname", "example.com"),
            ("mac", "00:00:5e:00:53:01"),
            ("isbn10", "0321751043"),
            ("isbn13", "978-0321751041"),
            ("byte", "aGk="),
            ("hexcolor", "#FFFFFF"),
            ("k8s-long-name", "a-b.c"),
        ];
        for (format, text) in good {
            assert!(matches(format, text), "{format} {text}");
        }
        let bad = [
            ("date-time", "2014-12-15"),
            ("date-time", "2014-12-15T25:00:00Z"),
            ("date", "2023-02-29"),
            ("duration", "soon"),
            ("ipv4", "10.0.0.256"),
            ("ipv6", "10.0.0.1"),
            ("cidr", "10.0.0.1"),
            ("uuid4", "2d5e3b9c-6d0c-3a3a-9d3e-0a1b2c3d4e5f"),
            ("uri", "example.com"),
            ("email", "a"),
            ("mac", "00:00"),
            ("byte", "!"),
            ("k8s-short-name", "-a"),
        ];
        for (format, text) in bad {
            assert!(!matches(format, text), "{format} {text}");
        }
    }
}
