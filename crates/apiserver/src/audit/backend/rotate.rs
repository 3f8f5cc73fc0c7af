//! A log file that is put aside when it is large, under names that upstream's (lumberjack's) tools know:
//! `audit-2026-01-31T15-04-05.000.log`, then `.gz`. What is too old, or one too many, is removed.

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{SignedDuration, Timestamp};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const LAYOUT: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is put aside, and how long it is kept.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Bytes; zero: never put aside.
    pub size: u64,
    /// Days; zero: for ever.
    pub age: u64,
    /// Files; zero: all.
    pub backups: usize,
    pub compress: bool,
}

pub(super) struct Rotating {
    path: PathBuf,
    limits: Limits,
    file: File,
    written: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

impl Rotating {
    pub(super) fn open(path: &Path, limits: Limits) -> io::Result<Self> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let file = open(path)?;
        let written = file.metadata()?.len();
        Ok(Rotating { path: path.to_owned(), limits, file, written })
    }

    fn rotate(&mut self, now: Timestamp) -> io::Result<()> {
        std::fs::rename(&self.path, aside(&self.path, now))?;
        self.file = open(&self.path)?;
        self.written = 0;
        let (path, limits) = (self.path.clone(), self.limits.clone());
        // Compressing takes its time.
        std::thread::Builder::new()
            .name("audit-log-mill".into())
            .spawn(move || {
                if let Err(error) = mill(&path, &limits, Timestamp::now()) {
                    tracing::warn!(path = %path.display(), %error, "old audit logs could not be put in order");
                }
            })
            .map(drop)
    }
}

impl Write for Rotating {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let length = line.len() as u64;
        if self.limits.size > 0 {
            if length > self.limits.size {
                let max = self.limits.size;
                return Err(io::Error::other(format!(
                    "write length {length} exceeds maximum file size {max}"
                )));
            }
            if self.written + length > self.limits.size {
                self.rotate(Timestamp::now())?;
            }
        }
        let written = self.file.write(line)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Stem and extension, the point with the latter.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.rfind('.') {
        Some(at) => (name[..at].to_owned(), name[at..].to_owned()),
        None => (name, String::new()),
    }
}

fn aside(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = parts(path);
    let at = now.to_zoned(jiff::tz::TimeZone::UTC).strftime(LAYOUT);
    path.with_file_name(format!("{stem}-{at}{extension}"))
}

/// The files put aside, the newest first.
fn backups(path: &Path) -> io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = parts(path);
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let middle = name.strip_prefix(&format!("{stem}-"));
        let middle = middle.map(|rest| rest.strip_suffix(".gz").unwrap_or(rest));
        let Some(middle) = middle.and_then(|rest| rest.strip_suffix(&extension)) else { continue };
        let Ok(at) = jiff::civil::DateTime::strptime(LAYOUT, middle) else { continue };
        let Ok(at) = at.to_zoned(jiff::tz::TimeZone::UTC) else { continue };
        found.push((at.timestamp(), entry.path()));
    }
    found.sort_by(|a, b| b.cmp(a));
    Ok(found)
}

/// Removes what need not be kept, compresses the rest where that is wanted.
fn mill(path: &Path, limits: &Limits, now: Timestamp) -> io::Result<()> {
    let oldest = SignedDuration::from_hours(24).checked_mul(i32::try_from(limits.age).unwrap_or(i32::MAX));
    let oldest = oldest.filter(|_| limits.age > 0).and_then(|age| now.checked_sub(age).ok());
    for (i, (at, file)) in backups(path)?.into_iter().enumerate() {
        if limits.backups > 0 && i >= limits.backups || oldest.is_some_and(|oldest| at < oldest) {
            std::fs::remove_file(&file)?;
        } else if limits.compress && file.extension().is_none_or(|e| e != "gz") {
            compress(&file)?;
        }
    }
    Ok(())
}

fn compress(file: &Path) -> io::Result<()> {
    let target = PathBuf::from(format!("{}.gz", file.display()));
    let out = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&target)?;
    let mut encoder = GzEncoder::new(out, Compression::default());
    io::copy(&mut File::open(file)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    std::fs::remove_file(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_files_are_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("logs/audit.log");
        let limits = Limits { size: 10, age: 1, backups: 2, compress: false };
        let mut log = Rotating::open(&path, limits.clone()).unwrap();
        log.write_all(b"12345\n").unwrap();
        log.write_all(b"123\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"12345\n123\n");
        assert!(log.write_all(b"12345678901").is_err());
        log.write_all(b"x\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"x\n");
        let aside = backups(&path).unwrap();
        assert_eq!(std::fs::read(&aside[0].1).unwrap(), b"12345\n123\n");
    }

    #[test]
    fn old_files_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let now: Timestamp = "2026-01-10T00:00:00Z".parse().unwrap();
        for day in ["01", "08T12", "09T01", "09T02", "09T03"] {
            let day = if day.len() == 2 { format!("{day}T00") } else { day.to_owned() };
            let at = format!("audit-2026-01-{day}-00-00.000.log");
            std::fs::write(path.with_file_name(at), "x").unwrap();
        }
        std::fs::write(path.with_file_name("audit-of-others.log"), "x").unwrap();
        mill(&path, &Limits { size: 1, age: 2, backups: 3, compress: true }, now).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        expect_test::expect![[r#"
            [
                "audit-2026-01-09T01-00-00.000.log.gz",
                "audit-2026-01-09T02-00-00.000.log.gz",
                "audit-2026-01-09T03-00-00.000.log.gz",
                "audit-of-others.log",
            ]
        "#]]
        .assert_debug_eq(&names);
    }
}
