//! `subPath`: a part of a volume, bound to a path of its own. The part is opened beneath the volume with `openat2`, which
//! follows links only while they stay inside, and the mount is made from that open file: swapping links meanwhile changes
//! nothing (CVE-2017-1002101, CVE-2021-25741).

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A part of a volume and where it is bound.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub volume: PathBuf,
    /// Relative to the volume.
    pub inner: String,
    pub target: PathBuf,
    /// Mode of directories that are made on the way.
    pub mode: u32,
}

/// Binds the part, making it as a directory when it is not there. Blocks. Done before is done.
pub(crate) fn bind(place: &Place) -> io::Result<PathBuf> {
    let inner = Path::new(&place.inner);
    if !inner.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("subPath {:?} leaves the volume", place.inner),
        ));
    }
    let part = open_inside(place, inner)?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&part)?.st_mode);
    super::mount_table::unmount_beneath(&place.target)?;
    prepare_target(&place.target, kind)?;
    let tree = open_tree(
        part.as_fd(),
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE,
    )?;
    move_mount(tree.as_fd(), "", rustix::fs::CWD, &place.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(place.target.clone())
}

const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn open_inside(place: &Place, inner: &Path) -> io::Result<OwnedFd> {
    let root =
        rustix::fs::open(&place.volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match openat2(&root, inner, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), WITHIN) {
        Ok(found) => return Ok(found),
        Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let mut at = root;
    for component in inner.components() {
        let Component::Normal(name) = component else { continue };
        let open = |dir: &OwnedFd| {
            openat2(dir, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), WITHIN)
        };
        at = match open(&at) {
            Ok(next) => next,
            Err(rustix::io::Errno::NOENT) => {
                match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o700)) {
                    Ok(()) => {
                        rustix::fs::chmodat(&at, name, Mode::from_raw_mode(place.mode), AtFlags::empty())?
                    }
                    Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                // A link put there in between is not followed.
                openat2(
                    &at,
                    name,
                    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
                    Mode::empty(),
                    WITHIN,
                )?
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(at)
}

fn prepare_target(target: &Path, kind: FileType) -> io::Result<()> {
    let parent = target.parent().ok_or_else(|| io::Error::other("a subPath target has a parent"))?;
    std::fs::create_dir_all(parent)?;
    let found = std::fs::symlink_metadata(target).ok();
    if kind == FileType::Directory {
        if found.as_ref().is_some_and(|m| !m.is_dir()) {
            std::fs::remove_file(target)?;
        }
        std::fs::create_dir_all(target)
    } else {
        if found.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            std::fs::remove_dir(target)?;
        }
        std::fs::OpenOptions::new().create(true).append(true).open(target).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_binds_and_never_leaves_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(volume.join("sub")).unwrap();
        std::fs::write(volume.join("sub/f"), "in").unwrap();
        std::fs::write(dir.path().join("secret"), "out").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("abs")).unwrap();
        std::os::unix::fs::symlink("sub", volume.join("ok")).unwrap();
        let place = |inner: &str| Place {
            volume: volume.clone(),
            inner: inner.into(),
            target: dir.path().join("targets").join(inner.replace('/', "_")),
            mode: 0o755,
        };
        for bad in ["up", "abs", "abs/passwd", "../secret", "/etc", "sub/../../secret"] {
            assert!(bind(&place(bad)).is_err(), "{bad}");
        }
        for (good, file) in [("sub", "f"), ("ok", "f"), ("sub/f", "")] {
            let target = bind(&place(good)).unwrap();
            let path = if file.is_empty() { target } else { target.join(file) };
            assert_eq!(std::fs::read_to_string(path).unwrap(), "in", "{good}");
        }
        assert!(bind(&place("new/deep")).unwrap().is_dir() && volume.join("new/deep").is_dir());
        super::super::mount_table::unmount_beneath(dir.path()).unwrap();
    }

    /// CVE-2017-1002101 and CVE-2021-25741: a container that swaps a directory for a link while its neighbour starts.
    #[test]
    fn root_a_swapped_link_leads_nowhere() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let (volume, secret) = (dir.path().join("volume"), dir.path().join("secret"));
        for made in [volume.join("part/deep"), volume.join("decoy/deep"), secret.join("deep")] {
            std::fs::create_dir_all(made).unwrap();
        }
        std::fs::write(secret.join("deep/canary"), "").unwrap();
        std::os::unix::fs::symlink(&secret, volume.join("link")).unwrap();
        let stop = AtomicBool::new(false);
        let (mut bound, mut refused) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let exchange = |a: &str, b: &str| {
                    let (a, b) = (volume.join(a), volume.join(b));
                    rustix::fs::renameat_with(
                        rustix::fs::CWD,
                        &a,
                        rustix::fs::CWD,
                        &b,
                        rustix::fs::RenameFlags::EXCHANGE,
                    )
                };
                while !stop.load(Ordering::Relaxed) {
                    exchange("part", "link").unwrap();
                }
            });
            for number in 0..50_000 {
                // Until both have happened, which a busy machine makes rare.
                if number >= 1000 && bound > 0 && refused > 0 {
                    break;
                }
                let target = dir.path().join(format!("targets/{number}"));
                let place = Place { volume: volume.clone(), inner: "part/deep".into(), target, mode: 0o755 };
                match bind(&place) {
                    Ok(at) => {
                        bound += 1;
                        assert!(!at.join("canary").exists(), "the link was followed");
                        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
                    }
                    Err(_) => refused += 1,
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
        // Both have happened, or nothing was tried.
        assert!(bound > 0 && refused > 0, "{bound} bound, {refused} refused");
        assert_eq!(std::fs::read_dir(&secret).unwrap().count(), 1);
    }
}
