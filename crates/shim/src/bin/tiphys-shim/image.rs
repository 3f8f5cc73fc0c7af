//! Image volumes: an image's layers, stacked without a writable one, or a part of them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, UnmountFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};
use shim::protocol::{Failure, FailureKind};

use crate::inroot::{self, Links};
use crate::mounts;
use crate::rootfs::{self, Source, Users};
use crate::sys::{At, Outcome};

/// A detached mount of the layers. The staging directory lends its place while a part is looked for: the kernel clones
/// only what is attached.
pub(crate) fn layers(
    lower: &[String],
    sub_path: &str,
    users: Option<&Users>,
    staging: &OwnedFd,
    destination: &str,
) -> Outcome<Source> {
    let what = format!("image volume at {destination:?}");
    let place = std::fs::read_link(mounts::by_fd(staging)).at(&what)?;
    let mut covered = 0;
    let whole = match users {
        None => stack(lower).at(&what)?,
        Some(users) => {
            let mapped = rootfs::idmapped(lower, users, staging).at(&what)?;
            covered += 1;
            stack(&mapped).at(&what)?
        }
    };
    let source = match sub_path.split('/').all(|part| part.is_empty()) {
        true => Ok(Source { mount: whole, dir: true }),
        false => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let at = rustix::fs::open(&place, flags, Mode::empty()).at(&what)?;
            mounts::attach(&whole, &at).at(&what)?;
            covered += 1;
            part(&place, sub_path, &what)
        }
    };
    for _ in 0..covered {
        rustix::mount::unmount(&place, UnmountFlags::DETACH).at(&what)?;
    }
    source
}

fn part(place: &std::path::Path, sub_path: &str, what: &str) -> Outcome<Source> {
    let root = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.at(what)?;
    // Links of the image lead to places in the image.
    let found = inroot::handle(root.as_fd(), sub_path, Links::Follow).map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => FailureKind::NotFound,
            _ => FailureKind::Failed,
        };
        Failure { kind, message: format!("{what}: subpath {sub_path:?}: {error}") }
    })?;
    let dir = inroot::is_dir(&found).at(what)?;
    Ok(Source { mount: mounts::clone_fd(&found).at(what)?, dir })
}

/// One layer is itself; several are an overlay that has no upper one.
fn stack(lower: &[String]) -> std::io::Result<OwnedFd> {
    if let [only] = lower {
        return mounts::clone_path(only);
    }
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    let by_one =
        lower.iter().all(|dir| fsconfig_set_string(context.as_fd(), "lowerdir+", dir.as_str()).is_ok());
    if by_one {
        fsconfig_create(context.as_fd())?;
        return Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?);
    }
    // Before 6.5: all in one option.
    let escape = |path: &String| path.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:");
    let joined = lower.iter().map(escape).collect::<Vec<_>>().join(":");
    mounts::new("overlay", &format!("lowerdir={joined}"), MountAttrFlags::empty())
}
