//! The CRI log format: `2024-01-01T00:00:00.000000000Z stdout F message`, P instead of F for a line that goes on.
//! Output is drained whatever becomes of the file: a full disk loses lines, never stops a container.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2};
use rustix::io::Errno;

/// Longer lines are cut; containerd's default.
pub(crate) const MAX_LINE: usize = 16 * 1024;

/// A container's log file.
pub(crate) struct Log {
    dir: String,
    path: String,
    file: Option<File>,
    /// The last write broke off within a line.
    torn: bool,
}

impl Log {
    pub(crate) fn open(dir: &str, path: &str) -> io::Result<Log> {
        let mut log = Log { dir: dir.into(), path: path.into(), file: None, torn: false };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the path anew. Neither the file nor a directory between may be a symlink, nor the file anything but a file.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, &self.dir, directory, Mode::empty())?;
        let file = match open_beneath(&dir, &self.path) {
            Err(Errno::NOENT) => {
                make_parents(&dir, &self.path)?;
                open_beneath(&dir, &self.path)?
            }
            other => other?,
        };
        if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("the log is no regular file"));
        }
        self.file = Some(file.into());
        self.torn = false;
        Ok(())
    }

    /// Appends whole lines, as far as the disk allows.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if self.torn && file.write_all(b"\n").is_err() {
            return;
        }
        self.torn = false;
        let mut rest = lines;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(0) => break,
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let written = lines.len() - rest.len();
        self.torn = !rest.is_empty() && written > 0 && lines[written - 1] != b'\n';
    }
}

fn open_beneath(dir: &OwnedFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    // A FIFO put there would make us wait for a reader.
    openat2(dir, path, flags | OFlags::NONBLOCK, Mode::from_raw_mode(0o640), resolve)
}

fn make_parents(dir: &OwnedFd, path: &str) -> io::Result<()> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat2(dir, ".", flags, Mode::empty(), resolve)?;
    let Some((parents, _)) = path.rsplit_once('/') else { return Ok(()) };
    for name in parents.split('/').filter(|name| !name.is_empty()) {
        match mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat2(&at, name, flags, Mode::empty(), resolve)?;
    }
    Ok(())
}

/// Cuts one stream into lines.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Formats the lines that `chunk` completes into `out`.
    pub(crate) fn feed(&mut self, stream: &str, mut chunk: &[u8], now: i64, out: &mut Vec<u8>) {
        let stamp = timestamp(now);
        while !chunk.is_empty() {
            let room = MAX_LINE - self.partial.len();
            let newline = chunk.iter().position(|byte| *byte == b'\n');
            match newline {
                Some(end) if end <= room => {
                    self.line(&stamp, stream, 'F', &chunk[..end], out);
                    chunk = &chunk[end + 1..];
                }
                _ if chunk.len() > room => {
                    self.line(&stamp, stream, 'P', &chunk[..room], out);
                    chunk = &chunk[room..];
                }
                _ => {
                    self.partial.extend_from_slice(chunk);
                    return;
                }
            }
        }
    }

    /// What is left when the stream ends.
    pub(crate) fn finish(&mut self, stream: &str, now: i64, out: &mut Vec<u8>) {
        if !self.partial.is_empty() {
            self.line(&timestamp(now), stream, 'P', &[], out);
        }
        self.partial = Vec::new();
    }

    fn line(&mut self, stamp: &str, stream: &str, tag: char, rest: &[u8], out: &mut Vec<u8>) {
        out.reserve(stamp.len() + stream.len() + self.partial.len() + rest.len() + 5);
        let _ = write!(out, "{stamp} {stream} {tag} ");
        out.extend_from_slice(&self.partial);
        out.extend_from_slice(rest);
        out.push(b'\n');
        self.partial.clear();
    }
}

/// RFC 3339 in UTC with nanoseconds.
fn timestamp(now: i64) -> String {
    let (seconds, nanos) = (now.div_euclid(1_000_000_000), now.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01 in eras of 400 years: Howard Hinnant's civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(chunks: &[&str], expected: &[&str]) {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed("stdout", chunk.as_bytes(), 0, &mut out);
        }
        lines.finish("stdout", 0, &mut out);
        let text = String::from_utf8(out).unwrap();
        let got: Vec<&str> = text
            .lines()
            .map(|line| line.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap())
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn lines_are_cut_as_upstream_cuts_them() {
        let long = "x".repeat(MAX_LINE);
        check(&["a\nb", "c\n", "\n", "d"], &["F a", "F bc", "F ", "P d"]);
        check(&[&format!("{long}\n")], &[&format!("F {long}")]);
        check(&[&long, "y\n"], &[&format!("P {long}"), "F y"]);
        check(&[&format!("{long}{long}yy"), "\n"], &[&format!("P {long}"), &format!("P {long}"), "F yy"]);
    }

    #[test]
    fn timestamps_are_rfc_3339() {
        for (at, expected) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399_000_000_001, "2000-02-28T23:59:59.000000001Z"),
            (1_709_164_800_123_456_789, "2024-02-29T00:00:00.123456789Z"),
            (4_107_542_399_999_999_999, "2100-02-28T23:59:59.999999999Z"),
        ] {
            assert_eq!(timestamp(at), expected);
        }
    }
}
