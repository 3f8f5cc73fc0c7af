//! A disk in memory that can lose, tear and reorder whatever was not synced, at any boundary.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use store::embedded::{Disk, File};

const SECTOR: usize = 512;

/// What goes wrong, and at which call that changes the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// The power fails: this call and all after it do nothing.
    PowerLoss(u64),
    /// From this call on syncs of files fail, and what they were to write is lost in part; the rest goes on.
    FailedSync(u64),
}

/// A small, seeded generator (splitmix64): every run can be repeated.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    current: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Change {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Clone, Default)]
struct Disks {
    inodes: Vec<Inode>,
    durable: BTreeMap<String, usize>,
    current: BTreeMap<String, usize>,
    changes: Vec<Change>,
    calls: u64,
    dead: bool,
}

/// The files and their bytes.
pub(crate) type Image = BTreeMap<String, Vec<u8>>;

pub(crate) struct Simulated {
    fault: Fault,
    disks: Arc<Mutex<Disks>>,
}

fn apply(directory: &mut BTreeMap<String, usize>, change: &Change) {
    match change {
        Change::Create(name, inode) => {
            directory.insert(name.clone(), *inode);
        }
        Change::Rename(from, to) => {
            if let Some(inode) = directory.remove(from) {
                directory.insert(to.clone(), inode);
            }
        }
        Change::Remove(name) => {
            directory.remove(name);
        }
    }
}

impl Disks {
    /// Counts a call that changes the disk, and fails it if its time has come.
    fn call(&mut self, fault: Fault, is_sync: bool) -> io::Result<bool> {
        self.calls += 1;
        match fault {
            Fault::PowerLoss(at) if self.calls >= at => self.dead = true,
            Fault::FailedSync(at) if self.calls >= at && is_sync && !self.dead => {
                return Ok(true);
            }
            _ => {}
        }
        if self.dead { Err(io::Error::other("the power is gone")) } else { Ok(false) }
    }
}

impl Simulated {
    pub(crate) fn new(image: &Image, fault: Fault) -> Arc<Self> {
        let mut disks = Disks::default();
        for (name, bytes) in image {
            disks.durable.insert(name.clone(), disks.inodes.len());
            disks.inodes.push(Inode { durable: bytes.clone(), current: bytes.clone(), dirty: Vec::new() });
        }
        disks.current = disks.durable.clone();
        Arc::new(Self { fault, disks: Arc::new(Mutex::new(disks)) })
    }

    /// What a reader finds after the power failed: of what was not synced, any sectors, and of the directory's
    /// changes, any first part.
    pub(crate) fn after_power_loss(&self, random: &mut Random) -> Image {
        let disks = self.disks.lock().unwrap();
        let mut directory = disks.durable.clone();
        let kept = random.below(disks.changes.len() as u64 + 1) as usize;
        disks.changes[..kept].iter().for_each(|change| apply(&mut directory, change));
        let mut image = Image::new();
        for (name, inode) in directory {
            let inode = &disks.inodes[inode];
            let mut bytes = inode.durable.clone();
            if random.below(2) == 0 || inode.current.len() < bytes.len() {
                bytes.resize(inode.current.len(), 0);
            }
            // All, none, or each by a throw.
            let habit = random.below(4);
            for (at, sector) in &inode.dirty {
                let survives = match habit {
                    0 => false,
                    1 => true,
                    _ => random.below(2) == 0,
                };
                if survives && at + sector.len() <= bytes.len() {
                    bytes[*at..at + sector.len()].copy_from_slice(sector);
                }
            }
            image.insert(name, bytes);
        }
        image
    }

    /// Everything as written.
    pub(crate) fn image(&self) -> Image {
        let disks = self.disks.lock().unwrap();
        disks
            .current
            .iter()
            .map(|(name, inode)| (name.clone(), disks.inodes[*inode].current.clone()))
            .collect()
    }

    fn file(&self, inode: usize) -> Box<dyn File> {
        Box::new(Handle { fault: self.fault, inode, disks: self.disks.clone() })
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        disks.call(self.fault, false)?;
        apply(&mut disks.current, &change);
        disks.changes.push(change);
        Ok(())
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disks.lock().unwrap().current.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let inode = self.disks.lock().unwrap().current.get(name).copied();
        inode.map(|inode| self.file(inode)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let inode = {
            let mut disks = self.disks.lock().unwrap();
            disks.inodes.push(Inode::default());
            disks.inodes.len() - 1
        };
        self.change(Change::Create(name.to_owned(), inode))?;
        Ok(self.file(inode))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(Change::Rename(from.to_owned(), to.to_owned()))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change(Change::Remove(name.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        if disks.call(self.fault, false)? {
            return Err(io::Error::other("input/output error"));
        }
        disks.changes.clear();
        disks.durable = disks.current.clone();
        Ok(())
    }

    fn free(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

struct Handle {
    fault: Fault,
    inode: usize,
    disks: Arc<Mutex<Disks>>,
}

impl File for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disks.lock().unwrap().inodes[self.inode].current.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let disks = self.disks.lock().unwrap();
        let bytes = &disks.inodes[self.inode].current;
        let from = offset as usize;
        let found = bytes.get(from..from + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        disks.call(self.fault, false)?;
        let inode = &mut disks.inodes[self.inode];
        let (from, until) = (offset as usize, offset as usize + bytes.len());
        if inode.current.len() < until {
            inode.current.resize(until, 0);
        }
        inode.current[from..until].copy_from_slice(bytes);
        for start in (from / SECTOR * SECTOR..until).step_by(SECTOR) {
            let end = (start + SECTOR).min(inode.current.len());
            let sector = inode.current[start..end].to_vec();
            inode.dirty.push((start, sector));
        }
        Ok(())
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        disks.call(self.fault, false)?;
        disks.inodes[self.inode].current.resize(size as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disks = self.disks.lock().unwrap();
        let failed = disks.call(self.fault, true)?;
        let inode = &mut disks.inodes[self.inode];
        if failed {
            return Err(io::Error::other("input/output error"));
        }
        inode.durable = inode.current.clone();
        inode.dirty.clear();
        Ok(())
    }
}
