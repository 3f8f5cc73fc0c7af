//! Disks that are files: block devices and file systems that are gone with whoever holds them, however a test ends.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a command prints; its words when it fails.
pub fn ran(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{program}: {}", text(&output.stderr)))
    }
}

/// A block device of this machine, for as long as this, a mount of it or swapping to it lasts.
#[derive(Debug)]
pub struct Device {
    path: String,
    file: PathBuf,
    _held: File,
}

impl Device {
    /// Of a file that is there; why there is none, where the machine has none to give.
    pub fn of(file: &Path) -> Result<Device, String> {
        let path = ran("losetup", &["--find", "--show", file.to_str().unwrap()])?;
        let held = File::open(&path);
        // One that is detached while it is open goes when nobody has it open any more, the end of this process included.
        let detached = ran("losetup", &["--detach", &path]);
        let held = held.map_err(|error| format!("{path}: {error}"))?;
        detached?;
        Ok(Device { path, file: file.to_owned(), _held: held })
    }

    /// Of a new file of so many MiB.
    pub fn make(file: &Path, mebibytes: u64) -> Device {
        File::create(file).unwrap().set_len(mebibytes << 20).unwrap();
        Device::of(file).unwrap()
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Makes it so many MiB large.
    pub fn grow(&self, mebibytes: u64) {
        OpenOptions::new().write(true).open(&self.file).unwrap().set_len(mebibytes << 20).unwrap();
        ran("losetup", &["--set-capacity", &self.path]).unwrap();
    }
}

/// An ext4 of its own, mounted until this is dropped.
#[derive(Debug)]
pub struct Disk {
    target: PathBuf,
}

impl Disk {
    /// Of so many MiB in a new file, at a new directory.
    pub fn mount(file: &Path, mebibytes: u64, target: &Path) -> Disk {
        let device = Device::make(file, mebibytes);
        std::fs::create_dir(target).unwrap();
        let disk = Disk { target: target.to_owned() };
        ran("mkfs.ext4", &["-q", "-m", "0", device.path()]).unwrap();
        ran("mount", &[device.path(), target.to_str().unwrap()]).unwrap();
        disk
    }
}

impl Drop for Disk {
    /// Also beneath processes that would not end.
    fn drop(&mut self) {
        let _ = ran("umount", &["--lazy", self.target.to_str().unwrap()]);
        let _ = std::fs::remove_dir(&self.target);
    }
}

/// What takes all that is left of a disk but for some bytes, until it is dropped: a cluster is not even ended on a full one.
#[derive(Debug)]
pub struct Cargo(PathBuf);

impl Cargo {
    /// Down to the last block, and then as many bytes less as are to be `left`.
    pub fn filling(dir: &Path, left: u64) -> Cargo {
        let cargo = Cargo(dir.join("cargo"));
        let mut file = File::create(&cargo.0).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![1; size];
            while file.write_all(&block).is_ok() {}
        }
        let _ = file.sync_all();
        file.set_len(file.metadata().unwrap().len().saturating_sub(left)).unwrap();
        file.sync_all().unwrap();
        cargo
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
