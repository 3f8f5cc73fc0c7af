//! One line of a log: `2016-10-06T00:17:09.669794202Z stdout F content`. `P` instead of `F` says that the line goes on.

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    Stdout,
    Stderr,
}

/// A line, borrowed from the file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub timestamp: &'a str,
    pub source: Source,
    /// Whether the next line of the stream continues it.
    pub partial: bool,
    pub content: &'a [u8],
}

/// Parses a line without its newline; `None` when it is damaged.
pub(super) fn parse(bytes: &[u8]) -> Option<Line<'_>> {
    let mut parts = bytes.splitn(4, |b| *b == b' ');
    let timestamp = std::str::from_utf8(parts.next()?).ok()?;
    let source = match parts.next()? {
        b"stdout" => Source::Stdout,
        b"stderr" => Source::Stderr,
        _ => return None,
    };
    // Tags after the first, separated by colons, are reserved.
    let partial = match parts.next()?.split(|b| *b == b':').next()? {
        b"P" => true,
        b"F" => false,
        _ => return None,
    };
    Some(Line { timestamp, source, partial, content: parts.next().unwrap_or_default() })
}

/// Nanoseconds since the epoch of a timestamp.
pub(super) fn nanos(timestamp: &str) -> Option<i64> {
    let time: apimachinery::time::Timestamp = timestamp.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let line = parse(b"2016-10-06T00:17:09.669794202Z stderr P a b ").unwrap();
        assert_eq!((line.source, line.partial, line.content), (Source::Stderr, true, &b"a b "[..]));
        assert_eq!(nanos(line.timestamp), Some(1_475_713_029_669_794_202));
        assert_eq!(nanos("2016-10-06T02:17:09.669794202+02:00"), Some(1_475_713_029_669_794_202));
        assert!(parse(b"2016-10-06T00:17:09.669794202Z stdout F").unwrap().content.is_empty());
        assert_eq!(parse(b"no log line"), None);
    }
}
