//! What is done beside a running store, or without one: snapshots of it as single files, a new directory from such a
//! file, and a look at what is damaged.
//!
//! A directory is only read, without its lock: its files are appended to and replaced whole, so that what is read is
//! the state at some moment. A reader that a snapshot overtook begins again.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::StreamExt as _;

use super::OpenError;
use super::disk::{Directory, Disk, File};
use super::frame::{self, FILE_HEADER, FileHeader};
use super::log::{self, Source};
use super::recover::{self, Damage};
use super::snapshot::{self, State};
use crate::contract::{Error, Store};
use crate::model::{Entry, Expect, Key, Life, Revision, Write};
use crate::transform::{Identity, Transform};
use crate::view::{BucketImage, Image, size};

/// How often reading a directory is tried while its store writes to it.
const ATTEMPTS: usize = 5;
/// Writes under way while a snapshot is carried into another store.
const TOGETHER: usize = 64;

/// What a snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The revision of the state.
    pub revision: Revision,
    /// Keys and bytes of names and values, by bucket.
    pub buckets: BTreeMap<Arc<str>, (usize, u64)>,
    /// Changes in the history beside the state.
    pub events: usize,
}

impl Contents {
    /// Keys in all buckets.
    pub fn keys(&self) -> usize {
        self.buckets.values().map(|(keys, _)| keys).sum()
    }

    /// Bytes in all buckets.
    pub fn bytes(&self) -> u64 {
        self.buckets.values().map(|(_, bytes)| bytes).sum()
    }
}

/// A state that was read or is to be written: all of a store at one moment.
#[derive(Clone)]
pub struct Saved(State);

impl Saved {
    /// What it holds.
    pub fn contents(&self) -> Contents {
        let bucket = |bucket: &BucketImage| {
            (bucket.prefix.clone(), (bucket.map.len(), bucket.map.values().map(size).sum()))
        };
        Contents {
            revision: self.0.image.revision,
            buckets: self.0.image.buckets.iter().map(bucket).collect(),
            events: self.0.image.buckets.iter().map(|bucket| bucket.events.len()).sum(),
        }
    }

    /// What a view begins from.
    pub(super) fn image(self) -> Image {
        self.0.image
    }

    /// The entries, with the prefix of each.
    pub fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Entry>)> {
        let buckets = self.0.image.buckets.iter();
        buckets.flat_map(|bucket| bucket.map.values().map(move |entry| (&bucket.prefix, entry)))
    }

    /// The state in a store's directory, whether a process has it open or not.
    pub fn of_directory(directory: &Path, transform: &Arc<dyn Transform>) -> Result<Self, OpenError> {
        Self::read_directory(directory, Damage::Refuse, transform)
    }

    fn read_directory(
        directory: &Path,
        damage: Damage,
        transform: &Arc<dyn Transform>,
    ) -> Result<Self, OpenError> {
        let disk = Files::Directory(directory.to_owned());
        let mut attempt = 1;
        loop {
            match recover::read(&disk, damage, transform) {
                Err(error) if attempt == ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
                Ok(state) => return Ok(Self(state)),
            }
        }
    }

    /// The state in a snapshot's file; all of it is verified.
    pub fn of_file(file: &Path, transform: &Arc<dyn Transform>) -> Result<Self, OpenError> {
        let shown = file.display().to_string();
        snapshot::read(&Files::Single(file.to_owned()), &shown, transform).map(Self)
    }

    /// The state of an open store at its newest revision, without history.
    pub async fn of_store(store: &dyn Store) -> Result<Self, Error> {
        let revision = store.revision();
        let mut image = Image { revision, compacted: revision, ..Image::default() };
        for bucket in store.stats().buckets {
            let map = store.snapshot_at(&bucket.prefix, revision).await?.entries;
            image.buckets.push(BucketImage {
                prefix: bucket.prefix,
                map,
                events: Vec::new(),
                horizon: revision,
            });
        }
        Ok(Self(State { image, ..State::default() }))
    }

    /// Writes a snapshot's file, complete or not at all.
    pub fn to_file(&self, file: &Path, transform: &Arc<dyn Transform>) -> Result<u64, OpenError> {
        let doing = |source| OpenError::io(format!("writing {}", file.display()), source);
        let salt = super::random_salt();
        snapshot::write(&Files::Single(file.to_owned()), &self.0, salt, &**transform).map_err(doing)
    }

    /// Makes a new directory that begins with this state.
    pub fn to_directory(
        &self,
        directory: &Path,
        segment_bytes: u64,
        transform: &Arc<dyn Transform>,
    ) -> Result<(), OpenError> {
        let doing = |source| OpenError::io(format!("making {}", directory.display()), source);
        let disk = Directory::lock(directory).map_err(doing)?;
        let names = disk.list().map_err(doing)?;
        if names.iter().any(|name| snapshot::seq(name).is_some() || log::segment_seq(name).is_some()) {
            return Err(doing(io::Error::new(io::ErrorKind::AlreadyExists, "a store is there already")));
        }
        // The log first: with a snapshot and no log the store would not open.
        let (seq, chain, revision) = (self.0.seq + 1, self.0.chain, self.0.image.revision.0);
        let source = Source::Free { size: segment_bytes };
        log::create_segment(&*disk, seq, chain, revision, super::random_salt(), source).map_err(doing)?;
        snapshot::write(&*disk, &self.0, super::random_salt(), &**transform).map_err(doing)?;
        Ok(())
    }

    /// Writes every entry into an empty store, which gives them revisions of its own.
    pub async fn into_store(&self, store: &dyn Store, now_ms: u64) -> Result<usize, Error> {
        let writes = self.entries().filter_map(|(prefix, entry)| {
            let life = match (entry.expires_ms, entry.lease) {
                (Some(at), _) => Life::Ttl(std::time::Duration::from_millis(at.checked_sub(now_ms)?)),
                // What another store's lease kept has an hour, as events have.
                (None, Some(_)) => Life::Ttl(std::time::Duration::from_secs(3600)),
                (None, None) => Life::Forever,
            };
            let key = Key { prefix: prefix.clone(), name: entry.name.clone() };
            Some(Write::put(key, entry.value.clone(), Expect::Absent).living(life))
        });
        let mut written =
            futures::stream::iter(writes).map(|write| store.commit(write)).buffer_unordered(TOGETHER);
        let mut count = 0;
        while let Some(outcome) = written.next().await {
            outcome?;
            count += 1;
        }
        Ok(count)
    }
}

/// What is to be said of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Whole frames in it.
    pub frames: u64,
    /// Where it is damaged, and how.
    pub damage: Option<(u64, String)>,
}

/// What is to be said of a directory.
#[derive(Debug)]
pub struct Report {
    /// Each of its files, in order.
    pub files: Vec<FileReport>,
    /// What opening it would give.
    pub opens: Result<Contents, OpenError>,
    /// What can be saved of it when it does not open.
    pub saves: Option<Contents>,
}

/// Walks log and snapshots, reading only.
pub fn verify(directory: &Path) -> Result<Report, OpenError> {
    let disk = Files::Directory(directory.to_owned());
    let transform: Arc<dyn Transform> = Arc::new(Identity);
    let mut names = disk.list().map_err(|source| OpenError::io("listing the store's files", source))?;
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let magic = match (snapshot::seq(&name), log::segment_seq(&name)) {
            (Some(_), _) => snapshot::MAGIC,
            (_, Some(_)) => log::MAGIC,
            _ => continue,
        };
        let reading = |source| OpenError::io(format!("reading {name}"), source);
        let file = disk.open(&name).map_err(reading)?;
        let bytes = file.size().map_err(reading)?;
        let mut content = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        file.read_at(&mut content, 0).map_err(reading)?;
        let (frames, damage) = walk(&content, magic);
        files.push(FileReport { name, bytes, frames, damage });
    }
    let opens = Saved::of_directory(directory, &transform).map(|saved| saved.contents());
    let saves = match &opens {
        Ok(_) => None,
        Err(_) => {
            Saved::read_directory(directory, Damage::Salvage, &transform).ok().map(|saved| saved.contents())
        }
    };
    Ok(Report { files, opens, saves })
}

/// Counts the whole frames of a file; the first place that is neither one nor the unwritten end.
fn walk(content: &[u8], magic: u64) -> (u64, Option<(u64, String)>) {
    let header = match FileHeader::decode(content, magic) {
        Ok(header) => header,
        Err(detail) => return (0, Some((0, detail))),
    };
    let (mut offset, mut frames, mut before) = (FILE_HEADER as u64, 0, None);
    while let Some(rest) = content.get(offset as usize..).filter(|rest| !rest.is_empty()) {
        let whole = frame::open(rest, header.salt, offset);
        let Some((found, _)) = whole.filter(|(found, _)| before.is_none_or(|crc| crc == found.previous))
        else {
            // The log's end is unwritten, or torn; a snapshot has no such end.
            let unwritten = magic == log::MAGIC && rest.iter().all(|byte| *byte == 0);
            let torn = magic == log::MAGIC && recover::later_frame(rest, header.salt, offset, 0).is_none();
            // In a segment that was another before, the end is what that one left, unless a frame was begun there.
            let begun = frame::begins(rest, header.seq + frames, before.unwrap_or(header.chain));
            let unwritten = unwritten || (torn && header.extra[0] == log::REUSED && !begun);
            let damage = match (unwritten, torn) {
                (true, _) => None,
                (_, true) => Some((offset, "the last frame is torn: it was never acknowledged".into())),
                _ => Some((offset, "a frame is damaged".into())),
            };
            return (frames, damage);
        };
        (frames, before) = (frames + 1, Some(found.crc));
        offset += frame::occupied(found.length);
    }
    (frames, None)
}

/// Files that are only read, or one file that is written.
enum Files {
    Directory(PathBuf),
    /// Every name is this file; what is not complete has `.new` behind it.
    Single(PathBuf),
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        match self {
            Self::Directory(directory) => directory.join(name),
            Self::Single(file) if log::is_unfinished(name) => {
                let mut name = file.clone().into_os_string();
                name.push(".new");
                name.into()
            }
            Self::Single(file) => file.clone(),
        }
    }

    fn refused<T>(&self) -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::PermissionDenied, "the store's directory is only read"))
    }
}

impl Disk for Files {
    fn list(&self) -> io::Result<Vec<String>> {
        let Self::Directory(directory) = self else { return Ok(Vec::new()) };
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(fs::File::open(self.path(name))?))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        use std::os::unix::fs::OpenOptionsExt;
        match self {
            Self::Directory(_) => self.refused(),
            Self::Single(_) => {
                let mut options = fs::OpenOptions::new();
                options.read(true).write(true).create(true).truncate(true).mode(0o600);
                Ok(Box::new(options.open(self.path(name))?))
            }
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match self {
            Self::Directory(_) => self.refused(),
            Self::Single(_) => fs::rename(self.path(from), self.path(to)),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match self {
            Self::Directory(_) => self.refused(),
            Self::Single(_) => fs::remove_file(self.path(name)),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        let path = match self {
            Self::Directory(_) => return self.refused(),
            Self::Single(file) => file.parent().filter(|parent| !parent.as_os_str().is_empty()),
        };
        fs::File::open(path.unwrap_or(Path::new(".")))?.sync_all()
    }

    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}
