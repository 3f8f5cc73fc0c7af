//! Reading a container's log: the last lines, since a time, up to a size, and on as it grows (inotify, no polling), over
//! rotations. Links are not followed: what is in a pod's log directory must not lead out of it.

use super::line::{self, Source};
use crate::file_watch::{FileWatch, WatchFlags};
use bytes::Bytes;
use rustix::fs::OFlags;
use std::future::Future;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use tokio::sync::mpsc;

/// Which of the two streams are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stream {
    #[default]
    All,
    Stdout,
    Stderr,
}

/// What to show.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogOptions {
    pub tail: Option<u64>,
    /// Nanoseconds since the epoch.
    pub since: Option<i64>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
    pub follow: bool,
    pub stream: Stream,
}

const CHUNK: usize = 64 * 1024;

fn open(path: &Path) -> io::Result<std::fs::File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the log is not a file"));
    }
    Ok(file)
}

/// Where the last `lines` lines begin.
fn tail_offset(file: &mut std::fs::File, lines: u64) -> io::Result<u64> {
    let length = file.metadata()?.len();
    if lines == 0 {
        return Ok(length);
    }
    let (mut at, mut found) = (length, 0);
    let mut chunk = vec![0; CHUNK];
    while at > 0 {
        let size = CHUNK.min(usize::try_from(at).unwrap_or(CHUNK));
        at -= size as u64;
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut chunk[..size])?;
        for i in (0..size).rev() {
            // The newline that ends the last line begins no other.
            if chunk[i] == b'\n' && at + i as u64 + 1 != length {
                found += 1;
                if found == lines {
                    return Ok(at + i as u64 + 1);
                }
            }
        }
    }
    Ok(0)
}

/// The content of the last lines, cut to its last `max_bytes`.
pub(crate) fn last_lines(path: &Path, lines: usize, max_bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let offset = tail_offset(&mut file, lines as u64)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut raw = Vec::new();
    file.take(16 << 20).read_to_end(&mut raw)?;
    let mut out = Vec::new();
    for line in raw.split(|b| *b == b'\n').filter_map(line::parse) {
        out.extend_from_slice(line.content);
        if !line.partial {
            out.push(b'\n');
        }
    }
    let start = out.len().saturating_sub(max_bytes);
    Ok(out.split_off(start))
}

/// Turns raw bytes into what is shown.
struct Formatter<'a> {
    options: &'a LogOptions,
    rest: Vec<u8>,
    left: Option<u64>,
    /// Whether the previous line of each stream was partial: then the next carries on in the same shown line.
    continues: [bool; 2],
}

impl Formatter<'_> {
    /// Feeds raw bytes; returns what to show. A line without its end waits.
    fn feed(&mut self, raw: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(raw);
        let Some(end) = self.rest.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let lines: Vec<u8> = self.rest.drain(..=end).collect();
        let mut out = Vec::with_capacity(lines.len());
        for line in lines[..lines.len() - 1].split(|b| *b == b'\n').filter_map(line::parse) {
            let index = usize::from(line.source == Source::Stderr);
            let wanted = match self.options.stream {
                Stream::All => true,
                Stream::Stdout => line.source == Source::Stdout,
                Stream::Stderr => line.source == Source::Stderr,
            };
            let early = self
                .options
                .since
                .is_some_and(|since| line::nanos(line.timestamp).is_some_and(|at| at < since));
            if !wanted || early {
                continue;
            }
            if self.options.timestamps && !self.continues[index] {
                out.extend_from_slice(line.timestamp.as_bytes());
                out.push(b' ');
            }
            out.extend_from_slice(line.content);
            if !line.partial {
                out.push(b'\n');
            }
            self.continues[index] = line.partial;
        }
        if let Some(left) = &mut self.left {
            out.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= out.len() as u64;
        }
        out
    }

    fn is_full(&self) -> bool {
        self.left == Some(0)
    }
}

/// Sends the log, and what is added to it while `running` says that the container runs. Ends when the receiver does.
pub(crate) async fn stream<F, R>(
    path: &Path,
    options: &LogOptions,
    running: R,
    out: mpsc::Sender<Bytes>,
) -> io::Result<()>
where
    R: Fn() -> F,
    F: Future<Output = bool>,
{
    let mut file = open(path)?;
    if let Some(tail) = options.tail {
        let offset = tail_offset(&mut file, tail)?;
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut formatter =
        Formatter { options, rest: Vec::new(), left: options.limit_bytes, continues: [false; 2] };
    let watch = if options.follow { Some(watch(path)?) } else { None };
    let mut chunk = vec![0; CHUNK];
    let mut last_look = false;
    loop {
        let count = file.read(&mut chunk)?;
        if count > 0 {
            let shown = formatter.feed(&chunk[..count]);
            if !shown.is_empty() && out.send(shown.into()).await.is_err() || formatter.is_full() {
                return Ok(());
            }
            continue;
        }
        let Some(watch) = &watch else { return Ok(()) };
        // The end of the file. Rotated away, or nothing new yet?
        if let Ok(next) = open(path)
            && next.metadata()?.ino() != file.metadata()?.ino()
        {
            file = next;
            last_look = false;
            continue;
        }
        if last_look {
            return Ok(());
        }
        if !running().await {
            // What was written before it ended is still to be read.
            last_look = true;
            continue;
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = out.closed() => return Ok(()),
            // A container that ends silently changes no file.
            () = tokio::time::sleep(std::time::Duration::from_secs(1)) => {}
        }
    }
}

/// Watches a log and its directory, where a rotated one appears.
fn watch(path: &Path) -> io::Result<FileWatch> {
    let dir = path.parent().unwrap_or(path);
    let in_dir = WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MODIFY;
    FileWatch::new(&[(path, WatchFlags::MODIFY), (dir, in_dir)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> tempfile::NamedTempFile {
        use std::io::Write as _;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        for (i, line) in lines.iter().enumerate() {
            writeln!(file, "2024-01-01T00:00:0{i}.000000000Z {line}").unwrap();
        }
        file
    }

    async fn show(path: &Path, options: LogOptions) -> String {
        let (tx, mut rx) = mpsc::channel(64);
        stream(path, &options, || async { false }, tx).await.unwrap();
        let mut out = Vec::new();
        while let Some(bytes) = rx.recv().await {
            out.extend_from_slice(&bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn shows_what_is_asked_for() {
        let file = log(&["stdout F a", "stderr F b", "stdout P c", "stdout F d", "stdout F e"]);
        let default = LogOptions::default;
        for (options, want) in [
            (default(), "a\nb\ncd\ne\n"),
            (LogOptions { tail: Some(1), ..default() }, "e\n"),
            (LogOptions { tail: Some(0), follow: true, ..default() }, ""),
            (LogOptions { stream: Stream::Stderr, ..default() }, "b\n"),
            (LogOptions { limit_bytes: Some(3), ..default() }, "a\nb"),
            (LogOptions { since: Some(1_704_067_204_000_000_000), ..default() }, "e\n"),
            (
                LogOptions { tail: Some(1), timestamps: true, ..default() },
                "2024-01-01T00:00:04.000000000Z e\n",
            ),
        ] {
            assert_eq!(show(file.path(), options.clone()).await, want, "{options:?}");
        }
        assert_eq!(last_lines(file.path(), 3, 4).unwrap(), b"d\ne\n");
    }

    #[tokio::test]
    async fn follows_over_a_rotation() {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, "2024-01-01T00:00:00Z stdout F a\n").unwrap();
        let (tx, mut rx) = mpsc::channel(64);
        let (options, following) = (LogOptions { follow: true, ..Default::default() }, path.clone());
        let task = tokio::spawn(async move { stream(&following, &options, || async { true }, tx).await });
        assert_eq!(rx.recv().await.unwrap(), "a\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2024-01-01T00:00:00Z stdout F b\n").unwrap();
        assert_eq!(rx.recv().await.unwrap(), "b\n");
        std::fs::rename(&path, dir.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2024-01-01T00:00:00Z stdout F c\n").unwrap();
        assert_eq!(rx.recv().await.unwrap(), "c\n");
        drop(rx);
        task.await.unwrap().unwrap();
    }

    #[test]
    fn follows_no_link_out() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("0.log");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(last_lines(&link, 1, 10).is_err());
    }
}
