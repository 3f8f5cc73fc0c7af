//! Unpacked layers, one directory per ChainID: `snapshots/<hex>/fs`. A directory of that name is complete; those being
//! unpacked have another, and what a crash leaves of them is removed at the next start.

use super::digest::HashingReader;
use super::error::{Error, Result};
use super::layer::{self, Limits, Unpacked};
use super::{Digest, digest::Hasher};
use crate::disk::{self, Durability};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// So much is read, inflated and written at a time.
const CHUNK: usize = 256 << 10;

/// What a snapshot takes on disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub bytes: u64,
    pub inodes: u64,
}

/// A layer as it lies in a file, perhaps compressed, perhaps amidst an archive.
#[derive(Debug, Clone)]
pub(crate) struct LayerBlob {
    pub(crate) file: Arc<File>,
    pub(crate) offset: u64,
    pub(crate) size: u64,
    /// Of the blob as it is; not known for a docker-archive.
    pub(crate) digest: Option<Digest>,
    /// Of the uncompressed tar.
    pub(crate) diff_id: Digest,
}

impl LayerBlob {
    fn section(&self) -> Section {
        Section::new(self.file.clone(), self.offset, self.size)
    }

    /// What it is, whatever it should be.
    fn actual_digest(&self) -> io::Result<Digest> {
        let (mut section, mut hasher, mut buffer) = (self.section(), Hasher::default(), vec![0; CHUNK]);
        loop {
            match section.read(&mut buffer)? {
                0 => return Ok(hasher.finish()),
                count => hasher.update(&buffer[..count]),
            }
        }
    }
}

/// Reads part of a file without moving anyone's position.
pub(crate) struct Section {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Section {
    pub(crate) fn new(file: Arc<File>, offset: u64, size: u64) -> Section {
        Section { file, at: offset, end: offset.saturating_add(size) }
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        if count == 0 && left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}

/// Undoes gzip or zstd, whichever the first bytes show; passes anything else through.
pub(crate) fn decompress<'a>(stream: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    let head = stream.fill_buf()?;
    if head.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(stream)));
    }
    if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(stream)?;
        // 128 MiB, as the zstd tool: a frame may not make us allocate more.
        decoder.window_log_max(27)?;
        return Ok(Box::new(decoder));
    }
    Ok(Box::new(stream))
}

/// The store of unpacked layers.
#[derive(Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    limits: Limits,
}

impl Snapshots {
    /// Opens the store; removes what is not in `known`.
    pub(crate) fn open(dir: PathBuf, limits: Limits, known: &HashSet<Digest>) -> io::Result<Snapshots> {
        disk::make_dir(&dir)?;
        let snapshots = Snapshots { dir, limits };
        // An image without layers stacks on this.
        disk::make_dir(&snapshots.empty())?;
        snapshots.collect(|name| known.iter().any(|digest| digest.hex() == name))?;
        Ok(snapshots)
    }

    fn collect(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name != "empty" && !name.to_str().is_some_and(&keep) {
                disk::remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// A directory with nothing in it.
    pub(crate) fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    /// The root of the unpacked layer.
    pub(crate) fn path(&self, chain: &Digest) -> PathBuf {
        self.dir.join(chain.hex()).join("fs")
    }

    pub(crate) fn has(&self, chain: &Digest) -> bool {
        self.path(chain).exists()
    }

    pub(crate) fn usage(&self, chain: &Digest) -> Usage {
        disk::read_json(&self.dir.join(chain.hex()).join("usage")).ok().flatten().unwrap_or_default()
    }

    /// All complete layers.
    pub(crate) fn list(&self) -> Vec<Digest> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let digest = |name: std::ffi::OsString| Digest::parse(&format!("sha256:{}", name.to_str()?));
        entries.filter_map(|entry| digest(entry.file_name())).collect()
    }

    /// Removes a layer. Renamed first, so that a crash leaves nothing that looks complete.
    pub(crate) fn remove(&self, chain: &Digest) -> io::Result<()> {
        let doomed = self.temporary("old");
        linux::steps::step("taking a layer away");
        match std::fs::rename(self.dir.join(chain.hex()), &doomed) {
            Ok(()) => disk::remove_all(&doomed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn temporary(&self, kind: &str) -> PathBuf {
        self.dir.join(format!("{kind}-{}", uuid::Uuid::new_v4().simple()))
    }

    /// Unpacks the layers that are missing, several at a time, and syncs them to disk. `chain` names the whole stack, the
    /// lowest first; `layers` are those of it to unpack. Blocks for as long as it takes.
    pub(crate) fn install(&self, chain: &[Digest], layers: &[(Digest, LayerBlob)]) -> Result<()> {
        let wanted: Vec<_> = layers.iter().filter(|(id, _)| !self.has(id)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let work: Vec<PathBuf> = wanted.iter().map(|_| self.temporary("new")).collect();
        let result =
            self.unpack_all(&wanted, &work).and_then(|done| self.settle_all(chain, &wanted, &work, done));
        for dir in work {
            // Renamed away if all went well.
            if let Err(error) = disk::remove_all(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "could not remove a half-unpacked layer");
            }
        }
        result
    }

    fn unpack_all(&self, wanted: &[&(Digest, LayerBlob)], work: &[PathBuf]) -> Result<Vec<Unpacked>> {
        let next = AtomicUsize::new(0);
        let worker = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((_, blob)) = wanted.get(index).copied() else { return Ok(done) };
                match self.unpack(blob, &work[index]) {
                    Ok(unpacked) => done.push((index, unpacked)),
                    Err(error) => {
                        // The others need not start what will be thrown away.
                        next.store(wanted.len(), Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
        };
        let parallel = std::thread::available_parallelism().map_or(2, usize::from).min(wanted.len());
        let mut done = std::thread::scope(|scope| {
            let workers: Vec<_> = (1..parallel).map(|_| scope.spawn(worker)).collect();
            let mut all = worker()?;
            for worker in workers {
                all.extend(worker.join().map_err(|_| Error::Invalid("unpacking panicked".into()))??);
            }
            Ok::<_, Error>(all)
        })?;
        done.sort_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, unpacked)| unpacked).collect())
    }

    /// One layer, on three threads: one inflates, which takes longest, one hashes and writes what comes of it, and one
    /// hashes the blob itself where that is to be checked.
    fn unpack(&self, blob: &LayerBlob, work: &Path) -> Result<Unpacked> {
        let root = work.join("fs");
        disk::make_dir(&root).map_err(Error::io("making a snapshot"))?;
        set_mode_of_root(&root).map_err(Error::io("making a snapshot"))?;
        let allowed = (1u64 << 30).max(blob.size.saturating_mul(self.limits.ratio));
        let limits = Limits { bytes: self.limits.bytes.min(allowed), ..self.limits };
        std::thread::scope(|scope| {
            let (to, from) = mpsc::sync_channel::<io::Result<Vec<u8>>>(4);
            let (give_back, empties) = mpsc::channel::<Vec<u8>>();
            let inflater = scope.spawn(move || inflate(blob, &to, &empties));
            let hasher = blob.digest.as_ref().map(|_| scope.spawn(|| blob.actual_digest()));
            let mut stream = HashingReader::new(Chunks { from, give_back, chunk: Vec::new(), at: 0 });
            let unpacked = layer::unpack(&mut stream, &root, &limits)?;
            let (diff_id, _) = stream.finish().map_err(Error::io("reading layer"))?;
            inflater.join().map_err(|_| Error::Invalid("inflating panicked".into()))?;
            if let (Some(expected), Some(hasher)) = (&blob.digest, hasher) {
                let actual = hasher.join().map_err(|_| Error::Invalid("hashing panicked".into()))?;
                let actual = actual.map_err(Error::io("reading layer"))?;
                if *expected != actual {
                    let expected = expected.clone();
                    return Err(Error::DigestMismatch { what: "layer".into(), expected, actual });
                }
            }
            if diff_id != blob.diff_id {
                let expected = blob.diff_id.clone();
                return Err(Error::DigestMismatch {
                    what: "uncompressed layer".into(),
                    expected,
                    actual: diff_id,
                });
            }
            Ok(unpacked)
        })
    }

    fn settle_all(
        &self,
        chain: &[Digest],
        wanted: &[&(Digest, LayerBlob)],
        work: &[PathBuf],
        mut done: Vec<Unpacked>,
    ) -> Result<()> {
        let root_of = |id: &Digest| match wanted.iter().position(|(wanted, _)| wanted == id) {
            Some(index) => work[index].join("fs"),
            None => self.path(id),
        };
        for (index, (id, _)) in wanted.iter().enumerate() {
            let height = chain.iter().position(|c| c == id).unwrap_or(0);
            let lowers: Vec<PathBuf> = chain[..height].iter().rev().map(&root_of).collect();
            layer::settle(&mut done[index], &work[index].join("fs"), &lowers)?;
            let usage = Usage { bytes: done[index].bytes, inodes: done[index].inodes };
            disk::write_json(&work[index].join("usage"), &usage, Durability::Crash)
                .map_err(Error::io("writing a snapshot's usage"))?;
        }
        let dir = File::open(&self.dir).map_err(Error::io("opening the snapshots"))?;
        rustix::fs::syncfs(&dir).map_err(|e| Error::io("syncing the snapshots")(e.into()))?;
        for (index, (id, _)) in wanted.iter().enumerate() {
            linux::steps::step("naming an unpacked layer");
            match std::fs::rename(&work[index], self.dir.join(id.hex())) {
                // Someone else has unpacked the same layer meanwhile.
                Err(_) if self.has(id) => {}
                result => result.map_err(Error::io("naming a snapshot"))?,
            }
        }
        dir.sync_all().map_err(Error::io("syncing the snapshots"))
    }
}

/// A root directory that no layer describes is everyone's to read, as Docker's.
fn set_mode_of_root(root: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o755))
}

/// Sends the uncompressed stream in chunks. Whoever receives them is in charge of failing, and may be gone already.
fn inflate(blob: &LayerBlob, to: &mpsc::SyncSender<io::Result<Vec<u8>>>, empties: &mpsc::Receiver<Vec<u8>>) {
    let mut stream = match decompress(blob.section()) {
        Ok(stream) => stream,
        Err(error) => return drop(to.send(Err(error))),
    };
    loop {
        let mut chunk = empties.try_recv().unwrap_or_default();
        chunk.resize(CHUNK, 0);
        let (filled, failure) = fill(&mut stream, &mut chunk);
        chunk.truncate(filled);
        if filled > 0 && to.send(Ok(chunk)).is_err() {
            return;
        }
        if let Some(error) = failure {
            return drop(to.send(Err(error)));
        }
        if filled == 0 {
            return;
        }
    }
}

/// Reads as much as there is room for; what came before an error counts.
fn fill(stream: &mut impl Read, chunk: &mut [u8]) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while filled < chunk.len() {
        match stream.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

/// The receiving end of `inflate`.
struct Chunks {
    from: mpsc::Receiver<io::Result<Vec<u8>>>,
    give_back: mpsc::Sender<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            // The inflater no longer needs it if it has finished.
            let _ = self.give_back.send(std::mem::take(&mut self.chunk));
            self.at = 0;
            match self.from.recv() {
                Ok(chunk) => self.chunk = chunk?,
                Err(_) => return Ok(0),
            }
        }
        let count = buffer.len().min(self.chunk.len() - self.at);
        buffer[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
