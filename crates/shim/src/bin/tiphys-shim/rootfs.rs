//! Building what a container sees: its root, mounts, devices, masked and read-only paths. Runs in the container's new
//! mount namespace, still with the host's root and privileges; ends with the host's files gone from the namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, fstat, makedev, mknodat, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use shim::protocol::{ContainerSpec, IdMap, Mount, MountKind, Propagation, Rootfs};

use crate::image;
use crate::inroot::{self, Links};
use crate::mounts;
use crate::process::is_null;
use crate::sys::{self, At, MountAttr, Outcome, failed};

/// The magic number of cgroup v2.
const CGROUP2: i64 = 0x6367_7270;

/// The pod's user namespace as the creator uses it.
pub(crate) struct Users {
    pub(crate) namespace: OwnedFd,
    pub(crate) uids: Vec<IdMap>,
    pub(crate) gids: Vec<IdMap>,
}

/// The host's number for a container's.
pub(crate) fn to_host(maps: Option<&[IdMap]>, id: u32) -> Option<u32> {
    let Some(maps) = maps else { return Some(id) };
    maps.iter()
        .find(|map| id >= map.container && id - map.container < map.length)
        .map(|map| map.host + (id - map.container))
}

/// The root, mounted on the container's state directory, and the terminal if there is one.
pub(crate) struct Built {
    pub(crate) root: OwnedFd,
    pub(crate) terminal: Option<(OwnedFd, OwnedFd)>,
}

/// What will be attached to a place in the root.
pub(crate) struct Source {
    pub(crate) mount: OwnedFd,
    pub(crate) dir: bool,
}

pub(crate) fn build(
    spec: &ContainerSpec,
    fds: &[OwnedFd],
    users: Option<&Users>,
    own_net: bool,
) -> Outcome<Built> {
    let mut sources = sources(spec, fds, users, own_net)?;
    let host =
        rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("/")?;
    // The host's unmounts reach us, nothing of ours reaches the host; and pivot_root wants it so.
    mounts::propagate(&host, Propagation::Slave).at("making / a slave")?;
    let staging =
        rustix::fs::open(&spec.dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .at(&spec.dir)?;
    for (mount, source) in spec.mounts.iter().zip(&mut sources.mounts) {
        if let MountKind::Layers { lower, sub_path } = &mount.kind {
            let users = users.filter(|_| mount.idmap);
            *source = Some(image::layers(lower, sub_path, users, &staging, &mount.destination)?);
        }
    }
    let root = match (&spec.rootfs, sources.root) {
        (_, Some(mount)) => mount,
        (Rootfs::Overlay { lower, upper, work, options }, None) => {
            overlay(lower, upper, work, options, users, &staging).at("mounting the root file system")?
        }
        (Rootfs::Path(path), None) => mounts::clone_path(path).at(format!("rootfs {path}"))?,
    };
    mounts::attach(&root, &staging).at("attaching the root file system")?;
    mounts::propagate(&root, Propagation::Private).at("root propagation")?;
    let mut null = None;
    for (mount, source) in spec.mounts.iter().zip(sources.mounts) {
        one(root.as_fd(), spec, mount, source, users)
            .map_err(|failure| failed(format!("mounting at {:?}: {}", mount.destination, failure.message)))?;
        if mount.destination == "/dev" && matches!(mount.kind, MountKind::Tmpfs { .. }) {
            null = Some(devices(root.as_fd(), users)?);
        }
    }
    for device in &spec.devices {
        device_like(root.as_fd(), &device.path, &device.host_path, users)
            .map_err(|failure| failed(format!("device {}: {}", device.path, failure.message)))?;
    }
    let terminal = match spec.stdio.terminal {
        true => Some(terminal(root.as_fd(), null.is_some())?),
        false => None,
    };
    make_cwd(root.as_fd(), spec);
    hide(root.as_fd(), spec, null)?;
    if spec.readonly_rootfs {
        mounts::restrict(root.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false).at("read-only root")?;
    }
    Ok(Built { root, terminal })
}

/// Makes `root` the root of the mount namespace and lets go of the host's.
pub(crate) fn pivot(root: BorrowedFd<'_>, propagation: Propagation) -> Outcome<()> {
    rustix::process::fchdir(root).at("root")?;
    rustix::process::pivot_root(".", ".").at("pivot_root")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).at("detaching the host's root")?;
    rustix::process::chdir("/").at("/")?;
    if propagation == Propagation::Shared {
        let flags = rustix::mount::MountPropagationFlags::SHARED;
        rustix::mount::mount_change("/", flags).at("root propagation")?;
    }
    Ok(())
}

struct Sources {
    root: Option<OwnedFd>,
    mounts: Vec<Option<Source>>,
}

fn sources(spec: &ContainerSpec, fds: &[OwnedFd], users: Option<&Users>, own_net: bool) -> Outcome<Sources> {
    let mut out = Vec::with_capacity(spec.mounts.len());
    for mount in &spec.mounts {
        let clone = match &mount.kind {
            MountKind::Bind { source } => {
                mounts::clone_path(source).at(format!("mount source {source:?}"))?
            }
            MountKind::BindFd { index } => {
                let fd =
                    fds.get(*index).ok_or_else(|| failed("a mount names a descriptor that was not sent"))?;
                mounts::clone_fd(fd).at("mount source")?
            }
            MountKind::Sysfs if !own_net => mounts::clone_path("/sys").at("/sys")?,
            // Layers are stacked when nothing that is mounted for it can reach the host.
            _ => {
                out.push(None);
                continue;
            }
        };
        if mount.idmap {
            idmap(&clone, users).at(format!("idmapped mount for {:?}", mount.destination))?;
        }
        let dir = inroot::is_dir(&clone).at("mount source")?;
        out.push(Some(Source { mount: clone, dir }));
    }
    let root = match &spec.rootfs {
        Rootfs::Path(path) => Some(mounts::clone_path(path).at(format!("rootfs {path:?}"))?),
        Rootfs::Overlay { .. } => None,
    };
    Ok(Sources { root, mounts: out })
}

pub(crate) fn idmap(mount: &OwnedFd, users: Option<&Users>) -> std::io::Result<()> {
    let Some(users) = users else { return Ok(()) };
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        user_namespace: std::os::fd::AsRawFd::as_raw_fd(&users.namespace) as u64,
        ..MountAttr::default()
    };
    sys::mount_setattr(mount.as_fd(), true, &attr)
}

/// An overlay as a detached mount: by `lowerdir+` where the kernel has it (6.5), else by mount(2) on the staging
/// directory, whose option page holds 4 KiB.
fn overlay(
    lower: &[String],
    upper: &str,
    work: &str,
    options: &[String],
    users: Option<&Users>,
    staging: &OwnedFd,
) -> std::io::Result<OwnedFd> {
    // Held, because the staging directory, in which they may lie, is covered for a user namespace.
    let hold = |path: &str| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let (held_upper, held_work) = (hold(upper)?, hold(work)?);
    let (mut upper, mut work) = (upper.to_owned(), work.to_owned());
    let mut mapped = None;
    if let Some(users) = users {
        // The upper layer holds the host's numbers; its own owner is the root of the container's /.
        let uid = to_host(Some(&users.uids), 0).map(Uid::from_raw);
        let gid = to_host(Some(&users.gids), 0).map(Gid::from_raw);
        chownat(&held_upper, "", uid, gid, AtFlags::EMPTY_PATH)?;
        mapped = Some(idmapped(lower, users, staging)?);
        (upper, work) = (mounts::by_fd(&held_upper), mounts::by_fd(&held_work));
    }
    let (upper, work) = (upper.as_str(), work.as_str());
    let lower = mapped.as_deref().unwrap_or(lower);
    let short = |path: &String| path.len() < 256;
    if lower.iter().all(short) && upper.len() < 256 && work.len() < 256 {
        match overlay_by_descriptor(lower, upper, work, options) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
            other => return other,
        }
    }
    let escape = |path: &str| path.replace('\\', "\\\\").replace(',', "\\,").replace(':', "\\:");
    let lower = lower.iter().map(|dir| escape(dir)).collect::<Vec<_>>().join(":");
    let mut data = format!("lowerdir={lower},upperdir={},workdir={}", escape(upper), escape(work));
    for option in options {
        data.push(',');
        data.push_str(option);
    }
    let data = std::ffi::CString::new(data)?;
    let target = mounts::by_fd(staging);
    rustix::mount::mount(
        "overlay",
        &target,
        "overlay",
        rustix::mount::MountFlags::empty(),
        Some(data.as_c_str()),
    )?;
    // The descriptor still names what lies beneath; the path finds the mount.
    let clone = mounts::clone_path(&std::fs::read_link(&target)?.to_string_lossy())?;
    rustix::mount::unmount(std::fs::read_link(&target)?, rustix::mount::UnmountFlags::DETACH)?;
    Ok(clone)
}

fn overlay_by_descriptor(
    lower: &[String],
    upper: &str,
    work: &str,
    options: &[String],
) -> std::io::Result<OwnedFd> {
    use rustix::mount::{FsMountFlags, FsOpenFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "source", "overlay")?;
    for dir in lower {
        fsconfig_set_string(context.as_fd(), "lowerdir+", dir.as_str())?;
    }
    fsconfig_set_string(context.as_fd(), "upperdir", upper)?;
    fsconfig_set_string(context.as_fd(), "workdir", work)?;
    for option in options {
        mounts::set(context.as_fd(), option)?;
    }
    fsconfig_create(context.as_fd())?;
    Ok(fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
}

/// Idmapped copies of an image's layers, attached to a tmpfs on the staging directory, so that their files belong to the
/// pod's user namespace without being changed. The upper layer is not mapped: overlayfs writes to it as its mounter,
/// whom the mapping would not know.
pub(crate) fn idmapped(lower: &[String], users: &Users, staging: &OwnedFd) -> std::io::Result<Vec<String>> {
    // All are opened before the staging directory, in which they may lie, is covered.
    let map = |path: &String| -> std::io::Result<OwnedFd> {
        let mount = mounts::clone_path(path)?;
        idmap(&mount, Some(users))?;
        Ok(mount)
    };
    let lower = lower.iter().map(map).collect::<std::io::Result<Vec<OwnedFd>>>()?;
    let tmpfs = mounts::new("tmpfs", "mode=0700", MountAttrFlags::empty())?;
    let place = std::fs::read_link(mounts::by_fd(staging))?;
    mounts::attach(&tmpfs, staging)?;
    let add = |(number, mount): (usize, OwnedFd)| -> std::io::Result<String> {
        let name = number.to_string();
        let target = inroot::make_dir(tmpfs.as_fd(), &name, Links::Refuse)?;
        mounts::attach(&mount, &target)?;
        Ok(place.join(name).to_string_lossy().into_owned())
    };
    lower.into_iter().enumerate().map(add).collect()
}

fn attributes(mount: &Mount) -> MountAttrFlags {
    let mut flags = MountAttrFlags::empty();
    for (wanted, flag) in [
        (mount.readonly || mount.recursive_readonly, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (mount.nosuid, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (mount.nodev, MountAttrFlags::MOUNT_ATTR_NODEV),
        (mount.noexec, MountAttrFlags::MOUNT_ATTR_NOEXEC),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    flags
}

fn one(
    root: BorrowedFd<'_>,
    spec: &ContainerSpec,
    mount: &Mount,
    source: Option<Source>,
    users: Option<&Users>,
) -> Outcome<()> {
    let flags = attributes(mount);
    if let Some(source) = source {
        let links = if matches!(mount.kind, MountKind::Sysfs) { Links::Refuse } else { Links::Follow };
        let target = match source.dir {
            true => ordinary(root, &mount.destination, links, "sysfs")?,
            false => inroot::make_file(root, &mount.destination).at("mount point")?,
        };
        let first = mounts::can_set_attributes();
        if first {
            mounts::restrict(source.mount.as_fd(), flags, mount.recursive_readonly).at("mount attributes")?;
        }
        mounts::attach(&source.mount, &target).at("attaching")?;
        if !first {
            mounts::restrict(source.mount.as_fd(), flags, mount.recursive_readonly).at("mount attributes")?;
        }
        return mounts::propagate(&source.mount, mount.propagation).at("propagation");
    }
    let (kind, options, links) = match &mount.kind {
        MountKind::Tmpfs { data } => ("tmpfs", data.clone(), Links::Follow),
        MountKind::Proc => ("proc", String::new(), Links::Refuse),
        MountKind::Sysfs => ("sysfs", String::new(), Links::Refuse),
        MountKind::Mqueue => ("mqueue", String::new(), Links::Follow),
        MountKind::Devpts => {
            let group = to_host(users.map(|users| users.gids.as_slice()), 5);
            let group = group.map(|gid| format!(",gid={gid}")).unwrap_or_default();
            ("devpts", format!("newinstance,ptmxmode=0666,mode=0620{group}"), Links::Follow)
        }
        MountKind::Cgroup => return cgroups(root, spec, mount, flags),
        MountKind::Bind { .. } | MountKind::BindFd { .. } | MountKind::Layers { .. } => {
            return Err(failed("a bind without a source"));
        }
    };
    let target = ordinary(root, &mount.destination, links, kind)?;
    let options = match (kind, users) {
        ("tmpfs", Some(users)) => owned(&options, users),
        _ => options,
    };
    let made = mounts::new(kind, &options, flags).at(kind)?;
    mounts::attach(&made, &target).at("attaching")?;
    mounts::propagate(&made, mount.propagation).at("propagation")
}

/// tmpfs options with the owner that is root inside the user namespace, and others translated.
fn owned(options: &str, users: &Users) -> String {
    let (mut uid, mut gid, mut rest) = (0, 0, Vec::new());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("uid", value)) => uid = value.parse().unwrap_or(0),
            Some(("gid", value)) => gid = value.parse().unwrap_or(0),
            _ => rest.push(option.to_owned()),
        }
    }
    rest.extend(to_host(Some(&users.uids), uid).map(|uid| format!("uid={uid}")));
    rest.extend(to_host(Some(&users.gids), gid).map(|gid| format!("gid={gid}")));
    rest.join(",")
}

/// The directory to mount on. /proc and /sys must be plain ones: through a symlink the kernel's files would appear where
/// the checks on them do not look (CVE-2019-19921, CVE-2023-27561).
fn ordinary(root: BorrowedFd<'_>, path: &str, links: Links, kind: &str) -> Outcome<OwnedFd> {
    match inroot::make_dir(root, path, links) {
        Err(error)
            if links == Links::Refuse
                && [Some(libc::ELOOP), Some(libc::ENOTDIR)].contains(&error.raw_os_error()) =>
        {
            Err(failed(format!("filesystem {kind:?} must be mounted on ordinary directory")))
        }
        other => other.at("mount point"),
    }
}

fn cgroups(root: BorrowedFd<'_>, spec: &ContainerSpec, mount: &Mount, flags: MountAttrFlags) -> Outcome<()> {
    let target = ordinary(root, &mount.destination, Links::Refuse, "cgroup")?;
    if spec.cgroup.v2 {
        let dir = spec.cgroup.dirs.first().ok_or_else(|| failed("no cgroup"))?;
        let made = match spec.cgroup_namespace {
            true => mounts::new("cgroup2", "", flags).at("cgroup2")?,
            false => {
                let clone = mounts::clone_path(dir).at("cgroup")?;
                mounts::restrict(clone.as_fd(), flags, false).at("cgroup")?;
                clone
            }
        };
        return mounts::attach(made, &target).at("attaching");
    }
    let base = mounts::new("tmpfs", "mode=0755,size=64k", MountAttrFlags::empty()).at("tmpfs")?;
    mounts::attach(&base, &target).at("attaching")?;
    let table = std::fs::read_to_string("/proc/self/mountinfo").at("mountinfo")?;
    for dir in &spec.cgroup.dirs {
        // Beside v1 hierarchies the v2 tree holds no limits; what sees it in a container believes itself on v2.
        if rustix::fs::statfs(dir.as_str()).at(dir)?.f_type as i64 == CGROUP2 {
            continue;
        }
        // The longest mount point above the directory is its hierarchy, and its last component the name.
        let above =
            table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| dir.starts_with(point));
        let Some(point) = above.max_by_key(|point| point.len()) else { continue };
        let name = point.rsplit('/').next().unwrap_or_default();
        let place = inroot::make_dir(base.as_fd(), name, Links::Refuse).at(name)?;
        let clone = mounts::clone_path(dir).at(dir)?;
        let first = mounts::can_set_attributes();
        if first {
            mounts::restrict(clone.as_fd(), flags, false).at(dir)?;
        }
        mounts::attach(&clone, &place).at("attaching")?;
        if !first {
            mounts::restrict(clone.as_fd(), flags, false).at(dir)?;
        }
        for (single, _) in name.split(',').map(|single| (single, ())).filter(|(single, ())| *single != name) {
            symlinkat(name, &base, single).at(single)?;
        }
    }
    mounts::restrict(base.as_fd(), flags, false).at("cgroup")
}

/// The devices and links of every container; gives the /dev/null it has just made.
fn devices(root: BorrowedFd<'_>, users: Option<&Users>) -> Outcome<OwnedFd> {
    let dev = inroot::make_dir(root, "/dev", Links::Refuse).at("/dev")?;
    let nodes =
        [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        node(&dev, name, FileType::CharacterDevice, 0o666, makedev(major, minor), (0, 0), users).at(name)?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
        ("core", "/proc/kcore"),
    ];
    for (name, target) in links {
        symlinkat(target, &dev, name).at(name)?;
    }
    inroot::handle(dev.as_fd(), "null", Links::Refuse).at("/dev/null")
}

fn node(
    dir: &OwnedFd,
    name: &str,
    kind: FileType,
    mode: u32,
    device: u64,
    owner: (u32, u32),
    users: Option<&Users>,
) -> std::io::Result<()> {
    match mknodat(dir, name, kind, Mode::from_raw_mode(mode), device) {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            mknodat(dir, name, kind, Mode::from_raw_mode(mode), device)?;
        }
        other => other?,
    }
    // The umask has had its say.
    chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty())?;
    let uid = to_host(users.map(|users| users.uids.as_slice()), owner.0);
    let gid = to_host(users.map(|users| users.gids.as_slice()), owner.1);
    Ok(chownat(dir, name, uid.map(Uid::from_raw), gid.map(Gid::from_raw), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn device_like(root: BorrowedFd<'_>, path: &str, host_path: &str, users: Option<&Users>) -> Outcome<()> {
    let stat = rustix::fs::stat(host_path).at(host_path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(failed(format!("{host_path} is no device")));
    }
    let (parent, name) = inroot::split(path).at(path)?;
    let parent = inroot::make_dir(root, parent, Links::Follow).at(parent)?;
    node(&parent, name, kind, stat.st_mode & 0o7777, stat.st_rdev, (stat.st_uid, stat.st_gid), users).at(path)
}

/// A terminal out of the container's own devpts, never through a path that the image could have prepared (CVE-2025-52565).
pub(crate) fn open_terminal(root: BorrowedFd<'_>) -> Outcome<(OwnedFd, OwnedFd)> {
    use std::os::fd::{AsRawFd, FromRawFd};
    let pts =
        inroot::open(root, "/dev/pts", OFlags::PATH | OFlags::DIRECTORY, Links::Refuse).at("/dev/pts")?;
    if rustix::fs::fstatfs(&pts).at("/dev/pts")?.f_type as i64 != 0x1cd1 {
        return Err(failed("/dev/pts is no devpts"));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = rustix::fs::openat(&pts, "ptmx", flags, Mode::empty()).at("/dev/pts/ptmx")?;
    if fstat(&master).at("ptmx")?.st_rdev != makedev(5, 2) {
        return Err(failed("/dev/pts/ptmx is no terminal multiplexer"));
    }
    rustix::pty::unlockpt(&master).at("unlocking the terminal")?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: takes an integer, gives a new descriptor.
    let slave = sys::check(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
        .at("opening the terminal")?;
    // SAFETY: the kernel has just given it to us.
    Ok((master, unsafe { OwnedFd::from_raw_fd(slave as i32) }))
}

fn terminal(root: BorrowedFd<'_>, own_dev: bool) -> Outcome<(OwnedFd, OwnedFd)> {
    let (master, slave) = open_terminal(root)?;
    if own_dev {
        let console = inroot::make_file(root, "/dev/console").at("/dev/console")?;
        let mount = mounts::clone_fd(&slave).at("/dev/console")?;
        mounts::attach(mount, console).at("/dev/console")?;
    }
    Ok((master, slave))
}

/// What cannot be made (a file in the way, a magic link, a read-only place) is judged when it is entered.
fn make_cwd(root: BorrowedFd<'_>, spec: &ContainerSpec) {
    let _ = inroot::make_dir(root, &spec.process.cwd, Links::Follow);
}

/// Masked paths become /dev/null or an empty directory, read-only paths a read-only copy of themselves.
fn hide(root: BorrowedFd<'_>, spec: &ContainerSpec, null: Option<OwnedFd>) -> Outcome<()> {
    for path in &spec.readonly_paths {
        let Some(place) = present(root, path)? else { continue };
        let copy = mounts::clone_fd(&place).at(path)?;
        let first = mounts::can_set_attributes();
        if first {
            mounts::restrict(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, true).at(path)?;
        }
        mounts::attach(&copy, &place).at(path)?;
        if !first {
            mounts::restrict(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false).at(path)?;
        }
    }
    if spec.masked_paths.is_empty() {
        return Ok(());
    }
    // Verified by device number: the image must not be able to slip another file in its place (CVE-2025-31133).
    let null = match null {
        Some(null) => null,
        None => inroot::handle(root, "/dev/null", Links::Refuse).at("/dev/null")?,
    };
    if !is_null(&fstat(&null).at("/dev/null")?) {
        return Err(failed("/dev/null of the container is not the null device"));
    }
    for path in &spec.masked_paths {
        let Some(place) = present(root, path)? else { continue };
        let cover = match inroot::is_dir(&place).at(path)? {
            true => mounts::new("tmpfs", "mode=0755", MountAttrFlags::MOUNT_ATTR_RDONLY).at(path)?,
            false => mounts::clone_fd(&null).at(path)?,
        };
        mounts::attach(cover, place).at(path)?;
    }
    Ok(())
}

fn present(root: BorrowedFd<'_>, path: &str) -> Outcome<Option<OwnedFd>> {
    match inroot::handle(root, path, Links::Follow) {
        Ok(handle) => Ok(Some(handle)),
        Err(error) if [Some(libc::ENOENT), Some(libc::ENOTDIR)].contains(&error.raw_os_error()) => Ok(None),
        Err(error) => Err(error).at(path),
    }
}
